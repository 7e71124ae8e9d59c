"""Diagnosis of an InferenceService that does not answer, from the states of its pods, Deployment and conditions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from spira.kubernetes_connection import KubernetesObject

IMAGE_ERRORS = ("ErrImagePull", "ErrImageNeverPull", "ImagePullBackOff", "InvalidImageName")

MAX_RESTARTS = 2
"""Restarts of a container after which waiting is pointless."""


def explain(
    inference_service: KubernetesObject | None, deployment: KubernetesObject | None, pods: Iterable[KubernetesObject]
) -> str:
    """Return the first problem as one line, empty if there is none: of the pods, then the Deployment, then KServe."""
    problems = chain(
        (problem for pod in pods for problem in pod_problems(pod)),
        map(_replica_failure, conditions(deployment or {}, {"ReplicaFailure": "True"})),
        inference_service_problems(inference_service or {}),
    )
    return next(problems, "")


def pod_problems(pod: KubernetesObject) -> Iterator[str]:
    """Yield the reasons why a pod is not ready."""
    name, status = pod["metadata"]["name"], pod.get("status", {})
    for message in conditions(pod, {"PodScheduled": "False"}):
        yield f"pod {name} is not scheduled: {message}; {_scheduling_advice(message)}"
    containers = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    for container in containers:
        yield from (f"pod {name}: {problem}" for problem in container_problems(container))


def container_problems(container: KubernetesObject) -> Iterator[str]:
    """Yield the reason why a container waits or has ended."""
    waiting = container.get("state", {}).get("waiting", {})
    last = container.get("state", {}).get("terminated") or container.get("lastState", {}).get("terminated") or {}
    if waiting.get("reason") in IMAGE_ERRORS:
        yield f"image {container['image']} is not available ({waiting['reason']}): push it, or load it into the node"
    elif last.get("reason") == "OOMKilled":
        yield "the container exceeded its memory limit: raise the limit in the ServingRuntime"
    elif last.get("exitCode"):
        lines = (last.get("message") or last.get("reason", "")).strip().splitlines()
        yield f"the container exited with code {last['exitCode']}: {lines[-1] if lines else 'no output'}"
    elif waiting.get("message"):
        yield f"{waiting['reason']}: {waiting['message']}"


def is_crash_looping(pods: Iterable[KubernetesObject]) -> bool:
    """Return whether a container keeps restarting, so that waiting longer cannot help."""
    return any(
        container.get("restartCount", 0) >= MAX_RESTARTS and "waiting" in container.get("state", {})
        for pod in pods
        for container in pod.get("status", {}).get("containerStatuses", ())
    )


def conditions(resource: KubernetesObject, failing: dict[str, str]) -> Iterator[str]:
    """Yield the messages of the conditions whose status is the failing one of their type."""
    for condition in resource.get("status", {}).get("conditions", ()):
        if failing.get(condition["type"]) == condition["status"]:
            yield condition.get("message") or condition.get("reason", condition["type"])


def inference_service_problems(inference_service: KubernetesObject) -> Iterator[str]:
    """Yield the failures that KServe reports."""
    failure = inference_service.get("status", {}).get("modelStatus", {}).get("lastFailureInfo", {})
    if failure.get("reason") == "RuntimeNotRecognized":
        runtime = inference_service["spec"]["predictor"]["model"]["runtime"]
        yield f"ServingRuntime {runtime} does not exist: apply manifests/base/serving"
    if failure.get("message"):
        yield f"KServe: {failure.get('reason', 'failed')}: {failure['message']}"
    not_ready = {"PredictorReady": "False", "Ready": "False"}
    yield from (f"KServe: {message}" for message in conditions(inference_service, not_ready))


def _replica_failure(message: str) -> str:
    if "service account" in message:
        return f"{message}; apply manifests/base/serving, or correct service_account of the target"
    return message


def _scheduling_advice(message: str) -> str:
    if "persistentvolumeclaim" in message:
        return "create the claim that the model's location names, or correct the location"
    return "free a node, add one, or request less in the ServingRuntime"
