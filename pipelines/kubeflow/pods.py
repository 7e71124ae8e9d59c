"""The pods of a run: the reasons why they wait, and the errors that failed ones logged.

Kubeflow's server returns neither: a run whose pod fits on no node stays RUNNING, and every exit code becomes 1. No
decision depends on this information, so where Kubernetes cannot be reached, a note takes its place.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import urllib3

from spira.kubernetes_connection import NoClusterError, connect
from spira.stage_logging import MARKS

SECONDS = (3, 10)
"""Timeouts of a request: to connect, and to read the response."""
AWAY_SECONDS = 60.0
"""Time after a failed connection in which no other is tried."""
MAX_LOG_LINES = 200
"""Number of lines that are read from the end of a log."""
RUN_LABEL = "pipeline/runid"
ADVICE = {
    "Insufficient nvidia.com/gpu": "no node has that many GPUs free: wait, add a GPU node, or run with gpu_count=0",
    "Insufficient": "request less cpu or memory, or add a node",
    "untolerated taint": "add the taint of the intended nodes to tolerations",
    "node affinity/selector": "no node has the labels of node_selector: correct it, or add such a node",
}
"""Advice by part of the scheduler's message; the first match applies."""


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

    def waiting(self, run_id: str) -> str:
        """Return why pods of a run do not start; empty if all start."""
        return "; ".join(
            self._or_note(lambda: [f"{_task_name(pod)} waits: {reason}" for pod, reason in self._waiting_pods(run_id)])
        )

    def errors(self, run_id: str) -> str:
        """Return the errors that the stages of a run logged in failed pods; empty if there are none."""
        return "\n".join(dict.fromkeys(self._or_note(lambda: list(self._logged_errors(run_id)))))

    def _waiting_pods(self, run_id: str) -> Iterator[tuple[Any, str]]:
        for pod in self._pods(run_id, "status.phase=Pending"):
            for condition in pod.status.conditions or []:
                if condition.type == "PodScheduled" and condition.status == "False":
                    yield pod, _with_advice(condition.message or condition.reason)
            for status in [*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or [])]:
                waiting = status.state.waiting if status.state else None
                if waiting and waiting.message:  # a container that is being started has no message
                    yield pod, f"{waiting.reason}: {waiting.message}"

    def _logged_errors(self, run_id: str) -> Iterator[str]:
        for pod in self._pods(run_id, "status.phase=Failed"):
            log = self.core.read_namespaced_pod_log(
                pod.metadata.name, self.namespace, container="main", tail_lines=MAX_LOG_LINES, _request_timeout=SECONDS
            )
            mark = MARKS[logging.ERROR]
            yield from (line.partition(mark)[2] for line in log.splitlines() if mark in line)

    def _pods(self, run_id: str, field_selector: str) -> list[Any]:
        return self.core.list_namespaced_pod(
            self.namespace,
            label_selector=f"{RUN_LABEL}={run_id}",
            field_selector=field_selector,
            _request_timeout=SECONDS,
        ).items

    def _or_note(self, read: Callable[[], list[str]]) -> list[str]:
        """Return what a function reads from Kubernetes, or a note where Kubernetes cannot be read.

        After a failed connection no other is tried for ``AWAY_SECONDS``.
        """
        from kubernetes.client import ApiException

        if time.monotonic() < self._next_attempt:
            return [self._last_failure]
        try:
            return read()
        except ApiException as error:
            return [f"(Kubernetes returned {error.status} {error.reason} for its pods)"]
        except urllib3.exceptions.HTTPError as error:
            self._next_attempt = time.monotonic() + AWAY_SECONDS
            self._last_failure = f"(the pods on Kubernetes cannot be read: {' '.join(str(error).split())})"
            return [self._last_failure]


def _with_advice(message: str) -> str:
    """Return the scheduler's message without its part about preemption, and advice."""
    reason = re.split(r"\. (?:no new claims|preemption:)", message)[0].rstrip(".")
    advice = next((advice for part, advice in ADVICE.items() if part in message), "")
    return f"{reason} ({advice})" if advice else reason


def _task_name(pod: Any) -> str:
    """Return the name of a pod's task, or of the pod if it has no such annotation."""
    return (pod.metadata.annotations or {}).get("pipelines.kubeflow.org/task_name") or pod.metadata.name
