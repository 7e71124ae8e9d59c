"""Logging of a stage: lines, errors and duration."""

from __future__ import annotations

import io
import logging
import time
from dataclasses import dataclass

import pytest

from spira.errors import SpiraError
from spira.stage_logging import StageLogHandler, StageResult, stage


def test_a_stage_logs_marked_lines_and_its_duration(capsys: pytest.CaptureFixture[str]):
    """The lines go to standard error, and the duration is added to the result."""

    @dataclass(frozen=True, kw_only=True)
    class Answer(StageResult):
        answer: int

    @stage
    def idle() -> Answer:
        logging.getLogger("spira.idle").info("one\ntwo")
        time.sleep(0.01)
        return Answer(answer=42)

    result = idle()
    lines = capsys.readouterr().err.splitlines()
    assert result.answer == 42
    assert result.seconds > 0
    assert lines[:2] == ["spira: one", "spira: two"]
    assert lines[2].startswith("spira: idle: done in")


def test_an_error_is_logged_and_raised(capsys: pytest.CaptureFixture[str]):
    """Each of its lines is marked, so that a runner can show all of them, and the error is flagged as logged."""

    @stage
    def fail() -> StageResult:
        raise SpiraError("row 3: bad\nrow 4: bad")

    with pytest.raises(SpiraError) as error:
        fail()
    assert capsys.readouterr().err.splitlines() == ["spira error: row 3: bad", "spira error: row 4: bad"]
    assert error.value.logged


def test_a_stage_restores_the_loggers():
    """A stage may run in the process of its caller."""
    logger = logging.getLogger("spira")
    before = logger.handlers[:], logger.level, logger.propagate
    stage(StageResult).__wrapped__()
    stage(StageResult)()
    assert (logger.handlers, logger.level, logger.propagate) == before


def test_a_stage_stops_when_its_output_is_closed():
    """The pipe of a killed runner is closed, and a running stage would compete with the next run."""
    closed = io.StringIO()
    closed.close()
    handler = StageLogHandler(closed)
    with pytest.raises(ValueError, match="closed"):
        handler.handle(logging.LogRecord("spira", logging.INFO, "", 0, "epoch 1", (), None))
