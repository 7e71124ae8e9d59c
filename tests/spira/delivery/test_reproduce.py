"""A version is made again from the ledger alone: the same weights to the bit, or a refusal that says what differs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from spira.cli.main import app
from spira.delivery.repository import MLflowRepository
from tests.support.ledger_builder import code_at


def reproduce(folder: Path, *options: str) -> Result:
    """``spira deliver reproduce 1``."""
    arguments = ["deliver", "reproduce", "1", *options, f"--settings={folder / 'delivery.yaml'}"]
    return CliRunner().invoke(app, arguments)


@pytest.fixture
def copy(delivered: Path, tmp_path: Path) -> Path:
    """The delivered version's folder, to be changed; its ledger names the data where they were."""
    return Path(shutil.copytree(delivered, tmp_path / "copy"))


@pytest.fixture
def changed_code(delivered: Path, sources: Path, tmp_path: Path) -> Iterator[None]:
    """Other sources in the place of those that made the version: one of them is changed."""
    changed = Path(shutil.copytree(sources, tmp_path / "src"))
    with (changed / "spira" / "models" / "networks.py").open("a") as source:
        source.write("CHANGED = True\n")
    with code_at(changed):
        yield


def test_a_version_is_made_again_to_the_bit(delivered: Path) -> None:
    """From the ledger's data, settings and seed, in a folder of its own; said in words and for programs."""
    told = reproduce(delivered)
    assert told.exit_code == 0, told.output
    assert told.stdout == "version 1, seed 42, made again: the same weights, to the bit\n"
    made = json.loads(reproduce(delivered, "--json").stdout)
    assert made == {
        "version": "1", "seed": 42, "identical": True, "largest_difference": 0.0, "code_changes": [],
    }  # fmt: skip


def test_weights_that_differ_are_told(delivered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1 and by how much: here the repository hands out another package than was trained."""
    package = Path(shutil.copytree(delivered / "work" / "models" / "1", tmp_path / "package"))
    with np.load(package / "data" / "weights.npz") as file:
        arrays = dict(file)
    name = next(iter(arrays))
    arrays[name] = arrays[name] + np.float32(0.25)
    np.savez(package / "data" / "weights.npz", **arrays)
    monkeypatch.setattr(MLflowRepository, "package", lambda self, version: package)
    told = reproduce(delivered)
    assert (told.exit_code, told.stdout) == (1, "version 1, seed 42, made again: weights differ by up to 0.25\n")


def test_data_that_changed_are_refused_by_file(copy: Path, delivered: Path) -> None:
    """Before anything is trained, with what to do."""
    records = copy / "work" / "ledger" / "records"
    for record in records.iterdir():
        record.write_text(record.read_text().replace(str(delivered / "voices"), str(copy / "voices")))
    recording = sorted((copy / "voices").rglob("*.wav"))[0]
    recording.write_bytes(recording.read_bytes()[:-2])
    refused = reproduce(copy)
    name = recording.relative_to(copy / "voices").as_posix()
    assert refused.exit_code == 2
    assert f"{copy / 'voices'} isn't what it was ({name} changed): bring that back first" in refused.stderr
    assert "trains seed" not in refused.stderr


@pytest.mark.usefixtures("changed_code")
def test_other_code_is_refused_by_source_and_commit(delivered: Path) -> None:
    """What to check out; or to go on, whereupon the answer tells what was let pass."""
    refused = reproduce(delivered)
    assert refused.exit_code == 2
    told = "the code isn't what it was (spira/models/networks.py changed): check out abc123, or go on with --other-code"
    assert told in refused.stderr
    made = json.loads(reproduce(delivered, "--other-code", "--json").stdout)
    assert (made["identical"], made["code_changes"]) == (True, ["spira/models/networks.py changed"])


def test_a_version_of_nobodys_run_is_refused(copy: Path) -> None:
    """Adopted, or made by hand: the ledger can't say how."""
    for record in (copy / "work" / "ledger" / "records").iterdir():
        if json.loads(record.read_text())["kind"] == "finished":
            record.write_text("{")
    refused = reproduce(copy)
    assert refused.exit_code == 2
    assert "the ledger knows no run that made version 1: spira deliver history" in refused.stderr
