"""Does what :mod:`spira.delivery.decide` decides, a thing at a time, looking again after each.

Before a thing is done it is recorded, where doing it twice would do harm; and it is done in such a way that doing it
again, after a kill, changes nothing. Before each effect the ledger is looked at once more: who was asleep while
another went on does nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from spira.config import ConfigError
from spira.delivery import decide as deciding
from spira.delivery.decide import Action, ChampionStatus, Decision, Policy, decide
from spira.delivery.fingerprints import Axes, InvalidInput
from spira.delivery.ledger import Ledger, OvertakenError, Record
from spira.delivery.runner import Run, Runner
from spira.delivery.state import DeliveryState, state_of
from spira.delivery.training_request import TrainingRequest
from spira.deployment.target import Release, Status, Target
from spira.errors import SpiraError

log = logging.getLogger(__name__)

MAX_STEPS = 50
"""Looks within one tick; what is left is the next tick's."""


class Repository(Protocol):
    """What delivery needs of the model repository."""

    def champion_status(self) -> ChampionStatus:
        """Who is champion, and who is held."""

    def release(self, version: str) -> Release:
        """A version's package, here."""

    def promote(self, version: str, reason: str) -> None:
        """Make it champion, for a reason to force it where it isn't approved or was rolled back; empty for none."""

    def roll_back(self, bad: str, reason: str) -> None:
        """Make the champion before it champion again, while ``bad`` is champion."""


@dataclass(frozen=True)
class Observation:
    """One look at what there is to train on."""

    seen: Axes | InvalidInput
    request: TrainingRequest | None = None
    """For a run of just what was seen; None where it is unfit."""


@dataclass
class Dependencies:
    """All that a reconciler reaches the world by."""

    look: Callable[[], Observation]
    """At data, settings and code; SpiraError where that can't be done now."""
    ledger: Ledger
    runner: Runner
    repository: Repository
    targets: Sequence[Target]
    clock: Callable[[], datetime]


@dataclass
class Snapshot:
    """The world at one moment, as far as it could be looked at."""

    look: Observation | None
    records: list[Record]
    state: DeliveryState
    runs: dict[str, Run | None]
    models: ChampionStatus | None
    serving: dict[str, Status | None]
    troubles: list[str] = field(default_factory=list)
    """What could not be asked, and why."""


@dataclass(frozen=True)
class Report:
    """What a tick did and left."""

    view: Snapshot
    decision: Decision
    """What is still waited for."""
    done: tuple[str, ...]
    """In words, in order."""
    troubles: tuple[str, ...]


class Reconciler:
    """One look at the world after another, until nothing is left to do now."""

    def __init__(self, dependencies: Dependencies, policy: Policy) -> None:
        self.dependencies, self.policy = dependencies, policy
        self.done: list[str] = []
        self.failed: list[Action] = []
        self.causes: list[str] = []

    def tick(self) -> Report:
        """Do all that can be done now.

        Raises:
            StorageError: the ledger can't be reached: without it nothing is done.
        """
        look, blind = self._look()
        for _ in range(MAX_STEPS):
            view = self._view(look)
            decision = self._decide(view)
            actions = [action for action in decision.actions if action not in self.failed]
            if not actions:
                break
            self._do(actions[0], view)
        troubles = dict.fromkeys([*blind, *view.troubles, *self.causes])
        return Report(view, decision, tuple(self.done), tuple(troubles))

    def look(self) -> Report:
        """What a tick would begin with; does nothing."""
        look, blind = self._look()
        view = self._view(look)
        return Report(view, self._decide(view), (), tuple(dict.fromkeys([*blind, *view.troubles])))

    def _decide(self, view: Snapshot) -> Decision:
        state, now = view.state, self.dependencies.clock()
        seen = view.look.seen if view.look else None
        return decide(seen, state, view.runs, view.models, view.serving, self.policy, now)

    def _look(self) -> tuple[Observation | None, list[str]]:
        try:
            return self.dependencies.look(), []
        except SpiraError as error:
            return None, [f"data, settings or code: {error}"]

    def _view(self, look: Observation | None) -> Snapshot:
        records = self.dependencies.ledger.read()
        view = Snapshot(look, records, state_of(records), {}, None, {})
        if active := view.state.active:
            with _noting(view.troubles, "runs"):
                view.runs[active.run] = self.dependencies.runner.find(active.run)
        with _noting(view.troubles, "model repository"):
            view.models = self.dependencies.repository.champion_status()
        for target in self.dependencies.targets:
            view.serving[target.name] = None
            with _noting(view.troubles, f"target {target.name}"):
                view.serving[target.name] = target.status()
        return view

    def _do(self, action: Action, view: Snapshot) -> None:
        """One action; what fails is told, and left for the next tick."""
        step: Callable[[Any, Snapshot], str] = getattr(self, f"_{type(action).__name__.lower()}")
        try:
            told = step(action, view)
        except OvertakenError:
            return  # somebody else has gone on: look again
        except (SpiraError, OSError) as error:  # a full disk is a trouble too, and the next tick's
            self.failed.append(action)
            self.causes.append(str(error))
            return
        self.done.append(told)
        log.info("%s", told)

    def _append(self, view: Snapshot, kind: str, body: dict[str, Any]) -> None:
        record = self.dependencies.ledger.append(view.state.last, kind, self.dependencies.clock(), body)
        view.records.append(record)
        view.state = state_of(view.records)

    def _check_not_superseded(self, view: Snapshot) -> None:
        """Go on only if nothing was recorded since the view was taken.

        Raises:
            OvertakenError: something was.
        """
        if len(self.dependencies.ledger.read()) != view.state.last:
            raise OvertakenError("the ledger has gone on meanwhile")

    def _observe(self, action: deciding.Observe, view: Snapshot) -> str:
        if isinstance(action.seen, InvalidInput):
            self._append(view, "observed", {"problem": action.seen.problem})
            return f"not fit to train on: {action.seen.problem}"
        fingerprint = action.seen.fingerprint
        self.dependencies.ledger.keep(action.seen)
        axes = {"data": fingerprint.data, "model": fingerprint.model, "code": fingerprint.code}
        commit = view.look.request.git_commit if view.look and view.look.request else ""
        self._append(view, "observed", {"fingerprint": fingerprint.digest, "axes": axes, "git_commit": commit})
        return f"observed fingerprint {fingerprint.digest[:12]}"

    def _claim(self, action: deciding.Claim, view: Snapshot) -> str:
        run = f"spira-{action.fingerprint[:12]}-{action.attempt}"
        request = view.look.request.to_record() if view.look and view.look.request else {}
        body = {"fingerprint": action.fingerprint, "attempt": action.attempt, "run": run, "order": request}
        self._append(view, "claimed", body)
        return f"claimed run {run}"

    def _start(self, action: deciding.Start, view: Snapshot) -> str:
        self._check_not_superseded(view)
        attempt = action.attempt
        try:
            request = TrainingRequest.from_record(attempt.run, attempt.request)
        except ConfigError as error:
            # Written by a program with other settings. A run that cannot start would block every later one.
            return self._finish(deciding.Finish(attempt, Run("failed", str(error))), view)
        self.dependencies.runner.start(request)
        return f"started run {action.attempt.run}"

    def _finish(self, action: deciding.Finish, view: Snapshot) -> str:
        run = action.run
        outcome = "failed" if run.state == "failed" else "approved" if run.approved else "rejected"
        version = None if run.model_version is None else str(run.model_version)
        body = {"run": action.attempt.run, "outcome": outcome, "message": run.message, "version": version}
        self._append(view, "finished", {**body, "reasons": list(run.reasons), "metrics": run.metrics})
        because = f": {run.message or '; '.join(run.reasons)}" if outcome != "approved" else f", version {version}"
        return f"run {action.attempt.run} ended, {outcome}{because}"

    def _adopt(self, action: deciding.Adopt, view: Snapshot) -> str:
        self._append(view, "promoted", {"version": action.version, "why": "champion before continuous delivery"})
        return f"adopted version {action.version}, which is champion"

    def _promote(self, action: deciding.Promote, view: Snapshot) -> str:
        if view.state.promoting != action.version:
            self._append(view, "promoting", {"version": action.version, "why": action.why})
        try:
            release = self.dependencies.repository.release(action.version)
            for target in self.dependencies.targets:
                self._check_not_superseded(view)
                target.apply(release)
        except OvertakenError:
            raise
        except SpiraError as error:
            self._append(view, "refused", {"version": action.version, "message": str(error)})
            return f"version {action.version} could not be served: {error}"
        self._check_not_superseded(view)
        self.dependencies.repository.promote(action.version, "")
        self._append(view, "promoted", {"version": action.version, "why": action.why})
        return f"version {action.version} serves and is champion: {action.why}"

    def _setchampion(self, action: deciding.SetChampion, view: Snapshot) -> str:
        self._check_not_superseded(view)
        state, instead_of = view.state, action.instead_of
        if instead_of and instead_of in state.rolled_back and view.models and instead_of not in view.models.rolled_back:
            self.dependencies.repository.roll_back(instead_of, state.rolled_back[instead_of])
        reason = f"pinned: {state.pin.reason}" if state.pin else ""
        if self.dependencies.repository.champion_status().champion != action.version:
            self.dependencies.repository.promote(action.version, reason)
        told = {"what": "champion", "version": action.version, "instead_of": instead_of}
        self._append(view, "repaired", told)
        return f"version {action.version} is champion, instead of {instead_of or 'none'}"

    def _serve(self, action: deciding.Serve, view: Snapshot) -> str:
        target = next(target for target in self.dependencies.targets if target.name == action.target)
        release = self.dependencies.repository.release(action.version)
        self._check_not_superseded(view)
        target.apply(release)
        told = {"what": action.target, "version": action.version, "instead_of": action.instead_of}
        self._append(view, "repaired", told)
        if action.instead_of == action.version:
            return f"{action.target} serves version {action.version} as it should again"
        return f"{action.target} serves version {action.version}, instead of {action.instead_of or 'nothing'}"


@contextmanager
def _noting(troubles: list[str], what: str) -> Iterator[None]:
    """What can't be asked is noted, and the rest goes on without it."""
    try:
        yield
    except SpiraError as error:
        troubles.append(f"{what}: {error}")
