"""Events of the ledger: one frozen model for each kind of record.

A model ignores fields that it does not have, because a newer program may have written them. A record of a kind that
this program does not know is an :class:`UnknownEvent` and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import ConfigDict, Field, JsonValue

from spira.config import FrozenModel
from spira.delivery.observation.fingerprints import Fingerprint


@dataclass(frozen=True)
class VersionId:
    """A model version: its number, which is a label, and the digest of its package, which is its identity.

    Numbers begin again at 1 after a loss of the model repository.
    """

    number: str
    digest: str = ""
    """Empty if it is unknown, as in a record of an older program."""

    def __str__(self) -> str:
        return self.number

    def is_same(self, other: VersionId) -> bool:
        """Return whether both are one version: by digest where both are known, otherwise by number."""
        if self.digest and other.digest:
            return self.digest == other.digest
        return self.number == other.number

    def is_among(self, others: Iterable[VersionId]) -> bool:
        """Return whether one of the others is the same version."""
        return any(self.is_same(other) for other in others)


class Event(FrozenModel):
    """Content of one record, without its number, time and writer."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=True, populate_by_name=True)

    kind: ClassVar[str]
    """Name of the kind in a stored record."""

    def to_json(self) -> dict[str, JsonValue]:
        """Return the fields as a stored record has them; a field with its default is left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)


class VersionEvent(Event):
    """An event of one version."""

    version: str
    digest: str = ""
    """Digest of the version's package; empty if it is unknown."""

    @property
    def version_id(self) -> VersionId:
        """The version with its identity."""
        return VersionId(self.version, self.digest)


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
    """See :attr:`spira.delivery.observation.fingerprints.InvalidInput.problem`; empty if the input was valid."""


class Claimed(Event):
    """The run of a fingerprint is reserved, so that no other process starts one."""

    kind = "claimed"
    fingerprint: str
    attempt: int
    """Counted from 1."""
    run: str
    """Name of the run."""
    request: Mapping[str, JsonValue] = Field(alias="order")
    """Training request as it was recorded; see :attr:`spira.delivery.history.state.Attempt.request`."""


class Finished(Event):
    """A run has ended."""

    kind = "finished"
    run: str
    outcome: Literal["approved", "rejected", "failed"]
    version: str | None = None
    """Registered version of an approved run."""
    digest: str = ""
    """Digest of the version's package; empty if it is unknown."""
    message: str = ""
    """Cause of a failure."""
    reasons: tuple[str, ...] = ()
    """Reasons of a rejection."""
    metrics: Mapping[str, float] = Field(default_factory=dict)
    page: str = ""
    """Path of the run's page in MLflow, such as ``experiments/1/runs/3f9a``; empty if it is unknown."""


class Promoting(VersionEvent):
    """The promotion of a version has started."""

    kind = "promoting"
    why: str = ""


class Promoted(VersionEvent):
    """A version serves and is champion."""

    kind = "promoted"
    why: str = ""


class Refused(VersionEvent):
    """A target did not serve a version."""

    kind = "refused"
    message: str


class Repaired(VersionEvent):
    """A target or the champion alias differed from the wanted version and was set to it. For people only."""

    kind = "repaired"
    what: str
    """``champion``, or the name of a target."""
    instead_of: str | None = None
    """Version that was found there."""


class OperatorEvent(Event):
    """A command of an operator."""

    who: str = ""
    """Account of the operator."""


class Approved(VersionEvent, OperatorEvent):
    """A version that its gate has approved may be promoted."""

    kind = "approved"


class Pinned(VersionEvent, OperatorEvent):
    """A version is served until it is unpinned."""

    kind = "pinned"
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
    bad_digest: str = ""
    to_digest: str = ""
    """Digests of the packages of both; empty if unknown."""


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
