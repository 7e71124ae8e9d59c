"""Ctrl-C and SIGTERM, in a real terminal and with real processes."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.terminal import CTRL_C, Terminal

pytestmark = pytest.mark.integration

SECONDS = 5
"""Time in which an interrupted command ends."""
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
LONG_RUN = ("--config", "long.yaml", "--seed", "1", "--seed", "2", "--seed", "3", "--device", "cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with a configuration that trains for hours."""
    (tmp_path / "long.yaml").write_text(
        "model: {channels: 8}\ntraining: {max_epochs: 100000, patience_epochs: 100000, batch_files: 2}\n"
    )
    yield tmp_path
    for process in psutil.process_iter(["cmdline"]):  # a run that a failed test has left would take a core for hours
        if str(tmp_path) in " ".join(process.info["cmdline"] or []):
            process.kill()


def processes_with(text: str) -> list[str]:
    """Return the command lines of all processes that mention a text."""
    lines = (" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"]))
    return [line for line in lines if text in line]


@pytest.mark.parametrize("interrupt", [CTRL_C, signal.SIGTERM])
def test_one_interrupt_ends_a_run_with_all_trainings(dataset: Path, folder: Path, interrupt: object) -> None:
    """The third seed is not started, nothing goes on in the background, and the same command resumes."""
    run = Terminal("run", "--data", str(dataset), *LONG_RUN, folder=folder, TERM="dumb")
    run.wait_for("seed 1: epoch")
    run.wait_for("seed 2: epoch")
    started = time.monotonic()
    if isinstance(interrupt, signal.Signals):
        run.signal(interrupt)
    else:
        run.press(CTRL_C)
    assert run.wait(SECONDS) == (143 if interrupt is signal.SIGTERM else 130)
    assert time.monotonic() - started < SECONDS
    assert "run the same command again to resume" in run.output
    assert "Traceback" not in run.output
    assert "seed 3" not in run.output
    assert processes_with(str(folder)) == []
    if interrupt is signal.SIGTERM:
        return
    again = Terminal("run", "--data", str(dataset), *LONG_RUN, folder=folder, TERM="dumb")
    again.wait_for("resumes after epoch")
    again.press(CTRL_C)
    assert again.wait(SECONDS) == 130


@pytest.mark.slow
def test_an_interrupt_ends_the_live_display(dataset: Path, folder: Path) -> None:
    """The display stays as it was, the advice stands below it, and the cursor is there again."""
    run = Terminal("run", "--data", str(dataset), *LONG_RUN, folder=folder)
    run.wait_for_screen(r"^ +1 .* \d+/100000")
    assert run.output.rindex(HIDE_CURSOR) > run.output.rfind(SHOW_CURSOR)
    started = time.monotonic()
    run.press(CTRL_C)
    assert run.wait(SECONDS) == 130
    assert time.monotonic() - started < SECONDS
    assert run.output.rindex(SHOW_CURSOR) > run.output.rindex(HIDE_CURSOR)
    screen = run.screen()
    assert re.search(r"^ +3  waiting$", screen, re.MULTILINE), screen
    assert screen.endswith("\ninterrupted; finished stages and epochs are kept: run the same command again to resume")
    assert "Traceback" not in run.output
    assert processes_with(str(folder)) == []


def test_an_interrupt_of_tick_leaves_the_run_alone_and_cancel_ends_it(dataset: Path, folder: Path) -> None:
    """Only the watcher ends, and the message names the command that ends the run; its input is not run again."""
    settings = f"data: {dataset}\nconfig: long.yaml\nquiet_seconds: 0\ntargets: []\n"
    (folder / "delivery.yaml").write_text(settings)
    tick = Terminal("deliver", "tick", "--wait", folder=folder)
    tick.wait_for("is running since")
    tick.press(CTRL_C)
    assert tick.wait(SECONDS) == 130
    assert "an active run goes on: see spira deliver status, or end it with spira deliver cancel" in tick.output
    assert "Traceback" not in tick.output
    runs = processes_with("pipelines.local_runner")
    assert [line for line in runs if str(folder) in line]
    cancel = Terminal("deliver", "cancel", "--reason", "wrong folder", folder=folder)
    assert cancel.wait(60) == 0, cancel.output
    assert re.search(r"run spira-\w+-1 failed: cancelled by .*: wrong folder", cancel.output)
    assert processes_with(str(folder)) == []
    again = Terminal("deliver", "tick", "--wait", folder=folder)
    assert again.wait(60) == 0
    assert "to train again, change the input or run spira deliver tick --retry" in again.output.replace("\r\n", " ")
    assert processes_with(str(folder)) == []
    nothing = Terminal("deliver", "cancel", folder=folder)
    assert nothing.wait(60) == 2
    assert "nothing to cancel: no run is active" in nothing.output
