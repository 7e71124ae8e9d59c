"""Answers from the ledger: why a run started, what happened, and which version served when."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from spira.delivery.decide import wanted
from spira.delivery.history.events import (
    Approved,
    Cancelled,
    Claimed,
    DamageAccepted,
    Damaged,
    Event,
    Finished,
    Observed,
    Pinned,
    Promoted,
    Promoting,
    Refused,
    Repaired,
    Retried,
    RolledBack,
    Torn,
    UnknownEvent,
    Unpinned,
    VersionId,
)
from spira.delivery.history.ledger import Ledger, Record
from spira.delivery.history.state import DeliveryState, state_of
from spira.delivery.observation.fingerprints import Axis, AxisName, Change, Fingerprint, changes, describe_problem
from spira.errors import SpiraError
from spira.language import ENGLISH, Translator

EMPTY_AXES: dict[AxisName, Axis] = {"data": Axis("", {}), "model": Axis("", {}), "code": Axis("", {})}


@dataclass(frozen=True)
class Explanation:
    """The changes that caused a run."""

    fingerprint: str
    run: str | None
    version: str | None
    outcome: str
    since: str
    """Base of the comparison, such as ``version 3``, which served at the time of the claim; empty for the first."""
    changes: tuple[Change, ...]

    @property
    def since_version(self) -> str:
        """Number of the version of :attr:`since`; empty for the first."""
        return self.since.removeprefix("version ")

    @property
    def axes(self) -> list[AxisName]:
        """The axes that changed."""
        return list(dict.fromkeys(change.axis for change in self.changes))


def why(ledger: Ledger, subject: str = "") -> Explanation:
    """Return what changed between the input of a run and that of the version that served when it was claimed.

    Args:
        subject: a version, a run or the beginning of a fingerprint; the last observation if empty.

    Raises:
        SpiraError: the subject is not in the ledger.
    """
    records = ledger.read()
    state, known = state_of(records), fingerprints(records)
    fingerprint = _find_fingerprint(subject, state, known)
    attempts = state.attempts_of(fingerprint)
    served = served_before(records, fingerprint)
    after = _load_axes(ledger, known[fingerprint])
    return Explanation(
        fingerprint=fingerprint,
        run=attempts[-1].run if attempts else None,
        version=attempts[-1].version.number if attempts and attempts[-1].version else None,
        outcome=(attempts[-1].outcome or "running") if attempts else "not run yet",
        since=f"version {served[0]}" if served else "",
        changes=tuple(changes(_load_axes(ledger, known[served[1]]), after)) if served else (),
    )


def fingerprints(records: Sequence[Record]) -> dict[str, Fingerprint]:
    """Return every observed fingerprint by its digest."""
    observed = (record.event.axes for record in records if isinstance(record.event, Observed))
    return {axes.digest: axes for axes in observed if axes}


def _load_axes(ledger: Ledger, fingerprint: Fingerprint) -> dict[AxisName, Axis]:
    return {
        "data": ledger.load_axis("data", fingerprint.data),
        "model": ledger.load_axis("model", fingerprint.model),
        "code": ledger.load_axis("code", fingerprint.code),
    }


def _find_fingerprint(subject: str, state: DeliveryState, known: Mapping[str, Fingerprint]) -> str:
    if not subject:
        if not state.last_observation or not state.last_observation.axes:
            raise SpiraError("no valid input was observed yet: run spira deliver tick")
        return state.last_observation.fingerprint
    of_attempts = [attempt.fingerprint for attempt in state.attempts if subject in (str(attempt.version), attempt.run)]
    matches = of_attempts or [digest for digest in known if digest.startswith(subject)]
    if not matches:
        versions = ", ".join(attempt.version.number for attempt in state.attempts if attempt.version) or "none"
        raise SpiraError(f"{subject} is no version, run or fingerprint of this ledger; versions: {versions}")
    return matches[-1]


def served_before(records: Sequence[Record], fingerprint: str) -> tuple[str, str] | None:
    """Return version and fingerprint of what was wanted when a fingerprint was first claimed (now, if it was not)."""
    claims = (
        record.number
        for record in records
        if isinstance(record.event, Claimed) and record.event.fingerprint == fingerprint
    )
    state = state_of(records[: next(claims, len(records) + 1) - 1])
    version = wanted(state, state.rolled_back)
    attempt = state.attempt_of(version) if version else None
    return (version.number, attempt.fingerprint) if version and attempt else None


def describe_change(change: Change, words: Translator = ENGLISH) -> str:
    """Return one change in words."""
    if change.what == "renamed":
        return words.gettext("%(before)s renamed to %(after)s", before=change.before, after=change.after)
    if change.before or change.after:
        return f"{change.name}: {change.before} -> {change.after}"
    if change.what == "added":
        return words.gettext("%(name)s added", name=change.name)
    if change.what == "removed":
        return words.gettext("%(name)s removed", name=change.name)
    return words.gettext("%(name)s changed", name=change.name)


@dataclass(frozen=True)
class HistoryLine:
    """A record in words."""

    number: int
    """Number of the record."""
    at: datetime
    kind: str
    text: str


def history(records: list[Record]) -> list[HistoryLine]:
    """Return every record in words, oldest first."""
    return [HistoryLine(record.number, record.at, record.kind, describe_record(record)) for record in records]


def describe_record(record: Record) -> str:
    """Return a record in words; a record of an unknown kind, written by a newer program, is shown as it is."""
    match record.event:
        case Observed() as event:
            problem = describe_problem(event.problem)
            return f"observed fingerprint {event.fingerprint[:12]}" if event.axes else problem
        case Claimed() as event:
            return f"claimed run {event.run}"
        case Finished() as event:
            return _describe_finished(event)
        case Promoting() as event:
            return f"promoting version {event.version}: {event.why}"
        case Promoted() as event:
            return f"version {event.version} is champion and serves: {event.why}"
        case Refused() as event:
            return f"version {event.version} was not deployed: {event.message}"
        case Repaired() as event:
            return _describe_repaired(event)
        case _:
            return _describe_operator_event(record.event)


def _describe_operator_event(event: Event) -> str:
    match event:
        case Approved():
            return f"version {event.version} was approved by {event.who}"
        case Pinned():
            return f"version {event.version} was pinned: {event.reason}"
        case Unpinned():
            return f"version {event.version} was unpinned"
        case RolledBack():
            return f"rolled back from version {event.bad} to {event.to}, pinned: {event.reason}"
        case Retried():
            return f"retry of fingerprint {event.fingerprint[:12]} requested"
        case Cancelled():
            return f"run {event.run} was cancelled by {event.who or 'an operator'}" + (
                event.reason and f": {event.reason}"
            )
        case DamageAccepted():
            numbers = ", ".join(map(str, event.records))
            return f"damaged record {numbers} is left out, accepted by {event.who}: {event.reason}"
        case UnknownEvent():
            return f"{event.name}: {json.dumps(dict(event.fields))}"
        case Torn():
            return f"this record was set aside: {event.problem}"
        case Damaged():
            return f"this record is damaged: {event.problem}"
        case _:
            raise TypeError(f"no description of a {event.kind} record")


def _describe_finished(event: Finished) -> str:
    causes = event.message or "; ".join(event.reasons)
    verb = "failed" if event.outcome == "failed" else f"was {event.outcome}"
    version = f" as version {event.version}" if event.version else ""
    return f"run {event.run} {verb}{version}" + (f": {causes}" if causes else "")


def _describe_repaired(event: Repaired) -> str:
    what, version, before = event.what, event.version, event.instead_of
    if what == "champion":
        return f"repaired: champion set to version {version} (was {before or 'none'})"
    if before == version:
        return f"repaired: version {version} applied to {what} again"
    return f"repaired: {what} serves version {version} (was {before or 'nothing'})"


@dataclass(frozen=True)
class ServicePeriod:
    """Beginning of a period in which one version was wanted."""

    version: str | None
    since: datetime
    why: str


def service_periods(records: list[Record]) -> Iterator[ServicePeriod]:
    """Yield the periods of the wanted version, oldest first."""
    version: VersionId | None = None
    for count, record in enumerate(records, start=1):
        if isinstance(record.event, (Promoted, Pinned, Unpinned, RolledBack)):
            state = state_of(records[:count])
            before, version = version, wanted(state, state.rolled_back)
            if not (before is version or (before and version and before.is_same(version))):
                yield ServicePeriod(version.number if version else None, record.at, describe_record(record))


def served_at(records: list[Record], at: datetime) -> ServicePeriod | None:
    """Return the period of a time; None before the first delivery."""
    periods = list(service_periods(records))
    return next((period for period in reversed(periods) if period.since <= at), None)
