"""Stages: what they tell, keep and refuse. (That they do their work is shown in tests/component.)"""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from threading import Thread

import pytest

from spira import stages
from spira.errors import SpiraError


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A kept folder of one file."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "a").write_text("1")
    return tmp_path / "kept"


def test_a_stage_is_timed_and_told(capsys: pytest.CaptureFixture[str]):
    """Its lines are marked, on standard error, and the result gains its seconds."""

    @stages.stage
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

    @stages.stage
    def refuses() -> dict:
        raise SpiraError("row 3: bad\nrow 4: bad")

    with pytest.raises(SpiraError) as refusal:
        refuses()
    assert capsys.readouterr().err.splitlines() == ["spira error: row 3: bad", "spira error: row 4: bad"]
    assert refusal.value.told


def test_the_loggers_are_left_as_they_were():
    """A stage in one's own process changes nothing for what comes after."""
    logger = logging.getLogger("spira")
    before = logger.handlers[:], logger.level, logger.propagate
    stages.stage(lambda: {}).__wrapped__()
    stages.stage(lambda: {})()
    assert (logger.handlers, logger.level, logger.propagate) == before


def test_a_stage_stops_when_nobody_listens_any_more():
    """The runner was killed: its pipe is closed, and going on would compete with the next run."""
    closed = io.StringIO()
    closed.close()
    teller = stages._Teller(closed)
    with pytest.raises(ValueError, match="closed"):
        teller.handle(logging.LogRecord("spira", logging.INFO, "", 0, "epoch 1", (), None))


def test_kept_files_are_linked_not_copied(place: Path, tmp_path: Path):
    """A corpus of gigabytes costs its disk once."""
    stages._hand_on(place, ["a"], tmp_path / "out")
    assert (tmp_path / "out" / "a").samefile(place / "a")


def test_what_is_handed_on_replaces_what_was_there(place: Path, tmp_path: Path):
    """A task that is repeated after a kill finds leftovers and replaces them."""
    for leftover in ("out", "out.writing"):
        (tmp_path / leftover).mkdir()
        (tmp_path / leftover / "b").write_text("old")
    stages._hand_on(place, ["a"], tmp_path / "out")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "a", "kept", "out"]


def test_a_place_in_place_is_left_alone(place: Path):
    """Without a state folder a stage works in its output directly."""
    stages._hand_on(place, ["a"], place)
    assert (place / "a").read_text() == "1"


def test_one_process_at_a_time_makes_a_place(tmp_path: Path):
    """The second waits for the first, then sees what it made."""
    seen = []

    def second() -> None:
        with stages._alone(tmp_path / "corpus"):
            seen.append((tmp_path / "made").exists())

    with stages._alone(tmp_path / "corpus"):
        waiting = Thread(target=second)
        waiting.start()
        waiting.join(0.2)
        assert seen == []
        (tmp_path / "made").touch()
    waiting.join()
    assert seen == [True]


@pytest.mark.parametrize("uri", ["gs://bucket/state", "s3://x"])
def test_state_must_be_a_folder(uri: str):
    """A bucket can't be locked or renamed in."""
    with pytest.raises(SpiraError, match="must be a folder"):
        stages.state(uri)


def test_no_state_is_no_folder():
    """An empty parameter means none."""
    assert stages.state("") is None


@pytest.mark.parametrize("approved", [False, None, "false", 1])
def test_push_refuses_what_is_not_approved(tmp_path: Path, approved: object):
    """Were the pipeline's condition ever misread, no model that failed would be registered."""
    (tmp_path / stages.VERDICT).write_text(json.dumps({"approved": approved}))
    (tmp_path / stages.LINEAGE).write_text("{}")
    with pytest.raises(SpiraError, match="no approval"):
        stages.push(tmp_path, tmp_path, tmp_path, tmp_path, tmp_path / "package", registry_uri=str(tmp_path))
    assert not (tmp_path / "package").exists()


def test_reject_refuses_what_is_approved(tmp_path: Path):
    """An approved model isn't dropped in silence either."""
    (tmp_path / stages.VERDICT).write_text('{"approved": true}')
    with pytest.raises(SpiraError, match="is an approval"):
        stages.reject(tmp_path, tmp_path, tmp_path, tmp_path, registry_uri=str(tmp_path))


def test_numbers_that_are_none_are_left_out_of_the_dashboard():
    """Kubeflow's metadata takes no NaN; a verdict without measurements has no numbers at all."""
    by_file = {"accuracy": {"value": 0.9}, "ece": {"value": None}}
    measured = {"approved": True, "seconds": 1.0, "conditions": {"noisy": {"by_file": by_file}}}
    assert stages.headline(measured) == {"approved": True, "seconds": 1.0, "accuracy": 0.9}
    fatal = {"approved": False, "seconds": 1.0, "conditions": {}}
    assert stages.headline(fatal) == {"approved": False, "seconds": 1.0}
