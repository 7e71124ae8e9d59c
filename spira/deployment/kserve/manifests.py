"""The InferenceService of a version, the history in its annotation, and the differences from the live object.

The history is an annotation of the object, so that one write changes the version and its history together.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from spira import files
from spira.deployment.target import DeploymentError, Release
from spira.deployment.version_stack import Change, current_and_previous, read_history, to_json, version_stack
from spira.kubernetes_connection import KubernetesObject
from spira.packaging import attestation, verify

HISTORY = "spira/history"
"""Annotation with the history: a JSON list of :class:`spira.deployment.version_stack.Change`, each with a ``uri``."""

HISTORY_CHECKSUM = "spira/history-checksum"
"""Annotation with the checksum of the history; an object without it was written by an older program."""

MAX_HISTORY_ENTRIES = 200
"""The annotations of an object are limited to 256 KiB."""

CONTAINER = "kserve-container"
"""Name of the serving container in a ServingRuntime, and so in the pods."""

COPIED_FIELDS = ("image", "args", "resources", "startupProbe", "readinessProbe", "livenessProbe")
"""Fields that KServe copies unchanged from the container of the ServingRuntime."""

VERSION = "MODEL_VERSION"
"""Environment variable with the version that a server reports in its answers."""

DIGEST = "PACKAGE_DIGEST"
"""Environment variable with the digest of the package that a server accepts; an older program's changes have none."""

ROLLING_UPDATE = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
"""A pod is removed only after its replacement is ready."""


def check(release: Release, history: Sequence[Change], verify_key: str = "") -> None:
    """Refuse a release that cannot be served, or whose location served another one.

    A version may have another package or location than before: after a loss of the model repository, its numbers begin
    again.

    Raises:
        DeploymentError: the version is not a plain name, or its location is missing or belongs to another release.
        PackageError: the package is incomplete or was modified, or has no signature of the configured key.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", release.version):
        raise DeploymentError(f"version {release.version!r}: use letters, digits, - and _ only")
    if not release.uri:
        raise DeploymentError(f"version {release.version} has no location that the cluster can read: give its uri")
    for change in history:
        if change.uri == release.uri and not _is_of(change, release):
            raise DeploymentError(
                f"version {change.version} was served from {change.uri}, and version {release.version} is given with "
                "the same location: a location belongs to one version alone, and its content never changes"
            )
    verify.check_files(release.package)
    attestation.check(release.package, verify_key)


def render(name: str, runtime: str, account: str, history: Sequence[Change]) -> KubernetesObject:
    """Return an InferenceService that serves the current version of a history.

    Args:
        name: name of the InferenceService.
        runtime: name of the ServingRuntime.
        account: ServiceAccount with read access to the model's bucket.
        history: at least one change, each with the ``uri`` of its version as the cluster reads it, ``gs://...`` or
            ``pvc://claim/path``.
    """
    current = version_stack(history)[-1]
    annotations = {
        "serving.kserve.io/deploymentMode": "Standard",
        "serving.kserve.io/autoscalerClass": "none",
        **history_annotations(history[-MAX_HISTORY_ENTRIES:]),
    }
    model = {
        "modelFormat": {"name": "spira"},
        "runtime": runtime,
        "protocolVersion": "v2",
        "storageUri": current.uri.removesuffix("/package"),  # with the package comes what stands beside it
        "env": [
            {"name": name, "value": value}
            for name, value in ((VERSION, current.version), (DIGEST, current.digest))
            if value
        ],
    }
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "predictor": {
                "serviceAccountName": account,
                "automountServiceAccountToken": False,
                "minReplicas": 1,
                "deploymentStrategy": ROLLING_UPDATE,
                "model": model,
            }
        },
    }


def history_annotations(history: Sequence[Change]) -> dict[str, str]:
    """Return the annotations with a history and its checksum."""
    entries = to_json(history)
    return {HISTORY: json.dumps(entries), HISTORY_CHECKSUM: files.checksum({"history": entries})}


def history(inference_service: KubernetesObject | None) -> tuple[Change, ...]:
    """Return all changes of an InferenceService, oldest first.

    Raises:
        DeploymentError: the annotation is damaged.
    """
    if inference_service is None:
        return ()
    annotations = inference_service["metadata"].get("annotations", {})
    try:
        content = json.loads(annotations.get(HISTORY, "[]"))
        if HISTORY_CHECKSUM in annotations and annotations[HISTORY_CHECKSUM] != files.checksum({"history": content}):
            raise ValueError(f"it differs from {HISTORY_CHECKSUM}")
        return read_history(content)
    except (ValueError, TypeError, RecursionError) as error:
        name = inference_service["metadata"]["name"]
        raise DeploymentError(
            f"InferenceService {name}: annotation {HISTORY} is damaged ({error}): correct it and remove "
            f"{HISTORY_CHECKSUM}, or delete the object"
        ) from error


def current(inference_service: KubernetesObject | None) -> Change | None:
    """Return the change that an InferenceService is meant to serve; None before the first."""
    return current_and_previous(history(inference_service))[0]


def is_current(release: Release, inference_service: KubernetesObject | None) -> bool:
    """Return whether an InferenceService is meant to serve a release."""
    change = current(inference_service)
    return change is not None and _is_of(change, release)


def _is_of(change: Change, release: Release) -> bool:
    """Return whether a change brought a release; an entry of an older program has no digest, but a location."""
    return (change.version, change.uri, change.digest or release.digest) == (
        release.version,
        release.uri,
        release.digest,
    )


def is_unchanged(before: KubernetesObject | None, after: KubernetesObject | None) -> bool:
    """Return whether nobody changed an InferenceService between two reads; KServe's status updates do not count."""
    if before is None or after is None:
        return before is after
    first, second = (
        (live["metadata"].get("uid"), live["metadata"]["generation"], history(live)) for live in (before, after)
    )
    return first == second


def drift(wanted: KubernetesObject, live: KubernetesObject) -> list[str]:
    """Return the differences of an InferenceService from the wanted one; annotations of other owners do not count.

    Nor does the checksum: :func:`history` compares it, and an object of an older program has none.
    """
    ours = {key: value for key, value in wanted["metadata"]["annotations"].items() if key != HISTORY_CHECKSUM}
    theirs = {key: value for key, value in live["metadata"].get("annotations", {}).items() if key in ours}
    return differences(ours, theirs, "metadata.annotations") + differences(wanted["spec"], live["spec"], "spec")


def differences(wanted: Any, live: Any, path: str = "") -> list[str]:
    """Return where two objects differ, in the form ``spec.predictor.minReplicas is 3, not 1``."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        keys = sorted(wanted.keys() | live.keys())
        return [line for key in keys for line in differences(wanted.get(key), live.get(key), f"{path}.{key}")]
    return [] if wanted == live else [f"{path.lstrip('.')} is {json.dumps(live)}, not {json.dumps(wanted)}"]


def outdated(deployment: KubernetesObject, runtime: KubernetesObject) -> list[str]:
    """Return where the serving container differs from its ServingRuntime, in the form ``image is "a:1", not "a:2"``.

    Fields that the runtime does not set belong to the cluster.
    """
    wanted, live = (_container(spec) for spec in (runtime["spec"], deployment["spec"]["template"]["spec"]))
    lines = [line for field in COPIED_FIELDS for line in _missing(wanted.get(field), live.get(field), field)]
    return lines + _missing(_variables(wanted), _variables(live), "env")


def _variables(container: KubernetesObject) -> KubernetesObject:
    """Return the environment of a container by name; KServe adds the variables of the InferenceService."""
    return {
        entry["name"]: {key: value for key, value in entry.items() if key != "name"}
        for entry in container.get("env", [])
    }


def _container(spec: KubernetesObject) -> KubernetesObject:
    return next((container for container in spec["containers"] if container["name"] == CONTAINER), {})


def _missing(wanted: Any, live: Any, path: str) -> list[str]:
    """Return the differences in the wanted fields; equal quantities may be written differently."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        return [line for key in wanted for line in _missing(wanted[key], live.get(key), f"{path}.{key}")]
    if wanted is None or "{{" in str(wanted):  # a template such as {{.Name}}, which KServe fills in
        return []
    if path.startswith("resources.") and live is not None and parse_quantity(wanted) == parse_quantity(live):
        return []
    return differences(wanted, live, path)


def is_rendered(deployment: KubernetesObject, inference_service: KubernetesObject) -> bool:
    """Return whether KServe made the Deployment from the last write of the InferenceService.

    KServe copies annotations to the pods, and every write has another history.
    """
    annotation = (deployment["spec"]["template"]["metadata"].get("annotations") or {}).get(HISTORY)
    return bool(annotation == inference_service["metadata"]["annotations"].get(HISTORY))


def is_rolled_out(deployment: KubernetesObject | None, inference_service: KubernetesObject) -> bool:
    """Return whether all pods of a Deployment come from the last write of the InferenceService and are ready."""
    if deployment is None:
        return False
    spec, status = deployment["spec"], deployment.get("status", {})
    counts = (status.get(f"{kind}Replicas") for kind in ("updated", "ready", "available"))
    return (
        is_rendered(deployment, inference_service)
        and status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
        and status.get("replicas") == spec["replicas"]
        and all(count == spec["replicas"] for count in counts)
    )
