"""Why an InferenceService doesn't answer: what its objects say, in words that tell what to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

Object = dict[str, Any]

IMAGE = ("ErrImagePull", "ErrImageNeverPull", "ImagePullBackOff", "InvalidImageName")

RESTARTS = 2
"""So often a container may end before it is given up."""


def explain(inference_service: Object | None, deployment: Object | None, pods: Iterable[Object]) -> str:
    """One line, empty where nothing is wrong; a pod's trouble before the Deployment's, before KServe's."""
    troubles = chain(
        (said for pod in pods for said in of_pod(pod)),
        map(_who_is_missing, of_conditions(deployment or {}, {"ReplicaFailure": "True"})),
        of_inference_service(inference_service or {}),
    )
    return next(troubles, "")


def of_pod(pod: Object) -> Iterator[str]:
    """What keeps a pod from answering."""
    name, status = pod["metadata"]["name"], pod.get("status", {})
    for said in of_conditions(pod, {"PodScheduled": "False"}):
        yield f"pod {name} has no node: {said}; {_where_to_look(said)}"
    containers = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    for container in containers:
        yield from (f"pod {name}: {said}" for said in of_container(container))


def of_container(container: Object) -> Iterator[str]:
    """What a container waits for, or its last words."""
    waiting = container.get("state", {}).get("waiting", {})
    last = container.get("state", {}).get("terminated") or container.get("lastState", {}).get("terminated") or {}
    if waiting.get("reason") in IMAGE:
        yield f"image {container['image']} is not to be had ({waiting['reason']}): push it, or load it into the node"
    elif last.get("reason") == "OOMKilled":
        yield "it was killed for its memory: raise the limit in the ServingRuntime"
    elif last.get("exitCode"):
        lines = (last.get("message") or last.get("reason", "")).strip().splitlines()
        yield f"it ended with code {last['exitCode']}: {lines[-1] if lines else 'it says nothing'}"
    elif waiting.get("message"):
        yield f"{waiting['reason']}: {waiting['message']}"


def hopeless(pods: Iterable[Object]) -> bool:
    """Whether a container ends again and again: waiting longer would not help."""
    return any(
        container.get("restartCount", 0) >= RESTARTS and "waiting" in container.get("state", {})
        for pod in pods
        for container in pod.get("status", {}).get("containerStatuses", ())
    )


def of_conditions(thing: Object, bad: dict[str, str]) -> Iterator[str]:
    """The messages of conditions that have a bad status, by type."""
    for condition in thing.get("status", {}).get("conditions", ()):
        if bad.get(condition["type"]) == condition["status"]:
            yield condition.get("message") or condition.get("reason", condition["type"])


def of_inference_service(thing: Object) -> Iterator[str]:
    """What KServe itself found wrong."""
    failure = thing.get("status", {}).get("modelStatus", {}).get("lastFailureInfo", {})
    if failure.get("reason") == "RuntimeNotRecognized":
        runtime = thing["spec"]["predictor"]["model"]["runtime"]
        yield f"there is no ServingRuntime {runtime}: apply manifests/base/serving"
    if failure.get("message"):
        yield f"KServe: {failure.get('reason', 'failed')}: {failure['message']}"
    yield from (f"KServe: {said}" for said in of_conditions(thing, {"PredictorReady": "False", "Ready": "False"}))


def _who_is_missing(said: str) -> str:
    if "service account" in said:
        return f"{said}; apply manifests/base/serving, or correct service_account of the target"
    return said


def _where_to_look(said: str) -> str:
    if "persistentvolumeclaim" in said:
        return "make the claim that the model's location names, or correct the location"
    return "free a node, add one, or ask for less in the ServingRuntime"
