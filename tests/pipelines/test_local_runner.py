"""The local runner with real processes: started once, orphaned, killed, resumed, ended."""

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

from pipelines.local_runner import MAX_STARTS, ORDER, OUTCOME, LocalRunner
from spira import config
from spira.data.content_hash import digest
from spira.data.storage import open_store
from spira.delivery.observation.observe import data_files
from spira.delivery.runner import Run, RunnerError
from spira.delivery.training_request import TrainingRequest
from spira.evaluation import gate
from tests.support.gatefiles import LENIENT

pytestmark = pytest.mark.integration

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
    """Wait until a run has ended, and return it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (run := runs.find(name)) is None or run.state == "running":
        assert time.monotonic() < deadline, run
        time.sleep(0.1)
    return run


def starts(runs: LocalRunner, name: str = "run-1") -> int:
    return json.loads((runs.work / "runs" / name / ORDER).read_text())["starts"]


def test_a_run_that_was_never_started_is_unknown(runs: LocalRunner) -> None:
    """The lookup creates no files."""
    assert runs.find("run-1") is None
    assert not runs.work.exists()


def test_a_run_that_has_ended_has_its_verdict_and_version(delivered: Path) -> None:
    """To start it again changes nothing."""
    runs = LocalRunner(delivered / "work")
    (folder,) = (delivered / "work" / "runs").iterdir()
    run = runs.find(folder.name)
    assert run is not None
    assert (run.state, run.approved, run.model_version, run.reasons) == ("succeeded", True, 1, ())
    assert 0 <= run.metrics["accuracy"] <= 1
    body = json.loads((folder / ORDER).read_text())
    runs.start(TrainingRequest.from_record(folder.name, body))
    assert (runs.find(folder.name), starts(runs, folder.name)) == (run, 1)


def test_a_run_starts_once_outlives_its_starter_and_resumes_after_a_kill(
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


def test_a_cancelled_run_ends_with_all_its_processes(
    runs: LocalRunner, demo: Path, processes: Callable[[str], list[int]]
) -> None:
    """It may be in its first moments or in a stage; it is interrupted, and a cancellation can be repeated."""
    given = request(demo, digest(data_files(str(demo), open_store(runs.work / "kept"))))
    runs.cancel("run-1")
    assert runs.find("run-1") is None
    runs.start(given)
    runs.cancel("run-1")
    assert runs.find("run-1") == Run("interrupted")
    runs.start(given)
    log = runs.work / "runs" / "run-1" / "log.txt"
    deadline = time.monotonic() + PATIENCE_SECONDS
    while "preprocess" not in log.read_text():
        assert time.monotonic() < deadline, "no stage started"
        time.sleep(0.1)
    assert len(processes(str(runs.work))) > 1
    for _ in range(2):
        runs.cancel("run-1")
        assert runs.find("run-1") == Run("interrupted")
        assert processes(str(runs.work)) == []


def test_a_run_fails_if_its_data_is_deleted_meanwhile(
    runs: LocalRunner, demo: Path, tmp_path: Path, processes: Callable[[str], list[int]]
) -> None:
    """The message has the folder, and no process is left."""
    data = Path(shutil.copytree(demo, tmp_path / "voices"))
    runs.start(request(data, digest(data_files(str(data), open_store(tmp_path / "kept")))))
    shutil.rmtree(data)
    run = ended(runs, "run-1")
    assert run.state == "failed"
    assert f"{data}: no such folder" in run.message
    deadline = time.monotonic() + PATIENCE_SECONDS
    while processes(f"pipelines.local_runner\0{runs.work}"):
        assert time.monotonic() < deadline, "the process is still running"
        time.sleep(0.1)


def test_a_run_that_dies_too_often_counts_as_failed(
    runs: LocalRunner, demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its interpreter does not start; the message has the path of the log."""
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    given = request(demo, "0" * 64)
    for number in range(1, MAX_STARTS + 1):
        runs.start(given)
        assert (ended(runs, "run-1"), starts(runs)) == (Run("interrupted"), number)
    runs.start(given)
    log = runs.work / "runs" / "run-1" / "log.txt"
    expected = Run("failed", f"it was started {MAX_STARTS} times and never ended: see {log}")
    assert runs.find("run-1") == expected
    assert "PYTHONHOME" in log.read_text()


@pytest.mark.parametrize("damaged", ["", "{", "[]", '{"reasons": [], "surprise": 1}', "{}"])
def test_an_outcome_that_cannot_be_read_is_a_runner_error(runs: LocalRunner, damaged: str) -> None:
    """The message has the folder; the next tick tries again."""
    folder = runs.work / "runs" / "run-1"
    folder.mkdir(parents=True)
    (folder / ORDER).write_text("{}")
    (folder / OUTCOME).write_text(damaged)
    with pytest.raises(RunnerError, match=f"{folder} cannot be used: "):
        runs.find("run-1")


def test_a_work_folder_that_cannot_be_written_is_a_runner_error(tmp_path: Path, demo: Path) -> None:
    """It is not a failed run, so a full disk uses up no attempt."""
    (tmp_path / "work").write_text("a file where the folder should be")
    with pytest.raises(RunnerError, match="cannot be used: "):
        LocalRunner(tmp_path / "work").start(request(demo, ""))


def test_a_run_fails_if_the_code_has_changed_since_its_claim(runs: LocalRunner, demo: Path) -> None:
    """A model made from other sources is no version of this fingerprint."""
    changed = request(demo, "").model_copy(update={"code_digest": "of another moment"})
    runs.start(changed)
    run = ended(runs, changed.name)
    assert run.state == "failed"
    assert "the code has changed since this run was claimed" in run.message
