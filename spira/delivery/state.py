"""What the ledger adds up to: what was observed, tried, delivered, pinned and rolled back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    """None where what is there can't be trained on."""
    problem: str = ""

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
    claimed: datetime
    request: Mapping[str, Any]
    """Training request as the ledger keeps it; :meth:`TrainingRequest.from_record` reads it."""
    outcome: Outcome = ""
    """Empty while it runs."""
    finished: datetime | None = None
    record: int = 0
    """Number of the record that tells its outcome."""
    message: str = ""
    reasons: tuple[str, ...] = ()
    version: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_settled(self) -> bool:
        """Whether it answers for its fingerprint, one way or the other."""
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
    """A version that serves until it is unpinned, whatever is trained meanwhile."""

    version: str
    reason: str
    at: datetime


@dataclass(frozen=True)
class Refusal:
    """A version that could not be served."""

    at: datetime
    message: str


@dataclass(frozen=True)
class DeliveryState:
    """See the module; built record by record by :func:`state_of`."""

    last: int = 0
    """Number of the last record."""
    last_observation: LastObservation | None = None
    attempts: tuple[Attempt, ...] = ()
    """In the order of their claims."""
    deliveries: tuple[Delivery, ...] = ()
    promoting: str | None = None
    """A version whose promotion was begun, and not ended."""
    refusals: Mapping[str, tuple[Refusal, ...]] = field(default_factory=dict)
    """By version."""
    pin: Pin | None = None
    rolled_back: Mapping[str, str] = field(default_factory=dict)
    """Versions that were rolled back, and why."""
    manual_approvals: frozenset[str] = frozenset()
    """Versions that a person approved."""
    failures_reset: Mapping[str, int] = field(default_factory=dict)
    """How many failed attempts of a fingerprint no longer count, a person having asked to try again."""
    damaged: tuple[int, ...] = ()
    """Numbers of records that can't be read."""

    @property
    def active(self) -> Attempt | None:
        """The run that was claimed and has not ended; there is one at most."""
        return next((attempt for attempt in self.attempts if not attempt.outcome), None)

    def attempts_of(self, fingerprint: str) -> list[Attempt]:
        """In order."""
        return [attempt for attempt in self.attempts if attempt.fingerprint == fingerprint]

    def attempt_of(self, version: str) -> Attempt | None:
        """The run that made a version."""
        return next((attempt for attempt in reversed(self.attempts) if attempt.version == version), None)


def state_of(records: Iterable[Record]) -> DeliveryState:
    """Add up the records; one of an unknown kind, written by a newer program, counts for nothing here."""
    state = DeliveryState()
    for record in records:
        step = STEPS.get(record.kind)
        state = replace(step(state, record) if step else state, last=record.number)
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
    ended = {
        "outcome": body["outcome"],
        "message": body.get("message", ""),
        "reasons": tuple(body.get("reasons", ())),
        "version": body.get("version"),
        "metrics": body.get("metrics", {}),
        "finished": record.at,
        "record": record.number,
    }
    attempts = tuple(
        replace(attempt, **ended) if attempt.run == body["run"] and not attempt.outcome else attempt
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
    """The bad version is left for good, and what it goes back to is pinned: or the loop would promote it again."""
    body = record.body
    pin = Pin(body["to"], f"rolled back from version {body['bad']}: {body['reason']}", record.at)
    return replace(state, rolled_back={**state.rolled_back, body["bad"]: body["reason"]}, pin=pin, promoting=None)


def _retried(state: DeliveryState, record: Record) -> DeliveryState:
    fingerprint = record.body["fingerprint"]
    failed = sum(attempt.outcome == "failed" for attempt in state.attempts_of(fingerprint))
    return replace(state, failures_reset={**state.failures_reset, fingerprint: failed})


def _damaged(state: DeliveryState, record: Record) -> DeliveryState:
    return replace(state, damaged=(*state.damaged, record.number))


STEPS = {
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
"""Kinds of records, and what each does to the state; ``repaired`` tells a person, and changes nothing."""
