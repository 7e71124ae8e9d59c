"""The import contracts fail when an import breaks them. (That they hold now, ``make lint`` checks.)"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support import ROOT

LINT = Path(sys.executable).with_name("lint-imports")
ROOTS = "Layers over the roots"
INSIDE = "Layers inside spira"
INFERENCE = "What is served with a package"
SERVING = "The server of a package"

BROKEN = [
    ("spira/serving/server.py", "from spira.errors import SpiraError", SERVING),
    ("spira/serving/package.py", "import spira.config", SERVING),
    ("spira/serving/errors.py", "import pipelines.training", SERVING),
    ("spira/audio.py", "from spira.config import Preprocess", SERVING),
    ("spira/signature.py", "from spira.errors import SpiraError", SERVING),
    ("spira/inference/model.py", "from spira.errors import SpiraError", INFERENCE),
    ("spira/inference/wav.py", "import soundfile", INFERENCE),
    ("spira/data/corpus.py", "import spira.training.train", INSIDE),
    ("spira/data/storage/store.py", "import spira.models.networks", INSIDE),
    ("spira/packaging/build.py", "import spira.paper.experiments", INSIDE),
    ("spira/stages/train.py", "import spira.delivery.history.ledger", INSIDE),
    ("spira/deployment/local.py", "import spira.stages.deploy", INSIDE),
    ("spira/evaluation/gate.py", "import spira.registry", INSIDE),
    ("spira/files.py", "import spira.errors; import spira.config", INSIDE),
    ("spira/errors.py", "import spira.cli.main", ROOTS),
    ("spira/delivery/reconcile.py", "import pipelines.local", ROOTS),
    ("spira/stages/train.py", "import components.train", ROOTS),
    ("components/train.py", "import pipelines.training", ROOTS),
    ("pipelines/local.py", "import spira.cli.main", ROOTS),
    ("spira/stages/push.py", "import mlflow", "Only the registry imports mlflow"),
    ("pipelines/local.py", "import mlflow.tracking", "Only the registry imports mlflow"),
    ("spira/stages/push.py", "from kfp import dsl", "Only pipelines and components import kfp"),
    ("spira/deployment/local.py", "import kubernetes", "Few modules import kubernetes"),
    ("spira/data/corpus.py", "import torch", "Only training and what compares with it imports torch"),
]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages and of the contracts."""
    folder = tmp_path_factory.mktemp("contracts")
    for name in ("spira", "components", "pipelines"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(ROOT / "pyproject.toml", folder)
    return folder


def broken_contracts(sources: Path) -> str:
    """Return what lint-imports prints of broken contracts, in one line; empty if all are kept."""
    command = [LINT, "--no-cache", "--config", "pyproject.toml"]
    done = subprocess.run(
        command, cwd=sources, env={"PYTHONPATH": str(sources), "COLUMNS": "300"}, capture_output=True, text=True
    )
    if done.returncode == 0:
        return ""
    return " ".join(done.stdout.split())


def test_the_contracts_are_kept_by_the_copy(sources: Path):
    """Otherwise the tests below would test nothing."""
    assert broken_contracts(sources) == ""


@pytest.mark.integration
@pytest.mark.parametrize(("module", "line", "contract"), BROKEN)
def test_an_import_against_the_flow_breaks_its_contract(sources: Path, module: str, line: str, contract: str):
    """One line added to one module is enough, and the contract that names the rule is the one that fails."""
    path = sources / module
    before = path.read_text()
    path.write_text(f"{before}\n{line}\n")
    try:
        printed = broken_contracts(sources)
    finally:
        path.write_text(before)
    assert "BROKEN" in printed
    assert contract in printed.partition("Broken contracts")[2]


def test_a_new_module_must_find_its_layer(sources: Path):
    """The layers are exhaustive: a module that stands in none of them fails the contract."""
    path = sources / "spira" / "newcomer.py"
    path.write_text('"""A module that no layer names."""\n')
    try:
        assert "newcomer" in broken_contracts(sources)
    finally:
        path.unlink()


@pytest.mark.parametrize(
    ("sources_of", "imports"),
    [(["inference"], []), (["serving", "audio", "signature"], ["inference"])],
    ids=["inference", "serving"],
)
def test_every_other_module_is_forbidden_by_name(sources_of: list[str], imports: list[str]):
    """The lists of the two contracts of serving hold all modules of spira but those allowed."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    named = [f"spira.{name}" for name in sources_of]
    (contract,) = (one for one in contracts if one.get("source_modules") == named)
    modules = {f"spira.{path.stem}" for path in (ROOT / "spira").iterdir() if path.suffix == ".py" or _is_package(path)}
    allowed = {"spira.__init__", *named, *(f"spira.{name}" for name in imports)}
    forbidden = {name for name in contract["forbidden_modules"] if name.startswith("spira.")}
    assert forbidden == modules - allowed


def _is_package(path: Path) -> bool:
    return (path / "__init__.py").is_file()
