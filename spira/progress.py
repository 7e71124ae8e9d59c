"""Progress of a run's stages for a display: records in a file, one JSON object a line.

The environment variable ``SPIRA_PROGRESS`` names the file; without it nothing is written. The stages are processes of
their own, and each appends whole lines. Log lines are for people, these records for programs.

    with followed(folder / "progress.jsonl", display.receive):   # in the process that shows the progress
        ...
    with stage("train"):                                          # in the process of a stage
        emit(Steps(stage="train", done=3, total=8, unit="recordings"))
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

VARIABLE = "SPIRA_PROGRESS"
POLL_SECONDS = 0.1
MIN_STEP_SECONDS = 0.25
"""Shortest time between two records of one kind of step."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class StageBegan(_Record):
    """A stage began; the stage ``train`` begins once a seed."""

    kind: Literal["began"] = "began"
    stage: str


class StageEnded(_Record):
    """A stage ended."""

    kind: Literal["ended"] = "ended"
    stage: str
    failed: bool = False


class Steps(_Record):
    """Part of a stage that is done."""

    kind: Literal["steps"] = "steps"
    stage: str
    done: int
    total: int
    unit: str


class Training(_Record):
    """State of the training of one seed; losses and accuracy are those of the last whole epoch."""

    kind: Literal["training"] = "training"
    seed: int
    epochs: int
    """Number of whole epochs."""
    max_epochs: int
    share: float = 0.0
    """Part of the running epoch that is done, 0 to 1."""
    eval_loss: float | None = None
    eval_accuracy: float | None = None
    best_epoch: int | None = None
    """Epoch with the lowest validation loss so far."""
    seconds_left: float | None = None
    """Time left if the validation loss falls no further."""
    is_done: bool = False


class Line(_Record):
    """A line that a stage logged."""

    kind: Literal["line"] = "line"
    stage: str
    level: int
    """As in :mod:`logging`."""
    text: str


Record = StageBegan | StageEnded | Steps | Training | Line
_RECORD: TypeAdapter[Record] = TypeAdapter(Annotated[Record, Field(discriminator="kind")])


def emit(record: Record) -> None:
    """Append a record to the file, if there is one. A display is no reason to end a stage, so errors are ignored."""
    path = os.environ.get(VARIABLE)
    if path:
        with suppress(OSError), open(path, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(record.model_dump_json() + "\n")


class Throttle:
    """A clock that lets one record in some seconds through, and the first one after that time."""

    def __init__(self, seconds: float = MIN_STEP_SECONDS) -> None:
        self._seconds, self._last = seconds, time.monotonic()

    def is_due(self) -> bool:
        """Return whether the last record is long enough ago; if so, start the time again."""
        now = time.monotonic()
        if now - self._last < self._seconds:
            return False
        self._last = now
        return True


class _LineHandler(logging.Handler):
    """Handler that emits the log lines of a stage, without those that a summary shows at the end."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.stage_name = name

    def emit(self, record: logging.LogRecord) -> None:
        if not hasattr(record, "is_detail"):
            emit(Line(stage=self.stage_name, level=record.levelno, text=record.getMessage()))


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Emit that a stage begins and ends, and the lines that it logs."""
    logger, handler = logging.getLogger("spira"), _LineHandler(name)
    emit(StageBegan(stage=name))
    logger.addHandler(handler)
    is_done = False
    try:
        yield
        is_done = True
    finally:
        logger.removeHandler(handler)
        emit(StageEnded(stage=name, failed=not is_done))


@contextmanager
def followed(path: Path, receive: Callable[[Record], None] | None) -> Iterator[None]:
    """Pass the records of this process and of its children to a function while the block runs.

    Args:
        path: the file, which is created.
        receive: function that gets each record, from a thread of its own; None to write no records.
    """
    if receive is None:
        yield
        return
    path.touch()
    before, ended = os.environ.get(VARIABLE), threading.Event()
    reader = threading.Thread(target=_read, args=(path, receive, ended), daemon=True)
    os.environ[VARIABLE] = str(path)
    reader.start()
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
        ended.set()
        reader.join()


def _read(path: Path, receive: Callable[[Record], None], ended: threading.Event) -> None:
    """Pass on what is appended to the file, until the event is set and the end of the file is reached."""
    with path.open(encoding="utf-8") as file:
        unfinished = ""
        while True:
            is_last = ended.wait(POLL_SECONDS)
            *lines, unfinished = (unfinished + file.read()).split("\n")
            for line in lines:
                with suppress(ValidationError):  # a line that two processes wrote at once
                    receive(_RECORD.validate_json(line))
            if is_last:
                return
