"""Who trains: a runner takes orders by name, and answers what became of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from spira.delivery.training_request import TrainingRequest
from spira.errors import SpiraError


class RunnerError(SpiraError):
    """A runner that can't be asked, or refuses an order: a run that can't begin is no run that failed."""


@dataclass(frozen=True)
class Run:
    """What became of an order."""

    state: Literal["running", "interrupted", "succeeded", "failed"]
    """``interrupted``: killed before its end; to order it again takes it up where it was."""
    message: str = ""
    """Why it failed, or why it doesn't get on (a GPU that no node has, say)."""
    approved: bool = False
    """The verdict, of a run that succeeded; likewise the rest."""
    reasons: tuple[str, ...] = ()
    model_version: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)


class Runner(Protocol):
    """Runs the pipeline up to a registered challenger, or a logged rejection; what serves is not its to change."""

    def find(self, name: str) -> Run | None:
        """What became of an order; None of one that never began.

        Raises:
            RunnerError: the runner can't be asked now.
        """

    def start(self, request: TrainingRequest) -> None:
        """Begin an order, or take up an interrupted one; nothing where it runs or has ended.

        Raises:
            RunnerError: the runner can't be asked now, or refuses the order.
        """
