"""The Inference Service target with real processes, NATS and an S3 emulator; the service is a stand-in."""

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
from spira.deployment.inference_service.contract import WAITING, version_of
from spira.deployment.inference_service.messages import Messages
from spira.deployment.inference_service.target import InferenceService
from spira.deployment.local import Local
from spira.deployment.target import DeploymentError
from spira.packaging import verify
from tests.support.packages import make_package
from tests.support.service_world import RGH, Client, ServiceWorld, both_servers

pytestmark = pytest.mark.integration

BACK_AND_FORTH = [("2", "apply"), ("1", "rollback")]
FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two packages with different weights, read-only."""
    folder = tmp_path_factory.mktemp("packages")
    return make_package(folder / "1", seed=1), make_package(folder / "2", seed=2)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Addresses of NATS and S3."""
    with both_servers(tmp_path_factory.mktemp("nats")) as addresses:
        yield addresses


@pytest.fixture(scope="module")
def world(
    servers: tuple[str, str], packages: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServiceWorld]:
    """A service that serves version 1; every test restores that state."""
    world = ServiceWorld(tmp_path_factory.mktemp("world"), *servers, "spira", packages)
    world.target().apply(world.release("1"))
    yield world
    world.stop()


def test_before_the_first_apply_verify_and_rollback_are_refused(tmp_path: Path) -> None:
    """The status has no version; no server is needed for it."""
    target = ServiceWorld(tmp_path, "nats://127.0.0.1:9", "127.0.0.1:9", "spira", (tmp_path, tmp_path)).target()
    assert (target.status().version, target.status().ready) == (None, False)
    with pytest.raises(DeploymentError, match="serves nothing yet"):
        target.verify()
    with pytest.raises(DeploymentError, match="nothing served before"):
        target.rollback("bad")


def test_an_applied_version_answers_the_golden_recordings(world: ServiceWorld, packages: tuple[Path, Path]) -> None:
    """One process, pinned to the version, listens on the clients' channel."""
    target = world.target()
    status = target.status()
    assert (status.version, status.previous, status.ready) == ("1", None, True)
    assert [process.pid for process in world.running()] == [int(status.message.split()[1])]
    environment = world.running()[0].running_environment
    assert environment["model_path"] == str(world.folder / "serving" / "models" / "1")
    assert (environment["receiving_channel"], environment["central_channel"]) == ("spira-topic", "result_updates")
    assert environment["MLFLOW_TRACKING_URI"] == target.service.mlflow_uri
    assert target.verify() <= 1e-5
    answer = Messages(target.service).ask(target.service.channels, (packages[0] / "data/golden/noise.wav").read_bytes())
    assert answer[0].probability is not None
    assert answer[0].error == ""


def test_channels_are_those_of_the_settings(
    servers: tuple[str, str], packages: tuple[Path, Path], tmp_path: Path
) -> None:
    """SPIRA's own deployment has the channel model_channel; the golden check stays apart from it."""
    world = ServiceWorld(tmp_path, *servers, "own", packages)
    target = world.target(receiving_channel="model_channel", central_channel="hospital.results")
    try:
        status = target.apply(world.release("1"))
        assert status.message.endswith("/serving/models/1 on model_channel")
        environment = world.running()[0].running_environment
        assert (environment["receiving_channel"], environment["central_channel"]) == (
            "model_channel",
            "hospital.results",
        )
        assert target.verify() <= 1e-5
    finally:
        world.stop()


def test_the_service_loads_a_read_only_copy_that_is_verified_at_each_start(world: ServiceWorld) -> None:
    """Whatever was planted in the copy is gone before a process starts, and never runs."""
    target, marker = world.target(), world.folder / "executed"
    model = world.folder / "serving" / "models" / "1"
    assert not [path for path in (model, *model.rglob("*")) if path.stat().st_mode & 0o222]
    for folder in (model, model / "code", model / "code" / "spira_inference"):
        folder.chmod(0o755)
    (model / "code" / "spira_inference" / "wav.py").chmod(0o644)
    with (model / "code" / "spira_inference" / "wav.py").open("a") as file:
        file.write(f"open({str(marker)!r}, 'w').close()\n")
    (model / "code" / "sitecustomize.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    (running,) = world.running()
    os.killpg(running.pid, signal.SIGKILL)
    while running.is_alive:
        time.sleep(0.01)
    assert target.apply(world.release("1")).ready
    assert not marker.exists()
    assert verify.is_identical(model, world.packages[0])
    assert not [path for path in (model, *model.rglob("*")) if path.stat().st_mode & 0o222]
    assert not list(model.rglob("*.pyc"))


def test_only_the_owner_can_read_the_secrets(world: ServiceWorld) -> None:
    """The environment file contains the key of the bucket."""
    assert "minio_secret_key=minio123" in (world.running()[0].folder / "service.env").read_text().splitlines()
    assert world.running()[0].folder.stat().st_mode & 0o077 == 0
    assert "minio123" not in repr(world.target().service)


def test_apply_again_changes_nothing(world: ServiceWorld) -> None:
    """The process stays the same too."""
    before = world.target().status()
    assert world.target().apply(world.release("1")) == before


def test_a_plan_lists_the_steps_and_changes_nothing(world: ServiceWorld) -> None:
    """One check for the serving version, all steps for another, a restart for changed settings."""
    before = world.target().status()
    assert [step.split()[0] for step in world.target().plan(world.release("1")).steps] == ["check"]
    steps = world.target().plan(world.release("2", 1)).steps
    assert [step.split()[0] for step in steps] == ["start", "start", "check", "stop", "check"]
    steps = world.target(variables={"loop_interval": "0.1"}).plan(world.release("1")).steps
    assert [step.split()[0] for step in steps] == ["start", "check", "stop", "check"]
    assert world.target().status() == before


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("exits", r"the process exited(.|\n)*LookupError"),
        ("never listens", "its log does not contain 'waiting for inference"),
        ("wrong", "must not be served"),
        ("silent", "no answer to golden"),
    ],
)
def test_a_broken_version_never_serves(world: ServiceWorld, fault: str, message: str) -> None:
    """It is never started on the clients' channel; the old process keeps serving, and the error has the reason."""
    before = world.target().status()
    limit = {"never listens": {"start_seconds": 1}, "silent": {"answer_seconds": 2}}.get(fault, {})
    with pytest.raises(DeploymentError, match=message):
        world.target(**limit).apply(world.release(fault.replace(" ", "-"), 1, fault))
    assert world.target().status() == before
    assert len(world.running()) == 1


def test_a_version_that_is_wrong_on_the_clients_channel_never_serves(world: ServiceWorld) -> None:
    """It is detected while the old process still answers beside it."""
    before = world.target().status()
    with pytest.raises(DeploymentError, match="must not be served"):
        world.target().apply(world.release("wrong-later", 1, "wrong", on="topic"))
    assert world.target().status() == before
    assert len(world.running()) == 1


def test_a_version_that_fails_once_it_serves_alone_is_rolled_back(world: ServiceWorld) -> None:
    """The old version is started again, and the history has both changes."""
    fails = world.release("dies", 1, "dies after an answer", on="topic")
    with pytest.raises(DeploymentError, match=r"version 1 serves again(.|\n)*MemoryError"):
        world.target(answer_seconds=3).apply(fails)
    status = world.target().status()
    assert (status.version, status.ready) == ("1", True)
    assert [(change.version, change.action) for change in status.history[-2:]] == [
        ("dies", "apply"),
        ("1", "rollback"),
    ]
    assert world.target().verify() <= 1e-5
    assert len(world.running()) == 1


def test_pruning_keeps_the_last_ended_processes(tmp_path: Path) -> None:
    """A live process is always kept; the next one gets a new number."""
    alive = processes.start(tmp_path, ("sleep", "60"), {})
    for number in range(2, 7):
        assert processes.start(tmp_path, ("echo", "Killed"), {}).folder.name == f"{number:04d}"
    while sum(process.is_alive for process in processes.find_all(tmp_path)) > 1:
        time.sleep(0.01)
    processes.prune(tmp_path, 7)
    assert len(processes.find_all(tmp_path)) == 6
    processes.prune(tmp_path, 2)
    assert [process.folder.name for process in processes.find_all(tmp_path)] == ["0001", "0005", "0006"]
    assert "Killed" in processes.find_all(tmp_path)[-1].quote_log()
    alive.stop(1)
    assert processes.start(tmp_path, ("true",), {}).folder.name == "0007"


def test_every_change_prunes_ended_processes(world: ServiceWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the configured number of ended processes stays."""
    before = processes.find_all(world.folder / "serving" / "processes")
    assert len(before) > 2
    monkeypatch.setattr(inference_service, "MAX_ENDED_PROCESSES", 1)
    assert world.target().apply(world.release("1")).ready
    left = processes.find_all(world.folder / "serving" / "processes")
    assert [process.is_alive for process in left].count(False) == 1


def test_a_process_that_died_is_reported_and_replaced(world: ServiceWorld) -> None:
    """Its supervisor has died too. Status and verify quote its log; the same apply starts a new process."""
    history = world.target().status().history
    (process,) = world.running()
    process.supervisor.stop(5)
    os.killpg(process.pid, signal.SIGKILL)
    while world.running():
        pass
    status = world.target().status()
    assert (status.version, status.ready) == ("1", False)
    assert "waiting for inference" in status.message
    with pytest.raises(DeploymentError, match="has ended: apply it again"):
        world.target().verify()
    status = world.target().apply(world.release("1"))
    assert (status.ready, status.history) == (True, history)


def test_a_killed_service_is_back_after_its_own_start(world: ServiceWorld) -> None:
    """Under a stream of requests only those of the gap are lost, without a tick; a tick meanwhile waits for it."""
    (process,) = world.running()
    gaps: list[tuple[float, float]] = []
    with Client(world) as client:
        for _ in range(3):
            time.sleep(2)
            killed, before = time.monotonic(), process.pid
            os.kill(before, signal.SIGKILL)
            while process.pid in (None, before):
                time.sleep(0.02)
            assert time.monotonic() - killed < 2
            status = world.target().status()
            assert (status.version, status.ready) == ("1", False)
            assert "its supervisor starts it again" in status.message
            assert world.target().apply(world.release("1")).ready
            gaps.append((killed - 2, time.monotonic()))  # what was sent shortly before may still be in its queue
            assert [running.folder for running in world.running()] == [process.folder]
        while RGH not in process.log.read_text():  # the last start has moved the earlier log aside
            time.sleep(0.05)
    lost = [client.sent[inference] for inference in client.unanswered]
    assert all(any(first < sent < last for first, last in gaps) for sent in lost)
    assert len(client.answers) > len(lost)
    assert RGH in process.log.read_text()
    assert RGH not in str(world.target().status())


def test_a_service_without_a_supervisor_gets_one(world: ServiceWorld) -> None:
    """Status reports drift, which the next tick repairs; the service goes on meanwhile."""
    (process,) = world.running()
    service = process.pid
    os.kill(process.supervisor.pid, signal.SIGKILL)
    while process.is_supervised:
        pass
    status = world.target().status()
    assert (status.ready, status.drifted) == (True, True)
    assert "its supervisor has ended: apply it again" in status.message
    assert world.target().plan(world.release("1")).steps[-1] == f"start a supervisor of process {service}"
    status = world.target().apply(world.release("1"))
    assert (status.ready, status.drifted, world.running()[0].pid) == (True, False, service)


def test_a_process_that_hangs_is_replaced(world: ServiceWorld) -> None:
    """It is alive, but does not answer."""
    hanging = world.running()[0].pid
    os.kill(hanging, signal.SIGSTOP)
    assert world.target(answer_seconds=2, stop_seconds=0.5).apply(world.release("1")).ready
    assert [process.pid == hanging for process in world.running()] == [False]


def test_no_message_is_lost(world: ServiceWorld) -> None:
    """During an apply and a rollback every message of a client is answered, by one version or by both."""
    target = world.target()
    with Client(world) as client:
        assert target.apply(world.release("2", 1)).previous == "1"
        assert target.rollback("too many alarms", bad="2").version == "1"
        status = target.rollback("too many alarms", bad="2")
    assert client.unanswered == []
    assert len({round(value, 4) for values in client.answers.values() for value in values}) == 2
    assert all(len(values) in (1, 2) for values in client.answers.values())
    assert [(change.version, change.action) for change in status.history[-2:]] == BACK_AND_FORTH
    assert (status.previous, status.history[-1].reason) == (None, "too many alarms")
    assert len(world.running()) == 1


def test_a_busy_process_answers_its_backlog_before_it_stops(world: ServiceWorld) -> None:
    """Messages that came before the new process listened, here while the old one was stopped, are answered."""
    old, verified_early = world.running()[0].pid, []

    def resume() -> None:
        while len(world.running()) < 2 or WAITING not in world.running()[1].log.read_text():
            time.sleep(0.05)
        time.sleep(1.5)
        verified_early.append(world.running()[1].is_verified)
        os.kill(old, signal.SIGCONT)

    os.kill(old, signal.SIGSTOP)
    with Client(world) as client:
        thread = Thread(target=resume)
        thread.start()
        world.target(variables={"loop_interval": "0.02"}).apply(world.release("1"))
        thread.join()
    assert (client.unanswered, verified_early) == ([], [False])
    assert [process.pid == old for process in world.running()] == [False]
    world.target().apply(world.release("1"))


KILLS: dict[str, tuple[str, object, str, int]] = {
    "before the first process has its folder": ("apply", processes, "_new_folder", 1),
    "after the first process was started": ("apply", subprocess, "run", 1),
    "after the second process was started beside the old one": ("apply", subprocess, "run", 2),
    "after the second process was verified": ("apply", Local, "apply", 1),
    "before the old process is stopped": ("apply", InferenceService, "_stop_others", 2),
    "before the process that is rolled back is stopped": ("rollback", InferenceService, "_stop_others", 2),
}
"""Moment -> method of the target, and the object, function and number of the call at which it is killed."""


def test_a_change_killed_between_a_supervisor_and_its_service_can_be_repeated(world: ServiceWorld) -> None:
    """The old service has lost its supervisor and goes on beside the new one; the next change ends it."""
    target = world.target()
    # the third signal ends the old service: the first ends the probe, the second the old service's supervisor
    kill = (processes, "_signal_group", 3)
    process = FORK.Process(target=call_and_die, args=(partial(target.apply, world.release("2", 1)), *kill))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert [(version_of(process.environment), process.is_supervised) for process in world.running()] == [
        ("1", False),
        ("2", True),
    ]
    assert (target.status().version, target.status().ready) == ("2", True)
    assert target.rollback("alarms", bad="2").version == "1"
    assert [process.is_supervised for process in world.running()] == [True]


def test_a_killed_change_can_be_repeated(world: ServiceWorld) -> None:
    """After a kill at each moment all messages are answered, and at the end one process runs."""
    target, second = world.target(), world.release("2", 1)
    methods = {"apply": partial(target.apply, second), "rollback": partial(target.rollback, "alarms", bad="2")}
    with Client(world) as client:
        for moment, (method, *kill) in KILLS.items():
            process = FORK.Process(target=call_and_die, args=(methods[method], *kill))
            process.start()
            process.join()
            assert process.exitcode == -signal.SIGKILL, moment
            assert target.status().ready, moment
            assert len(world.running()) <= 2, moment
        status = methods["rollback"]()
    assert client.unanswered == []
    assert [(change.version, change.action) for change in status.history[-2:]] == BACK_AND_FORTH
    assert [process.pid for process in world.running()] == [int(status.message.split()[1])]
    assert target.verify() <= 1e-5


def call_and_die(method: Callable[[], object], owner: object, name: str, count: int) -> None:
    """Call a method, and kill this process at the given call of a function of ``owner``."""
    original: Callable = getattr(owner, name)
    calls = iter(range(1, count + 1))

    def die(*arguments: object, **options: object) -> object:
        last = next(calls) == count
        if last and owner is not subprocess:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **options)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, die)
    method()
