"""Each component alone through kfp's local runner, with imported inputs."""

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
from spira.packaging.verify import package_digest, verify
from spira.registry import Registry, local_uri, open_at
from spira.stages.evaluate import evaluate as evaluate_stage
from spira.stages.evaluate import open_champion
from spira.stages.push import push as push_stage
from tests.support.gatefiles import LENIENT

pytestmark = pytest.mark.integration

Run = Callable[[Any, str], Any]


def imported(path: Path, artifact_class: type[dsl.Artifact]) -> Any:
    """Return an artifact of an existing path, as an input of a component."""
    return dsl.importer(artifact_uri=str(path), artifact_class=artifact_class).output


def test_preprocess_makes_a_corpus(run: Run, demo: Path, corpus_folder: Path):
    """It is the corpus of the data set, and its counts are metrics."""

    @dsl.pipeline
    def alone():
        preprocess(data=str(demo), data_digest="", code_digest="", preprocess_config="{}", skip_bad=False, state_uri="")

    outputs = run(alone, "preprocess")
    assert corpus.Corpus.open(outputs / "corpus").digest == corpus.Corpus.open(corpus_folder).digest
    assert {name: outputs["metrics"][name] for name in ("train_files", "test_files", "skipped")} == {
        "train_files": 12,
        "test_files": 8,
        "skipped": 0,
    }
    assert outputs["corpus"]["display_name"] == "corpus: 12 train, 4 eval, 8 test"
    assert outputs["corpus"]["data_digest"] == corpus.Corpus.open(corpus_folder).digest


def test_preprocess_refuses_data_with_another_digest(run: Run, demo: Path, capfd: pytest.CaptureFixture[str]):
    """The message has the expected digest."""

    @dsl.pipeline
    def alone():
        preprocess(
            data=str(demo), data_digest="0123", code_digest="", preprocess_config="{}", skip_bad=False, state_uri=""
        )

    with pytest.raises(RuntimeError):
        run(alone, "preprocess")
    assert "not 0123; request a new run" in capfd.readouterr().out


def test_train_makes_a_checkpoint_of_its_seed(
    run: Run, corpus_folder: Path, trained: list[Path], settings: config.Config
):
    """Weights and configuration equal those of a training by the library; 40 has not become 40.0."""

    @dsl.pipeline
    def alone():
        train(
            corpus=imported(corpus_folder, dsl.Dataset),
            config=settings.model_dump_json(exclude={"preprocess"}),
            preprocess_config=settings.preprocess.model_dump_json(),
            seed=1,
            device="cpu",
            require_gpu=False,
            state_uri="",
            code_digest="",
        )

    outputs = run(alone, "train")
    made, expected = checkpoint.load(outputs / "checkpoint"), checkpoint.load(trained[0])
    assert (made.info.seed, made.config) == (1, expected.config)
    for name, weights in expected.network.state_dict().items():
        assert made.network.state_dict()[name].allclose(weights, atol=1e-5), name
    assert {"seed", "epochs", "best_epoch", "best_eval_loss", "seconds", "display_name"} == set(outputs["metrics"])
    assert outputs["metrics"]["display_name"] == "train: seed 1"
    metadata = outputs["checkpoint"]
    assert (metadata["display_name"], metadata["seed"]) == ("checkpoint: seed 1", 1)
    assert metadata["config_digest"] == settings.digest()
    assert metadata["data_digest"] == corpus.Corpus.open(corpus_folder).digest
    assert metadata["framework"].startswith("torch ")


def test_train_refuses_a_cpu_if_a_gpu_is_required(
    run: Run, corpus_folder: Path, settings: config.Config, capfd: pytest.CaptureFixture[str]
):
    """On a cluster, training on the CPU instead would take days."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")

    @dsl.pipeline
    def alone():
        train(
            corpus=imported(corpus_folder, dsl.Dataset),
            config=settings.model_dump_json(exclude={"preprocess"}),
            preprocess_config=settings.preprocess.model_dump_json(),
            seed=1,
            device="auto",
            require_gpu=True,
            state_uri="",
            code_digest="",
        )

    with pytest.raises(RuntimeError):
        run(alone, "train")
    assert "spira error: a GPU is required and torch finds none" in capfd.readouterr().out


def test_evaluate_measures_all_seeds(run: Run, corpus_folder: Path, trained: list[Path], tmp_path: Path):
    """It writes verdict, report, candidate and dashboard artifacts, and returns the approval."""
    gate, uris = gates.load(LENIENT).model_dump_json(), [str(path) for path in trained]

    @dsl.pipeline
    def alone():
        with dsl.ParallelFor(uris) as uri:
            importer = dsl.importer(artifact_uri=uri, artifact_class=dsl.Model)
        evaluate(
            corpus=imported(corpus_folder, dsl.Dataset),
            checkpoints=dsl.Collected(importer.output),
            gate=gate,
            project='{"owner": "A group"}',
            registry_uri=str(tmp_path / "registry"),
            pipeline_run=dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
        )

    outputs = run(alone, "evaluate")
    verdict = json.loads((outputs / "verdict" / "verdict.json").read_text())
    lineage = json.loads((outputs / "verdict" / "lineage.json").read_text())
    assert json.loads((outputs / "verdict" / "project.json").read_text())["owner"] == "A group"
    assert outputs.value is verdict["approved"] is True
    assert set(verdict["seeds"]) == {"1", "2"}
    assert checkpoint.load(outputs / "candidate").info.seed == verdict["candidate"]["seed"]
    assert lineage["pipeline_run"].startswith("alone-")
    assert (outputs / "report").read_text().startswith("<!")
    assert outputs["metrics"]["accuracy"] == verdict["conditions"]["noisy"]["by_file"]["accuracy"]["value"]
    assert "approved" not in outputs["metrics"]
    assert outputs["verdict"]["display_name"].startswith("approved: accuracy ")
    assert outputs["candidate"]["display_name"] == f"candidate: seed {verdict['candidate']['seed']}"
    assert (outputs / "summary").read_text().startswith("# approved: accuracy ")
    assert set(outputs["classification"]) == {"confidenceMetrics", "confusionMatrix"}
    json.dumps(outputs.body, allow_nan=False)


def test_push_registers_the_approved_candidate(
    run: Run, corpus_folder: Path, evaluated: Callable[[bool], Path], tmp_path: Path
):
    """The package passes its verification; the version has its lineage, and is challenger but not champion."""
    folder = evaluated(True)

    @dsl.pipeline
    def alone():
        push(
            corpus=imported(corpus_folder, dsl.Dataset),
            candidate=imported(folder / "candidate", dsl.Model),
            verdict=imported(folder / "verdict", dsl.Artifact),
            report=imported(folder / "report.html", dsl.HTML),
            registry_uri=str(tmp_path),
        )

    outputs = run(alone, "push")
    version = Registry(local_uri(tmp_path)).show(outputs.value)
    assert verify(outputs / "package") <= 1e-5
    assert (version.version, version.aliases, version.approved) == (1, ("challenger",), True)
    assert version.tags["pipeline_run"] == "run-1"
    assert outputs["metrics"]["model_version"] == 1
    assert outputs["package"]["display_name"] == "package of version 1"
    assert outputs["package"]["package_digest"] == package_digest(outputs / "package")
    assert outputs["package"]["data_fingerprint"] == version.tags["data_fingerprint"]
    assert version.metrics["noisy/accuracy"] == pytest.approx(_accuracy(folder))
    card = Path(version.uri).with_name("package.model-card.md").read_text()
    assert card.startswith("# Detector of respiratory insufficiency in speech, version 1")
    assert all(f"## {title}" in card for title in ("Numbers", "Owner, contact and licence", "Data", "Provenance"))


def test_reject_logs_the_run_and_registers_nothing(
    run: Run, corpus_folder: Path, evaluated: Callable[[bool], Path], tmp_path: Path
):
    """MLflow has the run, but no version."""
    folder = evaluated(False)

    @dsl.pipeline
    def alone():
        reject(
            corpus=imported(corpus_folder, dsl.Dataset),
            candidate=imported(folder / "candidate", dsl.Model),
            verdict=imported(folder / "verdict", dsl.Artifact),
            report=imported(folder / "report.html", dsl.HTML),
            registry_uri=str(tmp_path),
        )

    outputs = run(alone, "reject")
    from mlflow.tracking import MlflowClient

    logged = MlflowClient(local_uri(tmp_path)).get_run(outputs["metrics"]["mlflow_run"])
    assert logged.data.tags["approved"] == "false"
    assert Registry(local_uri(tmp_path)).list_versions() == []


def test_deploy_serves_and_makes_champion(
    run: Run, corpus_folder: Path, evaluated: Callable[[bool], Path], tmp_path: Path
):
    """The version serves with correct golden recordings, and is champion."""
    from spira.stages.push import push

    folder = evaluated(True)
    package = tmp_path / "package"
    inputs = corpus_folder, folder / "candidate", folder / "verdict", folder / "report.html"
    result = push(*inputs, package, registry_uri=str(tmp_path))

    @dsl.pipeline
    def alone():
        deploy(
            package=imported(package, dsl.Model),
            version=result.model_version,
            registry_uri=str(tmp_path),
            target=json.dumps({"kind": "local", "serving": str(tmp_path / "serving")}),
        )

    run(alone, "deploy")
    champion = Registry(local_uri(tmp_path)).champion()
    assert champion is not None
    assert Local(tmp_path / "serving").status().version == str(champion.version) == "1"
    assert Local(tmp_path / "serving").verify() <= 1e-5


def _accuracy(folder: Path) -> float:
    verdict = json.loads((folder / "verdict" / "verdict.json").read_text())
    return verdict["conditions"]["noisy"]["by_file"]["accuracy"]["value"]


def test_the_gates_rule_reaches_candidate_package_and_champion(
    corpus_folder: Path, trained: list[Path], tmp_path: Path
):
    """Threshold and temperature of the verdict are those beside the checkpoint, of the package, and of the champion."""
    rules = gates.DiagnosisRules(target_sensitivity=0.9, temperature_scaling=True)
    gate = gates.load(LENIENT).model_copy(update={"diagnosis": rules})
    out, chosen, page = tmp_path / "verdict", tmp_path / "chosen", tmp_path / "report.html"
    registry_uri = str(tmp_path / "registry")
    result = evaluate_stage(
        corpus_folder, trained[:1], gate, out, page, chosen, registry_uri=registry_uri, pipeline_run=""
    )
    rule = result.verdict.diagnosis
    assert json.loads((chosen / "diagnosis.json").read_text()) == rule.model_dump(mode="json")
    assert f"Chosen on {rule.recordings} validation recordings" in page.read_text()

    pushed = push_stage(corpus_folder, chosen, out, page, tmp_path / "package", registry_uri=registry_uri)
    settings = json.loads((tmp_path / "package" / "data" / "config.json").read_text())
    assert (settings["threshold"], settings["temperature"]) == (rule.threshold, rule.temperature)
    verify(tmp_path / "package")

    open_at(registry_uri).promote(pushed.model_version)
    with open_champion(open_at(registry_uri)) as champion:
        assert (champion.threshold, champion.band) == (rule.threshold, rule.band)
