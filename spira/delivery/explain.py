"""The ledger in words: what changed, what is going on, what happened, and what served when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from spira.delivery.decide import wanted
from spira.delivery.fingerprints import Axis, Change, Fingerprint, Name, changes
from spira.delivery.ledger import Ledger, Record
from spira.delivery.reconcile import Report
from spira.delivery.state import DeliveryState, state_of
from spira.errors import SpiraError

NOTHING: dict[Name, Axis] = {"data": Axis("", {}), "model": Axis("", {}), "code": Axis("", {})}


@dataclass(frozen=True)
class Why:
    """What set a run going."""

    fingerprint: str
    run: str | None
    version: str | None
    outcome: str
    since: str
    """What it is compared with: ``version 3``, say, which served when it was claimed; empty where nothing had."""
    changes: tuple[Change, ...]

    @property
    def axes(self) -> list[Name]:
        """The axes that changed."""
        return list(dict.fromkeys(change.axis for change in self.changes))


def why(ledger: Ledger, subject: str = "") -> Why:
    """What set a run going, compared with what served when it was claimed.

    Args:
        subject: a version, a run or (the beginning of) a fingerprint; what was observed last if empty.

    Raises:
        SpiraError: the ledger knows nothing of it.
    """
    records = ledger.read()
    state, axes = state_of(records), fingerprints(records)
    fingerprint = _fingerprint(subject, state, axes)
    attempts = state.attempts_of(fingerprint)
    before = _served_before(records, fingerprint)
    now = {name: ledger.axis(name, getattr(axes[fingerprint], name)) for name in NOTHING}
    then = {name: ledger.axis(name, getattr(axes[before[1]], name)) for name in NOTHING} if before else NOTHING
    return Why(
        fingerprint=fingerprint,
        run=attempts[-1].run if attempts else None,
        version=attempts[-1].version if attempts else None,
        outcome=(attempts[-1].outcome or "running") if attempts else "not run yet",
        since=before[0] if before else "",
        changes=tuple(changes(then, now)) if before else (),
    )


def fingerprints(records: list[Record]) -> dict[str, Fingerprint]:
    """The axes of every fingerprint that was observed."""
    seen = (Fingerprint(**record.body["axes"]) for record in records if "axes" in record.body)
    return {axes.digest: axes for axes in seen}


def _fingerprint(subject: str, state: DeliveryState, known: dict[str, Fingerprint]) -> str:
    if not subject:
        if not state.last_observation or not state.last_observation.axes:
            raise SpiraError("nothing fit to train on was observed yet: spira deliver tick")
        return state.last_observation.fingerprint
    named = [each.fingerprint for each in state.attempts if subject in (each.version, each.run)]
    found = named or [digest for digest in known if digest.startswith(subject)]
    if not found:
        versions = ", ".join(each.version for each in state.attempts if each.version) or "none"
        raise SpiraError(f"{subject} is no version, run or fingerprint of this ledger; versions: {versions}")
    return found[-1]


def _served_before(records: list[Record], fingerprint: str) -> tuple[str, str] | None:
    """Its name and fingerprint: of the version that was wanted when a fingerprint was first claimed (or is now)."""
    claimed = (r.number for r in records if r.kind == "claimed" and r.body["fingerprint"] == fingerprint)
    state = state_of(records[: next(claimed, len(records) + 1) - 1])
    version = wanted(state, state.rolled_back)
    attempt = state.attempt_of(version) if version else None
    return (f"version {version}", attempt.fingerprint) if attempt else None


def describe(change: Change) -> str:
    """One change in words."""
    if change.what == "renamed":
        return f"{change.before} is now {change.after}"
    if change.before or change.after:
        return f"{change.name}: {change.before} -> {change.after}"
    return f"{change.name} {change.what}"


def status(report: Report) -> dict[str, Any]:
    """What is going on, for programs and people."""
    state, view = report.view.state, report.view
    last_observation, active = state.last_observation, state.active
    held = {*state.rolled_back, *(view.models.rolled_back if view.models else ())}
    return {
        "observed": last_observation and {
            "fingerprint": last_observation.fingerprint,
            "axes": asdict(last_observation.axes) if last_observation.axes else None,
            "problem": last_observation.problem,
            "since": last_observation.since.isoformat(),
        },
        "training": _training(state, report),
        "run": active.run if active else None,
        "wanted": wanted(state, held),
        "champion": view.models.champion if view.models else None,
        "serving": {
            name: {"version": each.version, "ready": each.ready, "message": each.message} if each else None
            for name, each in view.serving.items()
        },
        "pin": state.pin and {"version": state.pin.version, "reason": state.pin.reason},
        "rolled_back": dict(state.rolled_back),
        "notes": list(report.decision.notes),
        "troubles": list(report.troubles),
        "damaged_records": list(state.damaged),
        "records": state.last,
    }  # fmt: skip


def _training(state: DeliveryState, report: Report) -> str:
    """Where the last observation stands, in a word or two."""
    if state.active:
        return "running"
    if not state.last_observation:
        return "nothing was looked at yet: spira deliver tick"
    if not state.last_observation.axes:
        return "nothing fit to train on"
    attempts = state.attempts_of(state.last_observation.fingerprint)
    if not attempts:
        return "due"
    return {"approved": "approved", "rejected": "rejected", "failed": "failed"}[attempts[-1].outcome]


@dataclass(frozen=True)
class Event:
    """One line of the history."""

    number: int
    at: datetime
    kind: str
    text: str


def history(records: list[Record]) -> list[Event]:
    """Everything that happened, in words, oldest first."""
    return [Event(record.number, record.at, record.kind, _told(record)) for record in records]


def _told(record: Record) -> str:
    tell = TOLD.get(record.kind)
    return tell(record.body) if tell else f"{record.kind}: {record.body}"


def _told_finished(body: dict[str, Any]) -> str:
    because = body.get("message") or "; ".join(body.get("reasons", []))
    made = f", version {body['version']}" if body.get("version") else ""
    return f"run {body['run']} ended: {body['outcome']}{made}" + (f" ({because})" if because else "")


def _told_observed(body: dict[str, Any]) -> str:
    return f"not fit to train on: {body['problem']}" if "problem" in body else f"saw {body['fingerprint'][:12]}"


def _told_repaired(body: dict[str, Any]) -> str:
    what = "champion is" if body["what"] == "champion" else f"{body['what']} serves"
    if body["instead_of"] == body["version"]:
        return f"put right: {what} version {body['version']} as it should again"
    return f"put right: {what} version {body['version']} again, not {body['instead_of'] or 'nothing'}"


TOLD = {
    "observed": _told_observed,
    "claimed": lambda body: f"claimed run {body['run']}",
    "finished": _told_finished,
    "promoting": lambda body: f"promotes version {body['version']}: {body['why']}",
    "promoted": lambda body: f"version {body['version']} is champion and serves: {body['why']}",
    "refused": lambda body: f"version {body['version']} could not be served: {body['message']}",
    "approved": lambda body: f"version {body['version']} was approved by {body['who']}",
    "pinned": lambda body: f"version {body['version']} was pinned: {body['reason']}",
    "unpinned": lambda body: "the pin was taken off",
    "rolled_back": lambda body: f"rolled back from version {body['bad']} to {body['to']}, pinned: {body['reason']}",
    "repaired": _told_repaired,
    "retried": lambda body: f"asked to try {body['fingerprint'][:12]} again",
    "damaged": lambda body: f"this record can't be read: {body['problem']}",
}


@dataclass(frozen=True)
class Service:
    """A version's time of service."""

    version: str | None
    since: datetime
    why: str


def service(records: list[Record]) -> Iterator[Service]:
    """Which version was meant to serve from when on, and why, oldest first."""
    version: str | None = None
    for place, record in enumerate(records, start=1):
        if record.kind in ("promoted", "pinned", "unpinned", "rolled_back"):
            state = state_of(records[:place])
            if (now := wanted(state, state.rolled_back)) != version:
                version = now
                yield Service(version, record.at, _told(record))


def served_at(records: list[Record], at: datetime) -> Service | None:
    """What was meant to serve at a time; None before the first delivery."""
    return next((each for each in reversed(list(service(records))) if each.since <= at), None)
