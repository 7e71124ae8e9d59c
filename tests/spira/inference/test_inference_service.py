"""The Inference Service's own environment: Python 3.8, MLflow 2.3, numpy 1.24, pydantic 1.

A version that the model repository registered today is loaded and asked there, as the service does, and under
today's MLflow. The environment is built once and kept in the user's cache folder; where there is no Python 3.8 the
lane is skipped.
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

REQUIREMENTS = ("mlflow==2.3.0", "numpy==1.24.3", "scipy==1.9.3", "pandas==2.0.2", "pydantic<2")
"""Of the service."""

BUILD_SECONDS = 900

ASK = """
import json, sys
from mlflow import pyfunc
import mlflow, numpy, pydantic

class Output(pydantic.BaseModel):  # as the service checks what it sends
    output: list
    diagnosis: str

def ask(model, file):
    with open(file, "rb") as opened:
        recording = {"content": opened.read(), "filename": "x.wav"}
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
answers = [ask(model, file) for file in sys.argv[2:]]
heavy = sorted({"torch", "librosa", "soundfile", "spira"} & set(sys.modules))
versions = [mlflow.__version__, numpy.__version__]
print(json.dumps({"python": sys.version, "versions": versions, "heavy": heavy, "answers": answers}))
"""


@pytest.fixture(scope="module", params=ARCHITECTURES)
def package(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_package(tmp_path_factory.mktemp("package"), request.param)


@pytest.fixture(scope="module")
def registered(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifacts of the package's version, as a server gets them from the model repository."""
    work = tmp_path_factory.mktemp("registry")
    registry = Registry(local_uri(work))
    run_id = registry.log_run("test", {}, {}, VERDICT, {}, LINEAGE)
    version = registry.show(registry.register(package, run_id, VERDICT, LINEAGE))
    return Path(mlflow.artifacts.download_artifacts(version.uri, dst_path=str(work / "model")))


@pytest.fixture(scope="module")
def service_python() -> Path:
    """The interpreter of the service's environment."""
    python = next(candidates(), None)
    if python is None:
        pytest.skip("no Python 3.8 on PATH or under ~/.pyenv/versions: the Inference Service's lane can't run")
    return environment(python) / "bin" / "python"


def candidates() -> Iterator[Path]:
    """Every Python 3.8 that starts."""
    found = shutil.which("python3.8")
    places = sorted(Path.home().glob(".pyenv/versions/3.8*/bin/python3.8")) + ([Path(found)] if found else [])
    for place in places:
        command = [str(place), "-c", "import sys, venv; sys.exit(sys.version_info[:2] != (3, 8))"]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            yield place


def environment(python: Path) -> Path:
    """A virtual environment of the requirements, kept under their digest; built by one process at a time."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spira" / "inference-service"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / hashlib.sha256("\n".join((str(python), *REQUIREMENTS)).encode()).hexdigest()[:16]
    with (cache / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([python, "-m", "venv", folder], check=True, capture_output=True)
            install = [folder / "bin" / "pip", "install", "--quiet", *REQUIREMENTS]
            done = subprocess.run(install, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
            if done.returncode:
                pytest.skip(f"the Inference Service's environment can't be installed: {done.stderr[-300:]}")
            (folder / "complete").touch()
    return folder


def golden(package: Path) -> tuple[list[Path], list[float]]:
    """A package's golden recordings, and torch's probabilities."""
    entries = json.loads((package / "data" / "golden.json").read_text())
    return [package / "data" / entry["file"] for entry in entries], [entry["probability"] for entry in entries]


def ask(python: Path, model: Path, files: list[Path]) -> dict[str, Any]:
    """Load the model in a process of another interpreter and ask it as the service does."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "MLFLOW"))}
    done = subprocess.run(
        [python, "-c", ASK, model, *files],
        capture_output=True,
        text=True,
        env=clean | {"OMP_NUM_THREADS": "1"},
        cwd=model.parent,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("lane", ["service", "today"])
def test_a_registered_version_answers(
    request: pytest.FixtureRequest, package: Path, registered: Path, lane: str
) -> None:
    """By the contract, with torch's probabilities within 1e-5, and without torch."""
    python = request.getfixturevalue("service_python") if lane == "service" else Path(sys.executable)
    files, expected = golden(package)
    told = ask(python, registered, files)
    assert told["python"].startswith("3.8." if lane == "service" else f"{sys.version_info.major}.")
    assert lane == "today" or told["versions"] == ["2.3.0", "1.24.3"]
    assert told["heavy"] == []
    probabilities = [answer[0][0] for answer in told["answers"]]
    assert np.abs(np.subtract(probabilities, expected)).max() <= 1e-5
    assert {answer[1] for answer in told["answers"]} <= {"positive", "negative", "inconclusive"}
