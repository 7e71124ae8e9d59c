"""Events of the ledger: one frozen model for each kind of record.

A model ignores fields that it does not have, because a newer program may have written them. A record of a kind that
this program does not know is an :class:`UnknownEvent` and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import ConfigDict, Field, JsonValue

from spira.config import FrozenModel
from spira.delivery.fingerprints import Fingerprint


class Event(FrozenModel):
    """Content of one record, without its number, time and writer."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=True, populate_by_name=True)

    kind: ClassVar[str]
    """Name of the kind in a stored record."""

    def to_json(self) -> dict[str, JsonValue]:
        """Return the fields as a stored record has them; a field with its default is left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)


class Observed(Event):
    """Data, settings or code differ from the last observation."""

    kind = "observed"
    axes: Fingerprint | None = None
    """None if the input was invalid."""
    fingerprint: str = ""
    """Digest of ``axes``; empty if the input was invalid."""
    git_commit: str = ""
    """Commit of the code, for people."""
    problem: str = ""
    """See :attr:`spira.delivery.fingerprints.InvalidInput.problem`; empty if the input was valid."""


class Claimed(Event):
    """The run of a fingerprint is reserved, so that no other process starts one."""

    kind = "claimed"
    fingerprint: str
    attempt: int
    """Counted from 1."""
    run: str
    """Name of the run."""
    request: Mapping[str, JsonValue] = Field(alias="order")
    """Training request as it was recorded; see :attr:`spira.delivery.state.Attempt.request`."""


class Finished(Event):
    """A run has ended."""

    kind = "finished"
    run: str
    outcome: Literal["approved", "rejected", "failed"]
    version: str | None = None
    """Registered version of an approved run."""
    message: str = ""
    """Cause of a failure."""
    reasons: tuple[str, ...] = ()
    """Reasons of a rejection."""
    metrics: Mapping[str, float] = Field(default_factory=dict)


class Promoting(Event):
    """The promotion of a version has started."""

    kind = "promoting"
    version: str
    why: str = ""


class Promoted(Event):
    """A version serves and is champion."""

    kind = "promoted"
    version: str
    why: str = ""


class Refused(Event):
    """A target did not serve a version."""

    kind = "refused"
    version: str
    message: str


class Repaired(Event):
    """A target or the champion alias differed from the wanted version and was set to it. For people only."""

    kind = "repaired"
    what: str
    """``champion``, or the name of a target."""
    version: str
    instead_of: str | None = None
    """Version that was found there."""


class OperatorEvent(Event):
    """A command of an operator."""

    who: str = ""
    """Account of the operator."""


class Approved(OperatorEvent):
    """A version that its gate has approved may be promoted."""

    kind = "approved"
    version: str


class Pinned(OperatorEvent):
    """A version is served until it is unpinned."""

    kind = "pinned"
    version: str
    reason: str


class Unpinned(OperatorEvent):
    """Promotions are allowed again."""

    kind = "unpinned"
    version: str = ""
    """Version that was pinned."""


class RolledBack(OperatorEvent):
    """A version is excluded from service for good, and another is pinned."""

    kind = "rolled_back"
    bad: str
    """Version that was left."""
    to: str
    """Version that is pinned."""
    reason: str


class Retried(OperatorEvent):
    """The failed attempts of a fingerprint no longer count."""

    kind = "retried"
    fingerprint: str


class Cancelled(OperatorEvent):
    """The active run is ended, whatever it has done so far."""

    kind = "cancelled"
    run: str
    """Name of the run."""
    reason: str = ""


class DamageAccepted(OperatorEvent):
    """Damaged records are left out for good, and the delivery goes on."""

    kind = "damage_accepted"
    records: tuple[int, ...]
    reason: str


class UnknownEvent(Event):
    """A record of a kind that this program does not know, such as one of a newer program."""

    kind = "unknown"
    name: str
    """Kind as the record has it."""
    fields: Mapping[str, JsonValue]


class Torn(Event):
    """A record whose write was interrupted, as at a power cut. What it announced has not happened."""

    kind = "torn"
    problem: str


class Damaged(Event):
    """A record that was changed, or removed, after it was written."""

    kind = "damaged"
    problem: str


EVENTS: Mapping[str, type[Event]] = {
    event.kind: event
    for event in (
        Observed,
        Claimed,
        Finished,
        Promoting,
        Promoted,
        Refused,
        Repaired,
        Approved,
        Pinned,
        Unpinned,
        RolledBack,
        Retried,
        Cancelled,
        DamageAccepted,
    )
}
"""Kinds that are stored."""


def read_event(kind: str, fields: Mapping[str, JsonValue]) -> Event:
    """Return the event of a stored record.

    Raises:
        pydantic.ValidationError: a field is missing or has another type.
    """
    event = EVENTS.get(kind)
    return event.model_validate(fields) if event else UnknownEvent(name=kind, fields=fields)
