"""What a tick found, as a resource of the cluster: ``kubectl get deliveries``.

The resource tells and decides nothing: the ledger is the truth, and a tick goes on without the cluster. So whatever
can't be said here is one more trouble of the tick, and no more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import urllib3

from spira.delivery import explain
from spira.delivery.conditions import resource_status
from spira.delivery.reconcile import Report
from spira.delivery.settings import Settings
from spira.errors import SpiraError

GROUP, VERSION, PLURAL, KIND = "spira.internal", "v1alpha1", "deliveries", "Delivery"
SECONDS = (3, 10)
"""To connect, and for an answer."""
TRIES = 5
"""Against others who publish at the same time."""
NOT_FOUND, CONFLICT = 404, 409
HELP = {
    401: "these credentials are not accepted",
    403: "these credentials may not: kubectl apply -k manifests/base/delivery gives the right",
    404: "there is no such resource: kubectl apply -k manifests/base/delivery",
}


class ResourceError(SpiraError):
    """A status that can't be published; the message says why and what to do."""


def published(settings: Settings, report: Report) -> Report:
    """A tick's report, its status published where the settings name a resource; what is in the way is a trouble."""
    if not settings.resource:
        return report
    try:
        publish(settings.resource, explain.status(report), connect())
    except SpiraError as error:
        return replace(report, troubles=(*report.troubles, f"resource {settings.resource}: {error}"))
    return report


def publish(name: str, told: dict[str, Any], api: Any) -> None:
    """Write the status into the resource, which is made if it isn't there.

    Args:
        name: ``namespace/name``.
        told: by :func:`spira.delivery.explain.status`.
        api: ``kubernetes.client.CustomObjectsApi``, connected.

    Raises:
        ResourceError: the cluster can't be reached, or refuses.
    """
    namespace, _, own = name.partition("/")
    place = {"group": GROUP, "version": VERSION, "namespace": namespace, "plural": PLURAL}
    for attempt in range(TRIES):
        with _explained():
            found = _found(api, place, own)
            told_now = resource_status(told, found.get("status", {}), _generation(found), datetime.now(UTC))
            if _is_written(api, place, own, {**found, "status": told_now}, last=attempt == TRIES - 1):
                return


def connect() -> Any:
    """The API by the pod's own account, or by the user's kubeconfig.

    Raises:
        ResourceError: there is neither.
    """
    from kubernetes import client

    from spira import kubernetes_connection

    try:
        return client.CustomObjectsApi(kubernetes_connection.connect(retries=False))
    except kubernetes_connection.NoClusterError as error:
        raise ResourceError(f"{error}; or leave resource out of the settings") from error


def _found(api: Any, place: dict[str, str], name: str) -> dict[str, Any]:
    from kubernetes.client import ApiException

    try:
        return api.get_namespaced_custom_object(**place, name=name, _request_timeout=SECONDS)
    except ApiException as error:
        if error.status != NOT_FOUND:
            raise
    body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "metadata": {"name": name}}
    return api.create_namespaced_custom_object(**place, body=body, _request_timeout=SECONDS)


def _is_written(api: Any, place: dict[str, str], name: str, body: dict[str, Any], *, last: bool) -> bool:
    """Whether it is; not where another has written since the resource was read, unless that was the last try."""
    from kubernetes.client import ApiException

    try:
        api.replace_namespaced_custom_object_status(**place, name=name, body=body, _request_timeout=SECONDS)
    except ApiException as error:
        if error.status != CONFLICT or last:
            raise
        return False
    return True


def _generation(found: dict[str, Any]) -> int:
    return found["metadata"].get("generation", 1)


@contextmanager
def _explained() -> Iterator[None]:
    """Say in one line what the cluster, or the way to it, refused."""
    from kubernetes.client import ApiException

    try:
        yield
    except ApiException as error:
        raise ResourceError(HELP.get(error.status, f"the cluster says {error.status} {error.reason}")) from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        cause = " ".join(str(getattr(error, "reason", None) or error).split())
        raise ResourceError(f"the cluster can't be reached: {cause}") from error
