"""Each component through kfp.local, alone: its inputs imported, its outputs looked at."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from components.deploy import deploy
from components.evaluate import evaluate
from components.preprocess import preprocess
from components.push import push
from components.reject import reject
from components.train import train
from spira import config
from spira.data import corpus
from spira.deployment.local import Local
from spira.evaluation import gate as gates
from spira.models import checkpoint
from spira.packaging.verify import verify
from spira.registry import Registry, local_uri
from tests.support.gatefiles import LENIENT

Run = Callable[[Any, str], Any]


def imported(path: Path, kind: type[dsl.Artifact]) -> Any:
    """An artifact that exists already."""
    return dsl.importer(artifact_uri=str(path), artifact_class=kind).output


def test_preprocess_makes_a_corpus(run: Run, demo: Path, prepared: Path):
    """The corpus is that of the data set, and its numbers are metrics."""

    @dsl.pipeline
    def alone():
        preprocess(data=str(demo), data_digest="", code_digest="", config="{}", skip_bad=False, state_uri="")

    outputs = run(alone, "preprocess")
    assert corpus.Corpus.open(outputs / "corpus").digest == corpus.Corpus.open(prepared).digest
    assert {name: outputs["metrics"][name] for name in ("train_files", "test_files", "skipped")} == {
        "train_files": 12,
        "test_files": 8,
        "skipped": 0,
    }


def test_preprocess_refuses_other_data_than_was_pinned(run: Run, demo: Path, capfd: pytest.CaptureFixture[str]):
    """Data that changed between look and use is an error that names both digests."""

    @dsl.pipeline
    def alone():
        preprocess(data=str(demo), data_digest="0123", code_digest="", config="{}", skip_bad=False, state_uri="")

    with pytest.raises(RuntimeError):
        run(alone, "preprocess")
    assert "not 0123; request a new run" in capfd.readouterr().out


def test_train_makes_a_checkpoint_of_its_seed(run: Run, prepared: Path, trained: list[Path], settings: config.Config):
    """The same weights as the library's, the configuration whole: 40 is still 40."""

    @dsl.pipeline
    def alone():
        train(
            corpus=imported(prepared, dsl.Dataset),
            config=settings.model_dump_json(),
            seed=1,
            device="cpu",
            require_gpu=False,
            state_uri="",
            code_digest="",
            cpu="1",
            memory="1Gi",
            gpu_count="0",
        )

    outputs = run(alone, "train")
    made, expected = checkpoint.load(outputs / "checkpoint"), checkpoint.load(trained[0])
    assert (made.info.seed, made.config) == (1, expected.config)
    for name, weights in expected.network.state_dict().items():
        assert made.network.state_dict()[name].allclose(weights, atol=1e-5), name
    assert {"seed", "epochs", "best_epoch", "best_eval_loss", "seconds"} == set(outputs["metrics"])


def test_train_refuses_a_cpu_where_a_gpu_is_required(
    run: Run, prepared: Path, settings: config.Config, capfd: pytest.CaptureFixture[str]
):
    """On a cluster a silent fall-back costs days."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")

    @dsl.pipeline
    def alone():
        train(
            corpus=imported(prepared, dsl.Dataset),
            config=settings.model_dump_json(),
            seed=1,
            device="auto",
            require_gpu=True,
            state_uri="",
            code_digest="",
            cpu="1",
            memory="1Gi",
            gpu_count="0",
        )

    with pytest.raises(RuntimeError):
        run(alone, "train")
    assert "spira error: a GPU is required and torch finds none" in capfd.readouterr().out


def test_evaluate_judges_all_seeds(run: Run, prepared: Path, trained: list[Path], tmp_path: Path):
    """Verdict, report and dashboard artifacts; the returned value is the verdict's."""
    gate, places = gates.load(LENIENT).model_dump_json(), [str(path) for path in trained]

    @dsl.pipeline
    def alone():
        with dsl.ParallelFor(places) as place:
            each = dsl.importer(artifact_uri=place, artifact_class=dsl.Model)
        evaluate(
            corpus=imported(prepared, dsl.Dataset),
            checkpoints=dsl.Collected(each.output),
            gate=gate,
            registry_uri=str(tmp_path / "registry"),
            pipeline_run="",
            job=dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
        )

    outputs = run(alone, "evaluate")
    verdict = json.loads((outputs / "verdict" / "verdict.json").read_text())
    lineage = json.loads((outputs / "verdict" / "lineage.json").read_text())
    assert outputs.value is verdict["approved"] is True
    assert set(verdict["seeds"]) == {"1", "2"}
    assert checkpoint.load(outputs / "candidate").info.seed == verdict["candidate"]["seed"]
    assert lineage["pipeline_run"].startswith("alone-")
    assert (outputs / "report").read_text().startswith("<!")
    assert outputs["metrics"]["accuracy"] == verdict["conditions"]["noisy"]["by_file"]["accuracy"]["value"]
    assert set(outputs["classification"]) == {"confidenceMetrics", "confusionMatrix"}
    json.dumps(outputs.told, allow_nan=False)


def test_push_registers_the_approved_candidate(
    run: Run, prepared: Path, judged: Callable[[bool], Path], tmp_path: Path
):
    """A package that proves itself, a logged run, and a version with its lineage, challenger and not yet champion."""
    made = judged(True)

    @dsl.pipeline
    def alone():
        push(
            corpus=imported(prepared, dsl.Dataset),
            candidate=imported(made / "candidate", dsl.Model),
            verdict=imported(made / "verdict", dsl.Artifact),
            report=imported(made / "report.html", dsl.HTML),
            registry_uri=str(tmp_path),
        )

    outputs = run(alone, "push")
    version = Registry(local_uri(tmp_path)).show(outputs.value)
    assert verify(outputs / "package") <= 1e-5
    assert (version.version, version.aliases, version.approved) == (1, ("challenger",), True)
    assert version.tags["pipeline_run"] == "run-1"
    assert version.metrics["noisy.by_file.accuracy"] == pytest.approx(_accuracy(made))


def test_reject_logs_the_run_and_registers_nothing(
    run: Run, prepared: Path, judged: Callable[[bool], Path], tmp_path: Path
):
    """The run and its reasons are in MLflow; there is no version."""
    made = judged(False)

    @dsl.pipeline
    def alone():
        reject(
            corpus=imported(prepared, dsl.Dataset),
            candidate=imported(made / "candidate", dsl.Model),
            verdict=imported(made / "verdict", dsl.Artifact),
            report=imported(made / "report.html", dsl.HTML),
            registry_uri=str(tmp_path),
        )

    outputs = run(alone, "reject")
    from mlflow.tracking import MlflowClient

    logged = MlflowClient(local_uri(tmp_path)).get_run(outputs["metrics"]["run_id"])
    assert logged.data.tags["approved"] == "false"
    assert Registry(local_uri(tmp_path)).list_versions() == []


def test_deploy_serves_and_makes_champion(run: Run, prepared: Path, judged: Callable[[bool], Path], tmp_path: Path):
    """Only what serves, its golden recordings right, is champion."""
    from spira.stages.push import push

    made = judged(True)
    package = tmp_path / "package"
    inputs = prepared, made / "candidate", made / "verdict", made / "report.html"
    pushed = push(*inputs, package, registry_uri=str(tmp_path))

    @dsl.pipeline
    def alone():
        deploy(
            package=imported(package, dsl.Model),
            version=pushed["model_version"],
            registry_uri=str(tmp_path),
            target=json.dumps({"kind": "local", "serving": str(tmp_path / "serving")}),
        )

    run(alone, "deploy")
    champion = Registry(local_uri(tmp_path)).champion()
    assert champion is not None
    assert Local(tmp_path / "serving").status().version == str(champion.version) == "1"
    assert Local(tmp_path / "serving").verify() <= 1e-5


def _accuracy(made: Path) -> float:
    verdict = json.loads((made / "verdict" / "verdict.json").read_text())
    return verdict["conditions"]["noisy"]["by_file"]["accuracy"]["value"]
