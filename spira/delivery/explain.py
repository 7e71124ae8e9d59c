"""Answers from the ledger: why a run started, what happened, and which version served when."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from spira.delivery.decide import wanted
from spira.delivery.fingerprints import Axis, AxisName, Change, Fingerprint, changes, describe_problem
from spira.delivery.ledger import Ledger, Record
from spira.delivery.state import DeliveryState, state_of
from spira.errors import SpiraError

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
    served = _served_before(records, fingerprint)
    after = _load_axes(ledger, known[fingerprint])
    return Explanation(
        fingerprint=fingerprint,
        run=attempts[-1].run if attempts else None,
        version=attempts[-1].version if attempts else None,
        outcome=(attempts[-1].outcome or "running") if attempts else "not run yet",
        since=f"version {served[0]}" if served else "",
        changes=tuple(changes(_load_axes(ledger, known[served[1]]), after)) if served else (),
    )


def fingerprints(records: list[Record]) -> dict[str, Fingerprint]:
    """Return every observed fingerprint by its digest."""
    observed = (Fingerprint(**record.body["axes"]) for record in records if "axes" in record.body)
    return {fingerprint.digest: fingerprint for fingerprint in observed}


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
    of_attempts = [attempt.fingerprint for attempt in state.attempts if subject in (attempt.version, attempt.run)]
    matches = of_attempts or [digest for digest in known if digest.startswith(subject)]
    if not matches:
        versions = ", ".join(attempt.version for attempt in state.attempts if attempt.version) or "none"
        raise SpiraError(f"{subject} is no version, run or fingerprint of this ledger; versions: {versions}")
    return matches[-1]


def _served_before(records: list[Record], fingerprint: str) -> tuple[str, str] | None:
    """Return version and fingerprint of what was wanted when a fingerprint was first claimed (now, if it was not)."""
    claims = (
        record.number for record in records if record.kind == "claimed" and record.body["fingerprint"] == fingerprint
    )
    state = state_of(records[: next(claims, len(records) + 1) - 1])
    version = wanted(state, state.rolled_back)
    attempt = state.attempt_of(version) if version else None
    return (version, attempt.fingerprint) if version and attempt else None


def describe_change(change: Change) -> str:
    """Return one change in words."""
    if change.what == "renamed":
        return f"{change.before} renamed to {change.after}"
    if change.before or change.after:
        return f"{change.name}: {change.before} -> {change.after}"
    return f"{change.name} {change.what}"


@dataclass(frozen=True)
class Event:
    """One line of the history."""

    number: int
    """Number of the record."""
    at: datetime
    kind: str
    text: str


def history(records: list[Record]) -> list[Event]:
    """Return every record in words, oldest first."""
    return [Event(record.number, record.at, record.kind, describe_record(record)) for record in records]


def describe_record(record: Record) -> str:
    """Return a record in words; a record of an unknown kind, written by a newer program, is shown as it is."""
    describe = DESCRIPTIONS.get(record.kind)
    return describe(record.body) if describe else f"{record.kind}: {record.body}"


def _describe_observed(body: Mapping[str, Any]) -> str:
    if "problem" in body:
        return describe_problem(body["problem"])
    return f"observed fingerprint {body['fingerprint'][:12]}"


def _describe_finished(body: Mapping[str, Any]) -> str:
    causes = body.get("message") or "; ".join(body.get("reasons", []))
    verb = "failed" if body["outcome"] == "failed" else f"was {body['outcome']}"
    version = f" as version {body['version']}" if body.get("version") else ""
    return f"run {body['run']} {verb}{version}" + (f": {causes}" if causes else "")


def _describe_repaired(body: Mapping[str, Any]) -> str:
    what, version, before = body["what"], body["version"], body["instead_of"]
    if what == "champion":
        return f"repaired: champion set to version {version} (was {before or 'none'})"
    if before == version:
        return f"repaired: version {version} applied to {what} again"
    return f"repaired: {what} serves version {version} (was {before or 'nothing'})"


DESCRIPTIONS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "observed": _describe_observed,
    "claimed": lambda body: f"claimed run {body['run']}",
    "finished": _describe_finished,
    "promoting": lambda body: f"promoting version {body['version']}: {body['why']}",
    "promoted": lambda body: f"version {body['version']} is champion and serves: {body['why']}",
    "refused": lambda body: f"version {body['version']} was not deployed: {body['message']}",
    "approved": lambda body: f"version {body['version']} was approved by {body['who']}",
    "pinned": lambda body: f"version {body['version']} was pinned: {body['reason']}",
    "unpinned": lambda body: f"version {body['version']} was unpinned",
    "rolled_back": lambda body: f"rolled back from version {body['bad']} to {body['to']}, pinned: {body['reason']}",
    "repaired": _describe_repaired,
    "retried": lambda body: f"retry of fingerprint {body['fingerprint'][:12]} requested",
    "damaged": lambda body: f"this record cannot be read: {body['problem']}",
}


@dataclass(frozen=True)
class ServicePeriod:
    """Beginning of a period in which one version was wanted."""

    version: str | None
    since: datetime
    why: str


def service_periods(records: list[Record]) -> Iterator[ServicePeriod]:
    """Yield the periods of the wanted version, oldest first."""
    version: str | None = None
    for count, record in enumerate(records, start=1):
        if record.kind in ("promoted", "pinned", "unpinned", "rolled_back"):
            state = state_of(records[:count])
            if (now_wanted := wanted(state, state.rolled_back)) != version:
                version = now_wanted
                yield ServicePeriod(version, record.at, describe_record(record))


def served_at(records: list[Record], at: datetime) -> ServicePeriod | None:
    """Return the period of a time; None before the first delivery."""
    periods = list(service_periods(records))
    return next((period for period in reversed(periods) if period.since <= at), None)
