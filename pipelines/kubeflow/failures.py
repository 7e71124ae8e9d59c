"""Why a run of Kubeflow's failed, from what its details say of tasks within tasks."""

from __future__ import annotations

from typing import Any

EXECUTOR = "executor"
"""What Kubeflow calls the pod of a task, inside the task."""


def failure(run: Any) -> str:
    """The errors of the tasks that failed by themselves, then the run's own; a line each, empty if there are none."""
    details = (run.run_details.task_details if run.run_details else None) or []
    failed = [task for task in details if task.state == "FAILED"]
    around = {id(parent) for task in failed for parent in _parents(task, failed)}
    lines = [
        f"{_name(task, failed)} failed: {_error(task) or 'Kubeflow says no more'}"
        for task in failed
        if id(task) not in around
    ]
    return "\n".join(dict.fromkeys([*lines, *filter(None, [_error(run)])]))


def _parents(task: Any, failed: list[Any]) -> list[Any]:
    """The failed tasks around one, from inside out; Kubeflow tells either end of the link."""
    for each in failed:
        inside = {name for child in each.child_tasks or [] for name in (child.task_id, child.pod_name) if name}
        linked = task.parent_task_id == each.task_id or inside & {task.task_id, task.pod_name}
        if each is not task and linked:
            return [each, *_parents(each, failed)]
    return []


def _name(task: Any, failed: list[Any]) -> str:
    names = [each.display_name for each in (task, *_parents(task, failed))]
    return next((name for name in names if name and name != EXECUTOR), EXECUTOR)


def _error(told: Any) -> str:
    """Of a run or task: its own, or that of its latest state."""
    errors = [told.error, *(status.error for status in reversed(told.state_history or []))]
    return next((" ".join(error.message.split()) for error in errors if error and error.message), "")
