"""Fixtures of the components: inputs made by the library, and a function that runs a pipeline of one component."""

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
    """Configuration of one short epoch of a narrow network."""
    return config.smoke()


@pytest.fixture(scope="session")
def corpus_folder(demo: Path, settings: config.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Corpus of the demo data set."""
    out = tmp_path_factory.mktemp("corpus") / "corpus"
    corpus.build(demo, out, settings.preprocess)
    return out


@pytest.fixture(scope="session")
def trained(corpus_folder: Path, settings: config.Config, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Checkpoints of two seeds."""
    folder = tmp_path_factory.mktemp("checkpoints")
    demo_corpus = corpus.Corpus.open(corpus_folder)
    for seed in (1, 2):
        train.train(demo_corpus, settings, seed, folder / str(seed))
    return [folder / "1", folder / "2"]


@pytest.fixture(scope="session")
def evaluated(
    corpus_folder: Path, trained: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[bool], Path]:
    """Function that returns a folder of verdict, report.html and candidate, approved or rejected."""
    folders = {}

    def evaluate_once(approve: bool) -> Path:
        if approve not in folders:
            out = tmp_path_factory.mktemp("verdict")
            gate = gates.load(LENIENT if approve else STRICT)
            outputs = out / "verdict", out / "report.html", out / "candidate"
            evaluate(corpus_folder, trained, gate, *outputs, registry_uri=str(out), pipeline_run="run-1")
            folders[approve] = out
        return folders[approve]

    return evaluate_once


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Any, str], Outputs]:
    """Function that runs a pipeline in subprocesses and returns the outputs of one of its components."""

    def run_pipeline(pipeline: Any, component: str) -> Outputs:
        local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "run"))
        pipeline()
        (path,) = (tmp_path / "run").rglob(f"{component}/executor_output.json")
        return Outputs(path.parent, json.loads(path.read_text()))

    return run_pipeline


class Outputs:
    """Outputs of a task: ``outputs / "corpus"`` is the path of an artifact, ``outputs["corpus"]`` its metadata."""

    def __init__(self, folder: Path, body: dict[str, Any]) -> None:
        self.folder, self.body = folder, body

    def __truediv__(self, artifact: str) -> Path:
        return self.folder / artifact

    def __getitem__(self, artifact: str) -> dict[str, Any]:
        return self.body["artifacts"][artifact]["artifacts"][0]["metadata"]

    @property
    def value(self) -> Any:
        """Returned parameter."""
        return self.body["parameterValues"]["Output"]
