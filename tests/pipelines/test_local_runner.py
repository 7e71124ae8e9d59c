"""The local runner with real processes: begun once, alive without who gave them, killed, taken up, ended."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.local_runner import MOST_STARTS, ORDER, OUTCOME, LocalRunner
from spira import config
from spira.data.content_hash import digest
from spira.data.storage import open_store
from spira.delivery.observe import data_files
from spira.delivery.runner import Run, RunnerError
from spira.delivery.training_request import TrainingRequest
from spira.evaluation import gate
from tests.support.gatefiles import LENIENT

GIVE = """
import sys
from pathlib import Path
from pipelines.local_runner import LocalRunner
from spira.delivery.training_request import TrainingRequest
LocalRunner(Path(sys.argv[1])).start(TrainingRequest.model_validate_json(sys.argv[2]))
"""
PATIENCE_SECONDS = 120


@pytest.fixture
def runs(tmp_path: Path) -> LocalRunner:
    return LocalRunner(tmp_path / "work")


def request(data: Path, data_digest: str) -> TrainingRequest:
    """A run of the smallest settings."""
    return TrainingRequest(
        name="run-1", data=str(data), data_digest=data_digest, config=config.smoke(), gate=gate.load(LENIENT)
    )


def ended(runs: LocalRunner, name: str) -> Run:
    """Wait until an order runs no more."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (run := runs.find(name)) is None or run.state == "running":
        assert time.monotonic() < deadline, run
        time.sleep(0.1)
    return run


def starts(runs: LocalRunner, name: str = "run-1") -> int:
    return json.loads((runs.work / "runs" / name / ORDER).read_text())["starts"]


def test_an_order_that_never_began_is_unknown(runs: LocalRunner) -> None:
    """And asking leaves nothing behind."""
    assert runs.find("run-1") is None
    assert not runs.work.exists()


def test_a_run_that_ends_tells_all_that_delivery_needs(delivered: Path) -> None:
    """The verdict, the version and its figures; to order it again changes nothing."""
    runs = LocalRunner(delivered / "work")
    (folder,) = (delivered / "work" / "runs").iterdir()
    run = runs.find(folder.name)
    assert run is not None
    assert (run.state, run.approved, run.model_version, run.reasons) == ("succeeded", True, 1, ())
    assert 0 <= run.metrics["accuracy"] <= 1
    told = json.loads((folder / ORDER).read_text())
    runs.start(TrainingRequest.from_record(folder.name, told))
    assert (runs.find(folder.name), starts(runs, folder.name)) == (run, 1)


def test_an_order_runs_once_outlives_its_givers_and_is_taken_up_after_a_kill(
    runs: LocalRunner, demo: Path, processes: Callable[[str], list[int]]
) -> None:
    """Given by two processes at once, which end; killed by -9; ordered again; refused for data that aren't the same."""
    given = request(demo, "0" * 64)
    command = [sys.executable, "-c", GIVE, str(runs.work), given.model_dump_json()]
    for giver in [subprocess.Popen(command) for _ in range(2)]:
        assert giver.wait(PATIENCE_SECONDS) == 0
    (pid,) = processes(f"pipelines.local_runner\0{runs.work}")
    assert (runs.find("run-1"), starts(runs)) == (Run("running"), 1)
    runs.start(given)
    assert (processes(f"pipelines.local_runner\0{runs.work}"), starts(runs)) == ([pid], 1)

    os.kill(pid, signal.SIGKILL)
    assert ended(runs, "run-1") == Run("interrupted")
    runs.start(given)
    assert starts(runs) == 2
    run = ended(runs, "run-1")
    assert run.state == "failed"
    assert "changed" in run.message
    assert str(demo) in run.message


def test_data_that_are_deleted_meanwhile_end_the_run(
    runs: LocalRunner, demo: Path, tmp_path: Path, processes: Callable[[str], list[int]]
) -> None:
    """Named in the reason; no process is left."""
    data = Path(shutil.copytree(demo, tmp_path / "voices"))
    runs.start(request(data, digest(data_files(str(data), open_store(tmp_path / "kept")))))
    shutil.rmtree(data)
    run = ended(runs, "run-1")
    assert run.state == "failed"
    assert f"{data}: no such folder" in run.message
    deadline = time.monotonic() + PATIENCE_SECONDS
    while processes(f"pipelines.local_runner\0{runs.work}"):
        assert time.monotonic() < deadline, "the process goes on"
        time.sleep(0.1)


def test_an_order_that_dies_again_and_again_ends_as_failed(
    runs: LocalRunner, demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interpreter that doesn't start: after so many times there is an end, with the log to read."""
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    given = request(demo, "0" * 64)
    for number in range(1, MOST_STARTS + 1):
        runs.start(given)
        assert (ended(runs, "run-1"), starts(runs)) == (Run("interrupted"), number)
    runs.start(given)
    log = runs.work / "runs" / "run-1" / "log.txt"
    told = Run("failed", f"it was started {MOST_STARTS} times and never ended: see {log}")
    assert runs.find("run-1") == told
    assert "PYTHONHOME" in log.read_text()


@pytest.mark.parametrize("damaged", ["", "{", "[]", '{"reasons": [], "surprise": 1}', "{}"])
def test_an_outcome_that_cannot_be_read_is_the_runners_trouble(runs: LocalRunner, damaged: str) -> None:
    """Not a crash of who asks: it is told by its folder, and asked again at the next tick."""
    folder = runs.work / "runs" / "run-1"
    folder.mkdir(parents=True)
    (folder / ORDER).write_text("{}")
    (folder / OUTCOME).write_text(damaged)
    with pytest.raises(RunnerError, match=f"{folder} can't be used: "):
        runs.find("run-1")


def test_a_place_where_nothing_can_be_written_is_the_runners_trouble(tmp_path: Path, demo: Path) -> None:
    """No run that failed: no attempt is used up by a full disk."""
    (tmp_path / "work").write_text("a file where the folder should be")
    with pytest.raises(RunnerError, match="can't be used: "):
        LocalRunner(tmp_path / "work").start(request(demo, ""))


def test_code_that_changed_since_the_claim_is_the_reason(runs: LocalRunner, demo: Path) -> None:
    """What the sources of another moment make is no version of this fingerprint."""
    told = request(demo, "").model_copy(update={"code_digest": "of another moment"})
    runs.start(told)
    run = ended(runs, told.name)
    assert run.state == "failed"
    assert "the code has changed since this run was claimed" in run.message
