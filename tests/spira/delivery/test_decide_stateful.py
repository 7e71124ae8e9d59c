"""Any sequence of events: at most one run and one promotion of a fingerprint, and a stable state at the end.

Hypothesis generates changes, kills before and after any effect, a second reconciler that ticks while the first is
suspended, torn records, outages, lost and repeated wake-ups, wrong clocks, and commands of operators.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from spira.delivery import operator_commands
from spira.delivery.decide import Policy, wanted
from spira.delivery.status import delivery_status
from spira.errors import SpiraError
from tests.support.in_memory_world import InMemoryWorld, KilledError

pytestmark = pytest.mark.integration

few = st.integers(0, 3).map(str)
COMMANDS = ["pin", "unpin", "roll_back", "approve", "retry", "cancel"]
UNRELIABLE = ["store", "runner", "repository", "local", "kserve"]


class Delivery(RuleBasedStateMachine):
    """A world in memory, and the events that can happen to it."""

    @initialize(approval=st.booleans(), quiet=st.sampled_from([0.0, 120.0]))
    def begin(self, approval: bool, quiet: float) -> None:
        self.world = InMemoryWorld(Policy(attempts=3, backoff_seconds=60, quiet_seconds=quiet, approval=approval))

    @rule(axis=st.sampled_from(["data", "model", "code"]), value=few)
    def change(self, axis: str, value: str) -> None:
        setattr(self.world, axis, value)

    @rule(problem=st.sampled_from(["", "", "half an upload"]))
    def upload(self, problem: str) -> None:
        self.world.problem = problem

    @rule(skew=st.sampled_from([0.0, 0.0, -7_200.0, 7_200.0]), times=st.integers(1, 3))
    def tick(self, skew: float, times: int) -> None:
        """Tick once or several times; a lost wake-up is the absence of this rule."""
        for _ in range(times):
            self._tick(skew)

    @rule(after=st.integers(0, 6), when=st.sampled_from(["before", "after"]))
    def tick_and_kill(self, after: int, when: str) -> None:
        """Kill a tick before or after one of its effects."""

        def kill(now: str) -> None:
            if now == when:
                raise KilledError

        self._tick_with(after, kill)

    @rule(after=st.integers(0, 6), when=st.sampled_from(["before", "after"]), skew=st.sampled_from([0.0, 7_200.0]))
    def tick_during_a_tick(self, after: int, when: str, skew: float) -> None:
        """Suspend a tick at one of its effects while another one does everything that is due."""

        def tick(now: str) -> None:
            if now == when:
                self._tick(skew)

        self._tick_with(after, tick)

    @rule()
    def tick_and_tear(self) -> None:
        """Kill a tick while it writes a record."""
        self.world.store.tear = True
        self._tick(0.0)
        self.world.store.tear = False

    def _tick_with(self, after: int, interfere: Callable[[str], None]) -> None:
        self.world.effects.plan(after, interfere)
        self._tick(0.0)
        self.world.effects.remaining = None

    def _tick(self, skew: float) -> None:
        with suppress(KilledError, SpiraError):
            self.world.reconciler(skew).tick()

    @rule(verdict=st.sampled_from(["approved", "approved", "rejected", "failed"]))
    def end_run(self, verdict: str) -> None:
        self.world.end_run(verdict)

    @rule()
    def interrupt_run(self) -> None:
        for name, run in self.world.runner.runs.items():
            if run.state == "running":
                self.world.runner.runs[name] = type(run)("interrupted")

    @rule(late=st.booleans())
    def end_cancelled_runs_late(self, late: bool) -> None:
        self.world.runner.ends_late = late

    @rule(seconds=st.sampled_from([1.0, 100.0, 5_000.0]))
    def pass_time(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(name=st.sampled_from(UNRELIABLE), reachable=st.booleans())
    def outage(self, name: str, reachable: bool) -> None:
        targets = {target.name: target for target in self.world.targets}
        dependency = targets[name] if name in targets else getattr(self.world, name)
        dependency.reachable = reachable

    @rule(version=st.sampled_from(["1", "2"]), refuses=st.booleans())
    def refuse(self, version: str, refuses: bool) -> None:
        self.world.targets[1].refuses = {version} if refuses else set()

    @precondition(lambda self: self.world.repository.versions)
    @rule(data=st.data())
    def change_manually(self, data: st.DataObject) -> None:
        """Change the served version or the champion without a record in the ledger."""
        version = str(data.draw(st.integers(1, self.world.repository.versions)))
        if data.draw(st.booleans()):
            self.world.targets[0].version = version
            self.world.targets[0].digest = self.world.repository.id_of(version).digest
        else:
            self.world.repository.champion = version

    @precondition(lambda self: self.world.store.reachable and not self.world.state.active)
    @rule()
    def lose_the_repository(self) -> None:
        """Its numbers begin again at 1. What was delivered before can be neither repaired nor promoted again."""
        self.world.repository.lose()

    @rule(command=st.sampled_from(COMMANDS), version=st.sampled_from("123"))
    def operator_command(self, command: str, version: str) -> None:
        ledger = self.world.ledger
        commands: dict[str, Callable[[], object]] = {
            "pin": lambda: operator_commands.pin(ledger, version, "a reason"),
            "unpin": lambda: operator_commands.unpin(ledger),
            "roll_back": lambda: operator_commands.roll_back(ledger, "bad"),
            "approve": lambda: operator_commands.approve(ledger, version),
            "retry": lambda: operator_commands.retry(ledger),
            "cancel": lambda: operator_commands.cancel(ledger, "a reason"),
        }
        with suppress(SpiraError):
            commands[command]()

    @invariant()
    def at_most_one_run_is_active(self) -> None:
        assert sum(run.state == "running" for run in self.world.runner.runs.values()) <= 1

    @invariant()
    def no_run_starts_twice(self) -> None:
        assert all(count == 1 for count in self.world.runner.starts.values())

    @invariant()
    def a_settled_fingerprint_is_never_trained_again(self) -> None:
        """Of the attempts of a fingerprint only the last may have a verdict."""
        if self.world.store.reachable:
            counts = Counter(attempt.fingerprint for attempt in self.world.state.attempts)
            for fingerprint, count in counts.items():
                attempts = self.world.state.attempts_of(fingerprint)
                assert not any(attempt.is_settled for attempt in attempts[:-1])
                assert len({attempt.run for attempt in attempts}) == count

    @invariant()
    def a_cancelled_run_has_failed_or_is_active(self) -> None:
        """Its version, if it has registered one, is never delivered."""
        if self.world.store.reachable:
            assert all(attempt.outcome in ("", "failed") for attempt in self.world.state.attempts if attempt.cancelled)

    @invariant()
    def no_version_is_promoted_twice_in_a_row(self) -> None:
        if self.world.store.reachable:
            promoted = [delivery.version for delivery in self.world.state.deliveries]
            assert all(before != after for before, after in pairwise(promoted))

    def teardown(self) -> None:
        """End all outages, let runs end and time pass: the state must become stable and correct."""
        if not hasattr(self, "world"):
            return
        world = self.world
        for dependency in (world.store, world.runner, world.repository, *world.targets):
            dependency.reachable = True
        world.targets[1].refuses, world.problem = set(), ""
        for _ in range(12):
            world.pass_time(20_000)
            world.reconciler().tick()
            world.end_run("approved")
        assert world.reconciler().tick().done == ()
        self._check_final_state()

    def _check_final_state(self) -> None:
        state, world = self.world.state, self.world
        attempts = state.attempts_of(world.observed().fingerprint.digest)
        assert state.active is None
        last = attempts[-1]
        assert last.is_settled or last.cancelled or len(attempts) >= world.policy.attempts
        repository = world.repository.champion_status()
        version = wanted(state, {*state.rolled_back, *repository.rolled_back})
        status = delivery_status(world.reconciler().dry_run())
        if version and version.digest not in repository.digests.values():  # it was lost with the repository
            assert status.has_problem
        elif version:
            assert (world.serving, repository.champion) == ({version}, version)
            assert not status.has_problem
            assert not version.is_among(state.rolled_back)
        if version and state.pin:
            assert version == state.pin.version


TestDelivery = Delivery.TestCase
TestDelivery.settings = settings(max_examples=120, stateful_step_count=40)
