"""Files that commit 79862e6 wrote: they are still read, and a delivery that it left in the middle goes on."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from scipy.io import wavfile

from pipelines.summary import RunSummary
from spira import config
from spira.data.demo import make_demo
from spira.delivery.kubernetes.conditions import resource_status
from spira.deployment.inference_service.models import Models
from spira.evaluation import gate, verdict
from spira.models import checkpoint
from spira.packaging import golden
from spira.packaging.verify import check_files, predict_with_package, verify
from spira.registry import Registry, local_uri
from spira.serving import package as serving
from tests.support import ROOT

pytestmark = pytest.mark.integration

HERE = ROOT / "tests" / "migration" / "delivery_79862e6"
OLDER_CODE = ROOT / "tests" / "migration" / "older_code"
EXPECTED = json.loads((HERE / "expected.json").read_text())
PATHS_IN_MLFLOW = {
    "experiments": ["artifact_location"],
    "runs": ["artifact_uri"],
    "model_versions": ["source", "storage_location"],
    "datasets": ["dataset_source"],
}

Spira = Callable[..., Any]


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The delivery as it was left, under another folder than it was made in."""
    folder = tmp_path_factory.mktemp("older") / "delivery"
    with tarfile.open(HERE / "delivery.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    for record in folder.glob("work/ledger/records/*.json"):
        record.write_text(record.read_text().replace(EXPECTED["made_under"], str(folder)))
    with sqlite3.connect(folder / "work" / "mlflow.db") as database:
        for table, columns in PATHS_IN_MLFLOW.items():
            for column in columns:
                moved = f"UPDATE {table} SET {column} = replace({column}, ?, ?)"
                database.execute(moved, (EXPECTED["made_under"], str(folder)))
    database.close()
    make_demo(folder / "voices", speakers=12, recordings_per_speaker=2)
    recordings = list(golden.recordings(config.load(folder / "model.yaml")))
    for listing in folder.glob("work/**/data/golden.json"):
        listing.with_name("golden").mkdir(exist_ok=True)
        for name, samples, rate in recordings:
            wavfile.write(listing.with_name("golden") / f"{name}.wav", rate, samples)
    return folder


@pytest.fixture(scope="module")
def deliver(older: Path) -> Spira:
    """``spira deliver VERB --json`` in a process whose code has the digest of the old image."""

    def run(*arguments: str) -> Any:
        command = [
            sys.executable,
            "-m",
            "spira",
            "deliver",
            *arguments,
            f"--settings={older / 'delivery.yaml'}",
            "--json",
        ]
        path = os.pathsep.join((str(OLDER_CODE), str(ROOT)))
        environment = {**os.environ, "PYTHONPATH": path, "OLDER_IMAGE": EXPECTED["image"], "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def has(actual: Any, expected: Any) -> bool:
    """Return whether a JSON value has what the older version wrote; a newer version may have more keys."""
    if not isinstance(expected, dict) or not isinstance(actual, dict):
        return bool(actual == expected)
    return all(key in actual and has(actual[key], expected[key]) for key in expected)


def test_the_status_is_the_one_that_the_older_version_reported(deliver: Spira):
    """Observation, run, champion and what serves; nothing new is observed."""
    status, expected = deliver("status"), EXPECTED["interrupted"]["status"]
    assert has(status, expected)


def test_the_history_and_the_reason_are_the_same(deliver: Spira):
    """Every record by number, time and kind; the settings that set the run going."""
    events = [{key: event[key] for key in ("number", "at", "kind")} for event in deliver("history")]
    assert events == EXPECTED["interrupted"]["history"]
    assert deliver("why") == EXPECTED["interrupted"]["why"]


def test_the_package_and_its_golden_recordings_are_verified(older: Path):
    """Format 1, computed by the present code."""
    package = older / "work" / "serving" / "versions" / "1"
    assert json.loads((package / "package.json").read_text())["format"] == 1
    check_files(package)
    assert verify(package) <= 1e-5


def test_the_package_predicts_as_torch_did(older: Path):
    """Every golden recording, with the probability that the old training computed."""
    package = older / "work" / "models" / "1"
    entries = json.loads((package / "data" / "golden.json").read_text())
    answers = predict_with_package(package, [package / "data" / entry["file"] for entry in entries])
    for answer, entry in zip(answers, entries, strict=True):
        assert answer["probability"] == pytest.approx(entry["probability"], abs=1e-5)


def test_the_registered_version_is_fetched_and_served(older: Path, tmp_path: Path):
    """MLflow's own files around it are left behind; the server reads the registered folder as it is."""
    registry = Registry(local_uri(older / "work"))
    fetched = registry.fetch(1, tmp_path / "package")
    assert verify(fetched) <= 1e-5
    assert sorted(path.name for path in fetched.iterdir()) == ["code", "data", "package.json"]
    artifacts = Path(registry.show(1).uri)
    for folder in (fetched, artifacts):
        assert serving.load(folder).difference <= 1e-5
    copied = Path(shutil.copytree(artifacts, tmp_path / "artifacts"))
    (copied / "code" / "spira_inference" / "more.py").write_text("")
    with pytest.raises(serving.PackageError, match="is not listed"):
        serving.load(copied)


def test_the_inference_service_gets_the_package_with_a_loader_of_this_release(older: Path, tmp_path: Path):
    """The ``MLmodel`` that MLflow had written beside it was outside the digests."""
    folder = Models(tmp_path).provide("1", older / "work" / "models" / "1")
    assert "loader_module: spira_inference.pyfunc" in (folder / "MLmodel").read_text()


def test_the_checkpoint_gate_and_verdict_are_read(older: Path):
    """The network of version 1, its gate, and its verdict with every check."""
    (info,) = older.glob("work/state/*/checkpoint.json")
    trained = checkpoint.load(info.parent)
    first = ["training.learning_rate=0.002", "training.max_epochs=1"]
    assert trained.config == config.load(older / "model.yaml", first)
    written = json.loads((older / "verdict" / "verdict.json").read_text())
    result = verdict.read(older / "verdict" / "verdict.json")
    assert result.approved is True
    assert [check.name for check in result.checks] == [check["name"] for check in written["checks"]]
    assert result.gate.digest == written["gate"]["digest"] == gate.load(older / "gate.yaml").digest()
    assert RunSummary.model_validate_json((older / "verdict" / "summary.json").read_text()).approved is True


def test_mlflow_has_the_version_with_its_verdict(older: Path):
    """Alias, approval, metrics and lineage by the names that the older version gave them."""
    version = Registry(local_uri(older / "work")).champion()
    assert (version.version, version.approved, "champion" in version.aliases) == (1, True, True)
    assert version.tags["data_fingerprint"] == EXPECTED["interrupted"]["status"]["observed"]["axes"]["data"]
    assert version.metrics["noisy.by_file.accuracy"] >= 0


def test_the_custom_resource_keeps_the_times_of_its_conditions(older: Path, deliver: Spira):
    """A status that the older version wrote is continued: an unchanged condition keeps the time of its transition."""
    before = json.loads((older / "delivery-status.json").read_text())
    after = resource_status(_status_of(older), before, 1, datetime.now(UTC))
    times = {condition["type"]: condition["lastTransitionTime"] for condition in before["conditions"]}
    assert {condition.type: condition.last_transition_time for condition in after.conditions} == times


def _status_of(older: Path) -> Any:
    """The status that a tick of this process would publish."""
    from spira.cli.common.compose import reconciler
    from spira.delivery import settings
    from spira.delivery.status import delivery_status

    with pytest.MonkeyPatch.context() as environment:
        environment.setattr("spira.cli.common.compose.lineage.code_parts", lambda: {"image": EXPECTED["image"]})
        return delivery_status(reconciler(settings.load(older / "delivery.yaml")).dry_run())


def test_the_run_that_was_killed_goes_on_and_its_version_serves(older: Path, deliver: Spira):
    """The training resumes after its first epoch; the gate approves; the version serves and is champion."""
    run = EXPECTED["interrupted"]["status"]["run"]
    deliver("tick", "--wait")
    assert "resumes after epoch 1" in (older / "work" / "runs" / run / "log.txt").read_text()
    assert [event["kind"] for event in deliver("history")] == EXPECTED["finished"]["kinds"]
    status, expected = deliver("status"), EXPECTED["finished"]["status"]
    assert has(status, expected)
