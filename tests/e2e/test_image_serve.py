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
from tests.support.large_bodies import CONTAINER_BYTES, LARGE_BODIES
from tests.support.packages import make_package

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.environ.get("SPIRA_E2E") != "1", reason="needs Docker and the image: set SPIRA_E2E=1"),
]

POST = """
import http.client, json, sys
connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=60)
connection.request("POST", sys.argv[1], sys.stdin.buffer, json.loads(sys.argv[2]))
print(connection.getresponse().status)
"""
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
            *("run", "-d", "--name", name, "--read-only", "--network", "none", "-v", f"{package}:/mnt/models:ro"),
            *(f"--memory={CONTAINER_BYTES}", f"--memory-swap={CONTAINER_BYTES}", IMAGE, "--threads=1"),
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
    wait_until_ready(container)


def wait_until_ready(container: str) -> None:
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


def test_any_body_fits_the_memory_of_the_container(container: str) -> None:
    """The kernel ends a container that needs more than its limit."""
    wait_until_ready(container)
    for name, make in LARGE_BODIES.items():
        path, body, headers = make()
        sent = {"Content-Length": str(len(body))} | {key.replace("_", "-"): value for key, value in headers.items()}
        command = ["docker", "exec", "-i", container, PYTHON, "-c", POST, path, json.dumps(sent)]
        answer = subprocess.run(command, input=body, capture_output=True)
        assert answer.stdout.strip() in (b"200", b"400", b"413", b"422"), (name, answer.stderr)
    state = json.loads(docker("inspect", container))[0]["State"]
    assert (state["Running"], state["OOMKilled"]) == (True, False)
