"""Reconciler: carries out what :mod:`spira.delivery.decide` decides, one action at a time, and observes after each.

An action that must not happen twice is recorded before it is carried out. Every action can be repeated after a kill
without changing the result. Before each effect the ledger is read once more, so that a process that was suspended
while another one continued does nothing.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol, assert_never

from spira.config import ConfigError
from spira.delivery.decide import (
    Action,
    Adopt,
    Cancel,
    ChampionStatus,
    Claim,
    Decision,
    Finish,
    Observe,
    Policy,
    Promote,
    Serve,
    SetChampion,
    Start,
    decide,
)
from spira.delivery.explain import describe_record
from spira.delivery.history import last_problems
from spira.delivery.history.events import (
    Claimed,
    Event,
    Finished,
    Observed,
    Promoted,
    Promoting,
    Refused,
    Repaired,
    VersionId,
)
from spira.delivery.history.ledger import Ledger, OvertakenError, Record, describe_damage
from spira.delivery.history.state import DeliveryState, state_of
from spira.delivery.notices import outbox
from spira.delivery.observation.fingerprints import Axes, InvalidInput
from spira.delivery.runner import Run, Runner
from spira.delivery.training_request import TrainingRequest
from spira.deployment.promotion import NotServedError, move_champion
from spira.deployment.target import Release, Status, Target
from spira.errors import SpiraError

log = logging.getLogger(__name__)

MAX_ACTIONS = 50
"""Actions of one tick; the next tick continues."""


class Repository(Protocol):
    """The part of the model repository that delivery uses."""

    def champion_status(self) -> ChampionStatus:
        """Return the champion and the versions that were rolled back."""

    def release(self, version: VersionId) -> Release:
        """Return a version with its local package.

        Raises:
            SpiraError: the repository does not have it, or not its package.
        """

    def promote(self, version: VersionId, reason: str) -> None:
        """Make a version champion.

        Args:
            reason: forces a version that is not approved or was rolled back; empty for no force.
        """

    def roll_back(self, version: VersionId, reason: str) -> None:
        """Make the previous champion champion again; do nothing if ``version`` is not champion."""

    def run_page(self, run: str) -> str:
        """Return the path of a run's page in MLflow, for links; empty if there is none."""


@dataclass(frozen=True)
class Observation:
    """The current input, and the training request for exactly this input."""

    observed: Axes | InvalidInput
    request: TrainingRequest | None = None
    """None if the input is invalid."""


@dataclass
class Dependencies:
    """Everything through which the reconciler reaches the outside."""

    observe: Callable[[], Observation]
    """Reads data, settings and code; raises SpiraError if that is impossible now."""
    ledger: Ledger
    runner: Runner
    repository: Repository
    targets: Sequence[Target]
    clock: Callable[[], datetime]


@dataclass
class Snapshot:
    """Everything that one decision is based on; what was unreachable is None or missing."""

    observation: Observation | None
    records: list[Record]
    state: DeliveryState
    runs: dict[str, Run | None]
    champion_status: ChampionStatus | None
    serving: dict[str, Status | None]
    troubles: list[str] = field(default_factory=list)
    """What was unreachable, and why."""


@dataclass(frozen=True)
class Report:
    """Result of a tick."""

    snapshot: Snapshot
    """State after the tick."""
    decision: Decision
    """What has to wait."""
    done: tuple[str, ...]
    """One line per action, in order."""
    troubles: tuple[str, ...]
    notice_problems: tuple[str, ...] = ()
    """Why notices did not arrive. They are no troubles: a notice never fails a delivery."""


class Reconciler:
    """Controller that brings runs, champion and targets to the wanted state; one instance for each tick."""

    def __init__(self, dependencies: Dependencies, policy: Policy) -> None:
        self.dependencies, self.policy = dependencies, policy
        self.done: list[str] = []
        self.failed: list[tuple[Action, str]] = []
        """Actions that failed in this tick, and why."""
        self.not_again: list[Action] = []
        """Actions that this tick does not repeat, because they take effect later."""

    def tick(self) -> Report:
        """Carry out every action that is due now.

        Raises:
            StorageError: the ledger is unreachable; nothing is done without it.
        """
        observation, observation_troubles = self._observe()
        for _ in range(MAX_ACTIONS):
            snapshot = self._snapshot(observation)
            decision = self._decide(snapshot)
            not_again = [*self.not_again, *(action for action, _ in self.failed)]
            actions = [action for action in decision.actions if action not in not_again]
            if not actions:
                break
            self._carry_out(actions[0], snapshot)
        # A later action may have solved the problem: then the failed one is not due any more.
        causes = [cause for action, cause in self.failed if action in decision.actions]
        troubles = dict.fromkeys([*observation_troubles, *snapshot.troubles, *causes])
        last_problems.save(self.dependencies.ledger.store, list(troubles), self.dependencies.clock())
        return Report(snapshot, decision, tuple(self.done), tuple(troubles), self._notice_problems())

    def dry_run(self) -> Report:
        """Return the report of a tick that does nothing; its decision holds the actions that are due.

        Its troubles include those of the last tick: an action that failed shows only when it is carried out.
        """
        observation, observation_troubles = self._observe()
        snapshot = self._snapshot(observation)
        troubles = [*observation_troubles, *snapshot.troubles]
        last = last_problems.load(self.dependencies.ledger.store)
        if last and not set(last.problems) <= set(troubles):
            troubles += last.describe()
        unique = tuple(dict.fromkeys(troubles))
        return Report(snapshot, self._decide(snapshot), (), unique, self._notice_problems())

    def _notice_problems(self) -> tuple[str, ...]:
        return outbox.stored_problems(self.dependencies.ledger.store, self.dependencies.clock())

    def _decide(self, snapshot: Snapshot) -> Decision:
        observed = snapshot.observation.observed if snapshot.observation else None
        now = self.dependencies.clock()
        return decide(
            observed, snapshot.state, snapshot.runs, snapshot.champion_status, snapshot.serving, self.policy, now
        )

    def _observe(self) -> tuple[Observation | None, list[str]]:
        troubles: list[str] = []
        with _noting(troubles, "data, settings or code"):
            return self.dependencies.observe(), []
        return None, troubles

    def _snapshot(self, observation: Observation | None) -> Snapshot:
        records = self.dependencies.ledger.read()
        snapshot = Snapshot(observation, records, state_of(records), {}, None, {})
        if damage := describe_damage(records):
            snapshot.troubles.append(damage)
        if active := snapshot.state.active:
            with _noting(snapshot.troubles, "runs"):
                snapshot.runs[active.run] = self.dependencies.runner.find(active.run)
        with _noting(snapshot.troubles, "model repository"):
            snapshot.champion_status = self.dependencies.repository.champion_status()
        for target in self.dependencies.targets:
            snapshot.serving[target.name] = None
            with _noting(snapshot.troubles, f"target {target.name}"):
                snapshot.serving[target.name] = target.status()
        return snapshot

    def _carry_out(self, action: Action, snapshot: Snapshot) -> None:
        """Carry out one action; note a failure, which the next tick tries again."""
        try:
            message = self._dispatch(action, snapshot)
        except OvertakenError:
            return  # another process has appended a record: the next snapshot includes it
        except Exception as error:
            self.failed.append((action, describe_error(error)))
            return
        self.done.append(message)
        log.info("%s", message)

    def _dispatch(self, action: Action, snapshot: Snapshot) -> str:
        match action:
            case Observe():
                return self._record_observation(action, snapshot)
            case Claim():
                return self._claim(action, snapshot)
            case Start():
                return self._start(action, snapshot)
            case Cancel():
                return self._cancel(action, snapshot)
            case Finish():
                return self._finish(action, snapshot)
            case Adopt():
                return self._adopt(action, snapshot)
            case Promote():
                return self._promote(action, snapshot)
            case SetChampion():
                return self._set_champion(action, snapshot)
            case Serve():
                return self._serve(action, snapshot)
            case _:
                assert_never(action)

    def _append(self, snapshot: Snapshot, event: Event) -> str:
        """Append a record, update the snapshot, and return the record in words."""
        record = self.dependencies.ledger.append(snapshot.state.last, event, self.dependencies.clock())
        snapshot.records.append(record)
        snapshot.state = state_of(snapshot.records)
        return describe_record(record)

    def _check_not_superseded(self, snapshot: Snapshot) -> None:
        """Refuse to continue if the ledger has grown since the snapshot.

        Raises:
            OvertakenError: another process has appended a record.
        """
        if len(self.dependencies.ledger.read()) != snapshot.state.last:
            raise OvertakenError("another process has appended to the ledger meanwhile")

    def _record_observation(self, action: Observe, snapshot: Snapshot) -> str:
        if isinstance(action.observed, InvalidInput):
            return self._append(snapshot, Observed(problem=action.observed.problem))
        fingerprint = action.observed.fingerprint
        last = snapshot.state.last_observation
        self.dependencies.ledger.remove_names()
        self.dependencies.ledger.save_axes(action.observed, last.axes if last else None)
        request = snapshot.observation.request if snapshot.observation else None
        commit = request.git_commit if request else ""
        return self._append(snapshot, Observed(axes=fingerprint, fingerprint=fingerprint.digest, git_commit=commit))

    def _claim(self, action: Claim, snapshot: Snapshot) -> str:
        run = f"spira-{action.fingerprint[:12]}-{action.attempt}"
        request = snapshot.observation.request if snapshot.observation else None
        recorded = request.to_record() if request else {}
        event = Claimed(fingerprint=action.fingerprint, attempt=action.attempt, run=run, request=recorded)
        return self._append(snapshot, event)

    def _start(self, action: Start, snapshot: Snapshot) -> str:
        self._check_not_superseded(snapshot)
        attempt = action.attempt
        try:
            request = TrainingRequest.from_record(attempt.run, attempt.request)
        except ConfigError as error:
            # The request was recorded by a program with other settings. Without an end this run would block the next.
            return self._finish(Finish(attempt, Run("failed", str(error))), snapshot)
        self.dependencies.runner.start(request)
        return f"started run {attempt.run}"

    def _cancel(self, action: Cancel, snapshot: Snapshot) -> str:
        self._check_not_superseded(snapshot)
        self.dependencies.runner.cancel(action.attempt.run)
        self.not_again.append(action)
        return f"ending run {action.attempt.run}: {action.attempt.cancelled}"

    def _finish(self, action: Finish, snapshot: Snapshot) -> str:
        run, status = action.run, snapshot.champion_status
        version = None if run.model_version is None else str(run.model_version)
        event = Finished(
            run=action.attempt.run,
            outcome="failed" if run.state == "failed" else "approved" if run.approved else "rejected",
            version=version,
            digest=status.digests.get(version, "") if status and version else "",
            message=run.message,
            reasons=run.reasons,
            metrics=run.metrics,
            page=self._run_page(action.attempt.run) if run.state == "succeeded" else "",
        )
        return self._append(snapshot, event)

    def _run_page(self, run: str) -> str:
        """Return the path of a run's page; a link that is missing does not keep a verdict out of the ledger."""
        try:
            return self.dependencies.repository.run_page(run)
        except Exception:
            log.debug("no page of run %s", run, exc_info=True)
            return ""

    def _adopt(self, action: Adopt, snapshot: Snapshot) -> str:
        why = "champion before continuous delivery"
        self._append(snapshot, Promoted(version=action.version.number, digest=action.version.digest, why=why))
        return f"adopted version {action.version}: {why}"

    def _promote(self, action: Promote, snapshot: Snapshot) -> str:
        version, digest = action.version.number, action.version.digest
        if snapshot.state.promoting != action.version:
            self._append(snapshot, Promoting(version=version, digest=digest, why=action.why))

        def serve(target: Target) -> None:  # restores nothing: if the alias cannot be moved, the next tick repeats this
            target.apply(release)

        try:
            release = self._release(action.version)
            move_champion(
                self.dependencies.targets,
                serve,
                lambda: self.dependencies.repository.promote(action.version, ""),
                before_effect=lambda: self._check_not_superseded(snapshot),
            )
        except NotServedError as error:
            return self._append(snapshot, Refused(version=version, digest=digest, message=str(error)))
        return self._append(snapshot, Promoted(version=version, digest=digest, why=action.why))

    def _release(self, version: VersionId) -> Release:
        try:
            return self.dependencies.repository.release(version)
        except SpiraError as error:
            raise NotServedError(str(error)) from error

    def _set_champion(self, action: SetChampion, snapshot: Snapshot) -> str:
        self._check_not_superseded(snapshot)
        state, repository, present = snapshot.state, self.dependencies.repository, action.instead_of
        status = snapshot.champion_status
        reason = state.rollback_reason(present) if present else ""
        if present and reason and status and not present.is_among(status.rolled_back):
            repository.roll_back(present, reason)
        champion = repository.champion_status().champion
        if not (champion and champion.is_same(action.version)):
            repository.promote(action.version, f"pinned: {state.pin.reason}" if state.pin else "")
        return self._append_repair(snapshot, "champion", action.version, present.number if present else None)

    def _serve(self, action: Serve, snapshot: Snapshot) -> str:
        target = next(target for target in self.dependencies.targets if target.name == action.target)
        release = self.dependencies.repository.release(action.version)
        self._check_not_superseded(snapshot)
        target.apply(release)
        return self._append_repair(snapshot, action.target, action.version, action.instead_of)

    def _append_repair(self, snapshot: Snapshot, what: str, version: VersionId, instead_of: str | None) -> str:
        event = Repaired(what=what, version=version.number, digest=version.digest, instead_of=instead_of)
        return self._append(snapshot, event)


@contextmanager
def _noting(troubles: list[str], subject: str) -> Iterator[None]:
    """Turn an error into a note, so that the rest continues without the unreachable part."""
    try:
        yield
    except Exception as error:
        troubles.append(f"{subject}: {describe_error(error)}")


def describe_error(error: Exception) -> str:
    """Return an error in one line; of an unexpected one also its type and place, as it is a fault of this program.

    A controller goes on after any error: the next tick tries again.
    """
    if isinstance(error, (SpiraError, OSError)):  # OSError: a full disk, for example
        return str(error)
    log.debug("unexpected error", exc_info=error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"internal error: {type(error).__name__}: {error} ({Path(place.filename).name}, line {place.lineno})"
