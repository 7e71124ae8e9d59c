"""The pods of a run: the reasons why they wait or failed.

Kubeflow's server returns neither: a run whose pod fits on no node stays RUNNING, and every exit code becomes 1. No
decision depends on this information, so where Kubernetes cannot be reached, a note takes its place.

Argo writes the name of its node on each pod, such as ``WORKFLOW(0).root(0).for-loop-2(0).iteration-item(0).train(0)
.executor(0)``. The number at its end is the try. Kubeflow's driver writes the parameters of the task into the command.
"""

from __future__ import annotations

import json
import logging
import re
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import urllib3

from pipelines.kubeflow.failures import DRIVER, Cause, base_name, one_line
from spira.kubernetes_connection import NoClusterError, connect
from spira.stage_logging import MARKS

SECONDS = (3, 10)
"""Timeouts of a request: to connect, and to read the response."""
AWAY_SECONDS = 60.0
"""Time after a failed connection in which no other is tried."""
MAX_LOG_LINES = 200
"""Number of lines that are read from the end of a log."""
MAX_LOGS = 10
"""Number of failed pods whose logs are read."""
MAX_LOGGED_ERRORS = 3
"""Number of error lines of one pod that are part of a cause."""
RUN_LABEL = "pipeline/runid"
NODE_NAME = "workflows.argoproj.io/node-name"
EXECUTOR_INPUT = "--executor_input"
CONTAINER = "main"
SCHEDULER_ADVICE = {
    "Insufficient nvidia.com/gpu": "no node has that many GPUs free: wait, add a GPU node, or run with gpu_count=0",
    "Insufficient": "request less cpu or memory, or add a node",
    "untolerated taint": "add the taint of the intended nodes to tolerations",
    "node affinity/selector": "no node has the labels of node_selector: correct it, or add such a node",
}
"""Advice by part of the scheduler's message; the first match applies."""
REASON_ADVICE = {
    "ImagePullBackOff": "check the image's name and digest, and that the nodes can pull it",
    "ErrImagePull": "check the image's name and digest, and that the nodes can pull it",
    "ErrImageNeverPull": "load the image into the nodes",
    "InvalidImageName": "correct the image's name",
    "CreateContainerConfigError": "create the secret or config map that the pod refers to",
    "Evicted": "the node ran short of memory or disk: submit it again under another --name, with more memory",
    "DeadlineExceeded": "the task reached its time limit: submit it again under another --name",
}
"""Advice by Kubernetes' reason of a pod or container."""
TRY = re.compile(r"\((\d+)\)$")
PYTHON_ERROR = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt)(: .*)?$")
DRIVER_ERROR = re.compile(r"KFP driver: .*? failed: (.*)")
KILLED = "signal: killed"
"""What Kubeflow's launcher logs if the kernel killed the component's process."""


@dataclass(frozen=True)
class PodReport:
    """What the pods of a run show."""

    waiting: tuple[Cause, ...] = ()
    failed: tuple[Cause, ...] = ()
    """Causes of failures, the first failure first, without what failed only as a consequence."""
    count: int | None = None
    """Number of pods; None if Kubernetes could not be read."""
    note: str = ""
    """Why Kubernetes could not be read; empty if it could."""


class Pods:
    """Pods of one namespace.

    Args:
        core: Connected ``kubernetes.client.CoreV1Api``.
        namespace: Namespace of the pods.
    """

    def __init__(self, core: Any, namespace: str = "kubeflow") -> None:
        self.core, self.namespace = core, namespace
        self._last_failure, self._next_attempt = "", 0.0

    @classmethod
    def here(cls, namespace: str = "kubeflow") -> Pods | None:
        """Connect by the pod's own account, or the user's kubeconfig; return None where there is neither."""
        from kubernetes import client

        try:
            return cls(client.CoreV1Api(connect(retries=False)), namespace)
        except NoClusterError:
            return None

    def report(self, run_id: str) -> PodReport:
        """Return why pods of a run wait or failed.

        After a failed connection no other is tried for ``AWAY_SECONDS``.
        """
        from kubernetes.client import ApiException

        if time.monotonic() < self._next_attempt:
            return PodReport(note=self._last_failure)
        try:
            return self._report(run_id)
        except ApiException as error:
            return PodReport(note=f"(Kubernetes returned {error.status} {error.reason} for its pods)")
        except urllib3.exceptions.HTTPError as error:
            self._next_attempt = time.monotonic() + AWAY_SECONDS
            self._last_failure = f"(the pods on Kubernetes cannot be read: {one_line(str(error))})"
            return PodReport(note=self._last_failure)

    def _report(self, run_id: str) -> PodReport:
        pods = self.core.list_namespaced_pod(
            self.namespace, label_selector=f"{RUN_LABEL}={run_id}", _request_timeout=SECONDS
        ).items
        last_tries = _last_tries(pods)
        waiting = [Cause(_task(pod), f"waiting: {reason}") for pod in last_tries if (reason := _waiting_reason(pod))]
        failed = _first_failures([pod for pod in last_tries if pod.status.phase == "Failed"])
        causes = [Cause(_task(pod), self._failure_reason(pod)) for pod in failed[:MAX_LOGS]]
        causes += [Cause(_task(pod), "failed too") for pod in failed[MAX_LOGS:]]
        return PodReport(tuple(waiting), tuple(causes), len(pods))

    def _failure_reason(self, pod: Any) -> str:
        """Return why a pod failed: as Kubernetes ended it, else as its log says, else its exit code."""
        return _end_by_kubernetes(pod) or _logged_reason(self._log(pod)) or self._exit_code(pod)

    def _log(self, pod: Any) -> list[str]:
        """Return the last lines of a pod's log; none if Kubernetes has it no longer."""
        from kubernetes.client import ApiException

        try:
            return self.core.read_namespaced_pod_log(
                pod.metadata.name,
                self.namespace,
                container=CONTAINER,
                tail_lines=MAX_LOG_LINES,
                _request_timeout=SECONDS,
            ).splitlines()
        except ApiException:
            return []

    def _exit_code(self, pod: Any) -> str:
        for status in _container_statuses(pod):
            ended = status.state.terminated if status.state else None
            if ended and ended.exit_code:
                message = f": {one_line(ended.message)}" if ended.message else ""
                name = "" if status.name == CONTAINER else f" of its container {status.name}"
                return (
                    f"exit code {ended.exit_code}{name}{message}, no error in its log; see kubectl -n {self.namespace} "
                    f"logs {pod.metadata.name} -c {status.name}"
                )
        return one_line(pod.status.message or "") or "failed, and Kubernetes gives no reason"


def _last_tries(pods: list[Any]) -> list[Any]:
    """Return the last try of each node."""
    nodes: dict[str, Any] = {}
    for pod in sorted(pods, key=lambda pod: (_try(pod), _creation(pod))):
        nodes[TRY.sub("", _node_name(pod)) or pod.metadata.name] = pod
    return list(nodes.values())


def _try(pod: Any) -> int:
    """Return the number of a pod's try; the first is 0."""
    found = TRY.search(_node_name(pod))
    return int(found[1]) if found else 0


def _first_failures(failed: list[Any]) -> list[Any]:
    """Return the pods that failed on their own, the first first.

    A pod of another task that was created after the first failure is a consequence: it lacks what the first should have
    made.
    """
    by_end = sorted(failed, key=_end)
    if not by_end:
        return []
    first = by_end[0]
    return [pod for pod in by_end if _task_id(pod) == _task_id(first) or _creation(pod) <= _end(first)]


def _creation(pod: Any) -> datetime:
    return pod.metadata.creation_timestamp


def _end(pod: Any) -> datetime:
    """Return when the last container of a pod ended, or its creation if none has run."""
    ends = [status.state.terminated for status in _container_statuses(pod) if status.state]
    return max([end.finished_at for end in ends if end and end.finished_at], default=_creation(pod))


def _container_statuses(pod: Any) -> list[Any]:
    """Return the statuses of a pod's containers, ``main`` first."""
    statuses = [*(pod.status.container_statuses or []), *(pod.status.init_container_statuses or [])]
    return sorted(statuses, key=lambda status: status.name != CONTAINER)


def _waiting_reason(pod: Any) -> str:
    """Return why a pod does not start; empty if it does."""
    if pod.status.phase != "Pending":
        return ""
    for condition in pod.status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            return _with_scheduler_advice(condition.message or condition.reason)
    for status in _container_statuses(pod):
        waiting = status.state.waiting if status.state else None
        if waiting and waiting.message:  # a container that is being started has no message
            return _with_reason_advice(waiting.reason, waiting.message)
    return ""


def _end_by_kubernetes(pod: Any) -> str:
    """Return why Kubernetes ended a pod; empty if it ended by itself."""
    if pod.status.reason:
        return _with_reason_advice(pod.status.reason, pod.status.message or "")
    if any(
        status.state and status.state.terminated and status.state.terminated.reason == "OOMKilled"
        for status in _container_statuses(pod)
    ):
        return f"out of memory (OOMKilled){_memory_limit(pod)}: submit it again under another --name, with more memory"
    return ""


def _memory_limit(pod: Any) -> str:
    for container in pod.spec.containers:
        limits = container.resources.limits if container.resources else None
        if container.name == CONTAINER and limits and "memory" in limits:
            return f", its limit was {limits['memory']}"
    return ""


def _logged_reason(log: list[str]) -> str:
    """Return the errors that a stage logged, else the error of the driver, of Python or of the launcher."""
    mark = MARKS[logging.ERROR]
    errors = list(dict.fromkeys(line.partition(mark)[2] for line in log if mark in line))
    if errors:
        more = len(errors) - MAX_LOGGED_ERRORS
        return "; ".join(errors[:MAX_LOGGED_ERRORS] + ([f"and {more} more lines"] if more > 0 else []))
    for line in reversed(log):
        if driver := DRIVER_ERROR.search(line):
            return driver[1]
        if PYTHON_ERROR.match(line):
            return line
    if any(KILLED in line for line in log):
        return "its process was killed, most likely for lack of memory: submit it again with more memory"
    return ""


def _with_scheduler_advice(message: str) -> str:
    """Return the scheduler's message without its part about preemption, and advice."""
    reason = re.split(r"\. (?:no new claims|preemption:)", message)[0].rstrip(".")
    advice = next((advice for part, advice in SCHEDULER_ADVICE.items() if part in message), "")
    return f"{reason} ({advice})" if advice else reason


def _with_reason_advice(reason: str, message: str) -> str:
    text = f"{reason}: {message}".rstrip(": .")
    return f"{text} ({REASON_ADVICE[reason]})" if reason in REASON_ADVICE else text


def _node_name(pod: Any) -> str:
    return (pod.metadata.annotations or {}).get(NODE_NAME, "")


def _task_id(pod: Any) -> str:
    """Return the name of a pod's task or driver in the compiled pipeline, or the pod's own without an annotation."""
    names = _node_name(pod).split(".")
    if len(names) > 1 and base_name(names[-1]) == "executor":
        names.pop()
    return base_name(names[-1]) or pod.metadata.name


def _task(pod: Any) -> str:
    """Return a task's name for people: ``train, seed 42``, or ``driver of train``."""
    name, seed = _task_id(pod), _parameters(pod).get("seed")
    if name.endswith(DRIVER):
        return f"driver of {name.removesuffix(DRIVER)}"
    return f"{name}, seed {seed:.0f}" if isinstance(seed, int | float) else name


def _parameters(pod: Any) -> dict[str, Any]:
    """Return the parameters of a pod's component, from the launcher's command; empty for a driver."""
    for container in pod.spec.containers:
        command = [*(container.command or []), *(container.args or [])]
        if container.name == CONTAINER and EXECUTOR_INPUT in command[:-1]:
            try:
                values = json.loads(command[command.index(EXECUTOR_INPUT) + 1])
                return values.get("inputs", {}).get("parameterValues", {})
            except (ValueError, AttributeError):
                return {}
    return {}
