"""Worlds that the tests of continuous delivery share: an MLflow store, ledgers written by hand, a real delivery."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from spira import lineage
from spira.cli.main import app
from spira.deployment.local import Local
from spira.deployment.target import Release
from tests.support.gatefiles import LENIENT
from tests.support.ledger_builder import FIRST, SECOND, Book, World, code_at

SMOKE = """\
model: {channels: 8}
training: {max_epochs: 1, batch_files: 4, seeds: [42]}
evaluation: {bootstrap_samples: 200, noise_draws: 1}
"""

LINEAGE = {"data_fingerprint": "d", "model_fingerprint": "m", "code_fingerprint": "c", "pipeline_run": "by hand"}


@pytest.fixture
def book(tmp_path: Path) -> Book:
    """An empty ledger in ``work/ledger`` beside a settings file."""
    (tmp_path / "delivery.yaml").write_text("data: voices\nwork: work\n")
    return Book(tmp_path / "work" / "ledger")


@pytest.fixture
def deliver(tmp_path: Path) -> Callable[..., Result]:
    """``spira deliver`` in this process, with the settings file of ``tmp_path``."""

    def run(verb: str, *arguments: str) -> Result:
        settings = [f"--settings={tmp_path / 'delivery.yaml'}"]
        return CliRunner().invoke(app, ["deliver", verb, *arguments, *settings])

    return run


@pytest.fixture
def deploy(tmp_path: Path) -> Callable[..., Result]:
    """``spira deploy`` likewise."""

    def run(verb: str, *arguments: str) -> Result:
        settings = [f"--settings={tmp_path / 'delivery.yaml'}"]
        return CliRunner().invoke(app, ["deploy", verb, *arguments, *settings])

    return run


@pytest.fixture(scope="session")
def new_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of a store that was just made: its tables take seconds, so once, then copied."""
    from spira.registry import open_at

    work = tmp_path_factory.mktemp("mlflow")
    open_at(str(work)).champion_status()
    return work / "mlflow.db"


@pytest.fixture
def work(tmp_path: Path, new_mlflow: Path) -> Path:
    """A work folder with an empty MLflow store."""
    (tmp_path / "work").mkdir(exist_ok=True)
    shutil.copy(new_mlflow, tmp_path / "work" / "mlflow.db")
    return tmp_path / "work"


@pytest.fixture(scope="session")
def three_versions(new_mlflow: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder whose repository holds three versions of whole packages, the second champion and served."""
    from spira.registry import Registry, local_uri
    from tests.support.packages import VERDICT, make_package

    work = tmp_path_factory.mktemp("three") / "work"
    work.mkdir()
    shutil.copy(new_mlflow, work)
    registry = Registry(local_uri(work))
    for number in (1, 2, 3):
        package = make_package(tmp_path_factory.mktemp("package"), seed=number)
        run_id = registry.log_run(f"run {number}", {}, {}, VERDICT, {}, LINEAGE)
        assert registry.register(package, run_id, VERDICT, LINEAGE) == number
    registry.promote(1)
    registry.promote(2)
    Local(work / "serving").apply(Release("2", registry.fetch("2", work / "models" / "2"), ""))
    return work


@pytest.fixture
def world(three_versions: Path, tmp_path: Path) -> World:
    """Two versions delivered, the second serves; what is watched is unfit, so nothing is trained."""
    from spira.registry import Registry, local_uri

    shutil.copytree(three_versions, tmp_path / "work")
    (tmp_path / "delivery.yaml").write_text("data: voices\nwork: work\nset: [training.max_epochs=0]\n")
    book = Book(tmp_path / "work" / "ledger")
    book.deliver(FIRST, "1")
    book.deliver(SECOND, "2")
    return World(tmp_path, book, Registry(local_uri(tmp_path / "work")))


@pytest.fixture
def processes() -> Iterator[Callable[[str], list[int]]]:
    """The processes whose command line names something; those are killed when the test ends."""
    named: set[str] = set()

    def find(name: str) -> list[int]:
        named.add(name)
        return _pids(name)

    yield find
    for name in named:
        for pid in _pids(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _pids(name: str) -> list[int]:
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if name.encode() in (place / "cmdline").read_bytes() and int(place.name) != os.getpid():
                found.append(int(place.name))
    return found


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's packages as they are now: somebody may edit them while the tests run."""
    folder = tmp_path_factory.mktemp("sources")
    for name in lineage.PACKAGES:
        shutil.copytree(lineage.ROOT / name, folder / name)
    shutil.copy2(lineage.ROOT / "requirements.lock", folder)
    return folder


@pytest.fixture
def delivered(one_delivery: Path, sources: Path) -> Iterator[Path]:
    """A folder in which one real version was delivered, and the code that it is of; to read, or to copy."""
    with code_at(sources):
        yield one_delivery


@pytest.fixture(scope="session")
def one_delivery(demo: Path, sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version trained, approved and delivered by a tick that waits: for quiet, then for the run."""
    folder = tmp_path_factory.mktemp("delivered")
    shutil.copytree(demo, folder / "voices")
    (folder / "model.yaml").write_text(SMOKE)
    (folder / "delivery.yaml").write_text(f"data: voices\nconfig: model.yaml\ngate: {LENIENT}\nquiet_seconds: 1\n")
    with code_at(sources):
        done = CliRunner().invoke(app, ["deliver", "tick", "--wait", f"--settings={folder / 'delivery.yaml'}"])
    assert done.exit_code == 0, done.output
    return folder
