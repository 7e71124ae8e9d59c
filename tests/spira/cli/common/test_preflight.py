"""Checks before a run: names, folders, space and servers are refused in one line with a remedy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import Result
from typer.testing import CliRunner

from spira.cli.common import preflight
from spira.cli.main import app
from tests.spira.registry.test_server import MLFLOW_1_28, serving


class Usage(NamedTuple):
    """Result of ``shutil.disk_usage``."""

    total: int
    used: int
    free: int


def spira(*arguments: object) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refusal(result: Result) -> str:
    """Return the one line of a refused command."""
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def fill(monkeypatch: pytest.MonkeyPatch, full: Path, free: int) -> None:
    """Make a folder look almost full, and every other one empty."""

    def usage(path: Any) -> Usage:
        return Usage(10**12, 0, free if Path(path).resolve().is_relative_to(full.resolve()) else 10**12)

    monkeypatch.setattr(shutil, "disk_usage", usage)


@pytest.mark.parametrize("option", ["--work", "--data"])
def test_a_path_that_kfp_would_change_is_refused(tmp_path: Path, option: str) -> None:
    """It may be a part of the absolute path alone; nothing is made."""
    folder = tmp_path / "a{{$.x}}b" / "sub"
    folder.mkdir(parents=True)
    arguments = ["--demo"] if option == "--work" else ["--work", tmp_path / "work"]
    message = refusal(spira("run", option, folder, *arguments))
    assert f"{option} {folder}: Kubeflow's runner replaces" in message
    assert "use a path without {{$" in message
    assert list(folder.iterdir()) == []


def test_a_full_work_folder_is_refused_with_the_amount(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The estimate covers the decoded recordings; a corpus that exists is not counted."""
    work = tmp_path / "work"
    monkeypatch.setattr(preflight, "WAV_GROWTH", 10**6)  # as if the recordings were long
    fill(monkeypatch, work, preflight.RUN_BYTES + 1)
    message = refusal(spira("run", "--data", demo, "--work", work))
    assert f"--work {work}: 200 MB are free, and a run needs about" in message
    assert "free space there, or choose another folder with --work" in message
    (work / "state" / "corpus-1").mkdir(parents=True)
    preflight.check_space(str(demo), work)


def test_the_estimate_is_not_below_the_corpus(demo: Path, tmp_path: Path) -> None:
    """The demo's recordings are 16-bit WAV at 16 kHz."""
    from spira.data import corpus

    corpus.build(demo, tmp_path / "corpus")
    built = sum(path.stat().st_size for path in (tmp_path / "corpus").iterdir())
    assert built <= preflight.decoded_bytes(demo) <= 2 * built


@pytest.mark.parametrize("folder", ["nowhere", "file"])
def test_an_unusable_temporary_folder_is_refused(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """Python would silently use another folder, and the stages and libraries perhaps a third."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("TMPDIR", str(tmp_path / folder))
    message = refusal(spira("run", "--data", demo, "--work", tmp_path / "work"))
    assert f"TMPDIR {tmp_path / folder}: cannot be written" in message
    assert "set TMPDIR to a folder that can be written" in message


def test_a_full_temporary_folder_is_refused(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Artifacts are staged there."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    fill(monkeypatch, tmp_path / "tmp", 3_000_000)
    message = refusal(spira("run", "--data", demo, "--work", tmp_path / "work"))
    assert f"TMPDIR {tmp_path / 'tmp'}: 3 MB are free, and a run needs about 50 MB: set TMPDIR" in message


@pytest.mark.integration
def test_an_old_mlflow_server_is_refused_before_training(demo: Path, tmp_path: Path) -> None:
    """The server is SPIRA's own; the demo's recordings are not even read."""
    with serving(MLFLOW_1_28) as (url, _):
        message = refusal(spira("run", "--data", demo, "--work", tmp_path / "work", "--mlflow", url))
    assert f"the MLflow store {url} cannot be used: " in message
    assert "MLflow 2.22.0 or later is required; see docs/inference-service.md" in message
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.integration
def test_a_missing_database_driver_is_named_before_training(demo: Path, tmp_path: Path) -> None:
    """SQLAlchemy's default driver for PostgreSQL is not among the requirements."""
    message = refusal(spira("run", "--data", demo, "--work", tmp_path / "work", "--mlflow", "postgresql://u:pw@db/m"))
    assert "the database driver psycopg is not installed" in message
    assert "pw" not in message


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB; the test is skipped where it cannot be mounted."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_fills_up_is_named(small_disk: Path, demo: Path) -> None:
    """The file system is a real full one, in the stage that writes the corpus."""
    result = spira("preprocess", "--data", demo, "--out", small_disk / "corpus")
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert f"no space left in {small_disk}" in result.stderr


@pytest.mark.integration
def test_a_read_only_checkout_is_refused_in_one_line(tmp_path: Path) -> None:
    """The compiled pipeline is written beside its source, unless --out names another file."""
    checkout = tmp_path / "checkout"
    for package in ("spira", "components", "pipelines"):
        shutil.copytree(package, checkout / package, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (checkout, *checkout.rglob("*")):
        path.chmod(0o555)
    for path in (tmp_path, *tmp_path.parents):
        if "pytest-of-" in str(path):
            path.chmod(0o755)
    other_user = ["setpriv", "--reuid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    environment = {**os.environ, "PYTHONPATH": str(checkout), "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}
    compile_pipeline = [*other_user, sys.executable, "-m", "spira", "pipeline", "compile"]
    done = subprocess.run(compile_pipeline, env=environment, cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last == (
        f"error: {checkout}/pipelines is without permission for this user: "
        "choose another place (--out, --work), or change its permissions"
    )
    assert "Traceback" not in done.stderr
    (tmp_path / "out").mkdir()
    (tmp_path / "out").chmod(0o777)
    followed = [*compile_pipeline, "--out", str(tmp_path / "out" / "pipeline.yaml")]
    done = subprocess.run(followed, env=environment, cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
