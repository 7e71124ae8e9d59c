"""Inputs of each component, made by the library, and a way to run a pipeline of one component."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kfp import local

from spira import config
from spira.data import corpus
from spira.evaluation import gate as gates
from spira.stages.evaluate import evaluate
from spira.training import train
from tests.support.gatefiles import LENIENT, STRICT


@pytest.fixture(scope="session")
def settings() -> config.Config:
    """One short epoch of a narrow network."""
    return config.smoke()


@pytest.fixture(scope="session")
def prepared(demo: Path, settings: config.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus of the demo set."""
    out = tmp_path_factory.mktemp("corpus") / "corpus"
    corpus.build(demo, out, settings.preprocess)
    return out


@pytest.fixture(scope="session")
def trained(prepared: Path, settings: config.Config, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Checkpoints of two seeds."""
    folder = tmp_path_factory.mktemp("checkpoints")
    opened = corpus.Corpus.open(prepared)
    for seed in (1, 2):
        train.train(opened, settings, seed, folder / str(seed))
    return [folder / "1", folder / "2"]


@pytest.fixture(scope="session")
def judged(prepared: Path, trained: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], Path]:
    """A folder of verdict, report.html and candidate, approved or not."""
    folders = {}

    def judge(approve: bool) -> Path:
        if approve not in folders:
            out = tmp_path_factory.mktemp("verdict")
            gate = gates.load(LENIENT if approve else STRICT).model_dump_json()
            places = out / "verdict", out / "report.html", out / "candidate"
            evaluate(prepared, trained, gate, *places, registry_uri=str(out), pipeline_run="run-1")
            folders[approve] = out
        return folders[approve]

    return judge


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Any, str], Outputs]:
    """Run a pipeline in subprocesses; gives its one component's output folder, parameters and metadata."""

    def alone(pipeline: Any, component: str) -> Outputs:
        local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "run"))
        pipeline()
        (written,) = (tmp_path / "run").rglob(f"{component}/executor_output.json")
        return Outputs(written.parent, json.loads(written.read_text()))

    return alone


class Outputs:
    """What a task left: ``outputs / "corpus"`` is an artifact's place, ``outputs["corpus"]`` its metadata."""

    def __init__(self, folder: Path, told: dict[str, Any]) -> None:
        self.folder, self.told = folder, told

    def __truediv__(self, artifact: str) -> Path:
        return self.folder / artifact

    def __getitem__(self, artifact: str) -> dict[str, Any]:
        return self.told["artifacts"][artifact]["artifacts"][0]["metadata"]

    @property
    def value(self) -> Any:
        """The returned parameter."""
        return self.told["parameterValues"]["Output"]
