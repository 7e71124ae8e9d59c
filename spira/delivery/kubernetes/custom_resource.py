"""Status of a tick as a resource of the cluster: ``kubectl get deliveries``.

The resource is for reading only. The ledger holds the state, and a tick works without the cluster, so a status that
cannot be published is only a trouble in the report of the tick.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import urllib3

from spira.delivery.kubernetes.conditions import resource_status
from spira.delivery.reconcile import Report
from spira.delivery.settings import Settings
from spira.delivery.status import DeliveryStatus, delivery_status
from spira.errors import SpiraError
from spira.kubernetes_connection import KubernetesObject

GROUP, VERSION, PLURAL, KIND = "spira.internal", "v1alpha1", "deliveries", "Delivery"
TIMEOUT_SECONDS = (3, 10)
"""To connect, and to wait for a response."""
MAX_ATTEMPTS = 5
"""Attempts to write while other processes write the same resource (optimistic locking)."""
NOT_FOUND, CONFLICT = 404, 409
HELP = {
    401: "the credentials are not accepted",
    403: "the account has no right to write it: kubectl apply -k manifests/base/delivery grants it",
    404: "the resource type is not installed: kubectl apply -k manifests/base/delivery",
}


class ResourceError(SpiraError):
    """A status that cannot be published; the message has the cause and what to do."""


def publish_report(settings: Settings, report: Report) -> Report:
    """Publish the status if the settings name a resource; return the report, with a trouble added if that failed."""
    if not settings.resource:
        return report
    try:
        publish(settings.resource, delivery_status(report), connect())
    except SpiraError as error:
        return replace(report, troubles=(*report.troubles, f"resource {settings.resource}: {error}"))
    return report


def publish(resource: str, status: DeliveryStatus, api: Any) -> None:
    """Write the status into the resource; create the resource if it does not exist.

    Args:
        resource: ``namespace/name``.
        api: connected ``kubernetes.client.CustomObjectsApi``.

    Raises:
        ResourceError: the cluster is unreachable or refuses the request.
    """
    namespace, _, name = resource.partition("/")
    path = {"group": GROUP, "version": VERSION, "namespace": namespace, "plural": PLURAL}
    for attempt in range(MAX_ATTEMPTS):
        with _explained_errors():
            body = _get_or_create(api, path, name)
            fields = resource_status(status, body.get("status", {}), _generation(body), datetime.now(UTC)).to_json()
            if _write_status(api, path, name, {**body, "status": fields}, is_last=attempt == MAX_ATTEMPTS - 1):
                return


def connect() -> Any:
    """Return the API with the pod's own account, otherwise with the user's kubeconfig.

    Raises:
        ResourceError: neither exists.
    """
    from kubernetes import client

    from spira import kubernetes_connection

    try:
        return client.CustomObjectsApi(kubernetes_connection.connect(retries=False))
    except kubernetes_connection.NoClusterError as error:
        raise ResourceError(f"{error}; or leave resource out of the settings") from error


def _get_or_create(api: Any, path: dict[str, str], name: str) -> KubernetesObject:
    from kubernetes.client import ApiException

    try:
        existing: KubernetesObject = api.get_namespaced_custom_object(
            **path, name=name, _request_timeout=TIMEOUT_SECONDS
        )
        return existing
    except ApiException as error:
        if error.status != NOT_FOUND:
            raise
    body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "metadata": {"name": name}}
    created: KubernetesObject = api.create_namespaced_custom_object(**path, body=body, _request_timeout=TIMEOUT_SECONDS)
    return created


def _write_status(api: Any, path: dict[str, str], name: str, body: KubernetesObject, *, is_last: bool) -> bool:
    """Write the status; return False if another process has written since ``body`` was read and attempts are left."""
    from kubernetes.client import ApiException

    try:
        api.replace_namespaced_custom_object_status(**path, name=name, body=body, _request_timeout=TIMEOUT_SECONDS)
    except ApiException as error:
        if error.status != CONFLICT or is_last:
            raise
        return False
    return True


def _generation(body: KubernetesObject) -> int:
    return int(body["metadata"].get("generation", 1))


@contextmanager
def _explained_errors() -> Iterator[None]:
    """Turn errors of the cluster, or of the connection to it, into one line with what to do."""
    from kubernetes.client import ApiException

    try:
        yield
    except ApiException as error:
        message = HELP.get(error.status, f"the cluster responded {error.status} {error.reason}")
        raise ResourceError(message) from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        cause = " ".join(str(getattr(error, "reason", None) or error).split())
        raise ResourceError(f"the cluster is unreachable: {cause}") from error
