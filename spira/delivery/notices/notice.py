"""Notices, derived from the records of the ledger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from spira.delivery.decide import Policy, wanted
from spira.delivery.history.events import Finished, Pinned, Promoted, Refused, Repaired, RolledBack, Unpinned
from spira.delivery.history.ledger import Record
from spira.delivery.history.state import Attempt, DeliveryState, states

Kind = Literal[
    "approved",
    "waiting",
    "rejected",
    "given_up",
    "cancelled",
    "deployed",
    "refused",
    "rolled_back",
    "pinned",
    "unpinned",
    "repaired",
    "problem",
    "solved",
]


@dataclass(frozen=True)
class Notice:
    """One event that a team wants to know of."""

    id: str
    """Number of the ledger record; of a problem, its own name. A notice that is sent twice has the same id."""
    kind: Kind
    at: datetime
    record: int = 0
    """Number of the ledger record; 0 for a problem, which has none."""
    version: str = ""
    """Version that the notice is about; of ``unpinned``, the one that was pinned."""
    before: str = ""
    """Version that served instead, or that was left by a rollback; of ``approved``, the pinned one it waits for."""
    target: str = ""
    """Target that was repaired, or ``champion``."""
    run: str = ""
    """Run with the verdict."""
    who: str = ""
    """Operator who gave the command."""
    causes: tuple[str, ...] = ()
    """Reasons of a rejection, cause of a failure, or reason of an operator."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    page: str = ""
    """Path of the run's page in MLflow; empty if it is unknown."""


def derive(records: Sequence[Record], policy: Policy) -> Iterator[Notice]:
    """Yield the notices of all records, oldest first.

    Args:
        policy: for the number of attempts, and whether a version waits for an approval.
    """
    state, moved = DeliveryState(), _Moved()
    for record, after in zip(records, states(records), strict=True):
        before, state = state, after
        moved = moved.after(record, before, state)
        if notice := _notice(record, before, state, policy, moved):
            yield notice


@dataclass(frozen=True)
class _Moved:
    """Repairs that are no drift: the first one of each target, and of the champion, after an operator has changed what
    serves, or after a target has refused a version that others served already."""

    is_expected: bool = False
    done: frozenset[str] = frozenset()
    is_first: bool = False
    """Whether the record is such a repair."""

    def after(self, record: Record, before: DeliveryState, state: DeliveryState) -> _Moved:
        match record.event:
            case Promoted():
                return _Moved()
            case Pinned() | Unpinned() | RolledBack():
                earlier, later = wanted(before, before.rolled_back), wanted(state, state.rolled_back)
                is_same = earlier is later or bool(earlier and later and earlier.is_same(later))
                return self if is_same else _Moved(is_expected=True)
            case Refused():
                return _Moved(is_expected=True)
            case Repaired() as event:
                is_first = self.is_expected and event.what not in self.done
                return _Moved(self.is_expected, self.done | {event.what}, is_first)
            case _:
                return self


def _notice(
    record: Record, before: DeliveryState, state: DeliveryState, policy: Policy, moved: _Moved
) -> Notice | None:
    number, at = str(record.number), record.at
    match record.event:
        case Finished() as event:
            attempt = next((attempt for attempt in state.attempts if attempt.record == record.number), None)
            return _finished(record, event, attempt, state, policy) if attempt else None
        case Promoted() as event:
            attempt = state.attempt_of(event.version_id)
            earlier = wanted(before, before.rolled_back)
            return Notice(
                number,
                "deployed",
                at,
                record.number,
                version=event.version,
                before=earlier.number if earlier else "",
                run=attempt.run if attempt else "",
                causes=(event.why,) if event.why else (),
                metrics=attempt.metrics if attempt else {},
                page=attempt.page if attempt else "",
            )
        case Refused() as event:
            if any(refusal.version.is_same(event.version_id) for refusal in before.refusals):
                return None  # it is tried again at least once an hour
            return Notice(number, "refused", at, record.number, event.version, causes=(event.message,))
        case Repaired() as event:
            if moved.is_first:
                return None
            earlier_version = event.instead_of or ""
            return Notice(number, "repaired", at, record.number, event.version, earlier_version, event.what)
        case RolledBack() as event:
            causes = (event.reason,)
            return Notice(number, "rolled_back", at, record.number, event.to, event.bad, who=event.who, causes=causes)
        case Pinned() as event:
            return Notice(number, "pinned", at, record.number, event.version, who=event.who, causes=(event.reason,))
        case Unpinned() as event:
            return Notice(number, "unpinned", at, record.number, event.version, who=event.who)
        case _:
            return None


def _finished(record: Record, event: Finished, attempt: Attempt, state: DeliveryState, policy: Policy) -> Notice | None:
    """Return the notice of a run that has ended; None for a failure that is tried again."""
    version, kind = event.version or "", _kind(event, attempt, state, policy)
    if kind is None:
        return None
    failure = attempt.cancelled if kind == "cancelled" else event.message
    return Notice(
        str(record.number),
        kind,
        record.at,
        record.number,
        version=version,
        before=state.pin.version.number if state.pin and event.outcome == "approved" else "",
        run=event.run,
        causes=event.reasons or ((failure,) if failure else ()),
        metrics=event.metrics,
        page=event.page,
    )


def _kind(event: Finished, attempt: Attempt, state: DeliveryState, policy: Policy) -> Kind | None:
    if event.outcome == "rejected":
        return "rejected"
    if event.outcome == "approved":
        version = attempt.version
        is_approved = version is not None and version.is_among(state.manual_approvals)
        return "waiting" if policy.approval and not is_approved else "approved"
    if attempt.cancelled:
        return "cancelled"
    failures = len(state.attempts_of(attempt.fingerprint)) - state.failures_reset.get(attempt.fingerprint, 0)
    return "given_up" if failures >= policy.attempts else None
