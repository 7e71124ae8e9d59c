"""Continuous delivery in a folder that was moved or copied: it goes on there, and there only."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spira.cli.main import app
from spira.registry import Registry, local_uri
from tests.spira.registry.test_database import tree_digest

pytestmark = pytest.mark.integration


def deliver(folder: Path, *verb: str, exit_code: int = 0) -> str:
    """Run a verb of ``spira deliver`` with the settings of a folder; return what it printed."""
    result = CliRunner().invoke(app, ["deliver", *verb, f"--settings={folder / 'delivery.yaml'}"])
    assert result.exit_code == exit_code, result.output
    return result.output


def test_a_moved_delivery_has_nothing_to_do(delivered: Path, tmp_path: Path) -> None:
    """Nothing is trained again, and status, package and rollback find everything in the new place."""
    shutil.copytree(delivered, tmp_path / "old place")
    moved = (tmp_path / "old place").rename(tmp_path / "new 100% place")
    assert "nothing to do" in deliver(moved, "tick")
    status = json.loads(deliver(moved, "status", "--json"))
    assert status["serving"]["local"]["ready"]
    assert status["troubles"] == []
    shutil.rmtree(moved / "work" / "models", ignore_errors=True)
    fetched = Registry(local_uri(moved / "work")).fetch("champion", tmp_path / "fetched")
    assert (fetched / "package.json").is_file()
    assert not (tmp_path / "old place").exists()


@pytest.mark.slow
def test_a_run_in_a_copy_leaves_the_original_as_it_is(delivered: Path, tmp_path: Path) -> None:
    """A changed setting trains, registers and serves in the copy; the original's whole tree has the same digest."""
    before = tree_digest(delivered)
    copy = Path(shutil.copytree(delivered, tmp_path / "copy"))
    (copy / "model.yaml").write_text((copy / "model.yaml").read_text().replace("batch_files: 4", "batch_files: 3"))
    deliver(copy, "tick", "--wait")
    champion = Registry(local_uri(copy / "work")).champion()
    assert champion is not None
    assert champion.version == 2
    assert Path(champion.uri).is_relative_to(copy)
    assert tree_digest(delivered) == before
    assert Registry(local_uri(delivered / "work")).show("champion").version == 1


def test_status_reports_a_package_that_is_gone(delivered: Path, tmp_path: Path) -> None:
    """The pointer alone serves nothing, and the next tick restores the package."""
    copy = Path(shutil.copytree(delivered, tmp_path / "copy"))
    shutil.rmtree(copy / "work" / "serving" / "versions")
    assert "NOT READY" in deliver(copy, "status", exit_code=1)
    deliver(copy, "tick")
    assert "NOT READY" not in deliver(copy, "status")
