"""Killed runs leave temporary files; after the next run that ends, none is left."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from spira.config import smoke
from tests.support.gatefiles import LENIENT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

TEMPORARY = re.compile(r"spira-tmp$|\.writing|\.partial$|^\.create-|^\.fetch-|\.making$|^tmp\w{8}$")
"""Names of temporary files, also those that older programs gave them, and those of Python and ``mktemp``."""

MOMENTS = ("preprocess: reads", "preprocess: done", "epoch", "train: done", "evaluate: done", "push: ", "deploy: ")
"""Parts of the progress lines after which a run is killed."""


def start(command: list[str], tmpdir: Path) -> subprocess.Popen[str]:
    """Start a run in a session of its own, with a TMPDIR of its own."""
    environment = os.environ | {"TMPDIR": str(tmpdir), "OMP_NUM_THREADS": "1"}
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    return subprocess.Popen(command, env=environment, **options)  # type: ignore[call-overload]


def kill(command: list[str], tmpdir: Path, moment: str, seconds: float, whole_session: bool) -> None:
    """Start a run and kill it some time after a line: the run alone, or its stages too, as a power failure does."""
    with start(command, tmpdir) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if moment in line:
                time.sleep(seconds)
                os.killpg(process.pid, signal.SIGKILL) if whole_session else process.kill()
                break
        process.stderr.read()


def leftovers(*folders: Path) -> list[str]:
    """Return the temporary files in some folders."""
    return [str(path) for folder in folders for path in folder.rglob("*") if TEMPORARY.search(path.name)]


def test_a_run_removes_what_killed_runs_have_left(demo: Path, tmp_path: Path) -> None:
    """In the work folder and in TMPDIR; the runs are killed at many moments, with and without their stages."""
    tmpdir, work, rng = tmp_path / "tmp", tmp_path / "work", random.Random(7)
    tmpdir.mkdir()
    (tmpdir / "other").write_text("of another program")
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(smoke().model_dump(mode="json")))
    command = [sys.executable, "-m", "spira", "run", f"--data={demo}", f"--work={work}", f"--gate={LENIENT}"]
    command += [f"--config={tmp_path / 'model.yaml'}"]
    found = 0
    for moment in MOMENTS:
        kill(command, tmpdir, moment, rng.uniform(0, 1.0), whole_session=rng.random() < 0.7)
        found += len(leftovers(tmpdir, work))
    assert found > 0  # otherwise this test finds nothing
    with start(command, tmpdir) as process:
        assert process.stderr is not None
        output = process.stderr.read()
    assert process.returncode == 0, output
    assert json.loads((work / "summary.json").read_text())["approved"]
    assert leftovers(tmpdir, work) == []
    assert os.listdir(tmpdir) == ["other"]
