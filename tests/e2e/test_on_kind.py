"""Tests of the manifests on a real cluster: admission, readiness, restarts, backups, quotas, serving.

    make images && SPIRA_E2E=1 .venv/bin/pytest tests/e2e/test_on_kind.py

The current context of the kubeconfig must be a kind cluster with KServe. Its network plug-in may not enforce
NetworkPolicies, so tests/manifests/test_manifests.py evaluates them instead.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from spira.deployment.kserve import manifests
from spira.deployment.version_stack import Change
from spira.registry import RegisteredVersion, Registry
from tests.support import ROOT
from tests.support.bucket import PortForward
from tests.support.cluster_fixture import SECURE, ClusterNamespace
from tests.support.packages import VERDICT, make_package

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(os.environ.get("SPIRA_E2E") != "1", reason="needs a kind cluster with KServe: set SPIRA_E2E=1"),
]

MODEL = "manifests"
"""Model name in MLflow, different from that of other tests."""


@dataclass(frozen=True)
class Registered:
    """A version in MLflow and its package."""

    version: RegisteredVersion
    package: Path


@pytest.fixture(scope="module")
def mlflow(spira_on_kind: str) -> ClusterNamespace:
    return ClusterNamespace(spira_on_kind, "mlflow")


@pytest.fixture(scope="module")
def serving(spira_on_kind: str) -> ClusterNamespace:
    return ClusterNamespace(spira_on_kind, "spira-serving")


@pytest.fixture(scope="module")
def kubeflow(spira_on_kind: str) -> Iterator[None]:
    """Create the namespace ``kubeflow`` for these tests if the cluster has no Kubeflow."""
    kubectl = ["kubectl", "--context", spira_on_kind]
    created = subprocess.run([*kubectl, "create", "namespace", "kubeflow"], capture_output=True, check=False)
    yield
    if created.returncode == 0:
        subprocess.run([*kubectl, "delete", "namespace", "kubeflow"], check=True, timeout=120)


@contextmanager
def forwarded_mlflow(mlflow: ClusterNamespace) -> Iterator[str]:
    """Forward MLflow's port and yield its address on this machine."""
    forward = PortForward(mlflow, "service/mlflow", 5000)
    try:
        yield forward.address
    finally:
        forward.close()


@pytest.fixture(scope="module")
def registered(mlflow: ClusterNamespace, tmp_path_factory: pytest.TempPathFactory) -> Registered:
    """Register a version; its artifacts go through MLflow into the object store."""
    package = make_package(tmp_path_factory.mktemp("package"))
    with forwarded_mlflow(mlflow) as address:
        registry = Registry(address, model_name=MODEL)
        run = registry.log_run("manifests", {}, {}, VERDICT, {}, {})
        return Registered(registry.show(registry.register(package, run, VERDICT, {})), package)


def wait_until_ready(mlflow: ClusterNamespace) -> None:
    """Wait until every workload is ready."""
    for workload in ("statefulset/postgres", "statefulset/seaweedfs", "deployment/mlflow"):
        mlflow.kubectl("rollout", "status", workload, "--timeout=240s")


def pod(name: str, resources: dict[str, Any]) -> dict[str, Any]:
    """Return a pod that can be refused for its resources only."""
    container = {"name": "main", "image": "spira/base:dev", "securityContext": SECURE, "resources": resources}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]}}


def dry_run(namespace: ClusterNamespace, manifest: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Send an object to the API server by a dry run, which stores nothing."""
    command = ["kubectl", "--context", namespace.context, "-n", namespace.name, "create", "--dry-run=server"]
    content = json.dumps(manifest)
    return subprocess.run(
        [*command, "-o", "json", "-f", "-"], input=content, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("folder", ["kind", "gke", "base/delivery/kubeflow"])
def test_the_api_server_accepts_every_object(mlflow: ClusterNamespace, kubeflow: None, folder: str):
    """A dry run checks schema, defaults, quota and Pod Security. It lists each object and prints no warning."""
    rendered = mlflow.kubectl("kustomize", str(ROOT / "manifests" / folder))
    command = ["kubectl", "--context", mlflow.context, "apply", "--dry-run=server", "-f", "-"]
    result = subprocess.run(command, input=rendered, capture_output=True, text=True, timeout=120, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert len(result.stdout.splitlines()) == len(list(yaml.safe_load_all(rendered)))


def test_every_pod_is_admitted_and_ready(mlflow: ClusterNamespace):
    """No container restarted, and no pod was refused."""
    pods = json.loads(mlflow.kubectl("get", "pods", "-o", "json"))["items"]
    assert {pod["metadata"]["labels"]["app.kubernetes.io/name"] for pod in pods} == {"mlflow", "postgres", "seaweedfs"}
    for pod in pods:
        containers = pod["status"]["containerStatuses"]
        assert all(container["ready"] and not container["restartCount"] for container in containers)
    refused = json.loads(mlflow.kubectl("get", "events", "--field-selector=reason=FailedCreate", "-o", "json"))
    assert refused["items"] == []


def test_mlflow_writes_only_to_tmp(mlflow: ClusterNamespace):
    """It starts two workers and no other processes, and its log has no errors."""
    log = mlflow.kubectl("logs", "deployment/mlflow", "-c", "mlflow")
    assert log.count("Application startup complete") == 2
    errors = ("Read-only file system", "Permission denied", "Traceback", "ERROR", "job execution")
    assert [error for error in errors if error in log] == []


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *((f"mlflow{suffix}{port}", 200) for suffix in ("", ".mlflow", ".mlflow.svc") for port in ("", ":5000")),
        ("mlflow.mlflow.svc.cluster.local:5000", 200),
        ("localhost:5000", 200),
        ("127.0.0.1:18080", 200),
        ("mlflow.example.org", 403),
        ("mlflow.mlflow.example.org:5000", 403),
        ("10.0.0.7:5000", 403),
    ],
)
def test_mlflow_accepts_only_its_own_host_names(mlflow: ClusterNamespace, host: str, status: int):
    """It accepts the names used by pods and port-forwards, and refuses others (DNS rebinding)."""
    with forwarded_mlflow(mlflow) as address:
        response = requests.get(
            f"{address}/api/2.0/mlflow/experiments/get?experiment_id=0", headers={"Host": host}, timeout=30
        )
    assert response.status_code == status


def test_a_pod_reaches_mlflow_by_its_service(mlflow: ClusterNamespace):
    """The request comes from the namespace of the tick and uses the host name of the settings."""
    url = "http://mlflow.mlflow:5000/api/2.0/mlflow/experiments/get?experiment_id=0"
    script = f"from urllib.request import urlopen; print(urlopen('{url}').status)"
    client = pod("mlflow-client", {})
    client["spec"]["containers"][0] |= {"command": ["python3", "-c", script]}
    delivery = ClusterNamespace(mlflow.context, "spira-delivery")
    delivery.apply(client | {"spec": client["spec"] | {"restartPolicy": "Never"}})
    try:
        delivery.wait_for_end("mlflow-client", 60)
        assert delivery.kubectl("logs", "mlflow-client").strip() == "200"
    finally:
        delivery.kubectl("delete", "pod", "mlflow-client", "--wait=false")


def test_versions_and_artifacts_outlive_every_pod(mlflow: ClusterNamespace, registered: Registered, tmp_path: Path):
    """After all pods are deleted at once, the package is fetched unchanged, byte for byte."""
    mlflow.kubectl("delete", "pod", "--all", "--timeout=120s")
    wait_until_ready(mlflow)
    with forwarded_mlflow(mlflow) as address:
        registry = Registry(address, model_name=MODEL)
        assert registry.show(1) == registered.version
        fetched = registry.fetch(1, tmp_path / "fetched")
    files = [file for file in registered.package.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    assert files
    for file in files:
        assert (fetched / file.relative_to(registered.package)).read_bytes() == file.read_bytes(), file


def test_a_backup_can_be_restored(mlflow: ClusterNamespace, registered: Registered):
    """The steps of manifests/README.md are followed: dump, change, restore."""
    mlflow.kubectl("create", "job", "dump", "--from=cronjob/postgres-backup")
    mlflow.kubectl("wait", "job/dump", "--for=condition=Complete", "--timeout=120s")
    dumped = mlflow.kubectl("logs", "job/dump")  # read now: the CronJob keeps one successful job only
    with forwarded_mlflow(mlflow) as address:
        registry = Registry(address, model_name=MODEL)
        registry.promote(1)
        assert registry.show(1).aliases == ("champion",)
        restore = mlflow.kubectl(
            "create", "job", "restore", "--from=cronjob/postgres-backup", "--dry-run=client", "-o", "yaml"
        )
        mlflow.kubectl("apply", "-f", "-", content=restore.replace("dump.sh", "restore.sh").encode())
        mlflow.kubectl("wait", "job/restore", "--for=condition=Complete", "--timeout=120s")
        assert registry.show(1) == registered.version
    assert mlflow.kubectl("logs", "job/restore") == dumped


@pytest.mark.parametrize("namespace", ["mlflow", "spira-serving", "spira-delivery"])
@pytest.mark.parametrize(
    "amount",
    [{"memory": "64Gi"}, {"cpu": "64"}, {"nvidia.com/gpu": "1"}],
    ids=lambda amount: next(iter(amount)),
)
def test_a_quota_refuses_a_large_pod(spira_on_kind: str, namespace: str, amount: dict[str, str]):
    """The quota limits memory, CPUs and GPUs."""
    manifest = pod("large", {"requests": amount, "limits": amount})
    assert "exceeded quota: bounds" in dry_run(ClusterNamespace(spira_on_kind, namespace), manifest).stderr


@pytest.mark.parametrize("namespace", ["mlflow", "spira-serving", "spira-delivery"])
def test_a_pod_without_resources_gets_defaults(spira_on_kind: str, namespace: str):
    """The quota does not refuse it."""
    result = dry_run(ClusterNamespace(spira_on_kind, namespace), pod("default", {}))
    assert result.returncode == 0, result.stderr
    resources = json.loads(result.stdout)["spec"]["containers"][0]["resources"]
    assert resources == {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"cpu": "500m", "memory": "512Mi"}}


@pytest.mark.parametrize("namespace", ["mlflow", "spira-serving", "spira-delivery"])
def test_an_unrestricted_pod_is_refused(spira_on_kind: str, namespace: str):
    """The namespace enforces the Pod Security Standard ``restricted``."""
    manifest = pod("unrestricted", {})
    del manifest["spec"]["containers"][0]["securityContext"]
    result = dry_run(ClusterNamespace(spira_on_kind, namespace), manifest)
    assert 'violates PodSecurity "restricted' in result.stderr


def test_a_model_is_served_from_the_object_store(serving: ClusterNamespace, registered: Registered):
    """KServe downloads it from where MLflow stored it, with an account that can only read."""
    version = registered.version
    uri = version.uri.replace("mlflow-artifacts:/", "s3://mlflow/", 1)
    change = Change.now(str(version.version), "apply", digest=version.digest, uri=uri)
    serving.apply(manifests.render("from-s3", "spira", "spira-predictor", [change]))
    try:
        serving.kubectl("wait", "isvc/from-s3", "--for=condition=Ready", "--timeout=180s")
        (pod,) = json.loads(
            serving.kubectl("get", "pods", "-l", "serving.kserve.io/inferenceservice=from-s3", "-o", "json")
        )["items"]
        assert pod["spec"]["serviceAccountName"] == "spira-predictor"
        assert not pod["spec"]["automountServiceAccountToken"]
    finally:
        serving.kubectl("delete", "isvc", "from-s3", "--timeout=60s")


def test_a_tick_runs_with_the_settings_of_the_overlay(spira_on_kind: str):
    """Within its quota, it finds no data to train on and reads what KServe serves."""
    delivery = ClusterNamespace(spira_on_kind, "spira-delivery")
    delivery.kubectl("create", "job", "tick", "--from=cronjob/spira-delivery")
    end = time.monotonic() + 120
    while not (job := json.loads(delivery.kubectl("get", "job", "tick", "-o", "json"))["status"]).get("succeeded"):
        assert time.monotonic() < end, delivery.kubectl("logs", "job/tick")
        assert not job.get("failed"), delivery.kubectl("logs", "job/tick")
        time.sleep(1)
    status = json.loads(delivery.kubectl("get", "delivery", "spira", "-o", "json"))["status"]
    assert status["training"] == "nothing fit to train on", status
    assert "no version was applied to InferenceService spira-serving/spira" in status["serving"], status


def test_the_status_page_shows_the_last_tick(spira_on_kind: str):
    """Its pod reads the ledger in the object store, and its Service answers with the page."""
    delivery = ClusterNamespace(spira_on_kind, "spira-delivery")
    forward, end = PortForward(delivery, "service/spira-page", 80), time.monotonic() + 60
    try:
        while (page := requests.get(forward.address, timeout=60)).status_code != 200:  # it has not seen the tick yet
            assert time.monotonic() < end, page.text
            time.sleep(2)
    finally:
        forward.close()
    assert '<html lang="en"' in page.text
    assert "Model repository" in page.text


def test_the_deployer_can_read_runtimes(serving: ClusterNamespace):
    """It needs them to detect drift, and it cannot change them."""
    account = f"--as=system:serviceaccount:{serving.name}:spira-deployer"
    runtime = "servingruntimes.serving.kserve.io/spira"
    assert serving.kubectl("auth", "can-i", "get", runtime, account).strip() == "yes"
    command = ["kubectl", "--context", serving.context, "-n", serving.name, "auth", "can-i", "update", runtime, account]
    assert subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() == "no"
