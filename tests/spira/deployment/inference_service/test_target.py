"""The Inference Service as a target: real processes, NATS and an S3 emulator; the service itself is a stand-in."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Thread

import pytest

from spira.deployment.inference_service import processes
from spira.deployment.inference_service import target as inference_service
from spira.deployment.inference_service.contract import WAITING
from spira.deployment.inference_service.messages import Messages
from spira.deployment.inference_service.target import InferenceService
from spira.deployment.local import Local
from spira.deployment.target import DeploymentError
from tests.support.packages import make_package
from tests.support.service_world import User, World, both_servers

BACK_AND_FORTH = [("2", "apply"), ("1", "rollback")]
FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two packages of different weights; to read only."""
    folder = tmp_path_factory.mktemp("packages")
    return make_package(folder / "1", seed=1), make_package(folder / "2", seed=2)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """NATS and S3."""
    with both_servers(tmp_path_factory.mktemp("nats")) as addresses:
        yield addresses


@pytest.fixture(scope="module")
def world(
    servers: tuple[str, str], good: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """A service that serves version 1; every test leaves it so."""
    world = World(tmp_path_factory.mktemp("world"), *servers, "spira", good)
    world.target().apply(world.release("1"))
    yield world
    world.stop()


def test_nothing_serves_before_the_first_apply(tmp_path: Path) -> None:
    """Status says so, verify and rollback refuse; no server is needed to say it."""
    target = World(tmp_path, "nats://127.0.0.1:9", "127.0.0.1:9", "spira", (tmp_path, tmp_path)).target()
    assert (target.status().version, target.status().ready) == (None, False)
    with pytest.raises(DeploymentError, match="serves nothing yet"):
        target.verify()
    with pytest.raises(DeploymentError, match="nothing served before"):
        target.rollback("bad")


def test_what_is_applied_answers(world: World, good: tuple[Path, Path]) -> None:
    """One process, pinned to the version, on the users' channel; every golden recording comes out right."""
    target = world.target()
    status = target.status()
    assert (status.version, status.previous, status.ready) == ("1", None, True)
    assert [process.pid for process in world.running()] == [int(status.message.split()[1])]
    environment = world.running()[0].running_environment
    assert environment["model_path"] == "models:/spira/1"
    assert (environment["receiving_channel"], environment["central_channel"]) == ("spira-topic", "result_updates")
    assert environment["MLFLOW_TRACKING_URI"] == target.service.mlflow_uri
    assert target.verify() <= 1e-5
    answer = Messages(target.service).ask(target.service.channels, (good[0] / "data/golden/noise.wav").read_bytes())
    assert answer[0].keys() == {"probability"}


def test_secrets_are_the_owners(world: World) -> None:
    """The environment file holds the bucket's key."""
    assert "minio_secret_key=minio123" in (world.running()[0].folder / "service.env").read_text().splitlines()
    assert world.running()[0].folder.stat().st_mode & 0o077 == 0
    assert "minio123" not in repr(world.target().service)


def test_apply_again_changes_nothing(world: World) -> None:
    """Not even the process."""
    before = world.target().status()
    assert world.target().apply(world.release("1")) == before


def test_plan_tells_and_changes_nothing(world: World) -> None:
    """The check alone for what serves; all steps for another; the process's end where settings have changed."""
    before = world.target().status()
    assert [step.split()[0] for step in world.target().plan(world.release("1")).steps] == ["ask"]
    steps = world.target().plan(world.release("2", 1)).steps
    assert [step.split()[0] for step in steps] == ["start", "start", "ask", "stop", "ask"]
    steps = world.target(variables={"loop_interval": "0.1"}).plan(world.release("1")).steps
    assert [step.split()[0] for step in steps] == ["start", "ask", "stop", "ask"]
    assert world.target().status() == before


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("exits", r"ended by itself(.|\n)*no such model"),
        ("never listens", "doesn't say 'waiting for inference"),
        ("wrong", "must not be served"),
        ("silent", "no answer to golden"),
    ],
)
def test_a_broken_version_never_serves(world: World, fault: str, told: str) -> None:
    """It isn't even started on the users' channel; the old process serves on, and the error says what happened."""
    before = world.target().status()
    limit = {"never listens": {"start_seconds": 1}, "silent": {"answer_seconds": 2}}.get(fault, {})
    with pytest.raises(DeploymentError, match=told):
        world.target(**limit).apply(world.release(fault.replace(" ", "-"), 1, fault))
    assert world.target().status() == before
    assert len(world.running()) == 1


def test_a_version_that_is_wrong_to_users_alone(world: World) -> None:
    """It is found out while the old one still answers beside it."""
    before = world.target().status()
    with pytest.raises(DeploymentError, match="must not be served"):
        world.target().apply(world.release("wrong-later", 1, "wrong", on="topic"))
    assert world.target().status() == before
    assert len(world.running()) == 1


def test_a_version_that_fails_once_it_is_alone(world: World) -> None:
    """The old one is started again, and both changes stand in the history."""
    fails = world.release("dies", 1, "dies after an answer", on="topic")
    with pytest.raises(DeploymentError, match=r"version 1 serves again(.|\n)*out of memory"):
        world.target(answer_seconds=3).apply(fails)
    status = world.target().status()
    assert (status.version, status.ready) == ("1", True)
    assert [(entry["version"], entry["action"]) for entry in status.history[-2:]] == [
        ("dies", "apply"),
        ("1", "rollback"),
    ]
    assert world.target().verify() <= 1e-5
    assert len(world.running()) == 1


def test_the_last_that_ended_are_kept(tmp_path: Path) -> None:
    """One that lives is, however old; the next gets a number of its own."""
    alive = processes.start(tmp_path, ("sleep", "60"), {})
    for number in range(5):
        assert processes.start(tmp_path, ("echo", f"words {number}"), {}).folder.name == f"{number + 2:04d}"
    while sum(process.alive for process in processes.listed(tmp_path)) > 1:
        time.sleep(0.01)
    processes.prune(tmp_path, 7)
    assert len(processes.listed(tmp_path)) == 6
    processes.prune(tmp_path, 2)
    assert [process.folder.name for process in processes.listed(tmp_path)] == ["0001", "0005", "0006"]
    assert "words 4" in processes.listed(tmp_path)[-1].last_words()
    alive.stop(1)
    assert processes.start(tmp_path, ("true",), {}).folder.name == "0007"


def test_a_verb_forgets_old_processes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was tried before it."""
    before = processes.listed(world.folder / "serving" / "processes")
    assert len(before) > 2
    monkeypatch.setattr(inference_service, "ENDED_KEPT", 1)
    assert world.target().apply(world.release("1")).ready
    left = processes.listed(world.folder / "serving" / "processes")
    assert [process.alive for process in left].count(False) == 1


def test_a_process_that_died_is_told_and_repaired(world: World) -> None:
    """Status and verify say it with its last words; the same apply starts another, and the history stays."""
    history = world.target().status().history
    os.killpg(world.running()[0].pid, signal.SIGKILL)
    while world.running():
        pass
    status = world.target().status()
    assert (status.version, status.ready) == ("1", False)
    assert "waiting for inference" in status.message
    with pytest.raises(DeploymentError, match="has ended: apply it again"):
        world.target().verify()
    status = world.target().apply(world.release("1"))
    assert (status.ready, status.history) == (True, history)


def test_a_process_that_hangs_is_replaced(world: World) -> None:
    """It lives, but a user would wait in vain."""
    hanging = world.running()[0].pid
    os.kill(hanging, signal.SIGSTOP)
    assert world.target(answer_seconds=2, stop_seconds=0.5).apply(world.release("1")).ready
    assert [process.pid == hanging for process in world.running()] == [False]


def test_no_message_is_lost(world: World) -> None:
    """Over a new version and the way back, a user who never pauses is always answered, by one version or both."""
    target = world.target()
    with User(world) as user:
        assert target.apply(world.release("2", 1)).previous == "1"
        assert target.rollback("too many alarms", bad="2").version == "1"
        status = target.rollback("too many alarms", bad="2")
    assert user.unanswered == []
    assert len({round(value, 4) for values in user.answers.values() for value in values}) == 2
    assert max(len(values) for values in user.answers.values()) == 2
    assert [(entry["version"], entry["action"]) for entry in status.history[-2:]] == BACK_AND_FORTH
    assert (status.previous, status.history[-1]["reason"]) == (None, "too many alarms")
    assert len(world.running()) == 1


def test_a_busy_process_finishes_first(world: World) -> None:
    """What came in before the new process listened, here while the old one was asleep, is answered all the same."""
    old, too_early = world.running()[0].pid, []

    def wake() -> None:
        while len(world.running()) < 2 or WAITING not in world.running()[1].last_words():
            time.sleep(0.05)
        time.sleep(1.5)
        too_early.append(world.running()[1].proven)
        os.kill(old, signal.SIGCONT)

    os.kill(old, signal.SIGSTOP)
    with User(world) as user:
        waker = Thread(target=wake)
        waker.start()
        world.target(variables={"loop_interval": "0.02"}).apply(world.release("1"))
        waker.join()
    assert (user.unanswered, too_early) == ([], [False])
    assert [process.pid == old for process in world.running()] == [False]
    world.target().apply(world.release("1"))


KILLS: dict[str, tuple[str, object, str, int]] = {
    "before the first process has its place": ("apply", processes, "_new_folder", 1),
    "just after the first process was launched": ("apply", subprocess, "run", 1),
    "just after the second was launched beside the old": ("apply", subprocess, "run", 2),
    "when the second is proven": ("apply", Local, "apply", 1),
    "before the old one is stopped": ("apply", InferenceService, "_stop_others", 2),
    "before the version rolled back is stopped": ("rollback", InferenceService, "_stop_others", 2),
}
"""A verb, and what it comes to, and for which time, when it is killed."""


def test_a_killed_verb_runs_again(world: World) -> None:
    """Killed and called again, moment after moment: a user is always answered, and in the end one process runs."""
    target, second = world.target(), world.release("2", 1)
    verbs = {"apply": partial(target.apply, second), "rollback": partial(target.rollback, "alarms", bad="2")}
    with User(world) as user:
        for moment, (verb, *kill) in KILLS.items():
            process = FORK.Process(target=call_and_die, args=(verbs[verb], *kill))
            process.start()
            process.join()
            assert process.exitcode == -signal.SIGKILL, moment
            assert target.status().ready, moment
            assert len(world.running()) <= 2, moment
        status = verbs["rollback"]()
    assert user.unanswered == []
    assert [(entry["version"], entry["action"]) for entry in status.history[-2:]] == BACK_AND_FORTH
    assert [process.pid for process in world.running()] == [int(status.message.split()[1])]
    assert target.verify() <= 1e-5


def call_and_die(verb: Callable[[], object], place: object, name: str, count: int) -> None:
    """Call a verb in a process that is killed when it comes to the moment for the so manieth time."""
    original: Callable = getattr(place, name)
    calls = iter(range(1, count + 1))

    def die(*arguments: object, **options: object) -> object:
        last = next(calls) == count
        if last and place is not subprocess:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **options)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(place, name, die)
    verb()
