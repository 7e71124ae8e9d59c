"""What the reconciler does, case by case, in a world in memory."""

from __future__ import annotations

import pytest

from spira.delivery import operator_commands
from spira.delivery.decide import Policy
from spira.errors import SpiraError
from tests.support.in_memory_world import KilledError, World


@pytest.fixture
def world() -> World:
    return World()


def kinds(world: World) -> list[str]:
    return [record.kind for record in world.ledger.read()]


def notes(world: World) -> str:
    return "\n".join(world.reconciler().look().decision.notes)


def test_a_first_observation_is_run_and_delivered(world: World) -> None:
    """From nothing to a version that serves on every target and is champion, everything recorded."""
    world.deliver()
    assert (world.repository.champion, world.serving) == ("1", {"1"})
    assert kinds(world) == ["observed", "claimed", "finished", "promoting", "promoted"]
    assert world.reconciler().tick().done == ()


def test_what_is_settled_is_not_run_again(world: World) -> None:
    """A rejected fingerprint never trains again by itself, however often and late it is looked at."""
    world.deliver("rejected")
    for _ in range(5):
        world.pass_time(86_400)
        world.reconciler().tick()
    assert len(world.runner.begun) == 1
    assert world.repository.champion is None


@pytest.mark.parametrize("axis", ["data", "model", "code"])
def test_a_change_in_any_axis_is_run(world: World, axis: str) -> None:
    """Data, model or code."""
    world.deliver()
    setattr(world, axis, "1")
    world.deliver()
    assert world.repository.champion == "2"


def test_an_order_is_for_what_was_observed(world: World) -> None:
    """Its data is pinned by digest, its settings are those of the look."""
    world.reconciler().tick()
    (request,) = world.runner.requests.values()
    seen = world.look()
    assert (request.data_digest, request.config) == (seen.seen.data.digest, world.config)


def test_a_newer_change_waits_for_the_run_that_is_on(world: World) -> None:
    """One run at a time; of the changes that queued meanwhile only the last is run."""
    world.reconciler().tick()
    for data in ("1", "2", "3"):
        world.data = data
        world.reconciler().tick()
    assert len(world.runner.begun) == 1
    world.end_run("approved")
    world.deliver()
    assert len(world.runner.begun) == 2
    assert world.state.attempts[-1].fingerprint == world.observed().fingerprint.digest
    assert world.repository.champion == "2"


def test_failed_attempts_back_off_and_are_capped(world: World) -> None:
    """The second attempt comes after a while; then it is given up, and said so, until a person asks."""
    world.deliver("failed")
    assert "attempt 1 of 2 failed, the next is due" in notes(world)
    world.pass_time(59)
    world.reconciler().tick()
    assert len(world.runner.begun) == 1
    world.pass_time(2)
    world.deliver("failed")
    assert len(world.runner.begun) == 2
    world.pass_time(86_400)
    world.reconciler().tick()
    assert len(world.runner.begun) == 2
    assert "given up after 2 failed attempts" in notes(world)
    operator_commands.retry(world.ledger)
    world.deliver()
    assert world.repository.champion == "1"


def test_a_change_must_stand_still(world: World) -> None:
    """While an upload goes on nothing is run; each change begins the wait anew."""
    world.policy = Policy(quiet_seconds=100)
    world.reconciler().tick()
    world.pass_time(90)
    world.data = "1"
    world.reconciler().tick()
    world.pass_time(90)
    world.reconciler().tick()
    assert not world.runner.begun
    assert "must stand still" in notes(world)
    world.pass_time(20)
    world.reconciler().tick()
    assert len(world.runner.begun) == 1


def test_what_is_unfit_waits_until_it_is_mended(world: World) -> None:
    """Half an upload starts nothing; the problem is recorded once, and what serves goes on."""
    world.deliver()
    world.unfit = "data: b.wav is not there"
    for _ in range(3):
        world.reconciler().tick()
    assert kinds(world).count("observed") == 2
    assert "b.wav" in notes(world)
    world.unfit, world.data = "", "1"
    world.deliver()
    assert world.repository.champion == "2"


def test_a_killed_run_is_taken_up(world: World) -> None:
    """The same order again, not another attempt."""
    world.reconciler().tick()
    (name,) = world.runner.runs
    world.runner.runs[name] = type(world.runner.runs[name])("interrupted")
    world.reconciler().tick()
    assert world.runner.runs[name].state == "running"
    assert len(world.state.attempts) == 1


def test_a_person_must_approve_where_it_is_asked_for(world: World) -> None:
    """The version waits as challenger; another one's approval doesn't count."""
    world.policy = Policy(approval=True)
    world.deliver()
    assert world.repository.champion is None
    assert "waits for a person: spira deliver approve 1" in notes(world)
    with pytest.raises(SpiraError, match="version 1 does"):
        operator_commands.approve(world.ledger, "2")
    operator_commands.approve(world.ledger, "1")
    world.reconciler().tick()
    assert (world.repository.champion, world.serving) == ("1", {"1"})
    assert "by a person" in world.state.deliveries[-1].why


def test_a_rollback_holds(world: World) -> None:
    """One command goes back and pins; nothing brings the bad version back, not even the pin's end."""
    world.deliver()
    world.data = "1"
    world.deliver()
    operator_commands.roll_back(world.ledger, "too many alarms")
    world.reconciler().tick()
    assert (world.repository.champion, world.serving) == ("1", {"1"})
    assert world.repository.rolled_back == {"2"}
    world.data = "2"
    world.deliver()
    assert world.serving == {"1"}
    assert "version 3 is approved; version 1 is pinned" in notes(world)
    world.data = "1"
    operator_commands.unpin(world.ledger)
    world.reconciler().tick()
    assert "2" not in {world.repository.champion, *world.serving}


def test_an_unpinned_loop_goes_on(world: World) -> None:
    """What was approved while the pin held is promoted when it is taken off."""
    world.deliver()
    operator_commands.pin(world.ledger, "1", "study under way")
    world.data = "1"
    world.deliver()
    assert world.serving == {"1"}
    operator_commands.unpin(world.ledger)
    world.reconciler().tick()
    assert (world.repository.champion, world.serving) == ("2", {"2"})


def test_what_is_observed_again_serves_again(world: World) -> None:
    """A change that is taken back brings its version back, without a run."""
    world.deliver()
    world.model = "1"
    world.deliver()
    world.model = "0"
    world.reconciler().tick()
    assert (world.repository.champion, world.serving) == ("1", {"1"})
    assert len(world.runner.begun) == 2


def test_drift_is_put_right(world: World) -> None:
    """A target that serves something else, and an alias that was moved by hand."""
    world.deliver()
    world.data = "1"
    world.deliver()
    world.targets[1].version, world.repository.champion = "1", "1"
    world.reconciler().tick()
    assert (world.repository.champion, world.serving) == ("2", {"2"})
    assert kinds(world).count("repaired") == 2


def test_a_champion_from_before_is_adopted(world: World) -> None:
    """What served before continuous delivery serves on until something better is approved."""
    world.repository.champion, world.repository.versions = "7", 7
    world.deliver("rejected")
    assert (world.repository.champion, world.serving) == ("7", {"7"})
    world.data = "1"
    world.deliver()
    assert world.serving == {"8"}


def test_a_version_that_cannot_be_served_is_tried_again_later(world: World) -> None:
    """No target keeps it; what served serves on; each further try comes later, and none is the last."""
    world.deliver()
    world.data = "1"
    world.targets[1].refuses = {"2"}
    world.deliver()
    world.reconciler().tick()
    assert (world.repository.champion, world.serving) == ("1", {"1"})
    assert "could not be served" in notes(world)
    for _ in range(10):
        world.pass_time(3_601)
        world.reconciler().tick()
    world.targets[1].refuses = set()
    world.pass_time(3_601)
    world.reconciler().tick()
    assert (world.repository.champion, world.serving) == ("2", {"2"})


@pytest.mark.parametrize("what", ["runner", "repository"])
def test_an_outage_loses_nothing(world: World, what: str) -> None:
    """While something is away it is said, nothing fails for good; afterwards it goes on by itself."""
    world.deliver()
    world.data = "1"
    setattr(getattr(world, what), "reachable", False)  # noqa: B010 (what is away is a parameter)
    report = world.reconciler().tick()
    assert any("can't be reached" in trouble for trouble in report.troubles)
    setattr(getattr(world, what), "reachable", True)  # noqa: B010
    world.deliver()
    assert world.serving == {"2"}
    assert all(attempt.outcome == "approved" for attempt in world.state.attempts)


def test_without_its_ledger_nothing_is_done(world: World) -> None:
    """The tick says so and changes nothing; afterwards it goes on by itself."""
    world.store.reachable = False
    with pytest.raises(SpiraError, match="can't be reached"):
        world.reconciler().tick()
    assert not world.runner.begun
    world.store.reachable = True
    world.deliver()
    assert world.serving == {"1"}


def test_a_torn_record_is_passed_over(world: World) -> None:
    """Its writer died of it before it acted: the thing is recorded anew, and done once."""
    world.store.tear = True
    with pytest.raises(KilledError):
        world.reconciler().tick()
    world.deliver()
    assert world.serving == {"1"}
    assert world.state.damaged == (1,)
    assert set(world.runner.begun.values()) == {1}


def test_who_was_held_up_does_no_more(world: World) -> None:
    """A reconciler that stood still while a person pinned and another ticked does not go on with its promotion."""
    world.deliver()
    world.data = "1"
    world.reconciler().tick()
    world.end_run("approved")

    def meanwhile(when: str) -> None:
        if when == "after":
            operator_commands.pin(world.ledger, "1", "not now")
            world.reconciler().tick()

    world.effects.plan(2, meanwhile)  # after: the record of the end, that of the promotion, the first target
    world.reconciler().tick()
    first, second = world.targets
    assert (first.served, second.served) == (["1", "2", "1"], ["1"])
    assert (world.repository.champion, world.repository.before) == ("1", None)


def test_nothing_to_go_back_to_is_said(world: World) -> None:
    """A rollback before the second delivery is refused, and so is a version that the ledger doesn't know."""
    world.deliver()
    with pytest.raises(SpiraError, match="nothing to go back to"):
        operator_commands.roll_back(world.ledger, "bad")
    with pytest.raises(SpiraError, match="knows no version 9"):
        operator_commands.pin(world.ledger, "9", "mine")
