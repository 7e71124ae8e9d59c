"""Tests in the environment of the Inference Service: Python 3.8, MLflow 2.3, numpy 1.24, pydantic 1.

A version registered with today's MLflow is loaded and called in this environment, as the service does, and also in
today's. The environment is built once and kept in the user's cache folder. Without Python 3.8 its tests are skipped.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow.artifacts
import numpy as np
import pytest

from spira.registry import Registry, local_uri
from tests.support.packages import ARCHITECTURES, LINEAGE, VERDICT, make_package

pytestmark = pytest.mark.integration

REQUIREMENTS = ("mlflow==2.3.0", "numpy==1.24.3", "scipy==1.9.3", "pandas==2.0.2", "pydantic<2")
"""Requirements of the service."""

BUILD_SECONDS = 900

SCRIPT = """
import json, sys
from mlflow import pyfunc
import mlflow, numpy, pydantic

class Output(pydantic.BaseModel):  # the check of the service before it sends a result
    output: list
    diagnosis: str

def predict(model, path):
    with open(path, "rb") as file:
        recording = {"content": file.read(), "filename": "x.wav"}
    inference = {"id": "1", "model_id": "spira", "rgh": "0", "gender": "F", "status": "processing", "age": None}
    files = {name: recording for name in ("aceite", "sustentada", "parlenda", "frase")}
    answer = model.predict([inference, files])
    assert type(answer) is tuple and len(answer) == 2, answer
    assert [type(answer[0])] + [type(value) for value in answer[0]] == [list, float], answer
    assert type(answer[1]) is str, answer
    Output(output=answer[0], diagnosis=answer[1])
    json.dumps(answer, allow_nan=False)
    return answer

pyfunc.get_model_dependencies(sys.argv[1])
model = pyfunc.load_model(sys.argv[1])
answers = [predict(model, path) for path in sys.argv[2:]]
heavy = sorted({"torch", "librosa", "soundfile", "spira"} & set(sys.modules))
versions = [mlflow.__version__, numpy.__version__]
print(json.dumps({"python": sys.version, "versions": versions, "heavy": heavy, "answers": answers}))
"""


@pytest.fixture(scope="module", params=ARCHITECTURES)
def package(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_package(tmp_path_factory.mktemp("package"), request.param)


@pytest.fixture(scope="module")
def registered(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the artifacts of the registered package, downloaded as a server does it."""
    work = tmp_path_factory.mktemp("registry")
    registry = Registry(local_uri(work))
    run_id = registry.log_run("test", {}, {}, VERDICT, {}, LINEAGE)
    version = registry.show(registry.register(package, run_id, VERDICT, LINEAGE))
    return Path(mlflow.artifacts.download_artifacts(version.uri, dst_path=str(work / "model")))


@pytest.fixture(scope="module")
def service_python() -> Path:
    """Return the interpreter of the service's environment."""
    python = next(pythons_38(), None)
    if python is None:
        pytest.skip("no Python 3.8 on PATH or in ~/.pyenv/versions: the Inference Service cannot be tested")
    return environment(python) / "bin" / "python"


def pythons_38() -> Iterator[Path]:
    """Yield every Python 3.8 that starts."""
    on_path = shutil.which("python3.8")
    pythons = sorted(Path.home().glob(".pyenv/versions/3.8*/bin/python3.8")) + ([Path(on_path)] if on_path else [])
    for python in pythons:
        command = [str(python), "-c", "import sys, venv; sys.exit(sys.version_info[:2] != (3, 8))"]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            yield python


def environment(python: Path) -> Path:
    """Build a virtual environment of the requirements, cached by their digest; one process builds at a time."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spira" / "inference-service"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / hashlib.sha256("\n".join((str(python), *REQUIREMENTS)).encode()).hexdigest()[:16]
    with (cache / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([python, "-m", "venv", folder], check=True, capture_output=True)
            install = [folder / "bin" / "pip", "install", "--quiet", *REQUIREMENTS]
            result = subprocess.run(install, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
            if result.returncode:
                pytest.skip(f"the environment of the Inference Service cannot be installed: {result.stderr[-300:]}")
            (folder / "complete").touch()
    return folder


def golden(package: Path) -> tuple[list[Path], list[float]]:
    """Return the golden recordings of a package and torch's probabilities."""
    entries = json.loads((package / "data" / "golden.json").read_text())
    return [package / "data" / entry["file"] for entry in entries], [entry["probability"] for entry in entries]


def call_model(python: Path, model: Path, files: list[Path]) -> dict[str, Any]:
    """Load the model in another interpreter and call it as the service does."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "MLFLOW"))}
    result = subprocess.run(
        [python, "-c", SCRIPT, model, *files],
        capture_output=True,
        text=True,
        env=environment | {"OMP_NUM_THREADS": "1"},
        cwd=model.parent,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.parametrize("mlflow_version", ["service", "today"])
def test_a_registered_version_gives_torchs_probabilities(
    request: pytest.FixtureRequest, package: Path, registered: Path, mlflow_version: str
) -> None:
    """The result follows the contract, within 1e-5 of torch, and torch is not imported."""
    python = request.getfixturevalue("service_python") if mlflow_version == "service" else Path(sys.executable)
    files, expected = golden(package)
    result = call_model(python, registered, files)
    assert result["python"].startswith("3.8." if mlflow_version == "service" else f"{sys.version_info.major}.")
    assert mlflow_version == "today" or result["versions"] == ["2.3.0", "1.24.3"]
    assert result["heavy"] == []
    probabilities = [answer[0][0] for answer in result["answers"]]
    assert np.abs(np.subtract(probabilities, expected)).max() <= 1e-5
    assert {answer[1] for answer in result["answers"]} <= {"positive", "negative", "inconclusive"}
