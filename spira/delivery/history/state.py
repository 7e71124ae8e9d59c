"""State of the delivery: what the records of the ledger add up to."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from pydantic import JsonValue

from spira.delivery.history.events import (
    Approved,
    Cancelled,
    Claimed,
    Damaged,
    Finished,
    Observed,
    Pinned,
    Promoted,
    Promoting,
    Refused,
    Retried,
    RolledBack,
    Torn,
    Unpinned,
    VersionId,
)
from spira.delivery.history.ledger import Record
from spira.delivery.observation.fingerprints import Fingerprint

Outcome = Literal["", "approved", "rejected", "failed"]

LOST = "lost"
"""In place of the unknown digest of a version whose number was given to another one."""


@dataclass(frozen=True)
class LastObservation:
    """The last observation that differed from the one before it."""

    since: datetime
    axes: Fingerprint | None
    """None if the input was invalid."""
    problem: str = ""
    """See :attr:`spira.delivery.observation.fingerprints.InvalidInput.problem`; empty if the input was valid."""

    @property
    def fingerprint(self) -> str:
        return self.axes.digest if self.axes else ""


@dataclass(frozen=True)
class Attempt:
    """One run for a fingerprint."""

    fingerprint: str
    number: int
    """Counted from 1."""
    run: str
    """Name of the run."""
    claimed: datetime
    request: Mapping[str, JsonValue]
    """Training request as it was recorded. :meth:`TrainingRequest.from_record` parses it where it is needed, so that a
    record of another version of this program does not prevent reading the ledger."""
    outcome: Outcome = ""
    """Empty while the run is active."""
    finished: datetime | None = None
    record: int = 0
    """Number of the record with the outcome."""
    message: str = ""
    reasons: tuple[str, ...] = ()
    version: VersionId | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    cancelled: str = ""
    """Who cancelled the run, and why; empty if nobody did."""
    page: str = ""
    """Path of the run's page in MLflow; empty if it is unknown."""

    @property
    def is_settled(self) -> bool:
        """Whether the gate has decided about the fingerprint."""
        return self.outcome in ("approved", "rejected")


@dataclass(frozen=True)
class Delivery:
    """A version that was made champion."""

    version: VersionId
    at: datetime
    record: int
    why: str


@dataclass(frozen=True)
class Pin:
    """A version that is served until it is unpinned, whatever is trained meanwhile."""

    version: VersionId
    reason: str
    at: datetime


@dataclass(frozen=True)
class Refusal:
    """A failed deployment of a version."""

    version: VersionId
    at: datetime
    message: str


@dataclass(frozen=True)
class DeliveryState:
    """State after a number of records, see :func:`state_of`."""

    last: int = 0
    """Number of the last record."""
    last_observation: LastObservation | None = None
    attempts: tuple[Attempt, ...] = ()
    """By time of the claim."""
    deliveries: tuple[Delivery, ...] = ()
    promoting: VersionId | None = None
    """Version whose promotion has started and not ended."""
    refusals: tuple[Refusal, ...] = ()
    pin: Pin | None = None
    rolled_back: Mapping[VersionId, str] = field(default_factory=dict)
    """Reason of each rollback by the version that was left."""
    manual_approvals: frozenset[VersionId] = frozenset()
    """Versions that an operator approved."""
    failures_reset: Mapping[str, int] = field(default_factory=dict)
    """Number of failed attempts, by fingerprint, that no longer count because an operator asked for a retry."""
    torn: tuple[int, ...] = ()
    """Numbers of the records that were set aside; see :mod:`spira.delivery.history.ledger`."""
    damaged: tuple[int, ...] = ()
    """Numbers of the records that were changed or removed after they were written."""

    @property
    def active(self) -> Attempt | None:
        """The run that was claimed and has not ended; there is at most one."""
        return next((attempt for attempt in self.attempts if not attempt.outcome), None)

    def attempts_of(self, fingerprint: str) -> list[Attempt]:
        """Return the attempts of a fingerprint by time."""
        return [attempt for attempt in self.attempts if attempt.fingerprint == fingerprint]

    def attempt_of(self, version: VersionId) -> Attempt | None:
        """Return the attempt whose run produced a version."""
        attempts = reversed(self.attempts)
        return next((attempt for attempt in attempts if attempt.version and attempt.version.is_same(version)), None)

    def rollback_reason(self, version: VersionId) -> str:
        """Return why a version was rolled back; empty if it was not."""
        return next((reason for bad, reason in self.rolled_back.items() if bad.is_same(version)), "")


def state_of(records: Iterable[Record]) -> DeliveryState:
    """Return the state after these records; records of an unknown kind, written by a newer program, change nothing."""
    last = deque(states(records), maxlen=1)
    return last[0] if last else DeliveryState()


def states(records: Iterable[Record]) -> Iterator[DeliveryState]:
    """Yield the state after each record."""
    state = DeliveryState()
    for record in records:
        state = replace(_after(state, record), last=record.number)
        yield state


def _after(state: DeliveryState, record: Record) -> DeliveryState:
    """Return the state after one more record."""
    match record.event:
        case Observed() as event:
            return replace(state, last_observation=LastObservation(record.at, event.axes, event.problem))
        case Claimed() as event:
            attempt = Attempt(event.fingerprint, event.attempt, event.run, record.at, event.request)
            return replace(state, attempts=(*state.attempts, attempt))
        case Finished() as event:
            rolled_back = {_earlier(bad, event, state): reason for bad, reason in state.rolled_back.items()}
            attempts = tuple(_ended(attempt, event, record) for attempt in state.attempts)
            return replace(state, attempts=attempts, rolled_back=rolled_back)
        case Promoting() as event:
            return replace(state, promoting=event.version_id)
        case Promoted() as event:
            delivery = Delivery(event.version_id, record.at, record.number, event.why)
            return replace(state, deliveries=(*state.deliveries, delivery), promoting=None)
        case Refused() as event:
            refusal = Refusal(event.version_id, record.at, event.message)
            return replace(state, refusals=(*state.refusals, refusal), promoting=None)
        case Approved() as event:
            return replace(state, manual_approvals=state.manual_approvals | {event.version_id})
        case Pinned() as event:
            return replace(state, pin=Pin(event.version_id, event.reason, record.at), promoting=None)
        case Unpinned():
            return replace(state, pin=None)
        case RolledBack() as event:
            # Without the pin the next tick would promote the newest approved version again.
            bad, to = (
                VersionId(event.bad, event.bad_digest or _digest(event.bad, state)),
                VersionId(event.to, event.to_digest),
            )
            pin = Pin(to, f"rolled back from version {bad}: {event.reason}", record.at)
            return replace(state, rolled_back={**state.rolled_back, bad: event.reason}, pin=pin, promoting=None)
        case Retried() as event:
            failures = sum(attempt.outcome == "failed" for attempt in state.attempts_of(event.fingerprint))
            return replace(state, failures_reset={**state.failures_reset, event.fingerprint: failures})
        case Cancelled() as event:
            return replace(state, attempts=tuple(_cancelled(attempt, event) for attempt in state.attempts))
        case Torn():
            return replace(state, torn=(*state.torn, record.number))
        case Damaged():
            return replace(state, damaged=(*state.damaged, record.number))
        case _:
            return state


def _digest(number: str, state: DeliveryState) -> str:
    """Return the digest of the last version with a number; empty if no record has it."""
    known = [attempt.version for attempt in state.attempts if attempt.version and attempt.version.number == number]
    return known[-1].digest if known else ""


def _earlier(bad: VersionId, event: Finished, state: DeliveryState) -> VersionId:
    """Return a version that was rolled back, after a run has registered a version.

    A record of an older program has no digest. If another input is registered later under its number, the model
    repository was lost and counts again, and the new version is another one.
    """
    if bad.digest or not event.digest or event.version != bad.number:
        return bad
    inputs = {attempt.run: attempt.fingerprint for attempt in state.attempts}
    earlier = {one.fingerprint for one in state.attempts if one.version and one.version.number == bad.number}
    return bad if inputs.get(event.run) in earlier else replace(bad, digest=LOST)


def _cancelled(attempt: Attempt, event: Cancelled) -> Attempt:
    """Return an attempt with the cancellation of its run; one of another run, or already cancelled, unchanged."""
    if attempt.run != event.run or attempt.outcome or attempt.cancelled:
        return attempt
    return replace(
        attempt, cancelled=f"cancelled by {event.who or 'an operator'}" + (event.reason and f": {event.reason}")
    )


def _ended(attempt: Attempt, event: Finished, record: Record) -> Attempt:
    """Return an attempt with the outcome of its run; an attempt of another run, or with an outcome, unchanged."""
    if attempt.run != event.run or attempt.outcome:
        return attempt
    return replace(
        attempt,
        outcome=event.outcome,
        message=event.message,
        reasons=event.reasons,
        version=VersionId(event.version, event.digest) if event.version else None,
        metrics=event.metrics,
        page=event.page,
        finished=record.at,
        record=record.number,
    )
