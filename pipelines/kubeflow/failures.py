"""The reason why a run on Kubeflow failed, from the details of its nested tasks."""

from __future__ import annotations

from typing import Any

EXECUTOR = "executor"
"""Kubeflow's name of the pod of a task, inside of the task."""


def failure(run: Any) -> str:
    """Return the errors of the innermost failed tasks, then of the run, a line each; empty if there are none."""
    details = (run.run_details.task_details if run.run_details else None) or []
    failed = [task for task in details if task.state == "FAILED"]
    parents = {id(parent) for task in failed for parent in _parents(task, failed)}
    lines = [
        f"{_name(task, failed)} failed: {_error(task) or 'Kubeflow gives no reason'}"
        for task in failed
        if id(task) not in parents
    ]
    return "\n".join(dict.fromkeys([*lines, *filter(None, [_error(run)])]))


def _parents(task: Any, failed: list[Any]) -> list[Any]:
    """Return the failed tasks around a task, from the inside out."""
    for parent in failed:
        # Kubeflow stores either end of the link: the children of a task, or its parent
        children = {name for child in parent.child_tasks or [] for name in (child.task_id, child.pod_name) if name}
        is_linked = task.parent_task_id == parent.task_id or children & {task.task_id, task.pod_name}
        if parent is not task and is_linked:
            return [parent, *_parents(parent, failed)]
    return []


def _name(task: Any, failed: list[Any]) -> str:
    names = [item.display_name for item in (task, *_parents(task, failed))]
    return next((name for name in names if name and name != EXECUTOR), EXECUTOR)


def _error(item: Any) -> str:
    """Return the error of a run or task: its own, or that of its latest state."""
    errors = [item.error, *(status.error for status in reversed(item.state_history or []))]
    return next((" ".join(error.message.split()) for error in errors if error and error.message), "")
