"""Containers whose client was killed are removed: with a real Docker, and its smallest image."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spira.deployment.inference_service import containers, processes
from spira.deployment.inference_service.processes import Process
from spira.deployment.target import DeploymentError

IMAGE = "busybox"
RUN = ("docker", "run", "--rm", "--network", "none", "--env-file", "{env_file}", IMAGE)
LISTENS = (*RUN, "sh", "-c", 'trap exit TERM; echo "waiting for inference on channel test"; sleep 600 & wait')


@pytest.mark.parametrize(
    "client", [["docker"], ["/usr/bin/podman"], ["docker", "--context", "far"], ["docker", "container"]]
)
def test_the_container_of_a_client_has_a_label(client: list[str], tmp_path: Path) -> None:
    """It comes before the image, whose name is not known here."""
    labelled = containers.with_label([*client, "run", "--rm", IMAGE, "run"], tmp_path)
    assert labelled == [*client, "run", "--label", f"spira.inference-service={tmp_path}", "--rm", IMAGE, "run"]


@pytest.mark.parametrize("command", [[], ["python", "run"], ["docker", "exec", "a"], ["sh", "-c", "docker run a"]])
def test_any_other_command_is_unchanged(command: list[str], tmp_path: Path) -> None:
    """Nothing is listed or removed for it either."""
    assert containers.with_label(command, tmp_path) == command
    containers.remove(command, tmp_path)


def test_a_client_that_does_not_answer_is_an_error(tmp_path: Path) -> None:
    """A second container could go on unseen."""
    (tmp_path / "docker").write_text("#!/bin/sh\necho no daemon >&2; exit 1")
    (tmp_path / "docker").chmod(0o755)
    for program in ("docker", "podman"):
        with pytest.raises(DeploymentError, match=r"cannot list its containers: .*(no daemon|No such file)"):
            containers.remove([str(tmp_path / program), "run", IMAGE], tmp_path)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    """A supervised service in a container."""
    if (
        not shutil.which("docker")
        or subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True).returncode
    ):
        pytest.skip(f"Docker or its image {IMAGE} is absent")
    process = processes.start(tmp_path, LISTENS, {})
    process.supervise(LISTENS)
    try:
        wait_until(lambda: len(running(process)) == 1 and not process.is_restarting)
        yield process
    finally:
        process.stop(5)
        assert running(process) == []


def running(process: Process) -> list[str]:
    """Return the containers of a process."""
    label = f"label={containers.LABEL}={process.folder}"
    listed = subprocess.run(["docker", "ps", "--quiet", "--filter", label], capture_output=True, text=True, check=True)
    return listed.stdout.split()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.integration
def test_a_killed_client_leaves_no_second_container(process: Process) -> None:
    """The supervisor removes the old one before it starts another."""
    [before] = running(process)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: running(process) not in ([], [before]))
    assert before not in running(process)
    assert len(running(process)) == 1


@pytest.mark.integration
def test_a_stop_removes_the_container_of_a_killed_client(process: Process) -> None:
    """Client and supervisor were killed, as by an out-of-memory killer."""
    for killed in (process.supervisor, process.service):
        assert killed.pid is not None
        os.kill(killed.pid, signal.SIGKILL)
    wait_until(lambda: not process.is_active)
    assert len(running(process)) == 1
    process.stop(5)
    assert running(process) == []
