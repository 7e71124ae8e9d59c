"""What changed, what came of it, and what operators and repairs did: the ledger's records, grouped for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from spira.delivery.decide import Policy, wanted
from spira.delivery.history.events import Approved, Claimed, Observed, VersionId
from spira.delivery.history.ledger import Record
from spira.delivery.history.state import Attempt, DeliveryState, states
from spira.delivery.notices.notice import Kind, Notice, derive

EVENT_KINDS: tuple[Kind, ...] = ("refused", "rolled_back", "pinned", "unpinned", "repaired")
"""Notices that are events of their own; the others belong to a change."""

Outcome = Literal["approved", "rejected", "failed", "running", "not_run", "trained_before", "invalid"]


@dataclass(frozen=True)
class Period:
    """Time in which a version was the one that should serve."""

    identity: VersionId
    since: datetime
    record: int
    """Record by which it began."""
    until: datetime | None = None
    """None for the present one."""

    @property
    def version(self) -> str:
        """Number of the version."""
        return self.identity.number


@dataclass(frozen=True)
class ObservedChange:
    """A change of data, configuration or code, with its runs."""

    at: datetime
    record: int
    fingerprint: str = ""
    """Empty if the input cannot be trained on."""
    problem: str = ""
    """Why it cannot."""
    attempts: tuple[Attempt, ...] = ()
    """Runs of this change, by time; of an earlier one with the same input, if there are none."""
    is_repeated: bool = False
    """Whether the input was there before, so that the runs are those of the earlier time."""
    approved_by: str = ""
    """Operator who let the version serve."""
    periods: tuple[Period, ...] = ()
    """When its version was the one that should serve."""

    @property
    def last(self) -> Attempt | None:
        """The last run."""
        return self.attempts[-1] if self.attempts else None

    @property
    def outcome(self) -> Outcome:
        """What came of the change."""
        if not self.fingerprint:
            return "invalid"
        if self.last is None:
            return "not_run"
        if self.is_repeated:
            return "trained_before"
        return self.last.outcome or "running"


@dataclass(frozen=True)
class Timeline:
    """Everything, newest first."""

    changes: tuple[ObservedChange, ...] = ()
    events: tuple[Notice, ...] = ()
    periods: tuple[Period, ...] = ()


@dataclass
class _Entry:
    """A change while its records are read."""

    at: datetime
    record: int
    fingerprint: str = ""
    problem: str = ""
    runs: list[str] = field(default_factory=list)
    approved_by: str = ""


def timeline(records: Sequence[Record], policy: Policy) -> Timeline:
    """Return the changes, the events, and which version should have served when."""
    entries: list[_Entry] = []
    state = DeliveryState()
    periods: list[Period] = []
    present: VersionId | None = None
    for record, state in zip(records, states(records), strict=True):
        _add(record, entries, state)
        version = wanted(state, state.rolled_back)
        if not _is_same(present, version):
            if present and periods:
                periods[-1] = replace(periods[-1], until=record.at)
            if version:
                periods.append(Period(version, record.at, record.number))
            present = version
    events = [notice for notice in derive(records, policy) if notice.kind in EVENT_KINDS]
    changes = _changes(entries, state, periods)
    return Timeline(tuple(reversed(changes)), tuple(reversed(events)), tuple(reversed(periods)))


def _add(record: Record, entries: list[_Entry], state: DeliveryState) -> None:
    """Add what a record says about a change."""
    match record.event:
        case Observed() as event:
            fingerprint = event.axes.digest if event.axes else ""
            entries.append(_Entry(record.at, record.number, fingerprint, event.problem))
        case Claimed() as event:
            of_run = [entry for entry in entries if entry.fingerprint == event.fingerprint]
            if of_run:
                of_run[-1].runs.append(event.run)
        case Approved() as event:
            attempt = state.attempt_of(event.version_id)
            of_version = [entry for entry in entries if attempt and attempt.run in entry.runs]
            if of_version:
                of_version[-1].approved_by = event.who


def _changes(entries: Sequence[_Entry], state: DeliveryState, periods: Sequence[Period]) -> list[ObservedChange]:
    by_run = {attempt.run: attempt for attempt in state.attempts}
    changes = []
    for entry in entries:
        own = [by_run[run] for run in entry.runs if run in by_run]
        earlier = [attempt for attempt in state.attempts_of(entry.fingerprint) if attempt.is_settled]
        is_repeated = not own and bool(earlier)
        attempts = own or earlier[-1:]
        version = attempts[-1].version if attempts and not is_repeated else None
        changes.append(
            ObservedChange(
                at=entry.at,
                record=entry.record,
                fingerprint=entry.fingerprint,
                problem=entry.problem,
                attempts=tuple(attempts),
                is_repeated=is_repeated,
                approved_by=entry.approved_by,
                periods=tuple(
                    period
                    for period in periods
                    if version and period.identity.is_same(version) and period.record > entry.record
                ),
            )
        )
    return changes


def _is_same(one: VersionId | None, other: VersionId | None) -> bool:
    return one is other or bool(one and other and one.is_same(other))
