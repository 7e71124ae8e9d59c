"""Supervisors with real processes: a restart after a kill, waits in a crash loop, and an end by a stop."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from spira.deployment.inference_service import processes
from spira.deployment.inference_service.processes import Process
from spira.deployment.inference_service.supervisor import MAX_RESTART_SECONDS, restart_seconds

pytestmark = pytest.mark.integration

LISTENS = 'echo "waiting for inference on channel test"; sleep 600 & wait'
"""A service whose child would hold the lock after a kill of the service alone."""


def wait_until(condition: Callable[[], object], seconds: float = 20) -> float:
    """Wait for a condition and return the time that it took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() < start + seconds
        time.sleep(0.02)
    return time.monotonic() - start


def running_in_group(group: int) -> list[int]:
    """Return the processes of a group that have not ended, whether or not init has noticed."""
    running = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                running.append(process.pid)
    return running


def supervised(folder: Path, script: str) -> Process:
    """Start a shell script with a supervisor."""
    process = processes.start(folder, ("sh", "-c", script), {})
    process.supervise(("sh", "-c", script))
    wait_until(lambda: process.supervisor.pid)
    return process


def test_a_killed_service_is_started_again_within_two_seconds(tmp_path: Path) -> None:
    """Each of five kills in a row; children of the killed process are ended."""
    process = supervised(tmp_path, LISTENS)
    try:
        for _ in range(5):
            wait_until(lambda: process.pid and not process.is_restarting)
            before = process.pid
            time.sleep(0.5)
            os.kill(before, signal.SIGKILL)
            assert wait_until(lambda before=before: process.pid not in (None, before)) < 2
            wait_until(lambda: not process.is_restarting)
            assert running_in_group(before) == []
    finally:
        process.stop(5)


def test_waits_grow_after_the_first_restarts() -> None:
    """The first ones are short, the others double up to the limit."""
    waits = [restart_seconds(ends) for ends in range(1000)]
    assert waits[:8] == [0.5, 0.5, 0.5, 0.5, 0.5, 1.0, 2.0, 4.0]
    assert all(later >= earlier for earlier, later in itertools.pairwise(waits))
    assert waits[-1] == MAX_RESTART_SECONDS


def test_a_crash_loop_is_slowed_down(tmp_path: Path) -> None:
    """A service that ends at once is started a few times and then ever less often."""
    process = supervised(tmp_path, f"echo start >> {tmp_path}/starts; exit 1")
    try:
        wait_until(lambda: "4 s" in process.supervisor.log.read_text(), 40)
        assert 7 <= len((tmp_path / "starts").read_text().splitlines()) <= 9
        assert process.is_restarting
        start = time.monotonic()
        process.wait_for_restart(60)
        assert time.monotonic() - start < 10
    finally:
        process.stop(5)


def test_a_killed_supervisor_leaves_the_service_running(tmp_path: Path) -> None:
    """Another one takes over; two never run at once."""
    process = supervised(tmp_path, LISTENS)
    try:
        service = process.pid
        os.kill(process.supervisor.pid, signal.SIGKILL)
        wait_until(lambda: not process.is_supervised)
        assert (process.is_alive, process.pid) == (True, service)
        process.supervise(())
        process.supervise(())
        wait_until(lambda: process.supervisor.pid)
        os.killpg(service, signal.SIGKILL)
        wait_until(lambda: process.pid not in (None, service) and not process.is_restarting)
    finally:
        process.stop(5)


def test_a_stopped_service_is_not_started_again(tmp_path: Path) -> None:
    """Its supervisor is stopped first, also in the middle of a restart."""
    for seconds in (0.0, 0.2, 0.4, 0.6, 0.8):
        process = supervised(tmp_path / str(seconds), LISTENS)
        wait_until(lambda process=process: process.pid and not process.is_restarting)
        os.killpg(process.pid, signal.SIGKILL)
        time.sleep(seconds)
        process.stop(5)
        time.sleep(1)
        assert not process.is_active
