"""The reason why a run on Kubeflow failed or waits: one cause for one failure, a line each, on one screen.

Kubeflow's server returns no reason. Its tasks are all nodes of the workflow: groups, drivers, tries and executors. The
cause is in the failed pods (:mod:`pipelines.kubeflow.pods`). Where the pods are gone, the names of failed tasks remain.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

MAX_CAUSES = 5
"""Number of causes that a message has; the number of the others follows."""
MAX_CAUSE_LENGTH = 280
"""Length of a cause in characters; at a width of 100 characters, the longest message takes 16 lines."""
GROUPS = re.compile(
    r"(root|entrypoint|executor|iteration-items?|(for-loop|condition|condition-branches|exit-handler)-\d+)$"
)
"""Names of nodes that are no task of a pipeline."""
DRIVER = "-driver"
"""Suffix of the name of the pod that resolves a task's inputs."""
APPROVED_TASK, REJECTED_TASK = "push", "reject"
"""Tasks of the pipeline's branches: the one that succeeded is the verdict."""


@dataclass(frozen=True)
class Cause:
    """Why one task failed or waits."""

    task: str
    """Name for people, such as ``train, seed 42``."""
    text: str


@dataclass(frozen=True)
class Task:
    """A task of a run, without the nodes that Kubeflow adds."""

    name: str
    """Name in the compiled pipeline, such as ``train``."""
    state: str
    is_driver: bool


def one_line(text: str, length: int = MAX_CAUSE_LENGTH) -> str:
    """Return a text as one line of limited length."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def to_text(causes: Iterable[Cause]) -> str:
    """Return causes as text, a line each; tasks with the same cause share a line."""
    tasks: dict[str, list[str]] = {}
    for cause in causes:
        names = tasks.setdefault(one_line(cause.text), [])
        if cause.task not in names:
            names.append(cause.task)
    lines = [one_line(f"{_joined(names)}: {text}") for text, names in tasks.items()]
    more = len(lines) - MAX_CAUSES
    return "\n".join(lines[:MAX_CAUSES] + ([f"and {more} more"] if more > 0 else []))


def _joined(names: list[str]) -> str:
    """Join names of tasks; those that differ by seed only share the first part."""
    first, seed, _ = names[0].partition(", seed ")
    if len(names) == 1 or not seed or not all(name.startswith(first + seed) for name in names):
        return ", ".join(names)
    return f"{first}, seeds {', '.join(name.removeprefix(first + seed) for name in names)}"


def base_name(display_name: str) -> str:
    """Return the name of a node without the number of its try or iteration: ``train`` for ``train(0)``."""
    return display_name.partition("(")[0]


def tasks(run: Any) -> tuple[Task, ...]:
    """Return the tasks of a run, as Kubeflow's call for a single run returns it, without repetitions."""
    found = []
    for detail in (run.run_details.task_details if run.run_details else None) or []:
        name, state = base_name(detail.display_name or ""), detail.state or ""
        is_driver = name.endswith(DRIVER)
        task = name.removesuffix(DRIVER)
        is_workflow = task and detail.child_tasks and _is_workflow(task, detail.child_tasks)
        if task and not GROUPS.match(task) and not is_workflow:
            found.append(Task(task, state, is_driver))
    return tuple(dict.fromkeys(found))


def _is_workflow(name: str, children: Any) -> bool:
    """Return whether a name is that of the workflow, with which the ids of its nodes begin."""
    return any((child.pod_name or child.task_id or "").startswith(f"{name}-") for child in children)


def failed_tasks(run: Any, note: str) -> list[Cause]:
    """Return the failed tasks of a run without their causes.

    Args:
        note: Why there is no cause.
    """
    failed = [task for task in tasks(run) if task.state == "FAILED"]
    names = dict.fromkeys(task.name if not task.is_driver else f"driver of {task.name}" for task in failed)
    return [Cause(name, f"failed; {note}") for name in names]


def running_tasks(run: Any) -> list[str]:
    """Return the names of the tasks that run now."""
    return list(dict.fromkeys(task.name for task in tasks(run) if task.state == "RUNNING"))


def branch(run: Any) -> Literal["approved", "rejected", ""]:
    """Return the verdict of a run by the branch that succeeded; empty if none did."""
    succeeded = {task.name for task in tasks(run) if task.state == "SUCCEEDED" and not task.is_driver}
    if APPROVED_TASK in succeeded:
        return "approved"
    return "rejected" if REJECTED_TASK in succeeded else ""


def run_error(run: Any) -> str:
    """Return the error of a run itself: its own, or that of its latest state; empty if there is none."""
    errors = [run.error, *(status.error for status in reversed(run.state_history or []))]
    return next((one_line(error.message) for error in errors if error and error.message), "")
