"""Cases of the reconciler, with dependencies in memory."""

from __future__ import annotations

import getpass
import json

import pytest

from spira.delivery import operator_commands
from spira.delivery.decide import Policy
from spira.delivery.history import last_problems
from spira.delivery.history.events import Claimed, Observed
from spira.delivery.history.ledger import path_of
from spira.delivery.runner import Run
from spira.delivery.status import delivery_status
from spira.errors import SpiraError
from tests.support.in_memory_world import GATE, InMemoryWorld, KilledError


@pytest.fixture
def world() -> InMemoryWorld:
    return InMemoryWorld()


def kinds(world: InMemoryWorld) -> list[str]:
    return [record.kind for record in world.ledger.read()]


def notes(world: InMemoryWorld) -> str:
    return "\n".join(world.reconciler().dry_run().decision.notes)


def test_a_first_observation_is_trained_and_delivered(world: InMemoryWorld) -> None:
    """Every step is recorded; the version serves on every target and is champion."""
    world.deliver()
    assert (world.repository.champion, world.serving_numbers) == ("1", {"1"})
    assert kinds(world) == ["observed", "claimed", "finished", "promoting", "promoted"]
    assert world.reconciler().tick().done == ()


def test_a_settled_fingerprint_is_not_trained_again(world: InMemoryWorld) -> None:
    """A rejected fingerprint is not trained again, after any number of ticks and days."""
    world.deliver("rejected")
    for _ in range(5):
        world.pass_time(86_400)
        world.reconciler().tick()
    assert len(world.runner.starts) == 1
    assert world.repository.champion is None


@pytest.mark.parametrize("axis", ["data", "model", "code"])
def test_a_change_in_any_axis_is_trained(world: InMemoryWorld, axis: str) -> None:
    world.deliver()
    setattr(world, axis, "1")
    world.deliver()
    assert world.repository.champion == "2"


def test_a_training_request_matches_the_observation(world: InMemoryWorld) -> None:
    """The data are pinned by their digest; the configuration is the observed one."""
    world.reconciler().tick()
    (request,) = world.runner.requests.values()
    observation = world.observe()
    assert (request.data_digest, request.config) == (observation.observed.data.digest, world.config)


def test_a_request_with_settings_of_another_program_fails_its_run(world: InMemoryWorld) -> None:
    """A claim that this program cannot read does not block later runs."""
    observation = world.observe()
    world.ledger.append(0, Observed(axes=observation.observed.fingerprint), world.now)
    request = {"config": '{"new": 1}'}
    world.ledger.append(1, Claimed(fingerprint="f", attempt=1, run="run-1", request=request), world.now)
    report = world.reconciler().tick()
    assert "run run-1 failed: training request of run run-1: " in report.done[0]
    world.end_run("approved")
    world.deliver()
    assert world.repository.champion == "1"


def test_a_run_that_an_earlier_version_has_claimed_is_resumed(world: InMemoryWorld) -> None:
    """The records have the form of version 79862e6, and the run was killed with its reconciler."""
    observation = world.observe()
    axes = vars(observation.observed.fingerprint)
    fingerprint = observation.observed.fingerprint.digest
    request = {
        "data": "gs://voices",
        "data_digest": axes["data"],
        "config": world.config.model_dump_json(),
        "gate": GATE.model_dump_json(),
        "skip_bad": False,
        "code_digest": axes["code"],
        "git_commit": "abc123",
    }
    at = world.now.isoformat()
    observed = {"kind": "observed", "at": at, "by": "me", "id": "1", "fingerprint": fingerprint, "axes": axes}
    claimed = {"fingerprint": fingerprint, "attempt": 1, "run": "spira-1", "order": request}
    claimed = {"kind": "claimed", "at": at, "by": "me", "id": "2"} | claimed
    for number, record in enumerate((observed, claimed), start=1):
        world.store.write(path_of(number), json.dumps(record).encode())
    world.runner.runs["spira-1"] = Run("interrupted")
    assert world.reconciler().tick().done == ("started run spira-1",)
    expected = observation.request.model_copy(update={"name": "spira-1", "git_commit": "abc123"})
    assert world.runner.requests == {"spira-1": expected}
    world.end_run("approved")
    world.reconciler().tick()
    assert (world.repository.champion, world.serving_numbers) == ("1", {"1"})


def test_a_newer_change_waits_for_the_active_run(world: InMemoryWorld) -> None:
    """Of the changes that queue during a run only the last is trained."""
    world.reconciler().tick()
    for data in ("1", "2", "3"):
        world.data = data
        world.reconciler().tick()
    assert len(world.runner.starts) == 1
    world.end_run("approved")
    world.deliver()
    assert len(world.runner.starts) == 2
    assert world.state.attempts[-1].fingerprint == world.observed().fingerprint.digest
    assert world.repository.champion == "2"


def test_failed_attempts_back_off_and_are_limited(world: InMemoryWorld) -> None:
    """The last failed attempt is noted; only an operator starts another one."""
    world.deliver("failed")
    assert "attempt 1 of 2 failed; next attempt at" in notes(world)
    world.pass_time(59)
    world.reconciler().tick()
    assert len(world.runner.starts) == 1
    world.pass_time(2)
    world.deliver("failed")
    assert len(world.runner.starts) == 2
    world.pass_time(86_400)
    world.reconciler().tick()
    assert len(world.runner.starts) == 2
    assert "gave up after 2 failed attempts" in notes(world)
    operator_commands.retry(world.ledger)
    world.deliver()
    assert world.repository.champion == "1"


def test_a_change_waits_until_the_input_is_quiet(world: InMemoryWorld) -> None:
    """Each further change, such as the next file of an upload, restarts the wait."""
    world.policy = Policy(quiet_seconds=100)
    world.reconciler().tick()
    world.pass_time(90)
    world.data = "1"
    world.reconciler().tick()
    world.pass_time(90)
    world.reconciler().tick()
    assert not world.runner.starts
    assert "input changed; waiting until 00:03:10 in case an upload is not complete" in notes(world)
    world.pass_time(20)
    world.reconciler().tick()
    assert len(world.runner.starts) == 1


def test_invalid_input_waits_until_it_is_corrected(world: InMemoryWorld) -> None:
    """The problem is recorded once, and the served version stays."""
    world.deliver()
    world.problem = "data: b.wav does not exist"
    for _ in range(3):
        world.reconciler().tick()
    assert kinds(world).count("observed") == 2
    assert "the data cannot be trained on: b.wav does not exist" in notes(world)
    world.problem, world.data = "", "1"
    world.deliver()
    assert world.repository.champion == "2"


def test_an_interrupted_run_is_resumed(world: InMemoryWorld) -> None:
    """It is the same run, not another attempt."""
    world.reconciler().tick()
    (name,) = world.runner.runs
    world.runner.runs[name] = type(world.runner.runs[name])("interrupted")
    world.reconciler().tick()
    assert world.runner.runs[name].state == "running"
    assert len(world.state.attempts) == 1


@pytest.mark.parametrize("state", ["running", "interrupted", "succeeded", "never started"])
def test_a_cancelled_run_ends_and_is_not_tried_again(world: InMemoryWorld, state: str) -> None:
    """Whatever the run has done; an operator can ask for another attempt, and a change is trained as always."""
    world.reconciler().tick()
    (name,) = world.runner.runs
    if state == "never started":
        world.runner.runs.clear()
    elif state != "running":
        world.runner.runs[name] = Run(state, approved=True, model_version=1)  # type: ignore[arg-type]
    operator_commands.cancel(world.ledger, "wrong folder")
    report = world.reconciler().tick()
    who = getpass.getuser()
    assert report.done[-1] == f"run {name} failed: cancelled by {who}: wrong folder"
    assert report.done[:-1] == ((f"ending run {name}: cancelled by {who}: wrong folder",) if state == "running" else ())
    world.pass_time(1e6)
    assert world.reconciler().tick().done == ()
    assert f"run {name} was cancelled by {who}: wrong folder; to train again, change the input or run" in notes(world)
    assert world.repository.champion is None
    with pytest.raises(SpiraError, match="nothing to cancel: no run is active"):
        operator_commands.cancel(world.ledger)
    world.runner.runs.clear()
    if state == "succeeded":
        operator_commands.retry(world.ledger)
    else:
        world.data = "1"
    world.deliver()
    assert world.repository.champion == "1"


def test_a_cancelled_run_may_take_its_time_to_end(world: InMemoryWorld) -> None:
    """A cluster behaves like this: every tick asks once, and the run has failed when it has ended."""
    world.runner.ends_late = True
    world.reconciler().tick()
    (name,) = world.runner.runs
    for reason in ("", "again"):
        operator_commands.cancel(world.ledger, reason)
        report = world.reconciler().tick()
        assert report.done == (f"ending run {name}: cancelled by {getpass.getuser()}",)
        assert "waiting for its end" in " ".join(report.decision.notes)
        assert world.state.active is not None
    world.end_run("approved")
    assert world.reconciler().tick().done == (f"run {name} failed: cancelled by {getpass.getuser()}",)
    assert kinds(world) == ["observed", "claimed", "cancelled", "cancelled", "finished"]


def test_a_version_waits_for_manual_approval_if_the_policy_requires_it(world: InMemoryWorld) -> None:
    """The approval of another version is refused."""
    world.policy = Policy(approval=True)
    world.deliver()
    assert world.repository.champion is None
    assert "waits for manual approval: spira deliver approve 1" in notes(world)
    with pytest.raises(SpiraError, match="version 1 does"):
        operator_commands.approve(world.ledger, "2")
    operator_commands.approve(world.ledger, "1")
    world.reconciler().tick()
    assert (world.repository.champion, world.serving_numbers) == ("1", {"1"})
    assert "by an operator" in world.state.deliveries[-1].why


def test_a_rolled_back_version_never_serves_again(world: InMemoryWorld) -> None:
    """It does not come back with a newer version or at the end of the pin."""
    world.deliver()
    world.data = "1"
    world.deliver()
    operator_commands.roll_back(world.ledger, "too many alarms")
    world.reconciler().tick()
    assert (world.repository.champion, world.serving_numbers) == ("1", {"1"})
    assert world.repository.rolled_back == {"2"}
    world.data = "2"
    world.deliver()
    assert world.serving_numbers == {"1"}
    assert "version 3 is approved and waits: version 1 is pinned" in notes(world)
    world.data = "1"
    operator_commands.unpin(world.ledger)
    world.reconciler().tick()
    assert "2" not in {world.repository.champion, *world.serving}


def test_a_version_that_was_approved_during_a_pin_is_promoted_after_it(world: InMemoryWorld) -> None:
    world.deliver()
    operator_commands.pin(world.ledger, "1", "study under way")
    world.data = "1"
    world.deliver()
    assert world.serving_numbers == {"1"}
    operator_commands.unpin(world.ledger)
    world.reconciler().tick()
    assert (world.repository.champion, world.serving_numbers) == ("2", {"2"})


def test_an_input_that_is_observed_again_brings_its_version_back(world: InMemoryWorld) -> None:
    """A reverted change needs no run."""
    world.deliver()
    world.model = "1"
    world.deliver()
    world.model = "0"
    world.reconciler().tick()
    assert (world.repository.champion, world.serving_numbers) == ("1", {"1"})
    assert len(world.runner.starts) == 2


def test_a_changed_target_and_a_moved_alias_are_repaired(world: InMemoryWorld) -> None:
    world.deliver()
    world.data = "1"
    world.deliver()
    world.targets[1].version, world.targets[1].digest = "1", world.repository.id_of("1").digest
    world.repository.champion = "1"
    report = world.reconciler().tick()
    assert (world.repository.champion, world.serving_numbers) == ("2", {"2"})
    assert kinds(world).count("repaired") == 2
    assert report.done == (
        "repaired: kserve serves version 2 (was 1)",
        "repaired: champion set to version 2 (was 1)",
    )


def test_the_alias_is_repaired_only_after_every_target_serves(world: InMemoryWorld) -> None:
    """An operator rolls back to a version that does not load any more: alias and service stay together."""
    world.deliver()
    world.data = "1"
    world.deliver()
    world.targets[1].refuses = {"1"}
    operator_commands.roll_back(world.ledger, "false alarms")
    report = world.reconciler().tick()
    assert world.repository.champion == "2"
    assert world.targets[1].version == "2"
    assert report.troubles
    world.targets[1].refuses = set()
    world.reconciler().tick()
    assert (world.repository.champion, world.serving_numbers) == ("1", {"1"})


def test_an_earlier_champion_is_adopted(world: InMemoryWorld) -> None:
    """A version from before continuous delivery serves until a newer one is approved."""
    world.repository.champion, world.repository.versions = "7", 7
    world.deliver("rejected")
    assert (world.repository.champion, world.serving_numbers) == ("7", {"7"})
    world.data = "1"
    world.deliver()
    assert world.serving_numbers == {"8"}


def test_a_version_that_a_target_refuses_is_tried_again_later(world: InMemoryWorld) -> None:
    """The served version stays on all targets; the number of attempts has no limit."""
    world.deliver()
    world.data = "1"
    world.targets[1].refuses = {"2"}
    world.deliver()
    world.reconciler().tick()
    assert (world.repository.champion, world.serving_numbers) == ("1", {"1"})
    assert "version 2 was not deployed; next attempt at" in notes(world)
    for _ in range(10):
        world.pass_time(3_601)
        world.reconciler().tick()
    world.targets[1].refuses = set()
    world.pass_time(3_601)
    world.reconciler().tick()
    assert (world.repository.champion, world.serving_numbers) == ("2", {"2"})


@pytest.mark.parametrize("dependency", ["runner", "repository"])
def test_an_outage_loses_nothing(world: InMemoryWorld, dependency: str) -> None:
    """It is reported, no attempt fails, and delivery continues afterwards."""
    world.deliver()
    world.data = "1"
    getattr(world, dependency).reachable = False
    report = world.reconciler().tick()
    assert any("is unreachable" in trouble for trouble in report.troubles)
    getattr(world, dependency).reachable = True
    world.deliver()
    assert world.serving_numbers == {"2"}
    assert all(attempt.outcome == "approved" for attempt in world.state.attempts)


def test_without_its_ledger_a_tick_does_nothing(world: InMemoryWorld) -> None:
    world.store.reachable = False
    with pytest.raises(SpiraError, match="is unreachable"):
        world.reconciler().tick()
    assert not world.runner.starts
    world.store.reachable = True
    world.deliver()
    assert world.serving_numbers == {"1"}


@pytest.mark.parametrize("dependency", ["observe", "runner", "repository", "target"])
def test_an_internal_error_is_a_trouble_and_delivery_goes_on(
    world: InMemoryWorld, monkeypatch: pytest.MonkeyPatch, dependency: str
) -> None:
    """A controller does not end with a traceback, whatever went wrong; the next tick tries again."""

    def fail(*args: object) -> None:
        raise KeyError("data")

    names = {"observe": "observe", "runner": "runner.start", "repository": "repository.release", "target": "status"}
    subject = world.targets[0] if dependency == "target" else world
    with monkeypatch.context() as patch:
        *path, name = names[dependency].split(".")
        patch.setattr(getattr(subject, path[0]) if path else subject, name, fail)
        world.reconciler().tick()
        world.end_run("approved")
        troubles = " ".join(world.reconciler().tick().troubles)
    assert "internal error: KeyError: 'data' (test_decide.py, line " in troubles
    world.deliver()
    world.reconciler().tick()
    assert world.serving_numbers == {"1"}


def test_a_torn_record_is_skipped(world: InMemoryWorld) -> None:
    """Its writer was killed before the action, so the action is recorded again and done once."""
    world.store.tear = True
    with pytest.raises(KilledError):
        world.reconciler().tick()
    world.deliver()
    assert world.serving_numbers == {"1"}
    assert (world.state.torn, world.state.damaged) == ((1,), ())
    assert set(world.runner.starts.values()) == {1}


def test_a_suspended_reconciler_does_not_continue(world: InMemoryWorld) -> None:
    """While it was suspended in a promotion, an operator pinned a version and another reconciler ticked."""
    world.deliver()
    world.data = "1"
    world.reconciler().tick()
    world.end_run("approved")

    def pin_and_tick(when: str) -> None:
        if when == "after":
            operator_commands.pin(world.ledger, "1", "not now")
            world.reconciler().tick()

    world.effects.plan(2, pin_and_tick)  # after the records "finished" and "promoting": at the first target
    world.reconciler().tick()
    first, second = world.targets
    assert (first.served, second.served) == (["1", "2", "1"], ["1"])
    assert (world.repository.champion, world.repository.previous) == ("1", None)


def test_impossible_commands_are_refused(world: InMemoryWorld) -> None:
    """A rollback before the second delivery, and a version that is not in the ledger."""
    world.deliver()
    with pytest.raises(SpiraError, match="cannot roll back: there is no other delivered version"):
        operator_commands.roll_back(world.ledger, "bad")
    with pytest.raises(SpiraError, match="version 9 is not in the ledger"):
        operator_commands.pin(world.ledger, "9", "mine")


def test_after_a_loss_of_the_repository_the_same_number_is_another_version(world: InMemoryWorld) -> None:
    """Versions are compared by the digests of their packages: the new weights serve, not the old ones."""
    world.deliver()
    old = world.repository.id_of("1")
    world.repository.lose()
    lost = world.reconciler().tick()
    assert any("version 1 is not in the model repository" in trouble for trouble in lost.troubles)
    assert world.serving == {old}
    world.data = "1"
    world.deliver()
    new = world.repository.id_of("1")
    assert not new.is_same(old)
    assert (world.serving, world.repository.champion_status().champion) == ({new}, new)
    assert [delivery.version for delivery in world.state.deliveries] == [old, new]
    assert not delivery_status(world.reconciler().dry_run()).has_problem


def test_after_a_loss_a_rolled_back_number_is_delivered_again(world: InMemoryWorld) -> None:
    """The operator has left the old package, not the number."""
    for data in ("0", "1"):
        world.data = data
        world.deliver()
    operator_commands.roll_back(world.ledger, "false alarms")
    world.reconciler().tick()
    world.repository.lose()
    for data in ("2", "3"):
        world.data = data
        world.deliver()
    operator_commands.unpin(world.ledger)
    world.reconciler().tick()
    assert world.serving == {world.repository.id_of("2")}


def test_a_ledger_without_digests_delivers_the_same_number_again(world: InMemoryWorld) -> None:
    """An older program has delivered version 1; after a loss of the repository, another version has this number."""
    world.deliver()
    for path in list(world.store.files):
        if path.startswith("records/"):
            fields = json.loads(world.store.files[path])
            kept = {key: fields[key] for key in fields if key not in ("digest", "checksum", "before")}
            world.store.files[path] = json.dumps(kept).encode()
    world.repository.lose()
    world.data = "1"
    world.deliver()
    assert world.serving == {world.repository.id_of("1")}


def test_a_failed_action_stays_in_the_status_until_it_succeeds(world: InMemoryWorld) -> None:
    """The champion moves after the targets; a status finds the problem although it carries out nothing."""
    for data in ("0", "1"):
        world.data = data
        world.deliver()
    world.targets[0].refuses = {"1"}
    operator_commands.roll_back(world.ledger, "false alarms")
    assert "version 1 returns wrong probabilities" in "".join(world.reconciler().tick().troubles)
    before = kinds(world)
    for _ in range(3):
        world.pass_time(3_600)
        world.reconciler().tick()
        status = delivery_status(world.reconciler().dry_run())
        assert status.has_problem
        assert "last tick, since 2026-11-24 00:00: version 1 returns wrong probabilities" in status.troubles
    assert (world.repository.champion, kinds(world)) == ("2", before)
    world.targets[0].refuses = set()
    world.reconciler().tick()
    status = delivery_status(world.reconciler().dry_run())
    assert (status.has_problem, status.troubles, world.repository.champion) == (False, (), "1")


def test_damaged_last_problems_are_ignored(world: InMemoryWorld) -> None:
    world.deliver()
    for content in (b"", b"[", b"[1]", b'{"problems": ["a lie"], "since": "2026-11-24"}', b"\xff"):
        world.store.files[last_problems.PATH] = content
        assert world.reconciler().dry_run().troubles == ()
