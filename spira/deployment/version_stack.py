"""The history of a place: every change that it has seen, as :attr:`spira.deployment.target.Status.history` tells it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

Change = dict[str, Any]
"""``version``, ``action`` (apply, rollback or repair), ``at`` (UTC), and what else the place tells of it."""


def change(version: str, action: str, **told: Any) -> Change:
    """A change of now; what is told of it is left out where it is empty."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return {"version": version, "action": action, "at": at} | {key: value for key, value in told.items() if value}


def line(history: Sequence[Change]) -> list[Change]:
    """The changes that rollbacks go back along, that which serves last; repairs are no change of version."""
    going: list[Change] = []
    for one in history:
        if one["action"] == "rollback":
            going = going[:-1] or [one]  # where it went back to may be cut off the history
        elif one["action"] == "apply":
            going.append(one)
    return going


def versions(history: Sequence[Change]) -> tuple[str | None, str | None]:
    """What serves, and what a rollback goes back to; None where there is none."""
    going = [one["version"] for one in line(history)]
    return going[-1] if going else None, going[-2] if len(going) > 1 else None
