"""The InferenceService of a version, and the history that it carries.

The history stands in an annotation of the object, so that what serves and what is known of it change in one write.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

from spira import proof
from spira.deployment import DeploymentError, Release
from spira.deployment.cluster import Object

HISTORY = "spira/history"
"""An annotation: JSON, a list as in :attr:`spira.deployment.Status.history`, each with the model's ``uri``."""

KEPT = 200
"""Entries of the history; an object's annotations may have 256 KiB."""

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
    proof.check_files(release.package)


def render(name: str, runtime: str, history: list[Object]) -> Object:
    """An InferenceService that serves the version that its history ends with.

    Args:
        runtime: the ServingRuntime.
        history: changes by :func:`entry`, at least one; a location is one as the cluster finds it, ``gs://...`` or
            ``pvc://claim/path``.
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
                "automountServiceAccountToken": False,
                "minReplicas": 1,
                "deploymentStrategy": ROLLING,
                "model": model,
            }
        },
    }


def entry(version: str, action: str, uri: str, **told: Any) -> Object:
    """A change, for the history."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return {"version": version, "action": action, "at": at, "uri": uri} | told


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


def line(entries: list[Object]) -> list[Object]:
    """The changes that rollbacks go back along, that which serves last; repairs are no change of version."""
    going: list[Object] = []
    for one in entries:
        if one["action"] == "rollback":
            going = going[:-1] or [one]  # where it went back to may be cut off the history
        elif one["action"] == "apply":
            going.append(one)
    return going


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


def rolled_out(deployment: Object | None, thing: Object) -> bool:
    """Whether all pods of a Deployment are those of an InferenceService as it was written last, and are ready.

    KServe hands annotations on to the pods, and the history is another after every write.
    """
    if deployment is None:
        return False
    spec, status = deployment["spec"], deployment.get("status", {})
    told = (spec["template"]["metadata"].get("annotations") or {}).get(HISTORY)
    counts = (status.get(f"{which}Replicas") for which in ("updated", "ready", "available"))
    return (
        told == thing["metadata"]["annotations"].get(HISTORY)
        and status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
        and status.get("replicas") == spec["replicas"]
        and all(count == spec["replicas"] for count in counts)
    )
