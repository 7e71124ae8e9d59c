"""Tests of the predictor's image: size, user, a read-only file system, no network.

make images && SPIRA_E2E=1 .venv/bin/pytest tests/e2e/test_image_serve.py
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster_fixture import IMAGE, PYTHON
from tests.support.packages import make_package

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.environ.get("SPIRA_E2E") != "1", reason="needs Docker and the image: set SPIRA_E2E=1"),
]

PROBE = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/v2/models/spira/ready').status)"


def docker(*arguments: str) -> str:
    """Run docker and return its output."""
    result = subprocess.run(["docker", *arguments], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def image() -> dict[str, Any]:
    """Return Docker's description of the image."""
    if (
        not shutil.which("docker")
        or subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True).returncode
    ):
        pytest.skip(f"the image {IMAGE} does not exist: run make images")
    return json.loads(docker("image", "inspect", IMAGE))[0]


@pytest.fixture
def container(image: dict[str, Any], tmp_path: Path) -> Iterator[str]:
    """Start a container that serves a package, and return its name."""
    package, name = make_package(tmp_path), f"spira-{uuid.uuid4().hex[:8]}"
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    try:
        docker(
            "run", "-d", "--name", name, "--read-only", "--network", "none", "-v", f"{package}:/mnt/models:ro", IMAGE
        )
        yield name
    finally:
        docker("rm", "-f", name)


def test_the_image_is_small_and_not_root(image: dict[str, Any]) -> None:
    """It is smaller than 300 MB, and its user is a number other than 0."""
    assert image["Size"] < 300e6
    assert int(image["Config"]["User"].split(":")[0]) > 0


def test_the_image_serves_read_only_and_without_network(container: str) -> None:
    """The server downloads and writes nothing when it starts."""
    for _ in range(60):
        probe = subprocess.run(["docker", "exec", container, PYTHON, "-c", PROBE], capture_output=True, text=True)
        if probe.stdout.strip() == "200":
            return
        time.sleep(1)
    raise AssertionError(docker("logs", container) + probe.stderr)


def test_the_image_has_no_torch(container: str) -> None:
    """It has neither MLflow nor a package manager."""
    find = "import importlib.util as u; print([n for n in ('torch', 'pip', 'mlflow') if u.find_spec(n)])"
    assert docker("exec", container, PYTHON, "-c", find).strip() == "[]"
