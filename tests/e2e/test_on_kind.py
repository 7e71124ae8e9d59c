"""The manifests on a real cluster: accepted, ready, kept through restarts, bounded, and served from.

    make images && SPIRA_E2E=1 .venv/bin/pytest tests/e2e/test_on_kind.py

The cluster is kind's of the kubeconfig's current context, with KServe. Its network plug-in may enforce no
NetworkPolicies: who reaches whom is worked out in tests/manifests/test_manifests.py.
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

from spira.registry import RegisteredVersion, Registry
from tests.support import ROOT
from tests.support.bucket import Forward
from tests.support.cluster_fixture import SECURE, Place
from tests.support.packages import VERDICT, make_package

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(os.environ.get("SPIRA_E2E") != "1", reason="needs a kind cluster with KServe: set SPIRA_E2E=1"),
]

MODEL = "manifests"
"""Its name in MLflow: other tests have their own."""


@dataclass(frozen=True)
class Registered:
    """A version in MLflow, and the package that it was made of."""

    version: RegisteredVersion
    package: Path


@pytest.fixture(scope="module")
def mlflow(spira_on_kind: str) -> Place:
    return Place(spira_on_kind, "mlflow")


@pytest.fixture(scope="module")
def serving(spira_on_kind: str) -> Place:
    return Place(spira_on_kind, "spira-serving")


@pytest.fixture(scope="module")
def kubeflow(spira_on_kind: str) -> Iterator[None]:
    """Its namespace, made for as long as it takes where there is no Kubeflow."""
    kubectl = ["kubectl", "--context", spira_on_kind]
    made = subprocess.run([*kubectl, "create", "namespace", "kubeflow"], capture_output=True, check=False)
    yield
    if made.returncode == 0:
        subprocess.run([*kubectl, "delete", "namespace", "kubeflow"], check=True, timeout=120)


@contextmanager
def forwarded(mlflow: Place) -> Iterator[str]:
    """MLflow's address on this machine."""
    forward = Forward(mlflow, "service/mlflow", 5000)
    try:
        yield forward.address
    finally:
        forward.close()


@pytest.fixture(scope="module")
def registered(mlflow: Place, tmp_path_factory: pytest.TempPathFactory) -> Registered:
    """One, with its artifacts sent through MLflow into the store."""
    package = make_package(tmp_path_factory.mktemp("package"))
    with forwarded(mlflow) as address:
        registry = Registry(address, model_name=MODEL)
        run = registry.log_run("manifests", {}, {}, VERDICT, {}, {})
        return Registered(registry.show(registry.register(package, run, VERDICT, {})), package)


def ready(mlflow: Place) -> None:
    """Until everything is."""
    for what in ("statefulset/postgres", "statefulset/seaweedfs", "deployment/mlflow"):
        mlflow.kubectl("rollout", "status", what, "--timeout=240s")


def pod(name: str, resources: dict[str, Any]) -> dict[str, Any]:
    """One that only its resources can be refused for."""
    container = {"name": "main", "image": "spira/base:dev", "securityContext": SECURE, "resources": resources}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]}}


def tried(place: Place, thing: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """What the API server makes of an object, which isn't kept."""
    command = ["kubectl", "--context", place.context, "-n", place.name, "create", "--dry-run=server"]
    content = json.dumps(thing)
    return subprocess.run(
        [*command, "-o", "json", "-f", "-"], input=content, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("folder", ["kind", "gke", "base/delivery/kubeflow"])
def test_the_api_server_takes_every_object(mlflow: Place, kubeflow: None, folder: str):
    """Schema, defaults, quota and Pod Security, by a dry run: each is told of, and none with a warning."""
    rendered = mlflow.kubectl("kustomize", str(ROOT / "manifests" / folder))
    command = ["kubectl", "--context", mlflow.context, "apply", "--dry-run=server", "-f", "-"]
    done = subprocess.run(command, input=rendered, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == len(list(yaml.safe_load_all(rendered)))


def test_every_pod_is_admitted_and_ready(mlflow: Place):
    """At once: nothing failed on the way, but for what waited for the database."""
    pods = json.loads(mlflow.kubectl("get", "pods", "-o", "json"))["items"]
    assert {one["metadata"]["labels"]["app.kubernetes.io/name"] for one in pods} == {"mlflow", "postgres", "seaweedfs"}
    for one in pods:
        assert all(each["ready"] and not each["restartCount"] for each in one["status"]["containerStatuses"])
    refused = json.loads(mlflow.kubectl("get", "events", "--field-selector=reason=FailedCreate", "-o", "json"))
    assert refused["items"] == []


def test_mlflow_needs_nothing_to_write_but_tmp(mlflow: Place):
    """It began with two workers, nothing beside them, and complains of nothing."""
    log = mlflow.kubectl("logs", "deployment/mlflow", "-c", "mlflow")
    assert log.count("Application startup complete") == 2
    complaints = ("Read-only file system", "Permission denied", "Traceback", "ERROR", "job execution")
    assert [word for word in complaints if word in log] == []


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *((f"mlflow{more}{port}", 200) for more in ("", ".mlflow", ".mlflow.svc") for port in ("", ":5000")),
        ("mlflow.mlflow.svc.cluster.local:5000", 200),
        ("localhost:5000", 200),
        ("127.0.0.1:18080", 200),
        ("mlflow.example.org", 403),
        ("mlflow.mlflow.example.org:5000", 403),
        ("10.0.0.7:5000", 403),
    ],
)
def test_mlflow_answers_to_its_names_alone(mlflow: Place, host: str, status: int):
    """As pods and a port-forward call it; a foreign page, whose name leads here, is refused."""
    with forwarded(mlflow) as address:
        asked = requests.get(
            f"{address}/api/2.0/mlflow/experiments/get?experiment_id=0", headers={"Host": host}, timeout=30
        )
    assert asked.status_code == status


def test_a_pod_reaches_mlflow_by_its_service(mlflow: Place):
    """By the name that the settings give, from the namespace of the tick."""
    url = "http://mlflow.mlflow:5000/api/2.0/mlflow/experiments/get?experiment_id=0"
    script = f"from urllib.request import urlopen; print(urlopen('{url}').status)"
    asked = pod("asks-mlflow", {})
    asked["spec"]["containers"][0] |= {"command": ["python3", "-c", script]}
    delivery = Place(mlflow.context, "spira-delivery")
    delivery.create(asked | {"spec": asked["spec"] | {"restartPolicy": "Never"}})
    try:
        delivery.wait_for_end("asks-mlflow", 60)
        assert delivery.kubectl("logs", "asks-mlflow").strip() == "200"
    finally:
        delivery.kubectl("delete", "pod", "asks-mlflow", "--wait=false")


def test_versions_and_artifacts_outlive_every_pod(mlflow: Place, registered: Registered, tmp_path: Path):
    """The database, the store and the server are killed at once; the package comes back byte for byte."""
    mlflow.kubectl("delete", "pod", "--all", "--timeout=120s")
    ready(mlflow)
    with forwarded(mlflow) as address:
        registry = Registry(address, model_name=MODEL)
        assert registry.show(1) == registered.version
        fetched = registry.fetch(1, tmp_path / "fetched")
    files = [file for file in registered.package.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    assert files
    for file in files:
        assert (fetched / file.relative_to(registered.package)).read_bytes() == file.read_bytes(), file


def test_a_backup_brings_back_what_was_there(mlflow: Place, registered: Registered):
    """As manifests/README.md says it: dumped, changed since, restored."""
    mlflow.kubectl("create", "job", "dump", "--from=cronjob/postgres-backup")
    mlflow.kubectl("wait", "job/dump", "--for=condition=Complete", "--timeout=120s")
    dumped = mlflow.kubectl("logs", "job/dump")  # of jobs that ended well the CronJob keeps one
    with forwarded(mlflow) as address:
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
    "much",
    [{"memory": "64Gi"}, {"cpu": "64"}, {"nvidia.com/gpu": "1"}],
    ids=lambda much: next(iter(much)),
)
def test_a_quota_refuses_what_exceeds_it(spira_on_kind: str, namespace: str, much: dict[str, str]):
    """Memory, processors and GPUs."""
    asked = tried(Place(spira_on_kind, namespace), pod("greedy", {"requests": much, "limits": much}))
    assert "exceeded quota: bounds" in asked.stderr


@pytest.mark.parametrize("namespace", ["mlflow", "spira-serving", "spira-delivery"])
def test_who_says_nothing_of_its_needs_gets_little(spira_on_kind: str, namespace: str):
    """It isn't refused by the quota."""
    asked = tried(Place(spira_on_kind, namespace), pod("modest", {}))
    assert asked.returncode == 0, asked.stderr
    given = json.loads(asked.stdout)["spec"]["containers"][0]["resources"]
    assert given == {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"cpu": "500m", "memory": "512Mi"}}


@pytest.mark.parametrize("namespace", ["mlflow", "spira-serving", "spira-delivery"])
def test_a_pod_that_is_not_restricted_is_refused(spira_on_kind: str, namespace: str):
    """By the namespace."""
    asked = pod("careless", {})
    del asked["spec"]["containers"][0]["securityContext"]
    assert 'violates PodSecurity "restricted' in tried(Place(spira_on_kind, namespace), asked).stderr


def test_a_model_serves_from_the_store(serving: Place, registered: Registered):
    """KServe fetches it from where MLflow put it, as an account that may read and no more."""
    example = yaml.safe_load((ROOT / "manifests/base/serving/example.yaml").read_text())
    example["metadata"] |= {
        "name": "from-s3",
        "annotations": example["metadata"]["annotations"] | {"spira/history": "[]"},
    }
    example["spec"]["predictor"]["model"]["storageUri"] = registered.version.uri.replace(
        "mlflow-artifacts:/", "s3://mlflow/", 1
    )
    serving.create(example)
    try:
        serving.kubectl("wait", "isvc/from-s3", "--for=condition=Ready", "--timeout=180s")
        (made,) = json.loads(
            serving.kubectl("get", "pods", "-l", "serving.kserve.io/inferenceservice=from-s3", "-o", "json")
        )["items"]
        assert made["spec"]["serviceAccountName"] == "spira-predictor"
        assert not made["spec"]["automountServiceAccountToken"]
    finally:
        serving.kubectl("delete", "isvc", "from-s3", "--timeout=60s")


def test_a_tick_runs(spira_on_kind: str):
    """With the settings of the overlay, in bounds: it finds nothing to train on, and asks KServe what serves."""
    delivery = Place(spira_on_kind, "spira-delivery")
    delivery.kubectl("create", "job", "tick", "--from=cronjob/spira-delivery")
    end = time.monotonic() + 120
    while not (status := json.loads(delivery.kubectl("get", "job", "tick", "-o", "json"))["status"]).get("succeeded"):
        assert time.monotonic() < end, delivery.kubectl("logs", "job/tick")
        assert not status.get("failed"), delivery.kubectl("logs", "job/tick")
        time.sleep(1)
    told = json.loads(delivery.kubectl("get", "delivery", "spira", "-o", "json"))["status"]
    assert told["training"] == "nothing fit to train on", told
    assert "no version was applied to InferenceService spira-serving/spira" in told["serving"], told


def test_who_deploys_sees_runtimes(serving: Place):
    """To tell drift of one; it may not change them."""
    who = f"--as=system:serviceaccount:{serving.name}:spira-deployer"
    runtime = "servingruntimes.serving.kserve.io/spira"
    assert serving.kubectl("auth", "can-i", "get", runtime, who).strip() == "yes"
    may = ["kubectl", "--context", serving.context, "-n", serving.name, "auth", "can-i", "update", runtime, who]
    assert subprocess.run(may, capture_output=True, text=True, check=False).stdout.strip() == "no"
