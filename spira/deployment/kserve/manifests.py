"""The InferenceService of a version, and the history that it carries.

The history stands in an annotation of the object, so that what serves and what is known of it change in one write.
"""

from __future__ import annotations

import json
import re
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from spira.deployment.kserve.cluster import Object
from spira.deployment.target import DeploymentError, Release
from spira.deployment.version_stack import line
from spira.packaging import verify

HISTORY = "spira/history"
"""An annotation: JSON, a list as in :attr:`spira.deployment.target.Status.history`, each with the model's ``uri``."""

KEPT = 200
"""Entries of the history; an object's annotations may have 256 KiB."""

CONTAINER = "kserve-container"
"""In a ServingRuntime, and so in the pods, the one that serves."""

RENDERED = ("image", "args", "resources", "startupProbe", "readinessProbe", "livenessProbe")
"""What KServe takes over from the ServingRuntime's container as it stands there."""

VERSION = "MODEL_VERSION"
"""The environment variable that tells a server the version it answers with."""

ROLLING = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
"""A pod goes only when another one is ready in its place."""


def check(release: Release, history: list[Object]) -> None:
    """Refuse what can't be served, or is not what was served under that name.

    Raises:
        DeploymentError: the version is no plain name, or its location is missing or another one than before.
        PackageError: the package is incomplete or was changed.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", release.version):
        raise DeploymentError(f"version {release.version!r}: use letters, digits, - and _ only")
    if not release.uri:
        raise DeploymentError(f"version {release.version} has no location that the cluster reaches: give its uri")
    for one in history:
        if (one["version"] == release.version) != (one["uri"] == release.uri):
            raise DeploymentError(
                f"version {one['version']} was served from {one['uri']}, version {release.version} is said to be at "
                f"{release.uri}: a version has one location, which never changes and is no other's"
            )
    verify.check_files(release.package)


def render(name: str, runtime: str, account: str, history: list[Object]) -> Object:
    """An InferenceService that serves the version that its history ends with.

    Args:
        runtime: the ServingRuntime.
        account: the ServiceAccount by whose rights the model is read from its bucket.
        history: changes, each with the ``uri`` of its version, at least one; a location is one as the cluster finds
            it, ``gs://...`` or ``pvc://claim/path``.
    """
    serves = line(history)[-1]
    annotations = {
        "serving.kserve.io/deploymentMode": "Standard",
        "serving.kserve.io/autoscalerClass": "none",
        HISTORY: json.dumps(history[-KEPT:]),
    }
    model = {
        "modelFormat": {"name": "spira"},
        "runtime": runtime,
        "protocolVersion": "v2",
        "storageUri": serves["uri"],
        "env": [{"name": VERSION, "value": serves["version"]}],
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
                "deploymentStrategy": ROLLING,
                "model": model,
            }
        },
    }


def history(thing: Object | None) -> list[Object]:
    """Every change that an InferenceService has seen, oldest first.

    Raises:
        DeploymentError: the annotation is damaged.
    """
    if thing is None:
        return []
    try:
        return [dict(one) for one in json.loads(thing["metadata"].get("annotations", {}).get(HISTORY, "[]"))]
    except (ValueError, TypeError) as error:
        name = thing["metadata"]["name"]
        raise DeploymentError(
            f"InferenceService {name}: annotation {HISTORY} is damaged ({error}): correct it, or delete the object"
        ) from error


def version(thing: Object | None) -> str | None:
    """The version that an InferenceService should serve; None before the first."""
    going = line(history(thing))
    return going[-1]["version"] if going else None


def same(a: Object | None, b: Object | None) -> bool:
    """Whether nobody changed an InferenceService between two readings; KServe's notes of its state are no change."""
    if a is None or b is None:
        return a is b
    marks = [(one["metadata"].get("uid"), one["metadata"]["generation"], history(one)) for one in (a, b)]
    return marks[0] == marks[1]


def drift(wanted: Object, live: Object) -> list[str]:
    """Where an InferenceService is not as it should; annotations of others are theirs."""
    ours = wanted["metadata"]["annotations"]
    theirs = {key: value for key, value in live["metadata"].get("annotations", {}).items() if key in ours}
    return differences(ours, theirs, "metadata.annotations") + differences(wanted["spec"], live["spec"], "spec")


def differences(wanted: Any, live: Any, path: str = "") -> list[str]:
    """Where two objects differ, as ``spec.predictor.minReplicas is 3, not 1``."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        keys = sorted(wanted.keys() | live.keys())
        return [said for key in keys for said in differences(wanted.get(key), live.get(key), f"{path}.{key}")]
    return [] if wanted == live else [f"{path.lstrip('.')} is {json.dumps(live)}, not {json.dumps(wanted)}"]


def outdated(deployment: Object, runtime: Object) -> list[str]:
    """Where the container that serves isn't what its ServingRuntime says now, as ``image is "a:1", not "a:2"``.

    What the runtime doesn't say is the cluster's own.
    """
    wanted, runs = (_container(spec) for spec in (runtime["spec"], deployment["spec"]["template"]["spec"]))
    return [said for key in RENDERED for said in _missing(wanted.get(key), runs.get(key), key)]


def _container(spec: Object) -> Object:
    return next((one for one in spec["containers"] if one["name"] == CONTAINER), {})


def _missing(wanted: Any, live: Any, path: str) -> list[str]:
    """Where something isn't as wanted, however a quantity is written; what isn't wanted may be anything."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        return [said for key in wanted for said in _missing(wanted[key], live.get(key), f"{path}.{key}")]
    if wanted is None or "{{" in str(wanted):  # {{.Name}}, which KServe fills in
        return []
    if path.startswith("resources.") and live is not None and parse_quantity(wanted) == parse_quantity(live):
        return []
    return differences(wanted, live, path)


def rendered(deployment: Object, thing: Object) -> bool:
    """Whether KServe has made a Deployment of an InferenceService as it was written last.

    It hands annotations on to the pods, and the history is another after every write.
    """
    told = (deployment["spec"]["template"]["metadata"].get("annotations") or {}).get(HISTORY)
    return told == thing["metadata"]["annotations"].get(HISTORY)


def rolled_out(deployment: Object | None, thing: Object) -> bool:
    """Whether all pods of a Deployment are those of an InferenceService as it was written last, and are ready."""
    if deployment is None:
        return False
    spec, status = deployment["spec"], deployment.get("status", {})
    counts = (status.get(f"{which}Replicas") for which in ("updated", "ready", "available"))
    return (
        rendered(deployment, thing)
        and status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
        and status.get("replicas") == spec["replicas"]
        and all(count == spec["replicas"] for count in counts)
    )
