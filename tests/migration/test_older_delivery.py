"""What commit 79862e6 wrote is still read, and a delivery that it left in the middle goes on."""

from __future__ import annotations

import json
import os
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
from spira.delivery.conditions import resource_status
from spira.evaluation import gate, verdict
from spira.models import checkpoint
from spira.packaging import golden
from spira.packaging.verify import check_files, verify
from spira.registry import Registry, local_uri
from tests.support import ROOT

pytestmark = pytest.mark.integration

HERE = ROOT / "tests" / "migration" / "delivery_79862e6"
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
        environment = {**os.environ, "SPIRA_IMAGE_DIGEST": EXPECTED["image"], "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_the_status_is_the_one_that_the_older_version_reported(deliver: Spira):
    """Observation, run, champion and what serves; nothing new is observed."""
    status, expected = deliver("status"), EXPECTED["interrupted"]["status"]
    assert {key: status[key] for key in expected} == expected


def test_the_history_and_the_reason_are_the_same(deliver: Spira):
    """Every record by number, time and kind; the settings that set the run going."""
    events = [{key: event[key] for key in ("number", "at", "kind")} for event in deliver("history")]
    assert events == EXPECTED["interrupted"]["history"]
    assert deliver("why") == EXPECTED["interrupted"]["why"]


def test_the_package_and_its_golden_recordings_are_verified(older: Path):
    """By the code that travels in it."""
    package = older / "work" / "serving" / "versions" / "1"
    check_files(package)
    assert verify(package) <= 1e-5


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
    from spira.cli.compose import reconciler
    from spira.delivery import settings
    from spira.delivery.status import delivery_status

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SPIRA_IMAGE_DIGEST", EXPECTED["image"])
        return delivery_status(reconciler(settings.load(older / "delivery.yaml")).dry_run())


def test_the_run_that_was_killed_goes_on_and_its_version_serves(older: Path, deliver: Spira):
    """The training resumes after its first epoch; the gate approves; the version serves and is champion."""
    run = EXPECTED["interrupted"]["status"]["run"]
    deliver("tick", "--wait")
    assert "resumes after epoch 1" in (older / "work" / "runs" / run / "log.txt").read_text()
    assert [event["kind"] for event in deliver("history")] == EXPECTED["finished"]["kinds"]
    status, expected = deliver("status"), EXPECTED["finished"]["status"]
    assert {key: status[key] for key in expected} == expected
