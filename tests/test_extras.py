"""Extras of the installation: pyproject.toml, the lock, the imports and the messages of the command line agree."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from spira.cli.common.extras import EXTRAS
from tests.support.kfp_server import ServerState

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OPTIONAL = PROJECT["optional-dependencies"]
OWN = {"spira", "components", "pipelines"}
IMAGE = f"registry.example/spira-train@sha256:{'0' * 64}"


def names_of(extra: str | None) -> set[str]:
    """Return the packages of an extra and of those that it contains; the base for None."""
    requirements = [Requirement(text) for text in (PROJECT["dependencies"] if extra is None else OPTIONAL[extra])]
    own = {canonicalize_name(one.name) for one in requirements if one.name != "spira"}
    return own.union(*(names_of(part) for one in requirements for part in one.extras if one.name == "spira"))


def test_the_lock_has_a_version_for_every_requirement():
    """The version satisfies the requirement. The lock is made with all extras."""
    lock = (ROOT / "requirements.lock").read_text()
    assert "--all-extras" in lock.splitlines()[0]
    locked = dict(re.findall(r"^([\w.-]+)(?:\[.*?\])?==([^\s;]+)", lock, re.MULTILINE))
    versions = {canonicalize_name(name): version for name, version in locked.items()}
    for text in [*PROJECT["dependencies"], *(text for texts in OPTIONAL.values() for text in texts)]:
        requirement = Requirement(text)
        if requirement.name != "spira":
            assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), text


def imported_modules() -> dict[str, set[str]]:
    """Return module -> files that import it, of every module that is neither ours nor Python's."""
    modules: dict[str, set[str]] = {}
    for package in OWN:
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                    names = [node.module]
                for name in {name.partition(".")[0] for name in names} - OWN - set(sys.stdlib_module_names):
                    modules.setdefault(name, set()).add(str(file.relative_to(ROOT)))
    return modules


@pytest.mark.integration
def test_every_imported_module_is_of_the_base_or_of_an_extra():
    """A module counts even if a library brings it with itself, as mlflow brings sqlalchemy."""
    listed = {module for modules in EXTRAS.values() for module in modules}
    distributions = packages_distributions()
    base = names_of(None) | {"urllib3"}  # urllib3 is imported where kfp and kubernetes are, which bring it
    unknown = {
        module: files
        for module, files in imported_modules().items()
        if module not in listed and not base.intersection(map(canonicalize_name, distributions.get(module, [])))
    }
    assert unknown == {}
    assert listed - imported_modules().keys() == set()


@pytest.mark.integration
@pytest.mark.parametrize("extra", list(EXTRAS))
def test_an_extra_has_the_packages_of_its_modules(extra: str):
    """Except for what a package of the extra requires itself."""
    brought = {"botocore", "fastapi", "google", "markupsafe", "prometheus_client", "sqlalchemy", "starlette"}
    brought |= {"kfp_server_api", "uvicorn"}
    distributions = packages_distributions()
    for module in set(EXTRAS[extra]) - brought:
        assert names_of(extra).intersection(map(canonicalize_name, distributions[module])), module


MISSING = """
import sys
class Missing:
    def find_spec(self, name, path, target=None):
        if name in {modules!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
from spira.cli.main import app
app()
"""
"""A program like ``spira`` in an installation without some modules."""

COMMANDS = [
    (["pipeline", "--help"], "kubeflow"),
    (["data", "check", "."], "deliver"),
    (["models", "show", "1", "--mlflow", "http://127.0.0.1:9"], "deliver"),
    (["deliver", "status", "--settings", "delivery.yaml"], "deliver"),
    (["deploy", "status"], "deliver"),
    (["demo", "demo"], "train"),
    (["predict", "a.wav"], "train"),
]


@pytest.mark.integration
@pytest.mark.parametrize(("arguments", "extra"), COMMANDS, ids=[one[0][0] for one in COMMANDS])
def test_a_command_names_the_extra_that_it_needs(arguments: list[str], extra: str, tmp_path: Path):
    """In one line, with exit code 2, where only the base is installed."""
    (tmp_path / "delivery.yaml").write_text("data: voices\n")
    modules = {module for modules in EXTRAS.values() for module in modules}
    program = [sys.executable, "-c", MISSING.format(modules=modules), *arguments]
    result = subprocess.run(
        program, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert result.returncode == 2, result.stderr
    assert result.stderr.count("\n") == 1
    assert f"spira {arguments[0]} needs " in result.stderr
    assert result.stderr.endswith(f"pip install '.[{extra}]'\n")


@pytest.mark.integration
def test_the_base_alone_shows_help(tmp_path: Path):
    """Help and version need no extra."""
    modules = {module for modules in EXTRAS.values() for module in modules}
    program = [sys.executable, "-c", MISSING.format(modules=modules), "--help"]
    result = subprocess.run(program, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.integration
def test_a_client_of_kubeflow_has_no_torch(kfp: tuple[str, ServerState], tmp_path: Path):
    """A wheel with the extra ``kubeflow`` alone can compile, submit, schedule and give the status."""
    uv, environment = Path(sys.executable).with_name("uv"), tmp_path / "venv"
    source = tmp_path / "source"
    source.mkdir()
    for name in OWN:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)

    def run(*command: object, folder: Path = tmp_path) -> str:
        clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        clean |= {"KUBECONFIG": str(tmp_path / "none"), "UV_SYSTEM_CERTS": "true"}
        result = subprocess.run(list(map(str, command)), cwd=folder, env=clean, capture_output=True, text=True)
        assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"
        return result.stdout

    run(uv, "build", "--quiet", "--wheel", "--out-dir", tmp_path / "dist", source)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    run(uv, "venv", "--quiet", "--python", sys.executable, environment)
    python, spira = environment / "bin" / "python", environment / "bin" / "spira"
    constraint = ROOT / "requirements.lock"
    run(uv, "pip", "install", "--quiet", "--python", python, "--constraint", constraint, f"{wheel}[kubeflow]")

    installed = {line.partition("==")[0] for line in run(uv, "pip", "freeze", "--python", python).splitlines()}
    assert installed.isdisjoint({"torch", "mlflow", "pandas", "numpy", "kserve", "boto3"})
    run(spira, "pipeline", "compile", "--out", tmp_path / "compiled.yaml", "--image", IMAGE)
    assert IMAGE in (tmp_path / "compiled.yaml").read_text()
    cluster = ["--host", kfp[0], "--on", "registry_uri=http://mlflow:5000"]
    data = ["--data", "s3://bucket/voices"]
    name = run(spira, "pipeline", "submit", *cluster, *data, "--image", IMAGE).strip()
    assert [body["display_name"] for body in kfp[1].runs.values()] == [name]
    run(spira, "pipeline", "schedule", *cluster, *data, "--cron", "0 30 3 * * *", "--image", IMAGE)
    assert len(kfp[1].recurring_runs) == 1
    assert name in run(spira, "pipeline", "status", *cluster)
