"""How a stage logs its lines, errors and time."""

from __future__ import annotations

import io
import logging

import pytest

from spira.errors import SpiraError
from spira.stage_logging import StageLogHandler, stage


def test_a_stage_is_timed_and_told(capsys: pytest.CaptureFixture[str]):
    """Its lines are marked, on standard error, and the result gains its seconds."""

    @stage
    def idle() -> dict:
        logging.getLogger("spira.idle").info("one\ntwo")
        return {"answer": 42}

    result = idle()
    told = capsys.readouterr().err.splitlines()
    assert result["answer"] == 42
    assert result["seconds"] >= 0
    assert told[:2] == ["spira: one", "spira: two"]
    assert told[2].startswith("spira: idle: done in")


def test_a_refusal_is_told_as_an_error_and_raised(capsys: pytest.CaptureFixture[str]):
    """Every line of it is marked, so that a runner can show it whole; and it is known to be told."""

    @stage
    def refuses() -> dict:
        raise SpiraError("row 3: bad\nrow 4: bad")

    with pytest.raises(SpiraError) as refusal:
        refuses()
    assert capsys.readouterr().err.splitlines() == ["spira error: row 3: bad", "spira error: row 4: bad"]
    assert refusal.value.logged


def test_the_loggers_are_left_as_they_were():
    """A stage in one's own process changes nothing for what comes after."""
    logger = logging.getLogger("spira")
    before = logger.handlers[:], logger.level, logger.propagate
    stage(lambda: {}).__wrapped__()
    stage(lambda: {})()
    assert (logger.handlers, logger.level, logger.propagate) == before


def test_a_stage_stops_when_nobody_listens_any_more():
    """The runner was killed: its pipe is closed, and going on would compete with the next run."""
    closed = io.StringIO()
    closed.close()
    handler = StageLogHandler(closed)
    with pytest.raises(ValueError, match="closed"):
        handler.handle(logging.LogRecord("spira", logging.INFO, "", 0, "epoch 1", (), None))
