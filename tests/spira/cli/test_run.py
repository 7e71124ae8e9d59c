"""``spira run`` in a terminal and in a pipe, as a person and a log see it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.gatefiles import LENIENT, STRICT
from tests.support.terminal import Terminal

pytestmark = pytest.mark.integration

FAST = """\
model: {channels: 8}
training: {max_epochs: 2, batch_files: 4, seeds: [1, 22]}
evaluation: {bootstrap_samples: 200, noise_draws: 1}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose name has a space, with a configuration that trains for seconds."""
    folder = tmp_path / "my folder"
    folder.mkdir()
    (folder / "fast.yaml").write_text(FAST)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 120])
def test_the_screen_of_a_whole_run(demo: Path, folder: Path, columns: int) -> None:
    """Every stage is done, every seed has its line, and a command of the summary works as it stands there."""
    arguments = ("run", "--data", str(demo), "--config", "fast.yaml", "--gate", str(LENIENT), "--work", "my work")
    run = Terminal(*arguments, folder=folder, columns=columns, rows=90, OMP_NUM_THREADS="1")
    assert run.wait(550) == 0, run.screen()
    screen = run.screen()
    for stage in ("check", "preprocess", "train", "evaluate", "push", "deploy", "report"):
        assert re.search(rf"^✔  {stage} +\S.* \d+:\d\d$", screen, re.MULTILINE), (stage, screen)
    for seed in (1, 22):
        row = rf"^ +{seed}  ━+ +2/2 +\d\.\d{{3}} +\d\.\d{{3}}  done, best: \d$"
        assert re.search(row, screen, re.MULTILINE), (seed, screen)
    for words in ("APPROVED: version 1 serves and is champion", "Stages: preprocess", "Report   /", "Next:"):
        assert words in screen
    assert "Traceback" not in run.output
    lines = run.output.splitlines()
    show = next(line.strip() for line in lines if line.endswith(" models show 1 --work 'my work'"))
    shown = subprocess.run(
        show,
        shell=True,
        cwd=folder,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.stdout.startswith("version 1 (champion): APPROVED"), (show, shown)


@pytest.mark.slow
def test_a_pipe_gets_lines_without_control_characters(demo: Path, folder: Path) -> None:
    """Progress on standard error, the summary on standard output, and the reasons of a rejection once."""
    arguments = ["run", "--data", str(demo), "--config", "fast.yaml", "--seed", "3", "--gate", str(STRICT)]
    run = subprocess.run(
        [sys.executable, "-m", "spira", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [character for character in run.stdout + run.stderr if character < " " and character != "\n"] == []
    assert "seed 3: epoch   2/2" in run.stderr
    assert len(re.findall(r"^warning: .*length of patients", run.stderr, re.MULTILINE)) <= 1
    reasons = re.findall(r"^│   - (.{20})", run.stdout, re.MULTILINE)
    assert reasons
    assert all(reason not in run.stderr for reason in reasons)


def test_what_is_refused_at_once_is_one_line_on_the_screen(folder: Path) -> None:
    """No display stays above it."""
    run = Terminal("run", "--data", "none", folder=folder, columns=80)
    assert run.wait(200) == 2
    assert run.screen().startswith("error: --data none: no such folder; give a folder or a gs:// or s3:// prefix")
