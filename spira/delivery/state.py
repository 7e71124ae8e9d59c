"""State of the delivery: what the records of the ledger add up to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from spira.delivery.fingerprints import Fingerprint
from spira.delivery.ledger import DAMAGED, Record

Outcome = Literal["", "approved", "rejected", "failed"]


@dataclass(frozen=True)
class LastObservation:
    """The last observation that differed from the one before it."""

    since: datetime
    axes: Fingerprint | None
    """None if the input was invalid."""
    problem: str = ""
    """See :attr:`spira.delivery.fingerprints.InvalidInput.problem`; empty if the input was valid."""

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
    request: Mapping[str, Any]
    """Training request as it was recorded. :meth:`TrainingRequest.from_record` parses it where it is needed, so that a
    record of another version of this program does not prevent reading the ledger."""
    outcome: Outcome = ""
    """Empty while the run is active."""
    finished: datetime | None = None
    record: int = 0
    """Number of the record with the outcome."""
    message: str = ""
    reasons: tuple[str, ...] = ()
    version: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_settled(self) -> bool:
        """Whether the gate has decided about the fingerprint."""
        return self.outcome in ("approved", "rejected")


@dataclass(frozen=True)
class Delivery:
    """A version that was made champion."""

    version: str
    at: datetime
    record: int
    why: str


@dataclass(frozen=True)
class Pin:
    """A version that is served until it is unpinned, whatever is trained meanwhile."""

    version: str
    reason: str
    at: datetime


@dataclass(frozen=True)
class Refusal:
    """A failed deployment of a version."""

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
    promoting: str | None = None
    """Version whose promotion has started and not ended."""
    refusals: Mapping[str, tuple[Refusal, ...]] = field(default_factory=dict)
    """By version."""
    pin: Pin | None = None
    rolled_back: Mapping[str, str] = field(default_factory=dict)
    """Reason of each rollback by the version that was left."""
    manual_approvals: frozenset[str] = frozenset()
    """Versions that an operator approved."""
    failures_reset: Mapping[str, int] = field(default_factory=dict)
    """Number of failed attempts, by fingerprint, that no longer count because an operator asked for a retry."""
    damaged: tuple[int, ...] = ()
    """Numbers of the records that cannot be read."""

    @property
    def active(self) -> Attempt | None:
        """The run that was claimed and has not ended; there is at most one."""
        return next((attempt for attempt in self.attempts if not attempt.outcome), None)

    def attempts_of(self, fingerprint: str) -> list[Attempt]:
        """Return the attempts of a fingerprint by time."""
        return [attempt for attempt in self.attempts if attempt.fingerprint == fingerprint]

    def attempt_of(self, version: str) -> Attempt | None:
        """Return the attempt whose run produced a version."""
        return next((attempt for attempt in reversed(self.attempts) if attempt.version == version), None)


def state_of(records: Iterable[Record]) -> DeliveryState:
    """Return the state after these records; records of an unknown kind, written by a newer program, change nothing."""
    state = DeliveryState()
    for record in records:
        transition = TRANSITIONS.get(record.kind)
        state = replace(transition(state, record) if transition else state, last=record.number)
    return state


def _observed(state: DeliveryState, record: Record) -> DeliveryState:
    axes = Fingerprint(**record.body["axes"]) if "axes" in record.body else None
    return replace(state, last_observation=LastObservation(record.at, axes, record.body.get("problem", "")))


def _claimed(state: DeliveryState, record: Record) -> DeliveryState:
    body = record.body
    attempt = Attempt(body["fingerprint"], body["attempt"], body["run"], record.at, body["order"])
    return replace(state, attempts=(*state.attempts, attempt))


def _finished(state: DeliveryState, record: Record) -> DeliveryState:
    body = record.body
    result = {
        "outcome": body["outcome"],
        "message": body.get("message", ""),
        "reasons": tuple(body.get("reasons", ())),
        "version": body.get("version"),
        "metrics": body.get("metrics", {}),
        "finished": record.at,
        "record": record.number,
    }
    attempts = tuple(
        replace(attempt, **result) if attempt.run == body["run"] and not attempt.outcome else attempt
        for attempt in state.attempts
    )
    return replace(state, attempts=attempts)


def _promoting(state: DeliveryState, record: Record) -> DeliveryState:
    return replace(state, promoting=record.body["version"])


def _promoted(state: DeliveryState, record: Record) -> DeliveryState:
    delivery = Delivery(record.body["version"], record.at, record.number, record.body.get("why", ""))
    return replace(state, deliveries=(*state.deliveries, delivery), promoting=None)


def _refused(state: DeliveryState, record: Record) -> DeliveryState:
    version = record.body["version"]
    refusals = (*state.refusals.get(version, ()), Refusal(record.at, record.body["message"]))
    return replace(state, refusals={**state.refusals, version: refusals}, promoting=None)


def _approved(state: DeliveryState, record: Record) -> DeliveryState:
    return replace(state, manual_approvals=state.manual_approvals | {record.body["version"]})


def _pinned(state: DeliveryState, record: Record) -> DeliveryState:
    pin = Pin(record.body["version"], record.body["reason"], record.at)
    return replace(state, pin=pin, promoting=None)


def _unpinned(state: DeliveryState, record: Record) -> DeliveryState:
    return replace(state, pin=None)


def _rolled_back(state: DeliveryState, record: Record) -> DeliveryState:
    body = record.body
    # Without the pin the next tick would promote the newest approved version again.
    pin = Pin(body["to"], f"rolled back from version {body['bad']}: {body['reason']}", record.at)
    return replace(state, rolled_back={**state.rolled_back, body["bad"]: body["reason"]}, pin=pin, promoting=None)


def _retried(state: DeliveryState, record: Record) -> DeliveryState:
    fingerprint = record.body["fingerprint"]
    failures = sum(attempt.outcome == "failed" for attempt in state.attempts_of(fingerprint))
    return replace(state, failures_reset={**state.failures_reset, fingerprint: failures})


def _damaged(state: DeliveryState, record: Record) -> DeliveryState:
    return replace(state, damaged=(*state.damaged, record.number))


TRANSITIONS: Mapping[str, Callable[[DeliveryState, Record], DeliveryState]] = {
    "observed": _observed,
    "claimed": _claimed,
    "finished": _finished,
    "promoting": _promoting,
    "promoted": _promoted,
    "refused": _refused,
    "approved": _approved,
    "pinned": _pinned,
    "unpinned": _unpinned,
    "rolled_back": _rolled_back,
    "retried": _retried,
    DAMAGED: _damaged,
}
"""Effect of each kind of record on the state; ``repaired`` is for people and has none."""
