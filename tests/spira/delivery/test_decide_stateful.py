"""Whatever happens, in whatever order: at most one run and one promotion a fingerprint, and it comes to rest.

Hypothesis drives a world of changes, kills before and after any effect, a second reconciler that goes on while the
first is held up, torn records, outages, lost and doubled wake-ups, clocks that are off, and people.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from spira.delivery import operator_commands
from spira.delivery.decide import Policy, wanted
from spira.errors import SpiraError
from tests.support.in_memory_world import KilledError, World

few = st.integers(0, 3).map(str)


class Delivery(RuleBasedStateMachine):
    """A world, and what may befall it."""

    @initialize(approval=st.booleans(), quiet=st.sampled_from([0.0, 120.0]))
    def begin(self, approval: bool, quiet: float) -> None:
        self.world = World(Policy(attempts=3, backoff_seconds=60, quiet_seconds=quiet, approval=approval))

    @rule(axis=st.sampled_from(["data", "model", "code"]), value=few)
    def change(self, axis: str, value: str) -> None:
        setattr(self.world, axis, value)

    @rule(problem=st.sampled_from(["", "", "half an upload"]))
    def upload(self, problem: str) -> None:
        self.world.unfit = problem

    @rule(skew=st.sampled_from([0.0, 0.0, -7_200.0, 7_200.0]), times=st.integers(1, 3))
    def wake(self, skew: float, times: int) -> None:
        """Wake-ups come once, doubled, or (no rule) never."""
        for _ in range(times):
            self._tick(skew)

    @rule(after=st.integers(0, 6), when=st.sampled_from(["before", "after"]))
    def wake_and_kill(self, after: int, when: str) -> None:
        """A tick that dies before or after one of its effects."""

        def kill(now: str) -> None:
            if now == when:
                raise KilledError

        self._interfered(after, kill)

    @rule(after=st.integers(0, 6), when=st.sampled_from(["before", "after"]), skew=st.sampled_from([0.0, 7_200.0]))
    def wake_two(self, after: int, when: str, skew: float) -> None:
        """A tick is held up at one of its effects, while another one does all there is to do."""

        def another(now: str) -> None:
            if now == when:
                self._tick(skew)

        self._interfered(after, another)

    @rule()
    def wake_and_tear(self) -> None:
        """The machine dies while a record is written."""
        self.world.store.tear = True
        self._tick(0.0)
        self.world.store.tear = False

    def _interfered(self, after: int, interfere: Callable[[str], None]) -> None:
        self.world.effects.plan(after, interfere)
        self._tick(0.0)
        self.world.effects.left = None

    def _tick(self, skew: float) -> None:
        with suppress(KilledError, SpiraError):
            self.world.reconciler(skew).tick()

    @rule(verdict=st.sampled_from(["approved", "approved", "rejected", "failed"]))
    def end_run(self, verdict: str) -> None:
        self.world.end_run(verdict)

    @rule()
    def kill_run(self) -> None:
        for name, run in self.world.runner.runs.items():
            if run.state == "running":
                self.world.runner.runs[name] = type(run)("interrupted")

    @rule(seconds=st.sampled_from([1.0, 100.0, 5_000.0]))
    def pass_time(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(what=st.sampled_from(["store", "runner", "repository", "local", "kserve"]), there=st.booleans())
    def outage(self, what: str, there: bool) -> None:
        targets = {target.name: target for target in self.world.targets}
        place = targets[what] if what in targets else getattr(self.world, what)
        place.reachable = there

    @rule(version=st.sampled_from(["1", "2"]), refuses=st.booleans())
    def refuse(self, version: str, refuses: bool) -> None:
        self.world.targets[1].refuses = {version} if refuses else set()

    @precondition(lambda self: self.world.repository.versions)
    @rule(data=st.data())
    def move_by_hand(self, data: st.DataObject) -> None:
        """Somebody changes what serves, or who is champion, behind the ledger's back."""
        version = str(data.draw(st.integers(1, self.world.repository.versions)))
        if data.draw(st.booleans()):
            self.world.targets[0].version = version
        else:
            self.world.repository.champion = version

    @rule(order=st.sampled_from(["pin", "unpin", "roll_back", "approve", "retry"]), version=st.sampled_from("123"))
    def person(self, order: str, version: str) -> None:
        ledger = self.world.ledger
        said: dict[str, Callable[[], object]] = {
            "pin": lambda: operator_commands.pin(ledger, version, "so"),
            "unpin": lambda: operator_commands.unpin(ledger),
            "roll_back": lambda: operator_commands.roll_back(ledger, "bad"),
            "approve": lambda: operator_commands.approve(ledger, version),
            "retry": lambda: operator_commands.retry(ledger),
        }
        with suppress(SpiraError):
            said[order]()

    @invariant()
    def at_most_one_run_is_on(self) -> None:
        assert sum(run.state == "running" for run in self.world.runner.runs.values()) <= 1

    @invariant()
    def no_run_begins_twice(self) -> None:
        assert all(count == 1 for count in self.world.runner.begun.values())

    @invariant()
    def what_is_settled_is_never_run_again(self) -> None:
        """Of the runs of a fingerprint only the last may have a verdict."""
        if self.world.store.reachable:
            for fingerprint, count in Counter(each.fingerprint for each in self.world.state.attempts).items():
                attempts = self.world.state.attempts_of(fingerprint)
                assert not any(attempt.is_settled for attempt in attempts[:-1])
                assert len({attempt.run for attempt in attempts}) == count

    @invariant()
    def a_version_is_promoted_once_at_a_time(self) -> None:
        if self.world.store.reachable:
            promoted = [each.version for each in self.world.state.deliveries]
            assert all(before != after for before, after in pairwise(promoted))

    def teardown(self) -> None:
        """Everything is mended, runs end, time passes: then it is at rest, and as it should be."""
        if not hasattr(self, "world"):
            return
        world = self.world
        for place in (world.store, world.runner, world.repository, *world.targets):
            place.reachable = True
        world.targets[1].refuses, world.unfit = set(), ""
        for _ in range(12):
            world.pass_time(20_000)
            world.reconciler().tick()
            world.end_run("approved")
        assert world.reconciler().tick().done == ()
        self._at_rest()

    def _at_rest(self) -> None:
        state, world = self.world.state, self.world
        attempts = state.attempts_of(world.observed().fingerprint.digest)
        assert state.active is None
        assert attempts[-1].is_settled or len(attempts) >= world.policy.attempts
        want = wanted(state, {*state.rolled_back, *world.repository.rolled_back})
        assert want is None or (world.serving, world.repository.champion) == ({want}, want)
        if state.pin:
            assert world.serving == {state.pin.version}
        assert not set(state.rolled_back) & world.serving


TestDelivery = Delivery.TestCase
TestDelivery.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
