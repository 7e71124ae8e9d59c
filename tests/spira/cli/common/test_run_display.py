"""The live display, as a person sees it on screens of 80 and 120 columns."""

from __future__ import annotations

import io
import logging
import threading
import time

import pytest
from rich.console import Console

from spira.cli.common import run_display
from spira.cli.common.run_display import RunDisplay, clock
from spira.cli.common.run_state import RunState
from spira.errors import SpiraError
from spira.progress import Line, Record, StageBegan, StageEnded, Steps, Training
from tests.support.terminal import screen_of

WARNING = "train, eval, test: background noise of patients differs by +22.2 to +23.5 dB from that of controls (medians)"
RECORDS: list[Record] = [
    StageBegan(stage="check"),
    StageEnded(stage="check"),
    StageBegan(stage="data"),
    StageEnded(stage="data"),
    StageBegan(stage="preprocess"),
    Line(stage="preprocess", level=logging.WARNING, text=WARNING),
    Line(stage="preprocess", level=logging.INFO, text="preprocess: 116 train, 28 eval, 48 test recordings"),
    StageEnded(stage="preprocess"),
    StageBegan(stage="train"),
    Training(seed=1, epochs=60, max_epochs=60, eval_loss=0.2041, eval_accuracy=0.8929, best_epoch=59, is_done=True),
    StageEnded(stage="train"),
    StageBegan(stage="train"),
    Training(seed=22, epochs=12, max_epochs=60, share=0.5, eval_loss=0.6, eval_accuracy=0.75, seconds_left=3725),
]


def console(columns: int, encoding: str = "utf-8") -> Console:
    """Return a console on a terminal whose output is kept."""
    output = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True, newline="")
    return Console(file=output, force_terminal=True, width=columns, height=50, color_system="standard")


def output_of(terminal: Console) -> str:
    buffer = terminal.file.buffer  # type: ignore[attr-defined]
    return buffer.getvalue().decode(terminal.encoding)


def screen_after(records: list[Record], columns: int, encoding: str = "utf-8") -> str:
    """Return the screen after some records and the end of the display."""
    terminal = console(columns, encoding)
    with RunDisplay(terminal, RunState.new([1, 22, 333], makes_data=True)) as display:
        for record in records:
            display.receive(record)
    return screen_of(output_of(terminal), columns, 50)


@pytest.mark.parametrize("columns", [80, 120])
def test_the_screen_of_a_training(columns: int) -> None:
    """Stages with states and times, one line a seed, the warning once; nothing is cut off at either width."""
    lines = screen_after(RECORDS, columns).splitlines()
    assert lines[0].startswith("SPIRA  0:0")
    words = [line.split() for line in lines]
    assert " ".join(words[3]) == "✔ preprocess 116 train, 28 eval, 48 test recordings 0:00"
    assert " ".join(words[4]) == "● train 1 of 3 seeds are done 0:00"
    assert words[5][:2] == ["·", "evaluate"]
    rows = {line[0]: line for line in words if line and line[0] in ("1", "22", "333")}
    assert rows["1"][2:] == ["60/60", "0.204", "0.893", "done,", "best:", "59"]
    assert rows["22"][-6:] == ["12/60", "0.600", "0.750", "1:02:05", "or", "more"]
    assert rows["333"] == ["333", "waiting"]
    assert " ".join(" ".join(lines).split()).count(WARNING) == 1
    assert max(map(len, lines)) <= columns


def test_the_bar_has_the_share_of_the_running_epoch() -> None:
    """An epoch of a large data set takes minutes."""
    training = Training(seed=22, epochs=12, max_epochs=60, share=0.5)
    assert run_display._bar(training).completed == 12.5
    assert run_display._bar(training.model_copy(update={"is_done": True})).completed == 60


def test_a_terminal_without_unicode_gets_other_marks() -> None:
    """A locale of ASCII is common on servers."""
    screen = screen_after(RECORDS, 80, "ascii")
    assert screen.isascii()
    assert "+  preprocess" in screen
    assert "*  train" in screen


def test_a_failed_stage_is_seen() -> None:
    """Its mark is another one, and the stages after it wait."""
    failed = [StageBegan(stage="preprocess"), StageEnded(stage="preprocess", failed=True)]
    assert "✘  preprocess" in screen_after([*RECORDS[:4], *failed], 80)


def test_what_is_refused_at_once_leaves_no_stages_on_the_screen() -> None:
    """The line with the error stands alone; after a stage that ended, the stages stay."""
    for records, is_empty in (([], True), (RECORDS[:2], False)):
        terminal = console(80)
        display = RunDisplay(terminal, RunState.new([1]))
        for record in records:
            display.receive(record)
        with pytest.raises(SpiraError), display:
            raise SpiraError("no such folder")
        assert (screen_of(output_of(terminal), 80, 50) == "") is is_empty


def test_steps_are_seen_within_two_seconds() -> None:
    """The display draws itself, without a call."""
    terminal = console(80)
    with RunDisplay(terminal, RunState.new([1])) as display:
        display.receive(StageBegan(stage="preprocess"))
        display.receive(Steps(stage="preprocess", done=3, total=8, unit="recordings"))
        end = time.monotonic() + 2
        while "3 of 8 recordings" not in output_of(terminal):
            assert time.monotonic() < end
            time.sleep(0.05)


def test_stopping_does_not_wait_for_a_thread_that_holds_the_display() -> None:
    """A signal can come while another thread draws."""
    display = RunDisplay(console(80), RunState.new([1]))
    with display:
        is_held, is_over = threading.Event(), threading.Event()

        def hold() -> None:
            with display._live._lock:
                is_held.set()
                is_over.wait()

        holder = threading.Thread(target=hold)
        holder.start()
        is_held.wait()
        began = time.monotonic()
        display.stop()
        assert time.monotonic() - began < 2 * run_display.MAX_STOP_SECONDS
        is_over.set()
        holder.join()


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.9, "0:59"), (65, "1:05"), (7205, "2:00:05")])
def test_a_duration_is_a_clock(seconds: float, text: str) -> None:
    """Hours only where there are any."""
    assert clock(seconds) == text
