"""Progress records: what stages write in their processes reaches the display, and nothing is written without one."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spira import progress
from spira.progress import Line, Record, StageBegan, StageEnded, Steps, Throttle, Training
from spira.stage_logging import DETAIL, StageResult, progress_log, stage
from tests.support import ROOT

RECORDS: list[Record] = [
    StageBegan(stage="train"),
    Steps(stage="train", done=3, total=8, unit="recordings"),
    Training(seed=1, epochs=2, max_epochs=9, share=0.5, eval_loss=0.6, eval_accuracy=0.75, best_epoch=1),
    Line(stage="train", level=logging.WARNING, text="a name with an accent: joão"),
    StageEnded(stage="train", failed=True),
]


def test_records_arrive_as_they_were_emitted(tmp_path: Path) -> None:
    """All of them, in their order, although the block ends before the next look at the file."""
    received: list[Record] = []
    with progress.followed(tmp_path / "progress.jsonl", received.append):
        for record in RECORDS:
            progress.emit(record)
    assert received == RECORDS
    assert progress.VARIABLE not in os.environ


def test_records_of_a_child_process_arrive(tmp_path: Path) -> None:
    """The child finds the file by its environment."""
    received: list[Record] = []
    code = "from spira import progress; progress.emit(progress.StageBegan(stage='evaluate'))"
    with progress.followed(tmp_path / "progress.jsonl", received.append):
        subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert received == [StageBegan(stage="evaluate")]


def test_a_damaged_line_is_left_out(tmp_path: Path) -> None:
    """Two processes can have written at once; the lines before and after are read."""
    received: list[Record] = []
    path = tmp_path / "progress.jsonl"
    with progress.followed(path, received.append):
        progress.emit(RECORDS[0])
        with path.open("a") as file:
            file.write('{"kind": "st{"kind": "began"\n[]\n')
        progress.emit(RECORDS[1])
    assert received == RECORDS[:2]


def test_without_a_display_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither without a receiver nor into a folder that is gone: progress never ends a stage."""
    with progress.followed(tmp_path / "progress.jsonl", None):
        progress.emit(RECORDS[0])
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv(progress.VARIABLE, str(tmp_path / "gone" / "progress.jsonl"))
    progress.emit(RECORDS[0])


def test_a_stage_emits_its_begin_its_lines_and_its_end(tmp_path: Path) -> None:
    """Steps that follow quickly are thinned out, the last one is always there; details stay in the log."""

    @stage
    def preprocess() -> StageResult:
        log = logging.getLogger("spira.stages.preprocess")
        report = progress_log("preprocess", "recordings")
        for done in range(1, 101):
            report(done, 100)
        log.warning("few recordings")
        log.info("a reason", extra=DETAIL)
        return StageResult()

    received: list[Record] = []
    with progress.followed(tmp_path / "progress.jsonl", received.append):
        preprocess()
    assert received == [
        StageBegan(stage="preprocess"),
        Steps(stage="preprocess", done=100, total=100, unit="recordings"),
        Line(stage="preprocess", level=logging.WARNING, text="few recordings"),
        StageEnded(stage="preprocess"),
    ]


def test_a_stage_that_fails_emits_a_failed_end(tmp_path: Path) -> None:
    """The exception is passed on."""
    received: list[Record] = []
    with (
        progress.followed(tmp_path / "progress.jsonl", received.append),
        pytest.raises(ValueError, match="no data"),
        progress.stage("train"),
    ):
        raise ValueError("no data")
    assert received == [StageBegan(stage="train"), StageEnded(stage="train", failed=True)]


def test_a_throttle_lets_the_first_one_through_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of many, and the next one when the time has passed again."""
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    throttle = Throttle(2.0)
    due = []
    for now in (100.0, 101.9, 102.0, 103.9, 104.1):  # noqa: B007 (the clock above reads it)
        due.append(throttle.is_due())
    assert due == [False, False, True, False, True]
