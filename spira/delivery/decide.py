"""What to do next: a function of what is, what was done, and the time. Nothing here reads, writes or waits.

Training. One run at a time. A fingerprint that is observed and not settled (approved or rejected) is claimed and
run; one that failed is tried again, later each time, until the attempts are used up. While a run is on, newer
observations queue, and only the last of them is run.

Serving. What is wanted is what is pinned, else the last version that was delivered and not rolled back. A newly
approved version is promoted; whatever serves, or is called champion, and isn't wanted is put right.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from spira.delivery.fingerprints import Axes, InvalidInput
from spira.delivery.runner import Run
from spira.delivery.state import Attempt, DeliveryState
from spira.deployment.target import Status

LONGEST_WAIT = timedelta(hours=1)
"""Between two attempts to serve a version; they are never given up, for what refuses may come back."""


@dataclass(frozen=True)
class Policy:
    """How patient the reconciler is."""

    attempts: int = 4
    """Runs of one fingerprint that may fail."""
    backoff_seconds: float = 60.0
    """Before the second attempt; four times as long before each further one."""
    quiet_seconds: float = 0.0
    """An observation must stand for so long before it is trained on: an upload may be under way."""
    approval: bool = False
    """Whether a person must approve a version before it is promoted."""


@dataclass(frozen=True)
class ChampionStatus:
    """What the model repository says."""

    champion: str | None
    rolled_back: frozenset[str] = frozenset()
    """Versions that are held there."""


@dataclass(frozen=True)
class Observe:
    """Record what is seen."""

    seen: Axes | InvalidInput


@dataclass(frozen=True)
class Claim:
    """Take what is seen to be run, once."""

    fingerprint: str
    attempt: int


@dataclass(frozen=True)
class Start:
    """Begin a claimed run, or take it up."""

    attempt: Attempt


@dataclass(frozen=True)
class Finish:
    """Record how a run ended."""

    attempt: Attempt
    run: Run


@dataclass(frozen=True)
class Adopt:
    """Take over the champion that was there before the ledger."""

    version: str


@dataclass(frozen=True)
class Promote:
    """Serve a version everywhere, then make it champion."""

    version: str
    why: str


@dataclass(frozen=True)
class SetChampion:
    """Make a version champion that is wanted and isn't."""

    version: str
    instead_of: str | None


@dataclass(frozen=True)
class Serve:
    """Have a target serve what is wanted, where it doesn't."""

    target: str
    version: str
    instead_of: str | None


Action = Observe | Claim | Start | Finish | Adopt | Promote | SetChampion | Serve


@dataclass(frozen=True)
class Decision:
    """What to do now, and what is waited for."""

    actions: tuple[Action, ...] = ()
    notes: tuple[str, ...] = ()


def decide(
    seen: Axes | InvalidInput | None,
    state: DeliveryState,
    runs: Mapping[str, Run | None],
    models: ChampionStatus | None,
    serving: Mapping[str, Status | None],
    policy: Policy,
    now: datetime,
) -> Decision:
    """What to do next.

    Args:
        seen: what is there; None where it can't be looked at now.
        runs: of the active run by name, None of one that never began; empty where the runner can't be asked.
        models: None where the model repository can't be asked.
        serving: by target; None of one that can't be asked.
    """
    if seen is not None and is_news(seen, state):
        return Decision((Observe(seen),))
    served, trained = _serve(state, models, serving, policy, now), _train(seen, state, runs, models, policy, now)
    return Decision(served.actions + trained.actions, served.notes + trained.notes)


def is_news(seen: Axes | InvalidInput, state: DeliveryState) -> bool:
    """Whether it isn't what was last recorded."""
    last = state.last_observation
    if isinstance(seen, InvalidInput):
        return last is None or last.problem != seen.problem
    return last is None or last.axes != seen.fingerprint


def _train(
    seen: Axes | InvalidInput | None,
    state: DeliveryState,
    runs: Mapping[str, Run | None],
    models: ChampionStatus | None,
    policy: Policy,
    now: datetime,
) -> Decision:
    if state.active:
        return _attend(state.active, runs)
    if seen is None:
        return Decision(notes=("what there is to train on can't be looked at now",))
    if isinstance(seen, InvalidInput):
        return Decision(notes=(f"not fit to train on: {seen.problem}",))
    fingerprint = seen.fingerprint.digest
    attempts = state.attempts_of(fingerprint)
    if any(attempt.is_settled for attempt in attempts):
        return Decision()
    if wait := _reason_to_wait(state, attempts, policy, now):
        return Decision(notes=(wait,))
    if models is None:
        return Decision(notes=("a run is due; it waits for the model repository",))
    return Decision((Claim(fingerprint, len(attempts) + 1),))


def _attend(active: Attempt, runs: Mapping[str, Run | None]) -> Decision:
    """What the run that is on needs."""
    if active.run not in runs:
        return Decision(notes=(f"run {active.run}: its runner can't be asked now",))
    run = runs[active.run]
    if run is None or run.state == "interrupted":
        return Decision((Start(active),))
    if run.state == "running":
        because = f": {run.message}" if run.message else ""
        return Decision(notes=(f"run {active.run} is on, since {active.claimed:%Y-%m-%d %H:%M:%S}{because}",))
    return Decision((Finish(active, run),))


def _reason_to_wait(state: DeliveryState, attempts: list[Attempt], policy: Policy, now: datetime) -> str:
    """Why nothing is run for a fingerprint that isn't settled; empty where a run is due."""
    fingerprint = state.last_observation.fingerprint if state.last_observation else ""
    failed = len(attempts) - state.failures_reset.get(fingerprint, 0)
    if failed <= 0:
        quiet = (
            state.last_observation.since + timedelta(seconds=policy.quiet_seconds) if state.last_observation else now
        )
        return f"something changed; it must stand still until {quiet:%H:%M:%S}" if now < quiet else ""
    last = attempts[-1]
    if failed >= policy.attempts:
        return f"given up after {failed} failed attempts, until something changes or --retry: {last.message}"
    due = _due([attempt.finished for attempt in attempts if attempt.finished][-failed:], policy)
    if now < due:
        return f"attempt {failed} of {policy.attempts} failed, the next is due at {due:%H:%M:%S}: {last.message}"
    return ""


def _due(failures: Iterable[datetime], policy: Policy) -> datetime:
    """When to try again after failures at these times."""
    times = list(failures)
    return times[-1] + timedelta(seconds=policy.backoff_seconds * 4 ** min(len(times) - 1, 8))


def _serve(
    state: DeliveryState,
    models: ChampionStatus | None,
    serving: Mapping[str, Status | None],
    policy: Policy,
    now: datetime,
) -> Decision:
    if models is None:
        return Decision(notes=("the model repository can't be asked now",))
    if models.champion and not state.deliveries and not state.promoting and not state.pin:
        return Decision((Adopt(models.champion),))
    bad = {*state.rolled_back, *models.rolled_back}
    want = wanted(state, bad)
    promotion = _promotion(state, want, bad, policy, now)
    if promotion.actions:
        return promotion
    repairs = _repairs(want, models, serving) if want else Decision()
    return Decision(repairs.actions, promotion.notes + repairs.notes)


def wanted(state: DeliveryState, bad: Iterable[str]) -> str | None:
    """The version that should serve: what is pinned, else the last that was delivered and isn't bad."""
    if state.pin:
        return state.pin.version
    held = set(bad)
    return next((each.version for each in reversed(state.deliveries) if each.version not in held), None)


def candidate(state: DeliveryState, bad: Iterable[str]) -> Attempt | None:
    """The approved run whose version should be promoted, or was: that of what is observed, else the last one since."""
    held, seen = set(bad), state.last_observation.fingerprint if state.last_observation else ""
    approved = [each for each in state.attempts if each.outcome == "approved" and each.version not in held]
    own = [attempt for attempt in approved if attempt.fingerprint == seen]
    promoted = state.deliveries[-1].record if state.deliveries else 0
    since = sorted((attempt for attempt in approved if attempt.record > promoted), key=lambda each: each.record)
    found = own or since
    return found[-1] if found else None


def _promotion(state: DeliveryState, want: str | None, bad: Iterable[str], policy: Policy, now: datetime) -> Decision:
    next_one = candidate(state, bad)
    if next_one is None or next_one.version is None or next_one.version == want:
        return Decision()
    version = next_one.version
    if state.pin:
        return Decision(notes=(f"version {version} is approved; version {state.pin.version} is pinned",))
    was_delivered = any(delivery.version == version for delivery in state.deliveries)
    if policy.approval and not was_delivered and version not in state.manual_approvals:
        return Decision(notes=(f"version {version} waits for a person: spira deliver approve {version}",))
    refusals = state.refusals.get(version, ())
    if refusals and state.promoting != version:
        due = min(_due([refusal.at for refusal in refusals], policy), refusals[-1].at + LONGEST_WAIT)
        if now < due:
            told = f"version {version} could not be served, the next attempt is due at {due:%H:%M:%S}"
            return Decision(notes=(f"{told}: {refusals[-1].message}",))
    why = "it is what is observed again" if was_delivered else "approved by its gate"
    return Decision((Promote(version, f"{why}, and by a person" if version in state.manual_approvals else why),))


def _repairs(want: str, models: ChampionStatus, serving: Mapping[str, Status | None]) -> Decision:
    actions: list[Action] = []
    if models.champion != want:
        actions.append(SetChampion(want, models.champion))
    for target, status in serving.items():
        if status is not None and (status.version != want or status.drifted or not status.ready):
            actions.append(Serve(target, want, status.version))
    notes = [f"target {target} can't be asked now" for target, status in serving.items() if status is None]
    return Decision(tuple(actions), tuple(notes))
