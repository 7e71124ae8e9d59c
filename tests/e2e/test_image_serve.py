"""The predictor's image: small, without rights, and served from a read-only file system without a network.

make image-serve && SPIRA_E2E=1 .venv/bin/pytest tests/e2e/test_image_serve.py
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
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def image() -> dict[str, Any]:
    """What Docker says of it."""
    if (
        not shutil.which("docker")
        or subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True).returncode
    ):
        pytest.skip(f"{IMAGE} is not here: docker build -f Dockerfile.serve -t {IMAGE} .")
    return json.loads(docker("image", "inspect", IMAGE))[0]


@pytest.fixture
def container(image: dict[str, Any], tmp_path: Path) -> Iterator[str]:
    """One that serves a package."""
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


def test_it_is_small_and_has_no_rights(image: dict[str, Any]) -> None:
    """Under 300 MB, and its user is a number that is not root's."""
    assert image["Size"] < 300e6
    assert int(image["Config"]["User"].split(":")[0]) > 0


def test_it_serves_read_only_and_without_network(container: str) -> None:
    """Nothing is fetched or written when it starts."""
    for _ in range(60):
        asked = subprocess.run(["docker", "exec", container, PYTHON, "-c", PROBE], capture_output=True, text=True)
        if asked.stdout.strip() == "200":
            return
        time.sleep(1)
    raise AssertionError(docker("logs", container) + asked.stderr)


def test_it_knows_no_torch(container: str) -> None:
    """Nor a package manager."""
    find = "import importlib.util as u; print([n for n in ('torch', 'pip', 'mlflow') if u.find_spec(n)])"
    assert docker("exec", container, PYTHON, "-c", find).strip() == "[]"
