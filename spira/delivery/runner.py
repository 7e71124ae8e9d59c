"""Protocol of a training runner: it starts runs by name and returns their outcomes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from spira.delivery.training_request import TrainingRequest
from spira.errors import SpiraError


class RunnerError(SpiraError):
    """The runner is unreachable or refuses a training request; this does not count as a failed run."""


@dataclass(frozen=True)
class Run:
    """State of one run of the training pipeline."""

    state: Literal["running", "interrupted", "succeeded", "failed"]
    """``interrupted``: killed before its end; starting it again resumes it."""
    message: str = ""
    """Cause of a failure, or why a run makes no progress, such as a GPU that no node has."""
    approved: bool = False
    """Verdict of the gate. This and the following fields belong to a run that succeeded."""
    reasons: tuple[str, ...] = ()
    """Reasons of a rejection."""
    model_version: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)


class Runner(Protocol):
    """Executor of the pipeline up to a registered challenger or a logged rejection; it does not change what serves."""

    def find(self, name: str) -> Run | None:
        """Return the state of a run, or None if it never started.

        Raises:
            RunnerError: the runner is unreachable.
        """

    def start(self, request: TrainingRequest) -> None:
        """Start a run, or resume an interrupted one; do nothing if it is running or has ended.

        Raises:
            RunnerError: the runner is unreachable or refuses the request.
        """

    def cancel(self, name: str) -> None:
        """End a run; do nothing if it never started, has ended or is ending.

        Raises:
            RunnerError: the runner is unreachable, or the run does not end.
        """
