"""Tests of the compiled pipeline on a kind cluster with Kubeflow Pipelines: submit runs and wait for their ends.

They need Kubeflow Pipelines (manifests/README.md) and one image, and neither KServe nor manifests/kind. MLflow runs in
a pod of the same image. The image is spira/train:dev, which is loaded into the nodes; ``make image-train TORCH=cpu``
builds it without CUDA. ``SPIRA_TRAIN_IMAGE`` names another image, which the nodes pull.
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
from tests.support.cluster_fixture import SECURE, ClusterNamespace, kind_context, load_image
from tests.support.gatefiles import LENIENT, STRICT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]

PULLED_IMAGE = os.environ.get("SPIRA_TRAIN_IMAGE", "")
IMAGE = PULLED_IMAGE or "spira/train:dev"
RUN_SECONDS = 1800
POLL_SECONDS = 10
PORT = 5000
MLFLOW = f"""
cd /tmp
exec python3 -m mlflow server --host 0.0.0.0 --port {PORT} --allowed-hosts '*' --serve-artifacts \
  --workers 2 --backend-store-uri sqlite:////tmp/mlflow.db --artifacts-destination /tmp/artifacts
"""


@dataclass(frozen=True)
class Kubeflow:
    """Addresses of Kubeflow Pipelines and MLflow, and the claim with the recordings."""

    host: str
    registry: str
    registry_in_cluster: str
    claim: str

    def spira_pipeline(self, *arguments: str) -> str:
        """Run ``spira pipeline`` and return its output."""
        command = [sys.executable, "-m", "spira", "pipeline", *arguments, "--host", self.host]
        result = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def submit(self, data: str, gate: Path, settings: Path) -> str:
        """Start a run with the commands of the documentation and return its name."""
        on = [f"registry_uri={self.registry_in_cluster}", f"claim={self.claim}", "cpu=500m", "memory=2Gi"]
        inputs = ["--data", data, "--config", str(settings), "--gate", str(gate), "--image", IMAGE, "--tag-ok"]
        return self.spira_pipeline("submit", *inputs, *(part for pair in on for part in ("--on", pair))).strip()

    def wait_for_end(self, name: str) -> dict[str, Any]:
        """Wait for the end of a run and return its status."""
        end = time.monotonic() + RUN_SECONDS
        while time.monotonic() < end:
            (run,) = json.loads(self.spira_pipeline("status", name, "--mlflow", self.registry, "--json"))
            if run["state"] != "running":
                return run
            time.sleep(POLL_SECONDS)
        raise AssertionError(run)


@pytest.fixture(scope="module")
def kubeflow(demo: Path) -> Iterator[Kubeflow]:
    """Copy the recordings into a new claim, start MLflow and forward the ports; delete all of it afterwards."""
    context = kind_context()
    namespace = ClusterNamespace(context, "kubeflow")
    command = ["kubectl", "--context", context, "-n", namespace.name, "get", "service", "ml-pipeline"]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("the cluster has no Kubeflow Pipelines: service kubeflow/ml-pipeline does not exist")
    if not PULLED_IMAGE:
        if subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True).returncode:
            pytest.skip(f"the image {IMAGE} does not exist: run make image-train TORCH=cpu")
        load_image(context, IMAGE)
    name, forwards = f"spira-e2e-{uuid.uuid4().hex[:8]}", []
    try:
        copy_to_claim(namespace, name, demo)
        start_mlflow(namespace, name)
        forwards = [PortForward(namespace, "service/ml-pipeline", 8888)]
        forwards.append(PortForward(namespace, f"service/{name}", PORT))
        host, registry = (forward.address for forward in forwards)
        yield Kubeflow(host, registry, f"http://{name}.kubeflow:{PORT}", name)
    finally:
        for forward in forwards:
            forward.close()
        namespace.kubectl("delete", "pod,service,pvc", "-l", f"e2e={name}", "--wait=false")


def pod(name: str, command: list[str], **spec: Any) -> dict[str, Any]:
    """Return a pod of the image, which is deleted with the test."""
    container = {"name": "main", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": command}
    container |= {"securityContext": SECURE, "env": [{"name": "HOME", "value": "/tmp"}], **spec.pop("container", {})}
    metadata = {"name": name, "labels": {"e2e": name.removesuffix("-copy"), "app": name}}
    body = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "enableServiceLinks": False, **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**body, "containers": [container]}}


def copy_to_claim(namespace: ClusterNamespace, claim: str, data: Path) -> None:
    """Copy a data set into a new claim, through a pod that is deleted afterwards."""
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    metadata = {"name": claim, "labels": {"e2e": claim}}
    namespace.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec})
    copier = f"{claim}-copy"
    mount = {"container": {"volumeMounts": [{"name": "state", "mountPath": "/state"}]}}
    volume = {"name": "state", "persistentVolumeClaim": {"claimName": claim}}
    namespace.apply(pod(copier, ["sleep", "3600"], volumes=[volume], **mount))
    namespace.kubectl("wait", "--for=condition=Ready", f"pod/{copier}", "--timeout=600s")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(data, "voices")
    unpack = "import sys, tarfile; tarfile.open(fileobj=sys.stdin.buffer, mode='r|').extractall('/state')"
    namespace.kubectl("exec", "-i", copier, "--", "python3", "-c", unpack, content=packed.getvalue())
    namespace.kubectl("delete", "pod", copier)


def start_mlflow(namespace: ClusterNamespace, name: str) -> None:
    """Start MLflow on SQLite in a pod, and wait until it answers."""
    probe = {"readinessProbe": {"httpGet": {"path": "/health", "port": PORT}, "periodSeconds": 2}}
    namespace.apply(pod(name, ["sh", "-c", MLFLOW], container=probe))
    service = {"selector": {"app": name}, "ports": [{"port": PORT}]}
    metadata = {"name": name, "labels": {"e2e": name}}
    namespace.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service})
    namespace.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=300s")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Configuration of a training of seconds."""
    path = tmp_path_factory.mktemp("settings") / "smoke.yaml"
    path.write_text(config.smoke().model_dump_json())
    return path


@pytest.fixture(scope="module")
def finished_run(kubeflow: Kubeflow, settings: Path) -> dict[str, Any]:
    """Submit a run and wait for its end; return its final status."""
    name = kubeflow.submit("/state/voices", LENIENT, settings)
    assert kubeflow.submit("/state/voices", LENIENT, settings) == name, "a second submit must return the same run"
    return kubeflow.wait_for_end(name)


def test_the_submitted_run_succeeds(finished_run: dict[str, Any]):
    """Every component runs on an unmodified Kubeflow."""
    assert finished_run["state"] == "succeeded", finished_run["message"]
    assert finished_run["message"].startswith("approved, version")


def test_the_version_is_in_mlflow(finished_run: dict[str, Any], kubeflow: Kubeflow, tmp_path: Path):
    """The package of the version is complete and gives torch's probabilities."""
    registry = Registry(kubeflow.registry)
    outcome = registry.outcome(finished_run["name"])
    assert outcome is not None
    assert outcome.approved
    package = registry.fetch(str(outcome.model_version), tmp_path / "package")
    assert verify.check_golden(package) <= verify.TOLERANCE


def test_the_verdict_is_known_without_mlflow(finished_run: dict[str, Any], kubeflow: Kubeflow):
    """The branch that ran has it."""
    (run,) = json.loads(kubeflow.spira_pipeline("status", finished_run["name"], "--json"))
    assert run["message"].startswith("approved; ")


def test_a_rejected_run_has_its_first_reason(finished_run: dict[str, Any], kubeflow: Kubeflow, settings: Path):
    """It is green in Kubeflow, and rejected in the status."""
    run = kubeflow.wait_for_end(kubeflow.submit("/state/voices", STRICT, settings))
    assert run["state"] == "succeeded"
    assert run["message"].startswith("rejected: ")


def test_a_failed_run_has_one_cause(kubeflow: Kubeflow, settings: Path):
    """One line gives the pod's task and the error of its stage."""
    run = kubeflow.wait_for_end(kubeflow.submit("/state/absent", LENIENT, settings))
    assert run["state"] == "failed"
    assert run["message"].startswith("preprocess: ")
    assert "/state/absent" in run["message"]
    assert "\n" not in run["message"]
