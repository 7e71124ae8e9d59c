"""Where a model is served. Every target has the same verbs, each safe to repeat and to kill at any moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from spira.errors import SpiraError


class DeploymentError(SpiraError):
    """What is asked can't be served; the message says why and what to do."""


@dataclass(frozen=True)
class Release:
    """A version to serve."""

    version: str
    package: Path
    """Its package folder, here."""
    uri: str = ""
    """The folder of its artifacts, which never changes, as the model repository names it; empty where none needs it."""
    reason: str = ""
    """Why it serves all the same, where it should not; kept in the history."""


@dataclass(frozen=True)
class Status:
    """What a target serves."""

    version: str | None
    """None before the first apply."""
    previous: str | None = None
    """What a rollback goes back to."""
    ready: bool = True
    """Whether it answers."""
    message: str = ""
    """What is wrong where it doesn't answer or has drifted, or what else a person should know."""
    history: tuple[dict[str, Any], ...] = field(default=())
    """Every change, oldest first, as :mod:`.changes` has it; a rollback has a reason, a forced apply too."""
    drifted: bool = False
    """Whether what runs isn't what should, as somebody changed it, or its runtime; to apply again puts that right."""


@dataclass(frozen=True)
class Plan:
    """What an apply would do."""

    version: str
    serving: str | None
    """What serves now."""
    steps: tuple[str, ...]
    """In order; the check alone where the version serves already."""


class Target(Protocol):
    """A place that serves one version at a time."""

    @property
    def name(self) -> str:
        """What the history calls it: ``local``, ``kserve``, ``inference-service``."""

    def status(self) -> Status:
        """What serves now, asked of the place itself."""

    def plan(self, release: Release) -> Plan:
        """What :meth:`apply` would do; changes nothing."""

    def apply(self, release: Release) -> Status:
        """Serve a version once its golden recordings come out right there; else what served serves on.

        Raises:
            DeploymentError: the place refuses it, or can't be reached.
            PackageError: the package was changed, or its probabilities are not torch's.
        """

    def verify(self) -> float:
        """Ask what serves about its golden recordings, by the way its users ask; the largest difference from torch.

        Raises:
            DeploymentError: nothing serves, or it doesn't answer.
            PackageError: a probability is off by more than 1e-5.
        """

    def rollback(self, reason: str, bad: str | None = None) -> Status:
        """Serve what served before, if it still checks.

        Args:
            reason: kept in the history.
            bad: only while this version serves, which makes the call safe to repeat.

        Raises:
            DeploymentError: there is nothing to go back to.
        """
