"""The next actions, as a function of observation, ledger, runs, champion, targets and time. Nothing here does I/O.

Training
    There is one run at a time. A fingerprint that is observed and not settled (approved or rejected) is claimed and
    run. After a failure it is tried again, each time after a longer wait, until the attempts are used up. Changes
    that are observed during a run queue, and only the last of them is run. A run that an operator cancels is ended and
    has failed, whatever it has done; its fingerprint is run again only if an operator asks for it.

Serving
    The wanted version is the pinned one, otherwise the last one that was delivered and not rolled back. A newly
    approved version is promoted. A target that differs from the wanted version is repaired, and after all targets the
    champion alias.

Damage
    While a record of the ledger is damaged, there are no actions.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from spira.delivery.history.events import VersionId
from spira.delivery.history.state import Attempt, DeliveryState
from spira.delivery.observation.fingerprints import Axes, InvalidInput, describe_problem
from spira.delivery.runner import Run
from spira.deployment.target import Status

MAX_WAIT = timedelta(hours=1)
"""Longest wait between two attempts to serve a version. There is no last attempt: the cause may lie in the target."""
BACKOFF_FACTOR = 4
MAX_BACKOFF_EXPONENT = 8


@dataclass(frozen=True)
class Policy:
    """Limits and waiting times of the reconciler."""

    attempts: int = 4
    """Number of runs of one fingerprint that may fail."""
    backoff_seconds: float = 60.0
    """Wait before the second attempt; each further wait is four times as long."""
    quiet_seconds: float = 0.0
    """Time for which an observation must stay the same before it is trained, because an upload may be incomplete."""
    approval: bool = False
    """Whether an operator must approve a version before it is promoted."""


@dataclass(frozen=True)
class ChampionStatus:
    """Champion and rolled-back versions of the model repository."""

    champion: VersionId | None
    rolled_back: frozenset[VersionId] = frozenset()
    """Versions that the repository refuses to promote."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """Digest of the package of every version, by number."""


@dataclass(frozen=True)
class Observe:
    """Record the observation."""

    observed: Axes | InvalidInput


@dataclass(frozen=True)
class Claim:
    """Reserve the run of a fingerprint, so that no other process starts one."""

    fingerprint: str
    attempt: int


@dataclass(frozen=True)
class Start:
    """Start a claimed run, or resume it."""

    attempt: Attempt


@dataclass(frozen=True)
class Cancel:
    """End a run that an operator has cancelled."""

    attempt: Attempt


@dataclass(frozen=True)
class Finish:
    """Record the outcome of a run."""

    attempt: Attempt
    run: Run


@dataclass(frozen=True)
class Adopt:
    """Record the champion that is older than the ledger as delivered."""

    version: VersionId


@dataclass(frozen=True)
class Promote:
    """Serve a version on every target, then make it champion."""

    version: VersionId
    why: str


@dataclass(frozen=True)
class SetChampion:
    """Make the wanted version champion, because another one is."""

    version: VersionId
    instead_of: VersionId | None
    """The present champion."""


@dataclass(frozen=True)
class Serve:
    """Apply the wanted version to a target that serves another one, or that is not ready or has drifted."""

    target: str
    version: VersionId
    instead_of: str | None
    """Version that the target serves now."""


Action = Observe | Claim | Start | Cancel | Finish | Adopt | Promote | SetChampion | Serve


@dataclass(frozen=True)
class Decision:
    """Actions that are due now, and notes about what has to wait."""

    actions: tuple[Action, ...] = ()
    notes: tuple[str, ...] = ()


def decide(
    observed: Axes | InvalidInput | None,
    state: DeliveryState,
    runs: Mapping[str, Run | None],
    champion_status: ChampionStatus | None,
    serving: Mapping[str, Status | None],
    policy: Policy,
    now: datetime,
) -> Decision:
    """Return the next actions.

    Args:
        observed: the current input; None if it cannot be read now.
        runs: the active run by name, None if it never started; empty if the runner is unreachable.
        champion_status: None if the model repository is unreachable.
        serving: status by target; None for a target that is unreachable.
    """
    if state.damaged:  # a wrong record could bring a wrong version into service
        return Decision(notes=("the ledger is damaged: nothing is trained or promoted, and what serves stays",))
    if observed is not None and is_new(observed, state):
        return Decision((Observe(observed),))
    serve = _serve(state, champion_status, serving, policy, now)
    train = _train(observed, state, runs, champion_status, policy, now)
    return Decision(serve.actions + train.actions, serve.notes + train.notes)


def is_new(observed: Axes | InvalidInput, state: DeliveryState) -> bool:
    """Return whether an observation differs from the last one in the ledger."""
    last = state.last_observation
    if isinstance(observed, InvalidInput):
        return last is None or last.problem != observed.problem
    return last is None or last.axes != observed.fingerprint


def _train(
    observed: Axes | InvalidInput | None,
    state: DeliveryState,
    runs: Mapping[str, Run | None],
    champion_status: ChampionStatus | None,
    policy: Policy,
    now: datetime,
) -> Decision:
    if state.active:
        return _follow(state.active, runs, champion_status)
    if observed is None:
        return Decision(notes=("no new observation: the data, the settings or the code cannot be read now",))
    if isinstance(observed, InvalidInput):
        return Decision(notes=(describe_problem(observed.problem),))
    fingerprint = observed.fingerprint.digest
    attempts = state.attempts_of(fingerprint)
    if any(attempt.is_settled for attempt in attempts):
        return Decision()
    if reason := _reason_to_wait(state, attempts, policy, now):
        return Decision(notes=(reason,))
    if champion_status is None:  # the run registers its model there
        return Decision(notes=("a run is due; waiting for the model repository",))
    return Decision((Claim(fingerprint, len(attempts) + 1),))


def _follow(active: Attempt, runs: Mapping[str, Run | None], champion_status: ChampionStatus | None) -> Decision:
    """Return the next action for the active run."""
    if active.run not in runs:
        return Decision(notes=(f"run {active.run}: the runner is unreachable",))
    run = runs[active.run]
    if active.cancelled:
        if run and run.state == "running":  # on a cluster, the end of a run takes a while
            return Decision((Cancel(active),), (f"run {active.run} is {active.cancelled}; waiting for its end",))
        return Decision((Finish(active, Run("failed", active.cancelled)),))
    if run is None or run.state == "interrupted":
        return Decision((Start(active),))
    if run.state == "running":
        progress = f": {run.message}" if run.message else ""
        return Decision(notes=(f"run {active.run} is running since {active.claimed:%Y-%m-%d %H:%M:%S}{progress}",))
    if run.approved and champion_status is None:  # the record needs the digest of the version
        return Decision(notes=(f"run {active.run} has ended; waiting for the model repository",))
    return Decision((Finish(active, run),))


def _reason_to_wait(state: DeliveryState, attempts: list[Attempt], policy: Policy, now: datetime) -> str:
    """Return why an unsettled fingerprint is not run now; empty if a run is due."""
    fingerprint = state.last_observation.fingerprint if state.last_observation else ""
    failures = len(attempts) - state.failures_reset.get(fingerprint, 0)
    if failures <= 0:
        return _reason_for_quiet(state, policy, now)
    last = attempts[-1]
    if last.cancelled:
        advice = "change the input or run spira deliver tick --retry"
        return f"run {last.run} was {last.cancelled}; to train again, {advice}"
    if failures >= policy.attempts:
        advice = "change the input or run spira deliver tick --retry"
        return f"gave up after {failures} failed attempts; to try again, {advice}. Last failure: {last.message}"
    due = _next_attempt([attempt.finished for attempt in attempts if attempt.finished][-failures:], policy)
    if now < due:
        return f"attempt {failures} of {policy.attempts} failed; next attempt at {due:%H:%M:%S}: {last.message}"
    return ""


def _reason_for_quiet(state: DeliveryState, policy: Policy, now: datetime) -> str:
    if state.last_observation is None:
        return ""
    due = state.last_observation.since + timedelta(seconds=policy.quiet_seconds)
    return f"input changed; waiting until {due:%H:%M:%S} in case an upload is not complete" if now < due else ""


def _next_attempt(failures: Sequence[datetime], policy: Policy) -> datetime:
    """Return the time of the next attempt after failures at these times."""
    exponent = min(len(failures) - 1, MAX_BACKOFF_EXPONENT)
    return failures[-1] + timedelta(seconds=policy.backoff_seconds * BACKOFF_FACTOR**exponent)


def _serve(
    state: DeliveryState,
    champion_status: ChampionStatus | None,
    serving: Mapping[str, Status | None],
    policy: Policy,
    now: datetime,
) -> Decision:
    if champion_status is None:
        return Decision(notes=("the model repository is unreachable",))
    if champion_status.champion and not state.deliveries and not state.promoting and not state.pin:
        return Decision((Adopt(champion_status.champion),))
    rolled_back = {*state.rolled_back, *champion_status.rolled_back}
    version = wanted(state, rolled_back)
    promotion = _promotion(state, version, rolled_back, policy, now)
    if promotion.actions:
        return promotion
    repairs = _repairs(version, champion_status, serving) if version else Decision()
    return Decision(repairs.actions, promotion.notes + repairs.notes)


def wanted(state: DeliveryState, rolled_back: Collection[VersionId]) -> VersionId | None:
    """Return the version that should serve: the pinned one, otherwise the last delivered one not rolled back."""
    if state.pin:
        return state.pin.version
    versions = (delivery.version for delivery in reversed(state.deliveries))
    return next((version for version in versions if not version.is_among(rolled_back)), None)


def candidate(state: DeliveryState, rolled_back: Collection[VersionId]) -> Attempt | None:
    """Return the approved attempt whose version should serve if nothing is pinned.

    It is the last one of the observed fingerprint, delivered or not; otherwise the last one since the last delivery.
    """
    fingerprint = state.last_observation.fingerprint if state.last_observation else ""
    approved = [
        attempt
        for attempt in state.attempts
        if attempt.outcome == "approved" and not (attempt.version and attempt.version.is_among(rolled_back))
    ]
    of_observed = [attempt for attempt in approved if attempt.fingerprint == fingerprint]
    delivered = state.deliveries[-1].record if state.deliveries else 0
    since_delivery = [attempt for attempt in approved if attempt.record > delivered]
    candidates = of_observed or sorted(since_delivery, key=lambda attempt: attempt.record)
    return candidates[-1] if candidates else None


def _promotion(
    state: DeliveryState,
    wanted_version: VersionId | None,
    rolled_back: Collection[VersionId],
    policy: Policy,
    now: datetime,
) -> Decision:
    attempt = candidate(state, rolled_back)
    if attempt is None or attempt.version is None:
        return Decision()
    version, was_delivered = attempt.version, _was_delivered(attempt, state)
    if wanted_version and version.is_same(wanted_version) and (state.pin or was_delivered):
        return Decision()
    if state.pin:
        return Decision(notes=(f"version {version} is approved and waits: version {state.pin.version} is pinned",))
    is_approved = version.is_among(state.manual_approvals)
    if policy.approval and not was_delivered and not is_approved:
        return Decision(notes=(f"version {version} waits for manual approval: spira deliver approve {version}",))
    refusals = [refusal for refusal in state.refusals if refusal.version.is_same(version)]
    if refusals and state.promoting != version:
        last = refusals[-1]
        due = min(_next_attempt([refusal.at for refusal in refusals], policy), last.at + MAX_WAIT)
        if now < due:
            note = f"version {version} was not deployed; next attempt at {due:%H:%M:%S}: {last.message}"
            return Decision(notes=(note,))
    why = "its input is observed again" if was_delivered else "approved by its gate"
    return Decision((Promote(version, f"{why} and by an operator" if is_approved else why),))


def _was_delivered(attempt: Attempt, state: DeliveryState) -> bool:
    """Return whether the version of an attempt was made champion.

    Where a digest is unknown, a delivery before the end of the run was that of an earlier version with this number.
    """
    version = attempt.version
    return version is not None and any(
        delivery.version.is_same(version)
        and (bool(delivery.version.digest and version.digest) or delivery.record > attempt.record)
        for delivery in state.deliveries
    )


def _repairs(
    wanted_version: VersionId, champion_status: ChampionStatus, serving: Mapping[str, Status | None]
) -> Decision:
    """Return the repairs of the targets, or of the champion alias once every target serves the wanted version."""
    actions: list[Action] = [
        Serve(target, wanted_version, status.version)
        for target, status in serving.items()
        if status is not None and not _is_as_wanted(status, wanted_version)
    ]
    unreachable = [f"target {target} is unreachable" for target, status in serving.items() if status is None]
    champion = champion_status.champion
    if not (champion and champion.is_same(wanted_version)) and not actions and not unreachable:
        actions.append(SetChampion(wanted_version, champion))
    return Decision(tuple(actions), tuple(unreachable))


def _is_as_wanted(status: Status, wanted_version: VersionId) -> bool:
    """Return whether a target serves the wanted version and is ready."""
    if status.version is None or status.drifted or not status.ready:
        return False
    return VersionId(status.version, status.digest).is_same(wanted_version)
