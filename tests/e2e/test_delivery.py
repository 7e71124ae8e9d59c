"""Tests of continuous delivery on a real cluster: a tick in a pod, its rights, and what kubectl shows of it.

    SPIRA_E2E=1 .venv/bin/pytest tests/e2e/test_delivery.py

They need docker, kind and kubectl, and use the current context of the kubeconfig. All objects are in two namespaces
that are deleted afterwards.
"""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT
from tests.support.cluster_fixture import load_image

IMAGE = "spira/base:e2e"
NAMESPACE = f"spira-delivery-e2e-{uuid.uuid4().hex[:6]}"
CRD = "crd/deliveries.spira.internal"
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:spira-delivery"
SERVING = f"{NAMESPACE}-serving"
"""Namespace where models are served, and where the account of the tick has the rights to serve."""

SETTINGS = f"""\
data: /etc/spira
work: /state/work
ledger: /state/ledger
resource: {NAMESPACE}/spira
"""
FIRST = "file_path,class\nnot_here_yet.wav,0\n"
"""The first file of an upload: a tick reports what is missing and trains nothing."""
MISSING = "metadata_eval.csv is missing"

pytestmark = pytest.mark.e2e


def run(*command: str, refused: bool = False) -> str:
    """Run a command and return its output. The command must fail if ``refused``."""
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=500, check=False)
    assert (result.returncode != 0) == refused, f"{' '.join(command)}: {result.stdout}{result.stderr}"
    return result.stdout + result.stderr


def kubectl(*arguments: str, namespace: str = NAMESPACE, refused: bool = False) -> str:
    return run("kubectl", "--namespace", namespace, *arguments, refused=refused)


def get(*arguments: str) -> dict[str, Any]:
    """Return an object, or a list of objects, of the namespace."""
    return json.loads(kubectl("get", *arguments, "--output", "json"))


@pytest.fixture(scope="module")
def cluster() -> None:
    """Build the image of the working tree and load it into the cluster; skip without a cluster."""
    if os.environ.get("SPIRA_E2E") != "1":
        pytest.skip("needs a cluster and builds an image: set SPIRA_E2E=1")
    if subprocess.run(["kubectl", "get", "--raw", "/readyz"], check=False).returncode:
        pytest.skip("no cluster answers: set KUBECONFIG")
    run("docker", "build", "--quiet", "--file", "Dockerfile.base", "--tag", IMAGE, ".")
    load_image(run("kubectl", "config", "current-context").strip(), IMAGE)


def base(name: str, folder: Path) -> str:
    """Return the path of a kustomization in ``manifests/base``, relative to an overlay's folder."""
    return os.path.relpath(ROOT / "manifests" / "base" / name, folder.resolve())


@pytest.fixture(scope="module")
def manifests(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write an overlay with another namespace and image and its own settings."""
    folder = tmp_path_factory.mktemp("overlay")
    (folder / "delivery.yaml").write_text(SETTINGS)
    (folder / "metadata_train.csv").write_text(FIRST)
    overlay = {
        "namespace": NAMESPACE,
        "resources": [base("delivery", folder)],
        "images": [{"name": "spira/base", "newTag": "e2e"}],
        "configMapGenerator": [
            {"name": "spira-delivery", "behavior": "replace", "files": ["delivery.yaml", "metadata_train.csv"]}
        ],
        "patches": [
            {"target": {"kind": "CronJob"}, "patch": '[{"op": "add", "path": "/spec/suspend", "value": true}]'}
        ],
    }
    (folder / "kustomization.yaml").write_text(json.dumps(overlay))
    return folder


@pytest.fixture(scope="module")
def delivery(manifests: Path) -> Iterator[None]:
    """Apply the overlay, and delete its objects afterwards."""
    had_crd = subprocess.run(["kubectl", "get", CRD], check=False).returncode == 0
    try:
        kubectl("apply", "--kustomize", str(manifests))
        kubectl("wait", CRD, "--for=condition=Established", "--timeout=60s")
        yield
    finally:
        kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s")
        if not had_crd:
            kubectl("delete", CRD, "--ignore-not-found")


@pytest.fixture(scope="module")
def serving(delivery: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Create a namespace for serving, where the account of the tick has the rights to serve."""
    folder = tmp_path_factory.mktemp("serving")
    rights = [{"op": "replace", "path": "/subjects/0/namespace", "value": NAMESPACE}]
    overlay = {
        "namespace": SERVING,
        "resources": [base("serving", folder), base("delivery/serving", folder)],
        "patches": [{"target": {"kind": "RoleBinding", "name": "spira-delivery"}, "patch": json.dumps(rights)}],
    }
    (folder / "kustomization.yaml").write_text(json.dumps(overlay))
    try:
        kubectl("apply", "--kustomize", str(folder), namespace=SERVING)
        yield
    finally:
        kubectl("delete", "namespace", SERVING, "--ignore-not-found", "--timeout=120s")


@dataclass(frozen=True)
class Tick:
    """The results of a tick."""

    status: dict[str, Any]
    """Status of the Delivery."""
    pod: dict[str, Any]
    log: str


@pytest.fixture(scope="module")
def ticks(delivery: None) -> tuple[Tick, Tick]:
    """Run two ticks."""
    return tick("first"), tick("second")


def tick(job: str) -> Tick:
    """Run a tick now, as a job of the CronJob."""
    kubectl("create", "job", job, "--from=cronjob/spira-delivery")
    try:
        kubectl("wait", f"job/{job}", "--for=condition=Complete", "--timeout=120s")
    except AssertionError as error:
        raise AssertionError(kubectl("describe", f"job/{job}") + kubectl("logs", f"job/{job}")) from error
    (pod,) = get("pods", "--selector", f"job-name={job}")["items"]
    return Tick(get("delivery", "spira")["status"], pod, kubectl("logs", f"job/{job}"))


def test_the_cluster_accepts_every_object(delivery: None, manifests: Path):
    """The API server checks defaults and schema, and the namespace causes no warning."""
    output = kubectl("apply", "--dry-run=server", "--kustomize", str(manifests))
    kinds = ("namespace", "customresourcedefinition", "serviceaccount", "role.", "rolebinding", "configmap", "cronjob")
    assert [kind for kind in kinds if kind not in output] == []
    assert "Warning" not in output


def test_a_tick_publishes_its_status(ticks: tuple[Tick, Tick]):
    """The fields and conditions of the Delivery, and the log of the pod, show what the tick observed."""
    status = ticks[0].status
    conditions = {condition["type"]: condition["status"] for condition in status["conditions"]}
    assert conditions == {"Fit": "False", "Settled": "Unknown", "Serving": "False", "Healthy": "True"}
    assert MISSING in status["message"]
    assert MISSING in ticks[0].log
    assert (status["training"], status["serving"], status["records"]) == ("nothing fit to train on", "nothing", 1)


def test_kubectl_shows_the_status(ticks: tuple[Tick, Tick]):
    """The columns show the state, and a condition can be waited for."""
    head, row = kubectl("get", "deliveries").splitlines()
    assert head.split() == ["NAME", "TRAINING", "WANTED", "CHAMPION", "SERVING", "HEALTHY", "MESSAGE", "TICK", "AGE"]
    assert MISSING in row
    kubectl("wait", "delivery/spira", "--for=condition=Healthy", "--timeout=1s")


def test_the_ledger_outlives_the_pod(ticks: tuple[Tick, Tick]):
    """The second tick reads the record of the first and sees nothing new, so conditions keep their time."""
    first, second = (tick.status for tick in ticks)
    assert second["records"] == first["records"]
    assert second["lastTickTime"] > first["lastTickTime"]
    times = [[condition["lastTransitionTime"] for condition in status["conditions"]] for status in (first, second)]
    assert times[0] == times[1]


def test_a_deleted_delivery_is_created_again(ticks: tuple[Tick, Tick]):
    """The next tick creates it with the rights of its account."""
    kubectl("delete", "delivery", "spira")
    assert tick("third").status["observedGeneration"] == 1


def test_the_namespace_admits_restricted_pods_only(ticks: tuple[Tick, Tick]):
    """The tick's pod runs there; a pod without a security context is refused."""
    pod = ticks[0].pod
    assert pod["status"]["phase"] == "Succeeded"
    assert pod["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"]
    output = kubectl("run", "root", f"--image={IMAGE}", "--dry-run=server", refused=True)
    assert 'violates PodSecurity "restricted' in output


@pytest.mark.parametrize(
    "right",
    ["get deliveries/spira", "create deliveries", "update deliveries/spira --subresource=status"],
)
def test_the_tick_can_publish_its_status(delivery: None, right: str):
    """It may create and update its own Delivery."""
    assert kubectl("auth", "can-i", *right.split(), f"--as={ACCOUNT}").strip() == "yes"


@pytest.mark.parametrize(
    "right",
    [
        "list deliveries",
        "get deliveries/another",
        "update deliveries/spira",
        "delete deliveries/spira",
        "get secrets",
        "get configmaps",
        "create pods",
        "get pods --subresource=log",
        "create jobs",
        "patch cronjobs/spira-delivery",
        "create serviceaccounts --subresource=token",
        "create rolebindings",
        "get inferenceservices.serving.kserve.io",
        "get deliveries/spira --namespace=default",
        "list nodes",
    ],
)
def test_the_tick_has_no_further_rights(delivery: None, right: str):
    """Creation is refused in its own namespace and elsewhere."""
    assert kubectl("auth", "can-i", *right.split(), f"--as={ACCOUNT}", refused=True).startswith("no")


@pytest.mark.parametrize(
    "right",
    [
        "get inferenceservices.serving.kserve.io/spira",
        "create inferenceservices.serving.kserve.io",
        "update inferenceservices.serving.kserve.io/spira",
        "create services --subresource=proxy",
        "list pods",
    ],
)
def test_the_tick_can_deploy_models(serving: None, right: str):
    """It has the rights that the KServe target needs."""
    assert kubectl("auth", "can-i", *right.split(), f"--as={ACCOUNT}", namespace=SERVING).strip() == "yes"


@pytest.mark.parametrize(
    "right", ["get secrets", "create pods", "update servingruntimes.serving.kserve.io/spira", "update deployments"]
)
def test_the_tick_cannot_change_how_models_are_served(serving: None, right: str):
    """Runtimes and workloads belong to the administrator."""
    assert kubectl("auth", "can-i", *right.split(), f"--as={ACCOUNT}", namespace=SERVING, refused=True).startswith("no")
