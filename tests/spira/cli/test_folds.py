"""``spira run --folds K``: a table and two files, and nothing registered, served or decided."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from spira.cli.main import app
from spira.models import checkpoint
from tests.support import bad_datasets
from tests.support.terminal import CTRL_C, Terminal

SMOKE = ["--set", "training.max_epochs=1", "--set", "training.batch_files=4", "--set", "model.channels=8"]
SMOKE += ["--set", "evaluation.noise_draws=1", "--seed", "1"]
FIRSTS = ["fold", "1", "2", "3", "mean", "SD"]
"""First cells of the table."""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A data set of 12 recordings of 1 s; train and eval have 4 speakers of each class."""
    return bad_datasets.make(tmp_path / "data")


@pytest.mark.integration
def test_folds_are_trained_measured_and_kept(small: Path, tmp_path: Path) -> None:
    """No network has seen a test recording; the same command again trains nothing and gives the same numbers."""
    work = tmp_path / "work"
    command = ["run", "--data", str(small), "--work", str(work), "--folds", "3", *SMOKE]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    firsts = [line.split()[0] for line in result.stdout.splitlines() if line.strip()]
    assert [first for first in firsts if first in ("fold", "1", "2", "3", "mean", "SD")] == FIRSTS
    assert "fold 3 of 3: trains on" in result.stderr
    assert "epoch   1/1" in result.stderr
    rows = list(csv.DictReader((work / "folds.csv").open()))
    assert [row["fold"] for row in rows] == ["1", "2", "3", "mean", "std"]
    assert sum(int(row["files"]) for row in rows[:3]) == 8
    assert sorted(os.listdir(work)) == ["folds.csv", "folds.json", "state"]
    trained = list((work / "state").glob("*-1"))
    assert len(trained) == 3
    corpora = list((work / "state").glob("corpus-*"))
    index = pd.read_parquet(corpora[0] / "index.parquet")
    tested = set(index.loc[index["split"] == "test", "sha256"])
    assert len(tested) == 4
    assert not any(tested & set(checkpoint.read_info(folder).train_files) for folder in trained)

    before = (work / "folds.json").read_text()
    again = CliRunner().invoke(app, command)
    assert again.stderr.count("is complete, nothing to train") == 3
    assert json.loads((work / "folds.json").read_text()) == json.loads(before)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--folds", "2"], "--folds 2: at least 3 are needed"),
        (["--folds", "-1"], "--folds -1: at least 3 are needed"),
        (["--folds", "3", "--with-audio"], "leave out --with-audio"),
        (["--folds", "3", "--mlflow", "http://x"], "leave out --mlflow"),
        (["--folds", "3", "--device", "tpu0"], "must be auto, cpu, cuda or cuda:N"),
    ],
)
def test_a_refusal_is_one_line_with_exit_code_2(options: list[str], said: str, small: Path, tmp_path: Path) -> None:
    """Before anything is made."""
    result = CliRunner().invoke(app, ["run", "--data", str(small), "--work", str(tmp_path / "work"), *options])
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert list((tmp_path / "work").glob("*")) == []


@pytest.mark.slow
def test_ctrl_c_ends_the_folds_and_the_epochs_are_kept(dataset: Path, tmp_path: Path) -> None:
    """The command ends with the exit code of a shell, and says how to go on; the next one resumes."""
    command = [
        "run",
        "--data",
        str(dataset),
        "--work",
        "work",
        "--folds",
        "3",
        *SMOKE,
        "--set",
        "training.max_epochs=3",
    ]
    terminal = Terminal(*command, folder=tmp_path)
    terminal.wait_for("epoch   1/3")
    terminal.press(CTRL_C)
    assert terminal.wait(30) == 130
    assert "run the same command again to resume" in terminal.output
    assert not (tmp_path / "work" / "folds.csv").exists()
    resumed = Terminal(*command, folder=tmp_path)
    resumed.wait_for("resumes after epoch")
    assert resumed.wait(300) == 0
    assert (tmp_path / "work" / "folds.csv").exists()
