"""Reproduction of a version from the ledger: bit-identical weights, or a refusal that names the differences."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from spira.cli.main import app
from spira.delivery.repository import MLflowRepository
from tests.support.ledger_builder import code_at, replace_in_records

pytestmark = pytest.mark.integration


def reproduce(folder: Path, *options: str) -> Result:
    """Run ``spira deliver reproduce 1``."""
    arguments = ["deliver", "reproduce", "1", *options, f"--settings={folder / 'delivery.yaml'}"]
    return CliRunner().invoke(app, arguments)


@pytest.fixture
def copy(delivered: Path, tmp_path: Path) -> Path:
    """A copy of the delivery that a test can change; its ledger names the original data."""
    return Path(shutil.copytree(delivered, tmp_path / "copy"))


@pytest.fixture
def changed_code(delivered: Path, sources: Path, tmp_path: Path) -> Iterator[None]:
    """Observe a copy of the sources in which one file differs."""
    changed = Path(shutil.copytree(sources, tmp_path / "src"))
    with (changed / "spira" / "models" / "networks.py").open("a") as source:
        source.write("CHANGED = True\n")
    with code_at(changed):
        yield


def test_a_version_is_reproduced_bit_for_bit(delivered: Path) -> None:
    """The data, the settings and the seed come from the ledger."""
    result = reproduce(delivered)
    assert result.exit_code == 0, result.output
    assert result.stdout == "version 1, seed 42, trained again: the weights are bit-identical\n"
    body = json.loads(reproduce(delivered, "--json").stdout)
    assert body == {
        "version": "1", "seed": 42, "identical": True, "largest_difference": 0.0, "code_changes": [],
    }  # fmt: skip


def test_different_weights_are_reported(delivered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit code is 1. Here the repository returns a package with other weights."""
    package = Path(shutil.copytree(delivered / "work" / "models" / "1", tmp_path / "package"))
    with np.load(package / "data" / "weights.npz") as file:
        arrays = dict(file)
    name = next(iter(arrays))
    arrays[name] = arrays[name] + np.float32(0.25)
    np.savez(package / "data" / "weights.npz", **arrays)
    monkeypatch.setattr(MLflowRepository, "package", lambda self, version: package)
    result = reproduce(delivered)
    expected = "version 1, seed 42, trained again: the weights differ by up to 0.25\n"
    assert (result.exit_code, result.stdout) == (1, expected)


def test_changed_data_are_refused_by_file(copy: Path, delivered: Path) -> None:
    """Nothing is trained; the ledger knows the file by its pseudonym."""
    replace_in_records(copy / "work" / "ledger", str(delivered / "voices"), str(copy / "voices"))
    recording = sorted((copy / "voices").rglob("*.wav"))[0]
    recording.write_bytes(recording.read_bytes()[:-2])
    refused = reproduce(copy)
    voices = copy / "voices"
    assert refused.exit_code == 2
    refusal = rf"{re.escape(str(voices))} differs from the data of the run \(rec-\w+ changed\): restore the data first"
    assert re.search(refusal, refused.stderr)
    assert "training seed" not in refused.stderr


@pytest.mark.usefixtures("changed_code")
def test_changed_code_is_refused_by_source_and_commit(delivered: Path) -> None:
    """With ``--other-code`` the result lists the accepted changes."""
    refused = reproduce(delivered)
    assert refused.exit_code == 2
    changes = "the code differs from that of the run (spira/models/networks.py changed)"
    assert f"{changes}: check out abc123, or add --other-code" in refused.stderr
    body = json.loads(reproduce(delivered, "--other-code", "--json").stdout)
    assert (body["identical"], body["code_changes"]) == (True, ["spira/models/networks.py changed"])


def test_a_version_without_a_run_in_the_ledger_is_refused(copy: Path) -> None:
    """It was adopted, or registered manually."""
    for record in (copy / "work" / "ledger" / "records").iterdir():
        if json.loads(record.read_text())["kind"] == "finished":
            record.write_text("{")
    refused = reproduce(copy)
    assert refused.exit_code == 2
    assert "no run in the ledger produced version 1: see spira deliver history" in refused.stderr
