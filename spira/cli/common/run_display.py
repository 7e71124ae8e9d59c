"""The live display of a run in a terminal: stages with their times, one line a seed, warnings.

with RunDisplay(err, RunState.new(seeds)) as display:
    local.run(..., records=display.receive)
"""

from __future__ import annotations

import threading
import time
from types import TracebackType

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from spira.cli.common.run_state import PURPOSES, RunState, StageState
from spira.evaluation.numbers import number
from spira.progress import Record, Training

REFRESHES_PER_SECOND = 4
MAX_STOP_SECONDS = 0.5
"""Time in which :meth:`RunDisplay.stop` ends, even if another thread holds the display."""
MARKS = {"done": ("✔", "+"), "running": ("●", "*"), "failed": ("✘", "x"), "waiting": ("·", ".")}
"""State of a stage -> its mark, and that for a terminal without Unicode."""
STYLES = {"done": "green", "running": "bold cyan", "failed": "bold red", "waiting": "dim"}


class RunDisplay:
    """A display that is drawn again four times a second while the block runs; the last drawing stays on the screen."""

    def __init__(self, console: Console, state: RunState) -> None:
        self.state, self.began = state, time.monotonic()
        self.ended: float | None = None
        # stdout is kfp's during a run; what other code writes to stderr is printed above the display
        self._live = Live(self, console=console, refresh_per_second=REFRESHES_PER_SECOND, redirect_stdout=False)

    def __enter__(self) -> RunDisplay:
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended = time.monotonic()
        has_results = any(stage.ended is not None and not stage.failed for stage in self.state.stages)
        self._live.transient = error is not None and not has_results  # then the line with the error stands alone
        self._live.stop()

    def receive(self, record: Record) -> None:
        """Show a record of progress."""
        self.state = self.state.after(record, time.monotonic())

    def stop(self) -> None:
        """End the display and show the cursor again; safe in a signal handler, whatever the other threads do."""
        self.ended = time.monotonic()
        # The handler's thread could wait for a lock whose holder waits for one of its own.
        stopping = threading.Thread(target=self._live.stop, daemon=True)
        stopping.start()
        stopping.join(MAX_STOP_SECONDS)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        state, now = self.state, self.ended or time.monotonic()
        running = None if self.ended else state.running
        yield Text.assemble(("SPIRA", "bold"), f"  {clock(now - self.began)}")
        yield _stages(state, running, now, options.ascii_only)
        if any(stage.name == "train" and stage.began is not None for stage in state.stages):
            yield Padding(_seeds(state), (1, 0, 0, 0))
        if state.warnings:
            yield Padding(_warnings(state.warnings), (1, 0, 0, 0))


def clock(seconds: float) -> str:
    """Return a duration as ``1:05`` or ``2:00:05``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _stages(state: RunState, running: StageState | None, now: float, ascii_only: bool) -> Table:
    table = _grid()
    table.add_column(width=1)
    table.add_column()
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column(justify="right")
    for stage in state.stages:
        condition = _condition(stage, running)
        mark, style = MARKS[condition][ascii_only], STYLES[condition]
        seconds = "" if stage.began is None else clock((stage.ended or now) - stage.began)
        detail = _detail(stage, state, condition)
        table.add_row(Text(mark, style), Text(stage.name, style), Text(detail, _detail_style(condition)), Text(seconds))
    return table


def _condition(stage: StageState, running: StageState | None) -> str:
    if stage.failed:
        return "failed"
    if stage.ended is not None:
        return "done"
    return "running" if stage is running or stage.began is not None else "waiting"


def _detail(stage: StageState, state: RunState, condition: str) -> str:
    if stage.name == "train" and stage.began is not None:
        return f"{sum(training.is_done for training in state.training.values())} of {len(state.seeds)} seeds are done"
    if condition == "running" and stage.began is None:
        return f"starting: {PURPOSES.get(stage.name, '')}"
    return stage.detail or PURPOSES.get(stage.name, "")


def _detail_style(condition: str) -> str:
    return "dim" if condition == "waiting" else ""


def _seeds(state: RunState) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), expand=True, pad_edge=False, header_style="dim")
    table.add_column("seed", justify="right")
    table.add_column("", ratio=1)
    table.add_column("epoch", justify="right")
    table.add_column("loss", justify="right")
    table.add_column("accuracy", justify="right")
    table.add_column("time left", no_wrap=True)
    for seed in state.seeds:
        training = state.training.get(seed)
        if training is None:
            table.add_row(Text(str(seed), "dim"), Text("waiting", "dim"), "", "", "", "")
            continue
        table.add_row(
            str(seed),
            _bar(training),
            f"{training.epochs}/{training.max_epochs}",
            _number(training.eval_loss),
            _number(training.eval_accuracy),
            _time_left(training),
        )
    table.caption = "loss and accuracy: on the validation recordings, whole epochs"
    table.caption_justify = "left"
    return table


def _bar(training: Training) -> ProgressBar:
    done = training.max_epochs if training.is_done else training.epochs + training.share
    return ProgressBar(total=training.max_epochs, completed=done)


def _number(value: float | None) -> str:
    return number(value, missing="")


def _time_left(training: Training) -> str:
    if training.is_done:
        return "done" if training.best_epoch is None else f"done, best: {training.best_epoch}"
    return "" if training.seconds_left is None else f"{clock(training.seconds_left)} or more"


def _warnings(warnings: tuple[str, ...]) -> Table:
    table = _grid()
    table.add_column(width=1)
    table.add_column(ratio=1)
    for warning in warnings:
        table.add_row(Text("!", "yellow"), Text(warning))
    return table


def _grid() -> Table:
    return Table.grid(padding=(0, 2, 0, 0), expand=True, pad_edge=True)
