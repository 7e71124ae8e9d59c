"""``spira clean`` and ``spira data forget`` on a work folder with a real delivery."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

from spira.cli.main import app
from spira.delivery.history.events import Claimed
from spira.files import lock
from tests.support.ledger_builder import REQUEST, THIRD, LocalDelivery

pytestmark = pytest.mark.integration


def spira(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def make(folder: Path, age: int, size: int = 1000) -> Path:
    """Make a folder of one file that changed some hours ago."""
    folder.mkdir(parents=True)
    (folder / "file").write_bytes(b"x" * size)
    os.utime(folder, (1_700_000_000 - 3600 * age,) * 2)
    return folder


def test_what_serves_is_pinned_or_unfinished_stays(local_delivery: LocalDelivery):
    """Version 2 serves, 1 is what a rollback returns to, 3 is not in use; one run has no end in the ledger."""
    work = local_delivery.folder / "work"
    shutil.rmtree(work / "models", ignore_errors=True)
    for number in range(1, 6):
        make(work / "models" / str(number), age=10 - number)
    for number in range(4):
        make(work / "pipeline" / f"run{number}", age=number)
        make(work / "state" / f"corpus-{number}", age=number)
        for seed in (1, 2):
            make(work / "state" / f"{number:016x}-{seed}", age=number)
        (make(work / "runs" / f"spira-{number}", age=number) / "outcome.json").write_text("{}")
        os.utime(work / "runs" / f"spira-{number}", (1_700_000_000 - 3600 * number,) * 2)
    make(work / "runs" / "unfinished", age=20)
    fingerprint = local_delivery.ledger_builder.observe(THIRD)
    os.link(work / "pipeline" / "run3" / "file", work / "elsewhere")
    local_delivery.ledger_builder.add(Claimed(fingerprint=fingerprint, attempt=1, run="spira-3", request=REQUEST))
    before = {path for path in work.rglob("*") if path.is_file()}
    settings = ("--settings", local_delivery.folder / "delivery.yaml")
    dry = spira("clean", "--keep", "1", "--dry-run", *settings)
    assert dry.exit_code == 0, dry.output
    assert {path for path in work.rglob("*") if path.is_file()} - {work / ".lock"} == before
    done = spira("clean", "--keep", "1", *settings)
    assert done.exit_code == 0, done.output
    names = {kind: sorted(path.name for path in (work / kind).glob("*/")) for kind in ("models", "pipeline", "runs")}
    # version 3 is challenger in MLflow, 5 the newest
    assert names == {
        "models": ["1", "2", "3", "5"],
        "pipeline": ["run0"],
        "runs": ["spira-0", "spira-3", "unfinished"],
    }
    assert sorted(path.name for path in (work / "state").glob("*/")) == [f"{0:016x}-1", f"{0:016x}-2", "corpus-0"]
    assert "removed models/4" in done.output
    # models 1, pipeline 3 (one file has another name), runs 2, corpora 3, trainings 6
    assert "15 folders, 0.0 MB freed" in done.output
    assert local_delivery.served == "2"
    assert "0 folders" in spira("clean", "--keep", "1", *settings).output


def test_a_work_folder_without_continuous_delivery_is_cleaned(tmp_path: Path):
    """A removal that was interrupted is completed."""
    make(tmp_path / "work" / "pipeline" / "a", age=1)
    make(tmp_path / "work" / "pipeline" / "b", age=2)
    make(tmp_path / "work" / "pipeline" / ".c.removed", age=3)
    with lock(tmp_path / "work" / ".lock"):
        assert spira("clean", "--keep", "1", "--work", tmp_path / "work").exit_code == 2
    done = spira("clean", "--keep", "1", "--work", tmp_path / "work")
    assert done.exit_code == 0, done.output
    assert os.listdir(tmp_path / "work" / "pipeline") == ["a"]
    assert spira("clean", "--keep", "1", "--work", tmp_path / "absent").exit_code == 2


@pytest.mark.slow
def test_forgetting_lists_the_versions_and_the_next_tick_trains(delivered: Path, tmp_path: Path):
    """The speaker's recordings, rows and corpora go; a dry run removes nothing."""
    folder = tmp_path / "copy"
    shutil.copytree(delivered, folder)
    (table,) = (folder / "voices").rglob("metadata_train.csv")
    speaker = pd.read_csv(table)["speaker"][0]
    before = {path for path in folder.rglob("*") if path.is_file()}
    arguments = ("data", "forget", speaker, "--data", folder / "voices", "--work", folder / "work")
    dry = spira(*arguments, "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert "versions trained on them: 1." in dry.output
    assert before - {path for path in folder.rglob("*") if path.is_file()} == set()
    done = spira(*arguments)
    assert done.exit_code == 0, done.output
    assert speaker not in set(pd.read_csv(table)["speaker"])
    assert list((folder / "work" / "state").glob("corpus-*/")) == []
    status = spira("deliver", "tick", "--settings", folder / "delivery.yaml")
    assert "observed fingerprint" in status.output, status.output
    assert spira(*arguments).exit_code == 2
    refused = spira("data", "forget", speaker, "--data", "s3://bucket/voices", "--work", folder / "work")
    assert refused.exit_code == 2
