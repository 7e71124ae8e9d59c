"""Fixtures of the tests of continuous delivery: an MLflow store, built ledgers, and one real delivery."""

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
from tests.support.ledger_builder import FIRST, SECOND, LedgerBuilder, LocalDelivery, code_at

SMOKE = """\
model: {channels: 8}
training: {max_epochs: 1, batch_files: 4, seeds: [42]}
evaluation: {bootstrap_samples: 200, noise_draws: 1}
"""

LINEAGE = {"data_fingerprint": "d", "model_fingerprint": "m", "code_fingerprint": "c", "pipeline_run": "by hand"}


@pytest.fixture
def ledger_builder(tmp_path: Path) -> LedgerBuilder:
    """An empty ledger in ``work/ledger``, and its settings file."""
    (tmp_path / "delivery.yaml").write_text("data: voices\nwork: work\n")
    return LedgerBuilder(tmp_path / "work" / "ledger")


@pytest.fixture
def deliver(tmp_path: Path) -> Callable[..., Result]:
    """``spira deliver VERB ...`` in this process, with the settings file in ``tmp_path``."""

    def run(verb: str, *arguments: str) -> Result:
        settings = [f"--settings={tmp_path / 'delivery.yaml'}"]
        return CliRunner().invoke(app, ["deliver", verb, *arguments, *settings])

    return run


@pytest.fixture
def deploy(tmp_path: Path) -> Callable[..., Result]:
    """``spira deploy VERB ...`` in this process, with the settings file in ``tmp_path``."""

    def run(verb: str, *arguments: str) -> Result:
        settings = [f"--settings={tmp_path / 'delivery.yaml'}"]
        return CliRunner().invoke(app, ["deploy", verb, *arguments, *settings])

    return run


@pytest.fixture(scope="session")
def new_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of an empty MLflow store. Creating its tables takes seconds, so tests copy this file."""
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
    """A work folder whose repository has three complete versions; the second is champion and served."""
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
def local_delivery(three_versions: Path, tmp_path: Path) -> LocalDelivery:
    """Two delivered versions, the second is served; the settings are invalid, so nothing is trained."""
    from spira.registry import Registry, local_uri

    shutil.copytree(three_versions, tmp_path / "work")
    (tmp_path / "delivery.yaml").write_text("data: voices\nwork: work\nset: [training.max_epochs=0]\n")
    builder = LedgerBuilder(tmp_path / "work" / "ledger")
    builder.deliver(FIRST, "1")
    builder.deliver(SECOND, "2")
    return LocalDelivery(tmp_path, builder, Registry(local_uri(tmp_path / "work")))


@pytest.fixture
def processes() -> Iterator[Callable[[str], list[int]]]:
    """Return a function that lists the processes with a text in their command line; the test's end kills them."""
    texts: set[str] = set()

    def find(text: str) -> list[int]:
        texts.add(text)
        return _pids(text)

    yield find
    for text in texts:
        for pid in _pids(text):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _pids(text: str) -> list[int]:
    pids = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # the process may have ended
            if text.encode() in (folder / "cmdline").read_bytes() and int(folder.name) != os.getpid():
                pids.append(int(folder.name))
    return pids


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project's packages, because the originals may be edited while the tests run."""
    folder = tmp_path_factory.mktemp("sources")
    for name in lineage.PACKAGES:
        shutil.copytree(lineage.ROOT / name, folder / name)
    shutil.copy2(lineage.ROOT / "requirements.lock", folder)
    return folder


@pytest.fixture
def delivered(one_delivery: Path, sources: Path) -> Iterator[Path]:
    """A folder with one real delivery, while its code is the observed one; tests read it or copy it."""
    with code_at(sources):
        yield one_delivery


@pytest.fixture(scope="session")
def one_delivery(demo: Path, sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version that ``spira deliver tick --wait`` trained and delivered; it waits for quiet, then for the run."""
    folder = tmp_path_factory.mktemp("delivered")
    shutil.copytree(demo, folder / "voices")
    (folder / "model.yaml").write_text(SMOKE)
    (folder / "delivery.yaml").write_text(f"data: voices\nconfig: model.yaml\ngate: {LENIENT}\nquiet_seconds: 1\n")
    with code_at(sources):
        result = CliRunner().invoke(app, ["deliver", "tick", "--wait", f"--settings={folder / 'delivery.yaml'}"])
    assert result.exit_code == 0, result.output
    return folder
