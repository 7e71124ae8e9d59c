"""Where the cluster has Kubeflow Pipelines: the compiled pipeline is submitted there and followed to its end.

A cluster without it (such as that of make kind-up) skips this and says so; test_pipeline.py runs the same tasks there.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from spira import config
from spira.packaging import verify
from spira.registry import Registry
from tests.support.bucket import Forward
from tests.support.cluster_fixture import PYTHON, Place, loaded
from tests.support.gatefiles import LENIENT

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(os.environ.get("SPIRA_E2E") != "1", reason="needs a cluster with Kubeflow: set SPIRA_E2E=1"),
]

IMAGE = "spira/train:dev"
RUN_SECONDS = 1800
POLL_SECONDS = 10


@dataclass(frozen=True)
class Kubeflow:
    """A server, MLflow, and a claim that holds the recordings."""

    host: str
    registry: str
    claim: str

    def pipelines(self, *arguments: str) -> str:
        """What ``python -m pipelines`` prints."""
        command = [sys.executable, "-m", "spira", "pipeline", *arguments, "--host", self.host]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def kubeflow(spira_on_kind: str, demo: Path) -> Iterator[Kubeflow]:
    """Forwarded ports, and the recordings in a claim of a name of its own, which is gone afterwards."""
    there = Place(spira_on_kind, "kubeflow")
    command = ["kubectl", "--context", spira_on_kind, "-n", there.name, "get", "service", "ml-pipeline"]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("the cluster has no Kubeflow Pipelines: there is no service kubeflow/ml-pipeline")
    loaded(spira_on_kind, IMAGE)
    claim, forwards = f"spira-e2e-{uuid.uuid4().hex[:8]}", []
    try:
        put(there, claim, demo)
        forwards = [Forward(there, "service/ml-pipeline", 8888)]
        forwards.append(Forward(Place(spira_on_kind, "mlflow"), "service/mlflow", 5000))
        yield Kubeflow(*(forward.address for forward in forwards), claim)
    finally:
        for forward in forwards:
            forward.close()
        there.kubectl("delete", "pod,pvc", claim, "--ignore-not-found", "--wait=false")


def put(there: Place, claim: str, data: Path) -> None:
    """A data set into a new claim, through a pod that then ends."""
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    there.create({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": claim}, "spec": spec})
    there.run(claim, "import time; time.sleep(3600)", claim)
    there.kubectl("wait", "--for=condition=Ready", f"pod/{claim}", "--timeout=120s")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(data, "voices")
    unpack = "import sys, tarfile; tarfile.open(fileobj=sys.stdin.buffer, mode='r|').extractall('/models')"
    there.kubectl("exec", "-i", claim, "--", PYTHON, "-c", unpack, content=packed.getvalue())
    there.kubectl("delete", "pod", claim)


@pytest.fixture(scope="module")
def ended(kubeflow: Kubeflow, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run, submitted and followed to its end by the commands that a person would use."""
    settings = tmp_path_factory.mktemp("settings") / "smoke.yaml"
    settings.write_text(config.smoke().model_dump_json())
    on = ["registry_uri=http://mlflow.mlflow:5000", f"claim={kubeflow.claim}", "cpu=500m", "memory=2Gi"]
    told = [part for each in on for part in ("--on", each)]
    what = ["--data", "/state/voices", "--config", str(settings), "--gate", str(LENIENT)]
    name = kubeflow.pipelines("submit", *what, *told, "--image", IMAGE, "--tag-ok").strip()
    assert kubeflow.pipelines("submit", *what, *told).strip() == name, "the same again is the same run"
    end = time.monotonic() + RUN_SECONDS
    while time.monotonic() < end:
        (line,) = json.loads(kubeflow.pipelines("status", name, "--mlflow", kubeflow.registry, "--json"))
        if line["state"] != "running":
            return line
        time.sleep(POLL_SECONDS)
    raise AssertionError(line)


def test_the_submitted_run_succeeds(ended: dict[str, Any]):
    """Every component, on a stock Kubeflow."""
    assert ended["state"] == "succeeded", ended["message"]
    assert "approved, version" in ended["message"]


def test_what_it_made_is_in_mlflow(ended: dict[str, Any], kubeflow: Kubeflow, tmp_path: Path):
    """The version, whose package is whole and gives torch's probabilities."""
    registry = Registry(kubeflow.registry)
    outcome = registry.outcome(ended["name"])
    assert outcome is not None
    assert outcome.approved
    package = registry.fetch(str(outcome.model_version), tmp_path / "package")
    assert verify.check_golden(package) <= verify.TOLERANCE
