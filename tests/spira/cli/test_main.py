"""The command line: what it refuses, and single stages. (Runs and models: tests/pipelines/test_local.py.)"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from spira import config
from spira.cli.main import app

SMOKE = ["--set", "training.max_epochs=1", "--set", "training.batch_files=4", "--set", "model.channels=8"]
MEASURE = ["--set", "evaluation.bootstrap_samples=200", "--set", "evaluation.noise_draws=1"]


def spira(*arguments: object) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_config_prints_what_config_takes(tmp_path: Path):
    """The resolved configuration, whole, is itself a configuration file."""
    printed = spira("config", "--set", "training.max_epochs=7", "--seed", 3, "--seed", 5).stdout
    (tmp_path / "config.yaml").write_text(printed)
    loaded = config.load(tmp_path / "config.yaml")
    assert (loaded.training.max_epochs, loaded.training.seeds) == (7, (3, 5))
    assert yaml.safe_load(spira("config", "--config", tmp_path / "config.yaml").stdout) == yaml.safe_load(printed)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["config", "--set", "training.epochs=1"], "training.epochs: unknown key"),
        (["config", "--set", "training.max_epochs=0"], "training.max_epochs"),
        (["config", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["run"], "--data DIR, or --demo"),
        (["run", "--data", "x", "--demo"], "one of the two"),
        (["run", "--data", "x", "--gate", "nowhere.yaml"], "nowhere.yaml"),
        (["run", "--data", "nowhere"], "--data nowhere: no such folder"),
        (["run", "--demo", "--work", "/dev/null/work"], "--work /dev/null/work: cannot be written"),
        (["run", "--demo", "--device", "cuda"], "a GPU is required and torch finds none"),
        (["run", "--demo", "--require-gpu"], "a GPU is required and torch finds none"),
        (["run", "--demo", "--device", "tpu0"], "must be auto, cpu, cuda or cuda:N"),
        (["run", "--data", "x", "--seed", "1", "--seed", "1"], "distinct"),
    ],
)
def test_a_refusal_is_one_line_with_exit_code_2(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Before anything is made, in one line, without a traceback."""
    monkeypatch.chdir(tmp_path)
    result = spira(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert [path.name for path in tmp_path.rglob("*") if path.name != "work"] == []
    assert said in result.stderr


def test_a_refusal_that_a_stage_has_told_is_not_told_twice(tmp_path: Path):
    """Once by the stage is enough."""
    result = spira("preprocess", "--data", tmp_path / "nowhere", "--out", tmp_path / "corpus")
    assert result.exit_code == 2
    assert sum(line.startswith(("spira error: ", "error: ")) for line in result.stderr.splitlines()) == 1
    assert not (tmp_path / "corpus").exists()


@pytest.mark.integration
def test_the_stages_one_by_one(demo: Path, tmp_path: Path):
    """Corpus, checkpoints of two seeds, verdict and report: each from what the one before it left."""
    corpus, checkpoints, verdict = tmp_path / "corpus", tmp_path / "checkpoints", tmp_path / "verdict"
    steps = [
        ["preprocess", "--data", demo, "--out", corpus],
        ["train", "--corpus", corpus, "--out", checkpoints, "--seed", 1, "--seed", 2, *SMOKE, *MEASURE],
        ["evaluate", checkpoints / "1", checkpoints / "2", "--corpus", corpus, "--out", verdict, "--work", tmp_path],
    ]
    for step in steps:
        result = spira(*step)
        assert result.exit_code == 0, result.output
    assert set(json.loads((verdict / "verdict.json").read_text())["seeds"]) == {"1", "2"}
    assert (verdict / "report.html").stat().st_size > 10_000


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder without any version; making its database takes seconds."""
    return tmp_path_factory.mktemp("work")


def test_an_empty_repository_is_no_error(empty: Path):
    """The command says that there is no version yet, and what to type."""
    result = spira("models", "list", "--work", empty)
    assert result.exit_code == 0
    assert "spira run" in result.stdout


def test_predicting_without_a_model_is_refused(empty: Path):
    """The message says that there is no version yet."""
    result = spira("predict", "a.wav", "--work", empty)
    assert result.exit_code == 2
    assert "none yet" in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["run", "--data", "voices", "--work", ""],
        ["models", "list", "--work", ""],
        ["models", "dossier", "1", "--work", ""],
        ["deploy", "status", "--work", ""],
        ["clean", "--work", ""],
        ["data", "forget", "Ana", "--data", "voices", "--work", ""],
        ["preprocess", "--data", "voices", "--out", ""],
    ],
)
def test_an_empty_folder_is_not_the_current_one(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As of an unset variable in a script: nothing is written where the user happens to be."""
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert "the name of the folder is empty" in result.output
    assert list(tmp_path.iterdir()) == []
