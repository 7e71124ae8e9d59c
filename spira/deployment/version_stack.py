"""The history of a target, and the stack of versions that rollbacks go back along."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from spira.config import FrozenModel, JsonObject, explain

Action = Literal["apply", "rollback", "repair"]


class Change(FrozenModel):
    """One entry of a target's history."""

    model_config = ConfigDict(extra="allow")  # a newer program may write more fields: they are kept

    version: str
    """Version that serves after the change."""
    action: Action
    """``repair`` restores a target that has drifted; it does not change the version."""
    at: str = ""
    """Time, ISO 8601 in UTC."""
    digest: str = ""
    """Digest of the version's package; empty in an entry of an older program."""
    uri: str = ""
    """Location of the model, where the target loads it from one."""
    reason: str = ""
    """Reason of a rollback or of a forced apply."""
    left: str = ""
    """Version that a rollback left."""

    @classmethod
    def now(
        cls, version: str, action: Action, *, digest: str = "", uri: str = "", reason: str = "", left: str = ""
    ) -> Change:
        """Return a change with the present time."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(version=version, action=action, at=at, digest=digest, uri=uri, reason=reason, left=left)

    def to_json(self) -> JsonObject:
        """Return the entry as stored; empty fields are left out."""
        return self.model_dump(exclude_defaults=True)


HISTORY = TypeAdapter(tuple[Change, ...])


def read_history(entries: object) -> tuple[Change, ...]:
    """Return the changes of a parsed JSON list, oldest first.

    Raises:
        ValueError: the list or an entry is malformed.
    """
    try:
        return HISTORY.validate_python(entries)
    except ValidationError as error:
        raise ValueError(explain(error)) from None


def to_json(history: Iterable[Change]) -> list[JsonObject]:
    """Return a history as a list for JSON."""
    return [change.to_json() for change in history]


def version_stack(history: Sequence[Change]) -> list[Change]:
    """Return the changes whose versions a rollback can reach, the one that serves last.

    An apply pushes, a rollback pops, a repair takes the place of what it repaired.
    """
    stack: list[Change] = []
    for change in history:
        if change.action == "rollback":
            stack = stack[:-1] or [change]  # the history may be cut: the change that it went back to is then missing
        elif change.action == "repair":
            stack = [*stack[:-1], change]
        else:
            stack.append(change)
    return stack


def current_and_previous(history: Sequence[Change]) -> tuple[Change | None, Change | None]:
    """Return the change that serves and the one that a rollback goes back to, each None if there is none."""
    stack = version_stack(history)
    return stack[-1] if stack else None, stack[-2] if len(stack) > 1 else None
