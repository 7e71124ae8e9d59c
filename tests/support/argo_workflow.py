"""A stand-in for the Argo workflow of a run, as Kubeflow Pipelines 2.17 with Argo 4 shows it.

One :class:`Workflow` gives the three views that clients have of the same nodes:

- ``details``: what ``get_run`` returns. Every node is a task of its own: the workflow, groups, loops, drivers, tries.
  Ids are UUIDs, parents and pod names are empty, children are ids of Argo nodes, and no task has an error.
- ``pods``: the pods that Kubernetes lists, with the name of their node as an annotation.
- ``logs``: the log of each pod, by its name.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

NAME = "spira-training-nq2d7"
STATES = {"Succeeded": "SUCCEEDED", "Failed": "FAILED", "Error": "FAILED", "Running": "RUNNING", "Omitted": "SKIPPED"}
"""Kubeflow's state of a task by Argo's phase of its node."""
START = datetime(2026, 11, 25, 3, 30, tzinfo=UTC)
LAUNCHER_END = "F1125 03:30:20.100000      20 main.go:57] failed to execute component: exit status 1"
"""Last line of the log of a component that failed."""


@dataclass
class Workflow:
    """Nodes of one run; a test adds them in the order of their execution.

    Args:
        run_id: Id of the run on the server.
    """

    run_id: str
    name: str = NAME
    pods: list[dict[str, Any]] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)
    _nodes: dict[str, tuple[str, datetime, datetime]] = field(default_factory=dict)
    """Phase, start and end of each node by its name."""
    _clock: datetime = START

    def task(
        self,
        name: str,
        phase: str = "Succeeded",
        *,
        within: str = "",
        attempt: int = 0,
        inputs: dict[str, Any] | None = None,
        log: str = "",
        status: dict[str, Any] | None = None,
    ) -> None:
        """Add a task with its driver and its executor.

        Args:
            within: Groups around the task, such as ``for-loop-2(0).iteration-item(0)``.
            attempt: Number of the executor's try; the first is 0.
            inputs: Parameters of the component.
            log: Log of the executor's container ``main``.
            status: Fields over the status of the executor's pod.
        """
        self.driver(f"{name}-driver", within=within)
        group = self._path(within, f"{name}(0)")
        for node in (self._path(within, name), group, f"{group}.executor"):
            self._node(node, phase)
        self._pod(f"{group}.executor({attempt})", phase, inputs, log, status)

    def driver(self, name: str, phase: str = "Succeeded", *, within: str = "", log: str = "") -> None:
        """Add a driver, such as ``train-driver``."""
        self._node(self._path(within, name), phase)
        self._pod(self._path(within, f"{name}(0)"), phase, None, log, None)

    def group(self, name: str, phase: str = "Succeeded", *, within: str = "") -> str:
        """Add a loop, an iteration or a branch; return it as a value of ``within``."""
        self.driver(f"{name}-driver", within=within)
        self._node(self._path(within, name), phase)
        path = f"{within}.{name}(0)".lstrip(".")
        self._node(self._path("", path), phase)
        return path

    def omitted(self, name: str) -> None:
        """Add a task that is left out, as what it needs has failed."""
        self._node(self._path("", f"{name}-driver"), "Omitted")
        self._node(self._path("", name), "Omitted")

    def end(self, phase: str) -> None:
        """End the nodes around all others."""
        for node in (self.name, f"{self.name}(0)", f"{self.name}(0).root", f"{self.name}(0).root(0)"):
            self._node(node, phase)

    def details(self) -> list[dict[str, Any]]:
        """Return the tasks, sorted by the ids of their nodes, as the server sorts them."""
        names = sorted(self._nodes, key=self._node_id)
        return [self._detail(name) for name in names]

    def executor(self, task: str) -> dict[str, Any]:
        """Return the last pod of a task's executor."""
        return next(pod for pod in reversed(self.pods) if f".{task}(0).executor(" in node_name(pod))

    def _path(self, within: str, name: str) -> str:
        return ".".join(part for part in (f"{self.name}(0).root(0)", within, name) if part)

    def _node(self, name: str, phase: str) -> None:
        self._clock += timedelta(seconds=10)
        self._nodes[name] = (phase, self._clock - timedelta(seconds=10), self._clock)

    def _pod(
        self, node: str, phase: str, inputs: dict[str, Any] | None, log: str, status: dict[str, Any] | None
    ) -> None:
        """Add a pod; its executor input is in the launcher's command, as drivers write it there."""
        self._node(node, phase)
        _, start, end = self._nodes[node]
        identity = self._node_id(node)
        command = ["/kfp-launcher/launch", "--pipeline_name", "spira-training", "--run_id", self.run_id]
        if inputs is not None:
            command += ["--executor_input", json.dumps({"inputs": {"parameterValues": inputs}}), "--"]
        name = identity.replace(self.name, f"{self.name}-system-container-impl")
        terminated = {"exitCode": int(phase != "Succeeded"), "reason": "Completed" if phase == "Succeeded" else "Error"}
        self.pods.append(
            {
                "metadata": {
                    "name": name,
                    "creationTimestamp": _text(start),
                    "labels": {"pipeline/runid": self.run_id, "workflows.argoproj.io/workflow": self.name},
                    "annotations": {
                        "workflows.argoproj.io/node-id": identity,
                        "workflows.argoproj.io/node-name": node,
                    },
                },
                "spec": {
                    "containers": [
                        {"name": "main", "command": command, "resources": {"limits": {"memory": "4Gi"}}},
                        {"name": "wait"},
                    ]
                },
                "status": {
                    "phase": "Failed" if phase == "Error" else phase,
                    "containerStatuses": [
                        container("main", {"terminated": terminated | {"finishedAt": _text(end)}})
                        if phase != "Running"
                        else container("main", {"running": {}})
                    ],
                }
                | (status or {}),
            }
        )
        self.logs[name] = f"I1125 launcher\n{log}\n{LAUNCHER_END if phase == 'Failed' else ''}\n"

    def _detail(self, name: str) -> dict[str, Any]:
        phase, start, end = self._nodes[name]
        children = [self._node_id(child) for child in self._nodes if _is_child(child, name)]
        return {
            "run_id": self.run_id,
            "task_id": str(uuid.uuid4()),
            "display_name": name.rpartition(".")[2],
            "create_time": _text(START),
            "start_time": _text(start),
            "end_time": _text(end),
            "state": STATES[phase],
            "state_history": [{"update_time": _text(end), "state": STATES[phase]}],
            "child_tasks": [{"pod_name": child} for child in children],
        }

    def _node_id(self, name: str) -> str:
        """Return Argo's id: the workflow's name and the 32-bit FNV-1a hash of the node's name."""
        value = 2166136261
        for byte in name.encode():
            value = (value ^ byte) * 16777619 % 2**32
        return self.name if name == self.name else f"{self.name}-{value}"


def node_name(pod: dict[str, Any]) -> str:
    """Return the name of a pod's node."""
    return pod["metadata"]["annotations"]["workflows.argoproj.io/node-name"]


def container(name: str, state: dict[str, Any]) -> dict[str, Any]:
    """Return the status of a container."""
    return {"name": name, "state": state, "image": "", "imageID": "", "ready": False, "restartCount": 0}


def _is_child(child: str, parent: str) -> bool:
    """Return whether a node is a try of another, or stands directly in it."""
    rest = child.removeprefix(parent)
    return child.startswith(parent) and rest.count(".") <= 1 and (rest.startswith(".") or rest.startswith("("))


def _text(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
