"""Tests of the compiled pipeline on a cluster with Kubeflow Pipelines: submit a run and wait for its end.

They are skipped on a cluster without Kubeflow, such as that of make kind-up; test_pipeline.py runs the same tasks
there.
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
from tests.support.bucket import PortForward
from tests.support.cluster_fixture import PYTHON, ClusterNamespace, load_image
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
    """Addresses of Kubeflow Pipelines and MLflow, and the claim with the recordings."""

    host: str
    registry: str
    claim: str

    def spira_pipeline(self, *arguments: str) -> str:
        """Run ``spira pipeline`` and return its output."""
        command = [sys.executable, "-m", "spira", "pipeline", *arguments, "--host", self.host]
        result = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stderr
        return result.stdout


@pytest.fixture(scope="module")
def kubeflow(spira_on_kind: str, demo: Path) -> Iterator[Kubeflow]:
    """Copy the recordings into a new claim and forward the ports; delete the claim afterwards."""
    namespace = ClusterNamespace(spira_on_kind, "kubeflow")
    command = ["kubectl", "--context", spira_on_kind, "-n", namespace.name, "get", "service", "ml-pipeline"]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("the cluster has no Kubeflow Pipelines: service kubeflow/ml-pipeline does not exist")
    load_image(spira_on_kind, IMAGE)
    claim, forwards = f"spira-e2e-{uuid.uuid4().hex[:8]}", []
    try:
        copy_to_claim(namespace, claim, demo)
        forwards = [PortForward(namespace, "service/ml-pipeline", 8888)]
        forwards.append(PortForward(ClusterNamespace(spira_on_kind, "mlflow"), "service/mlflow", 5000))
        yield Kubeflow(*(forward.address for forward in forwards), claim)
    finally:
        for forward in forwards:
            forward.close()
        namespace.kubectl("delete", "pod,pvc", claim, "--ignore-not-found", "--wait=false")


def copy_to_claim(namespace: ClusterNamespace, claim: str, data: Path) -> None:
    """Copy a data set into a new claim, through a pod that is deleted afterwards."""
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    namespace.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": claim}, "spec": spec})
    namespace.run_script(claim, "import time; time.sleep(3600)", claim)
    namespace.kubectl("wait", "--for=condition=Ready", f"pod/{claim}", "--timeout=120s")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(data, "voices")
    unpack = "import sys, tarfile; tarfile.open(fileobj=sys.stdin.buffer, mode='r|').extractall('/models')"
    namespace.kubectl("exec", "-i", claim, "--", PYTHON, "-c", unpack, content=packed.getvalue())
    namespace.kubectl("delete", "pod", claim)


@pytest.fixture(scope="module")
def finished_run(kubeflow: Kubeflow, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Submit a run and wait for its end, with the commands of the documentation; return its final status."""
    settings = tmp_path_factory.mktemp("settings") / "smoke.yaml"
    settings.write_text(config.smoke().model_dump_json())
    settings_on_cluster = [
        "registry_uri=http://mlflow.mlflow:5000",
        f"claim={kubeflow.claim}",
        "cpu=500m",
        "memory=2Gi",
    ]
    on = [argument for setting in settings_on_cluster for argument in ("--on", setting)]
    inputs = ["--data", "/state/voices", "--config", str(settings), "--gate", str(LENIENT)]
    name = kubeflow.spira_pipeline("submit", *inputs, *on, "--image", IMAGE, "--tag-ok").strip()
    assert kubeflow.spira_pipeline("submit", *inputs, *on).strip() == name, "a second submit must return the same run"
    end = time.monotonic() + RUN_SECONDS
    while time.monotonic() < end:
        (run,) = json.loads(kubeflow.spira_pipeline("status", name, "--mlflow", kubeflow.registry, "--json"))
        if run["state"] != "running":
            return run
        time.sleep(POLL_SECONDS)
    raise AssertionError(run)


def test_the_submitted_run_succeeds(finished_run: dict[str, Any]):
    """Every component runs on an unmodified Kubeflow."""
    assert finished_run["state"] == "succeeded", finished_run["message"]
    assert "approved, version" in finished_run["message"]


def test_the_version_is_in_mlflow(finished_run: dict[str, Any], kubeflow: Kubeflow, tmp_path: Path):
    """The package of the version is complete and gives torch's probabilities."""
    registry = Registry(kubeflow.registry)
    outcome = registry.outcome(finished_run["name"])
    assert outcome is not None
    assert outcome.approved
    package = registry.fetch(str(outcome.model_version), tmp_path / "package")
    assert verify.check_golden(package) <= verify.TOLERANCE
