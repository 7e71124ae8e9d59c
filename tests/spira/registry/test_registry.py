"""The model repository on a real SQLite store, and in one test on a real MLflow server."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from spira.errors import SpiraError
from spira.evaluation.report.work_times import Span, WorkTimes
from spira.packaging import mlflow_model
from spira.packaging.verify import PackageError, digests, package_digest
from spira.registry import Registry, RegistryError, local_uri
from tests.support.verdicts import make_verdict

pytestmark = pytest.mark.integration

LINEAGE = {
    "data_fingerprint": "d" * 64,
    "model_fingerprint": "m" * 64,
    "code_fingerprint": "c" * 64,
    "git_commit": "abc123",
    "pipeline_run": "run-1",
}
PARAMS = {"model": {"architecture": "conv1d", "channels": 8}, "training": {"seeds": [42, 43]}}
HISTORIES = {
    seed: [{"epoch": epoch, "train_loss": 1 / (epoch + seed), "eval_loss": 0.5} for epoch in range(3)]
    for seed in (42, 43)
}
FORK = multiprocessing.get_context("fork")
"""A forked process need not import MLflow again, which takes seconds."""

NEW_STORE = """
import sys
from spira.registry import Registry
from tests.support.verdicts import make_verdict
Registry(sys.argv[1], model_name="nobody").log_run("demo", {}, {}, make_verdict(), {}, {})
"""
SERVED_CODE = """
import json, os
def _load_pyfunc(path):
    return Model(json.load(open(os.path.join(path, "config.json")))["probability"])
class Model:
    def __init__(self, probability):
        self.probability = probability
    def predict(self, model_input):
        return [self.probability], "positive"
"""


def write_package(folder: Path, probability: float) -> Path:
    """Write a package whose model always predicts ``probability``."""
    code = folder / "code" / "spira_inference"
    code.mkdir(parents=True)
    (folder / "data" / "golden").mkdir(parents=True)
    (folder / "data" / "config.json").write_text(json.dumps({"probability": probability}))
    (folder / "data" / "golden" / "0.wav").write_bytes(b"RIFF")
    (code / "__init__.py").write_text("")
    (code / "pyfunc.py").write_text(SERVED_CODE)
    mlflow_model.write(folder)
    (folder / "package.json").write_text(json.dumps({"format": 2, "files": digests(folder)}))
    return folder


def add_version(registry: Registry, folder: Path, probability: float, approved: bool = True) -> int:
    reasons = () if approved else ("noisy accuracy is below its minimum",)
    verdict = make_verdict(approved, reasons, probability)
    run_id = registry.log_run(f"run {probability}", PARAMS, HISTORIES, verdict, {}, LINEAGE)
    package = write_package(folder / f"package-{probability}", probability)
    return registry.register(package, run_id, verdict, LINEAGE)


def aliases(registry: Registry) -> dict[str, int]:
    return {alias: version.version for version in registry.list_versions() for alias in version.aliases}


@pytest.fixture(scope="session")
def new_store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The database of a new store with a run of another model, and the output of the process that created it.

    Creating the tables takes seconds, so it is done once and then copied.
    """
    work = tmp_path_factory.mktemp("new")
    command = [sys.executable, "-c", NEW_STORE, local_uri(work)]
    made = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True, timeout=120)
    return work / "mlflow.db", made.stdout


@pytest.fixture
def work(tmp_path: Path, new_store: tuple[Path, str]) -> Path:
    work = tmp_path / "work with a blank"
    work.mkdir()
    shutil.copy(new_store[0], work / "mlflow.db")
    return work


@pytest.fixture
def registry(work: Path) -> Registry:
    return Registry(local_uri(work))


@pytest.fixture(scope="module")
def three_versions(new_store: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of a store whose second version is champion, the first previous and the third challenger."""
    work = tmp_path_factory.mktemp("three")
    shutil.copy(new_store[0], work / "mlflow.db")
    registry = Registry(local_uri(work))
    for probability in (0.6, 0.7):
        registry.promote(add_version(registry, work, probability))
    add_version(registry, work, 0.8)
    return work / "mlflow.db"


@pytest.fixture
def third_champion(work: Path, three_versions: Path) -> Registry:
    """A registry in which three versions were promoted in turn."""
    shutil.copy(three_versions, work)
    registry = Registry(local_uri(work))
    registry.promote(3)
    return registry


def test_a_rejected_run_is_logged_with_its_numbers_and_reasons(registry: Registry, tmp_path: Path) -> None:
    """Parameters are flattened, epochs are steps, numbers of the verdict are metrics, and files are artifacts."""
    report = tmp_path / "made.html"
    report.write_text("<p>rejected</p>")
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "history.json").write_text("[]")
    artifacts = {"report.html": report, "checkpoints/42": checkpoint}
    verdict = make_verdict(False, ["too noisy"], 0.4)
    run_id = registry.log_run("demo", PARAMS, HISTORIES, verdict, artifacts, LINEAGE, "gs://bucket/digits")

    client = registry._store.client
    run = client.get_run(run_id)
    assert run.info.run_name == "demo"
    assert run.info.status == "FINISHED"
    of_gate = {name: value for name, value in run.data.params.items() if name.startswith("gate.")}
    assert of_gate["gate.noisy.accuracy"] == "0.8"
    assert of_gate["gate.digest"] == verdict.gate.digest
    assert run.data.params == of_gate | {
        "model.architecture": "conv1d",
        "model.channels": "8",
        "training.seeds": "[42, 43]",
    }
    assert run.data.metrics["noisy/accuracy"] == 0.4
    assert run.data.metrics["noisy/accuracy_low"] == pytest.approx(0.35)
    assert not [name for name in run.data.metrics if "." in name or "/" not in name]
    assert run.data.tags["mlflow.note.content"].startswith("**rejected: too noisy**")
    curve = client.get_metric_history(child_runs(registry, run_id)[43], "train/loss")
    assert {point.step: point.value for point in curve} == {epoch: 1 / (epoch + 43) for epoch in range(3)}
    assert run.data.tags.items() >= {**LINEAGE, "approved": "false"}.items()
    [data] = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("digits", "d" * 36)
    logged = {file.path for file in client.list_artifacts(run_id)}
    assert logged == {"report.html", "checkpoints", "verdict.json"}
    assert client.list_artifacts(run_id, "checkpoints/42")[0].path == "checkpoints/42/history.json"


def child_runs(registry: Registry, run_id: str) -> dict[int, str]:
    """Return seed -> id of its child run."""
    store = registry._store
    runs = store.client.search_runs([store.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'")
    assert {run.info.status for run in runs} <= {"FINISHED"}
    return {int(run.data.tags["seed"]): run.info.run_id for run in runs}


def test_the_curves_of_seeds_have_the_same_names(registry: Registry) -> None:
    """So their child runs overlay. Only the candidate is marked, and a seed has its numbers of the test."""
    run_id = registry.log_run("demo", PARAMS, HISTORIES, make_verdict(accuracy=0.4), {}, LINEAGE)
    client = registry._store.client
    children = {seed: client.get_run(child) for seed, child in child_runs(registry, run_id).items()}
    assert children[42].info.run_name == "seed 42"
    assert {frozenset(run.data.metrics) for run in children.values()} == {
        frozenset({"train/loss", "validation/loss", "noisy/accuracy"}),
        frozenset({"train/loss", "validation/loss"}),
    }
    assert {seed: run.data.tags["candidate"] for seed, run in children.items()} == {42: "true", 43: "false"}
    assert children[42].data.metrics["noisy/accuracy"] == 0.4
    assert "pipeline_run" not in children[42].data.tags  # else it would be an outcome of its own


def test_a_run_lasts_as_long_as_its_work(registry: Registry) -> None:
    """Run and children start and end when the work did, and the points of a curve lie between."""
    begin = datetime(2026, 11, 1, 12, tzinfo=UTC)
    training = Span(start=begin, end=begin + timedelta(minutes=30))
    evaluation = Span(start=begin + timedelta(minutes=31), end=begin + timedelta(minutes=40))
    times = WorkTimes(trainings={42: training}, evaluation=evaluation)
    histories = {42: [{"epoch": epoch, "train_loss": 1.0, "seconds": 600.0} for epoch in (1, 2, 3)]}
    run_id = registry.log_run("timed", {}, histories, make_verdict(), {}, {}, times=times)
    client = registry._store.client
    start = begin.timestamp() * 1000
    run = client.get_run(run_id).info
    assert (run.start_time, run.end_time) == (start, start + 40 * 60_000)
    child = client.get_run(child_runs(registry, run_id)[42]).info
    assert (child.start_time, child.end_time) == (start, start + 30 * 60_000)
    curve = client.get_metric_history(child.run_id, "train/loss")
    assert [point.timestamp - start for point in curve] == [600_000, 1_200_000, 1_800_000]


def test_synthetic_data_is_named_where_the_data_is(registry: Registry) -> None:
    run_id = registry.log_run("demo", {}, {}, make_verdict(), {}, LINEAGE, "x/digits", notice="Made by a computer.")
    run = registry._store.client.get_run(run_id)
    assert run.data.tags["synthetic"] == "true"
    assert "Synthetic data: the numbers say nothing about patients.** Made by a computer." in _note(run)
    [data] = run.inputs.dataset_inputs
    assert data.dataset.name == "digits (synthetic)"
    assert {tag.key: tag.value for tag in data.tags}["synthetic"] == "true"


def _note(run: Run) -> str:
    return run.data.tags["mlflow.note.content"]


def test_the_experiment_opens_as_a_training(registry: Registry) -> None:
    """A kind and a description that a person chose stay."""
    client, experiment = registry._store.client, registry._store.experiment_id
    registry.log_run("demo", {}, {}, make_verdict(), {}, {})
    assert client.get_experiment(experiment).tags["mlflow.experimentKind"] == "custom_model_development"
    client.set_experiment_tag(experiment, "mlflow.experimentKind", "finetuning")
    registry.log_run("again", {}, {}, make_verdict(), {}, {})
    assert client.get_experiment(experiment).tags["mlflow.experimentKind"] == "finetuning"


class Interrupted(BaseException):
    """A kill, which no handler of errors catches."""


WRITES = ("create_run", "log_batch", "log_inputs", "log_artifacts", "log_dict", "set_terminated", "set_experiment_tag")


def test_a_run_that_was_killed_before_any_write_is_completed(registry: Registry, tmp_path: Path) -> None:
    """The repeated call makes no second run and no second child, and no number twice."""
    client, artifact = registry._store.client, tmp_path / "report.html"
    artifact.write_text("<p>")

    def log(name: str) -> str:
        return registry.log_run(name, PARAMS, HISTORIES, make_verdict(), {"report.html": artifact}, LINEAGE, "x/digits")

    for writes in range(40):
        with pytest.MonkeyPatch.context() as patch:
            done = _limit_writes(patch, client, writes)
            try:
                log(f"run {writes}")
            except Interrupted:
                pass
            else:
                break
        assert len(done) == writes
        run_id = log(f"run {writes}")
        runs = client.search_runs([registry._store.experiment_id], f"attributes.run_name = 'run {writes}'")
        assert [(run.info.run_id, run.info.status) for run in runs] == [(run_id, "FINISHED")]
        assert sorted(child_runs(registry, run_id)) == [42, 43]
        for seed, child in child_runs(registry, run_id).items():
            assert len(client.get_metric_history(child, "train/loss")) == len(HISTORIES[seed])
    assert writes > 12


def _limit_writes(patch: pytest.MonkeyPatch, client: MlflowClient, writes: int) -> list[str]:
    """Interrupt a client before the write of a number; return the writes that it has done."""
    done: list[str] = []

    def limited(name: str, write: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if len(done) == writes:
                raise Interrupted
            done.append(name)
            return write(*arguments, **options)

        return call

    for name in WRITES:
        patch.setattr(client, name, limited(name, getattr(client, name)))
    return done


def test_the_same_run_again_is_the_same_run(registry: Registry) -> None:
    """Logging can be repeated, even for an unfinished run; other content is another run."""
    first = registry.log_run("demo", PARAMS, HISTORIES, make_verdict(), {}, LINEAGE)
    registry._store.client.update_run(first, status="RUNNING")  # as a kill leaves it
    assert registry.log_run("demo", PARAMS, HISTORIES, make_verdict(), {}, LINEAGE) == first
    child = child_runs(registry, first)[42]
    assert len(registry._store.client.get_metric_history(child, "validation/loss")) == 3
    assert len(child_runs(registry, first)) == 2
    assert registry._store.client.get_run(first).info.status == "FINISHED"
    assert registry.log_run("demo", PARAMS, HISTORIES, make_verdict(accuracy=0.8), {}, LINEAGE) != first


def test_long_trainings_and_nan_losses_are_logged(registry: Registry) -> None:
    """A run may have more epochs and more parameters than a batch holds, and a loss of NaN."""
    epochs = [{"epoch": epoch, "train_loss": 1.0, "eval_loss": float(epoch)} for epoch in range(1100)]
    epochs[-1]["train_loss"] = math.nan
    params = {f"key {number}": number for number in range(250)}
    run_id = registry.log_run("long", params, {1: epochs}, make_verdict(), {}, {})
    run = registry._store.client.get_run(run_id)
    child = registry._store.client.get_run(child_runs(registry, run_id)[1])
    assert child.data.metrics["validation/loss"] == 1099
    assert math.isnan(child.data.metrics["train/loss"])
    assert len([name for name in run.data.params if not name.startswith("gate.")]) == 250


def test_a_missing_artifact_is_refused_before_anything_is_logged(registry: Registry) -> None:
    """The message names the file, and there is no run."""
    with pytest.raises(RegistryError, match=r"nowhere\.html: an artifact of run 'demo' is missing"):
        registry.log_run("demo", PARAMS, {}, make_verdict(), {"report.html": Path("nowhere.html")}, {})
    assert registry._store.client.search_runs([registry._store.experiment_id]) == []


def test_a_registered_package_is_a_challenger_with_lineage(registry: Registry, tmp_path: Path) -> None:
    """The version has the tags and the metrics of its registration."""
    number = add_version(registry, tmp_path, 0.7)
    version = registry.show("challenger")
    assert (number, version.version, version.aliases, version.approved) == (1, 1, ("challenger",), True)
    assert version.tags.items() >= LINEAGE.items()
    assert version.metrics["noisy/accuracy"] == 0.7
    assert registry.list_versions() == [version]
    assert registry.champion() is None


def test_a_version_loads_as_an_mlflow_model_without_spira_or_pickles(registry: Registry, tmp_path: Path) -> None:
    """The Inference Service requires a loader module and no signature."""
    uri = registry.show(add_version(registry, tmp_path, 0.7)).uri
    model = Path(uri)
    assert not list(model.rglob("*.pkl"))
    assert "signature" not in (model / "MLmodel").read_text()
    assert {"numpy<3,>=1.24", "scipy<2,>=1.9"} <= set((model / "requirements.txt").read_text().split())
    assert mlflow.pyfunc.load_model(uri).predict([{}, {}]) == ([0.7], "positive")


def test_the_same_package_is_the_same_version(registry: Registry, tmp_path: Path) -> None:
    """A new verdict makes no new version, but it is recorded; new weights do."""
    number = add_version(registry, tmp_path, 0.7, approved=False)
    package = tmp_path / "package-0.7"
    run_id = registry.log_run("evaluated again", PARAMS, {}, make_verdict(accuracy=0.75), {}, LINEAGE)
    assert registry.register(package, run_id, make_verdict(accuracy=0.75), LINEAGE) == number
    again = registry.show(number)
    assert (again.approved, again.run_id, again.tags["reasons"]) == (True, run_id, "")
    assert add_version(registry, tmp_path, 0.8) == number + 1


def test_the_model_card_is_the_description_unless_a_person_wrote_one(registry: Registry, tmp_path: Path) -> None:
    """A later verdict replaces the card. A card that is too long for MLflow's database loses its last sections."""
    number = add_version(registry, tmp_path, 0.7)
    package, run_id = tmp_path / "package-0.7", registry.show(number).run_id
    client = registry._store.client

    def description(sections: str) -> str:
        registry.register(package, run_id, make_verdict(accuracy=0.7), LINEAGE, sections)
        return client.get_model_version("spira", str(number)).description

    assert "## Numbers\n\n0.70" in description("## Numbers\n\n0.70")
    assert "## Numbers\n\n0.75" in description("## Numbers\n\n0.75")
    long = description("\n".join(f"- line {line}" for line in range(1000)))
    assert len(long) <= 5000
    assert long.endswith("\n…")
    card = Path(registry.show(number).uri).with_name("package.model-card.md").read_text()
    assert "- line 999" in card
    client.update_model_version("spira", str(number), "Our notes.")
    assert description("## Numbers") == "Our notes."


def test_a_champion_registered_again_is_not_a_challenger(registry: Registry, tmp_path: Path) -> None:
    """A pipeline run with unchanged inputs changes no alias."""
    registry.promote(add_version(registry, tmp_path, 0.7))
    champion = registry.champion()
    assert champion is not None
    registry.register(tmp_path / "package-0.7", champion.run_id, make_verdict(accuracy=0.7), LINEAGE)
    assert aliases(registry) == {"champion": 1}


@pytest.mark.parametrize("part", ["package.json", "data/config.json", "code/spira_inference/pyfunc.py"])
def test_an_incomplete_package_is_refused(registry: Registry, tmp_path: Path, part: str) -> None:
    """The message names the missing file, and there is no version."""
    package = write_package(tmp_path / "package", 0.5)
    (package / part).unlink()
    with pytest.raises(PackageError, match=f"{part} is missing"):
        registry.register(package, "any", make_verdict(), {})
    assert registry.list_versions() == []


def test_promotion_moves_the_aliases_and_can_be_repeated(registry: Registry, tmp_path: Path) -> None:
    """A second promotion of the same version changes nothing."""
    for probability in (0.6, 0.7):
        registry.promote(add_version(registry, tmp_path, probability))
    assert aliases(registry) == {"champion": 2, "previous": 1}
    before = registry.list_versions()
    assert "promoted_at" in before[0].tags
    registry.promote("champion")
    assert registry.list_versions() == before


def test_an_unapproved_version_is_promoted_only_by_force_with_its_reason(registry: Registry, tmp_path: Path) -> None:
    """The message gives the reasons of the verdict; the reason to force is recorded."""
    number = add_version(registry, tmp_path, 0.6, approved=False)
    with pytest.raises(RegistryError, match=r"not approved .*below its minimum"):
        registry.promote(number)
    assert registry.champion() is None
    assert registry.promote(number, force_reason="a demo").tags["promotion_forced"] == "a demo"


def test_rollback_returns_to_earlier_champions_and_holds_the_later_ones(third_champion: Registry) -> None:
    """After three champions there is none left; a version that was rolled back is not promoted again."""
    assert third_champion.rollback("calls patients well").version == 2
    assert aliases(third_champion) == {"champion": 2, "previous": 1}
    assert third_champion.show(3).tags["rolled_back_reason"] == "calls patients well"
    assert third_champion.rollback("this one too").version == 1
    with pytest.raises(RegistryError, match="nothing to roll back to"):
        third_champion.rollback("again")
    with pytest.raises(RegistryError, match=r"was rolled back \(calls patients well\)"):
        third_champion.promote(3)
    forced = third_champion.promote(3, force_reason="it was the microphone")
    assert "rolled_back_reason" not in forced.tags
    assert aliases(third_champion) == {"champion": 3, "previous": 1}


def test_rolling_back_a_named_version_twice_has_one_effect(third_champion: Registry) -> None:
    """A deployment that reports the same bad version again does not roll back a good one."""
    assert [third_champion.rollback("no answer", bad=3).version for _ in range(2)] == [2, 2]


def _exit_before_write(work: Path, action: str, argument: str | int, writes: int) -> None:
    """Act in a process of its own, and exit before the given write to the repository."""
    registry = Registry(local_uri(work))
    done = 0

    def count(write):
        def counted(*arguments):
            nonlocal done
            if done == writes:
                os._exit(9)
            done += 1
            return write(*arguments)

        return counted

    for name in ("set_registered_model_alias", "delete_registered_model_alias", "set_model_version_tag"):
        setattr(registry._store.client, name, count(getattr(registry._store.client, name)))
    getattr(registry, action)(argument)


@pytest.mark.parametrize(
    ("action", "argument", "final"),
    [
        ("promote", 3, {"champion": 3, "previous": 2}),
        ("rollback", "it is bad", {"champion": 1, "challenger": 3}),
    ],
)
def test_a_call_that_was_killed_before_any_write_can_be_repeated(
    work: Path, tmp_path: Path, three_versions: Path, action: str, argument: str | int, final: dict[str, int]
) -> None:
    """After each kill there is a champion, and the same call ends as if it had not been killed."""
    registry = Registry(local_uri(work))
    for writes in range(12):
        killed = tmp_path / f"killed-{writes}"  # a forked process must not use the engine of its parent
        killed.mkdir()
        shutil.copy(three_versions, killed)
        process = FORK.Process(target=_exit_before_write, args=(killed, action, argument, writes))
        process.start()
        process.join(60)
        assert process.exitcode in (0, 9)
        _restore(work / "mlflow.db", killed / "mlflow.db")
        assert aliases(registry)["champion"] in (1, 2, 3)
        if process.exitcode == 0:
            break
        getattr(registry, action)(argument)
        assert aliases(registry) == final
    assert process.exitcode == 0
    assert writes >= 4
    assert aliases(registry) == final


def _restore(database: Path, saved: Path) -> None:
    """Replace a database that an engine has open."""
    with closing(sqlite3.connect(saved)) as source, closing(sqlite3.connect(database)) as target:
        source.backup(target)


def test_a_rollback_undoes_a_half_done_promotion(registry: Registry, tmp_path: Path) -> None:
    """If ``previous`` points to the champion, the champion stays, and ``previous`` is restored."""
    for probability in (0.6, 0.7):
        registry.promote(add_version(registry, tmp_path, probability))
    registry._store.point("previous", "2")
    assert registry.rollback("stop that", bad=3).version == 2
    assert aliases(registry) == {"champion": 2, "previous": 1}


def test_fetch_returns_the_registered_package(registry: Registry, tmp_path: Path) -> None:
    """The package is the same byte for byte; a folder with something else is not changed."""
    add_version(registry, tmp_path, 0.7)
    out = registry.fetch("challenger", tmp_path / "deep" / "fetched")
    assert package_digest(out) == package_digest(tmp_path / "package-0.7")
    assert sorted(path.name for path in out.iterdir()) == [
        "MLmodel",
        "code",
        "conda.yaml",
        "data",
        "package.json",
        "python_env.yaml",
        "requirements.txt",
    ]
    assert registry.fetch(1, out) == out
    (out / "data" / "config.json").write_text("{}")
    with pytest.raises(RegistryError, match="exists and is not version 1"):
        registry.fetch(1, out)


def test_many_can_fetch_a_package_at_once(registry: Registry, tmp_path: Path) -> None:
    """All calls return the same complete folder."""
    add_version(registry, tmp_path, 0.7)
    out = tmp_path / "fetched"
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: registry.fetch(1, out), range(4))) == [out] * 4


def test_fetch_refuses_changed_artifacts(registry: Registry, tmp_path: Path) -> None:
    """The digest of the version is checked, and nothing half-written remains."""
    model = Path(registry.show(add_version(registry, tmp_path, 0.7)).uri)
    next(model.rglob("config.json")).write_text(json.dumps({"probability": 1.0}))
    with pytest.raises(RegistryError, match="differ from what was registered"):
        registry.fetch(1, tmp_path / "out" / "package")
    assert list((tmp_path / "out").iterdir()) == []


def test_compare_lists_only_differences(registry: Registry, tmp_path: Path) -> None:
    """Equal metrics and parameters are left out, and absent ones are None."""
    first = add_version(registry, tmp_path, 0.7)
    wider = {**PARAMS, "model": {"architecture": "conv1d", "channels": 16}, "extra": 1}
    run_id = registry.log_run("wider", wider, HISTORIES, make_verdict(accuracy=0.8), {}, LINEAGE)
    second = registry.register(write_package(tmp_path / "wider", 0.8), run_id, make_verdict(accuracy=0.8), LINEAGE)
    rows = {row.name: (row.kind, row.a, row.b) for row in registry.compare(first, second)}
    assert rows["model.channels"] == ("parameter", "8", "16")
    assert rows["extra"] == ("parameter", None, "1")
    assert rows["seeds/noisy_accuracy_mean"] == ("metric", 0.7, 0.8)
    assert "seeds/noisy_accuracy_std" not in rows
    assert registry.compare(first, first) == []


def test_a_metric_without_a_value_is_not_logged(registry: Registry) -> None:
    """An undefined metric of a verdict is null, and MLflow has no null."""
    run_id = registry.log_run("undefined", PARAMS, {}, make_verdict(accuracy=math.nan), {}, LINEAGE)
    assert "noisy/accuracy" not in registry._store.client.get_run(run_id).data.metrics


def test_an_unknown_version_is_refused_with_a_list_of_all(registry: Registry, tmp_path: Path) -> None:
    """The message lists the numbers and the aliases that exist."""
    with pytest.raises(SpiraError, match="no version or alias '1'; versions: none yet; aliases: none yet"):
        registry.show(1)
    add_version(registry, tmp_path, 0.7)
    with pytest.raises(SpiraError, match="no version or alias 'champoin'; versions: 1; aliases: challenger"):
        registry.fetch("champoin", tmp_path / "out")


@pytest.mark.parametrize("name", ["", "two words", "spira/eu", "it's", "spira\n"])
def test_a_name_that_the_inference_service_refuses_is_refused(tmp_path: Path, name: str) -> None:
    """The message gives the rule, and no store is created."""
    with pytest.raises(RegistryError, match="letters, digits, - and _ only"):
        Registry(local_uri(tmp_path), model_name=name)
    assert list(tmp_path.iterdir()) == []


def test_an_unusable_store_is_reported_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names a dead server, a file that is not a database, or a folder, without a password."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    (tmp_path / "mlflow.db").write_text("no database")
    dead = f"http://user:secret@127.0.0.1:{_free_port()}"
    for uri in (dead, local_uri(tmp_path), str(tmp_path / "mlruns"), "sqlite:////proc/none/mlflow.db"):
        with pytest.raises(RegistryError, match=r"the MLflow store .* cannot be used: ") as refusal:
            Registry(uri)
        assert "\n" not in str(refusal.value)
        assert "secret" not in str(refusal.value)


def test_a_new_store_is_created_without_output(new_store: tuple[Path, str]) -> None:
    """MLflow's migration logs, hints and telemetry do not appear on the command line."""
    assert new_store[1] == ""


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def server(work: Path) -> Iterator[str]:
    """MLflow's server with proxied artifacts, as ``mlflow server`` runs it, but without a second interpreter."""
    port = _free_port()
    process = FORK.Process(target=_serve, args=(work, port))
    process.start()
    try:
        _wait_until_ready(f"http://127.0.0.1:{port}", process, seconds=60)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.join()


def _serve(work: Path, port: int) -> None:
    """Serve in a process of its own: MLflow's application reads its settings from the environment at import."""
    import mlflow.server as settings
    import uvicorn

    os.environ[settings.BACKEND_STORE_URI_ENV_VAR] = local_uri(work)
    os.environ[settings.ARTIFACT_ROOT_ENV_VAR] = "mlflow-artifacts:/"
    os.environ[settings.ARTIFACTS_DESTINATION_ENV_VAR] = str(work / "served")
    os.environ[settings.SERVE_ARTIFACTS_ENV_VAR] = "true"
    uvicorn.run("mlflow.server.fastapi_app:app", host="127.0.0.1", port=port, log_level="warning")


def _wait_until_ready(url: str, process: BaseProcess, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.is_alive():
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    pytest.fail("the MLflow server did not become ready")


@pytest.mark.timeout(120)
def test_everything_works_on_an_mlflow_server(server: str, tmp_path: Path) -> None:
    """Log, register, promote, roll back and fetch over HTTP, with proxied artifacts."""
    registry = Registry(server)
    add_version(registry, tmp_path, 0.6)
    assert add_version(registry, tmp_path, 0.7) == 2
    histories = {42: [{"epoch": 1, "train_loss": math.nan}]}
    run_id = registry.log_run("nan", PARAMS, histories, make_verdict(), {}, LINEAGE, "data/digits")
    child = child_runs(registry, run_id)[42]
    assert math.isnan(registry._store.client.get_run(child).data.metrics["train/loss"])
    for number in (1, 2):
        registry.promote(number)
    assert aliases(registry) == {"champion": 2, "previous": 1}
    fetched = registry.fetch("champion", tmp_path / "fetched")
    assert package_digest(fetched) == package_digest(tmp_path / "package-0.7")
    assert registry.rollback("slow").version == 1
    assert registry.show(1).uri.startswith("mlflow-artifacts:/")
    with pytest.raises(RegistryError, match="versions: 1, 2; aliases: champion"):
        registry.show(3)
    assert registry.version_page(2) == f"{server}/#/models/spira/versions/2?workflowType=machine_learning"
    experiment = registry._store.client.get_run(run_id).info.experiment_id
    page = f"{server}/#/experiments/{experiment}/runs/{run_id}"
    assert registry.run_page(run_id) == f"{page}?workflowType=machine_learning"
    assert registry._store.client.get_model_version("spira", "2").description.startswith("# Detector")
    verdict = registry.run_file(registry.show(2), "verdict.json", tmp_path)
    assert verdict is not None
    assert registry.run_file(registry.show(2), "data.json", tmp_path) is None
    assert registry.model_card(registry.show(2)) == registry._store.client.get_model_version("spira", "2").description


def test_a_store_without_a_server_has_no_pages(tmp_path: Path) -> None:
    """A dashboard shows the ids instead."""
    registry = Registry(local_uri(tmp_path))
    assert (registry.run_page("0123"), registry.version_page(1)) == ("", "")


def test_many_processes_can_create_a_store_at_once(tmp_path: Path) -> None:
    """Four processes start with an empty folder, and all can use the store."""
    code = "import sys; from spira.registry import open_at; print(open_at(sys.argv[1]).champion_status())"
    command = [sys.executable, "-c", code, str(tmp_path)]
    together = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(4)]
    outputs = [process.communicate(timeout=120) for process in together]
    assert [process.returncode for process in together] == [0] * 4, outputs


def test_a_store_whose_creation_was_killed_is_created_again(tmp_path: Path) -> None:
    """The file of a process that was killed while MLflow created its tables is not used."""
    code = (
        "import os, sys; from pathlib import Path; from spira.registry import database\n"
        "import mlflow.store.db.utils as tables\n"
        "tables._upgrade_db = lambda engine: os._exit(9)\n"
        "database.create(Path(sys.argv[1]) / 'mlflow.db')"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == 9
    assert not (tmp_path / "mlflow.db").exists()
    assert Registry(local_uri(tmp_path)).champion() is None
