"""The pods of a run, where Kubernetes can be asked: why they wait, and what those that failed said.

Kubeflow's server tells neither: a pod that no node takes leaves its run RUNNING, and every exit code becomes 1.
Nothing depends on these answers, so what can't be asked is said in their place.
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
"""To connect, and for an answer."""
AWAY_SECONDS = 60.0
LINES = 200
"""Of a log, from its end."""
RUN_LABEL = "pipeline/runid"
ADVICE = {
    "Insufficient nvidia.com/gpu": "no node has that many GPUs free: wait, add a GPU node, or run with gpu_count=0",
    "Insufficient": "ask for less cpu or memory, or add a node",
    "untolerated taint": "name the taint of the nodes that are meant in tolerations",
    "node affinity/selector": "no node carries the labels of node_selector: correct it, or add such a node",
}
"""Part of what the scheduler says -> what to do; the first that fits."""


class Pods:
    """Pods of one namespace.

    Args:
        core: ``kubernetes.client.CoreV1Api``, connected.
    """

    def __init__(self, core: Any, namespace: str = "kubeflow") -> None:
        self.core, self.namespace = core, namespace
        self._away, self._again = "", 0.0

    @classmethod
    def here(cls, namespace: str = "kubeflow") -> Pods | None:
        """By the pod's own account, or the user's kubeconfig; None where there is neither."""
        from kubernetes import client

        try:
            return cls(client.CoreV1Api(connect(retries=False)), namespace)
        except NoClusterError:
            return None

    def waiting(self, run_id: str) -> str:
        """Why pods of a run don't begin; empty where all do."""
        return "; ".join(self._asked(lambda: [f"{_task(pod)} waits: {why}" for pod, why in self._stuck(run_id)]))

    def said(self, run_id: str) -> str:
        """What the tasks that failed said last, in our own words; empty where they said nothing of the kind."""
        return "\n".join(dict.fromkeys(self._asked(lambda: list(self._refusals(run_id)))))

    def _stuck(self, run_id: str) -> Iterator[tuple[Any, str]]:
        for pod in self._pods(run_id, "status.phase=Pending"):
            for condition in pod.status.conditions or []:
                if condition.type == "PodScheduled" and condition.status == "False":
                    yield pod, _advised(condition.message or condition.reason)
            for status in [*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or [])]:
                held = status.state.waiting if status.state else None
                if held and held.message:  # one that is only being started has none
                    yield pod, f"{held.reason}: {held.message}"

    def _refusals(self, run_id: str) -> Iterator[str]:
        for pod in self._pods(run_id, "status.phase=Failed"):
            log = self.core.read_namespaced_pod_log(
                pod.metadata.name, self.namespace, container="main", tail_lines=LINES, _request_timeout=SECONDS
            )
            mark = MARKS[logging.ERROR]
            yield from (line.partition(mark)[2] for line in log.splitlines() if mark in line)

    def _pods(self, run_id: str, field: str) -> list[Any]:
        return self.core.list_namespaced_pod(
            self.namespace, label_selector=f"{RUN_LABEL}={run_id}", field_selector=field, _request_timeout=SECONDS
        ).items

    def _asked(self, look: Callable[[], list[str]]) -> list[str]:
        """What the look sees; a Kubernetes that didn't answer is left alone for a minute."""
        from kubernetes.client import ApiException

        if time.monotonic() < self._again:
            return [self._away]
        try:
            return look()
        except ApiException as error:
            return [f"(Kubernetes says {error.status} {error.reason} of its pods)"]
        except urllib3.exceptions.HTTPError as error:
            self._again = time.monotonic() + AWAY_SECONDS
            self._away = f"(Kubernetes can't be asked about its pods: {' '.join(str(error).split())})"
            return [self._away]


def _advised(said: str) -> str:
    """The scheduler's words, short of what it says of preemption, and what to do."""
    reason = re.split(r"\. (?:no new claims|preemption:)", said)[0].rstrip(".")
    advice = next((advice for part, advice in ADVICE.items() if part in said), "")
    return f"{reason} ({advice})" if advice else reason


def _task(pod: Any) -> str:
    """The task that a pod is of, as far as it says."""
    return (pod.metadata.annotations or {}).get("pipelines.kubeflow.org/task_name") or pod.metadata.name
