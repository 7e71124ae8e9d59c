"""Continuous delivery on a real cluster: a tick in a pod, with no rights but its own, and what kubectl shows of it.

    SPIRA_E2E=1 .venv/bin/pytest tests/e2e/test_delivery.py

Needs docker, kind and kubectl; the cluster is kind's of the kubeconfig's current context. What is tried lives in a
namespace of its own, and goes with it.
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
from tests.support.cluster_fixture import loaded

IMAGE = "spira/base:e2e"
NAMESPACE = f"spira-delivery-e2e-{uuid.uuid4().hex[:6]}"
CRD = "crd/deliveries.spira.internal"
WHO = f"system:serviceaccount:{NAMESPACE}:spira-delivery"
SERVING = f"{NAMESPACE}-serving"
"""Where models are served; lent to who ticks."""

SETTINGS = f"""\
data: /etc/spira
work: /state/work
ledger: /state/ledger
resource: {NAMESPACE}/spira
"""
FIRST = "file_path,class\nnot_here_yet.wav,0\n"
"""What an upload begins with: a tick sees it, says what is missing and trains nothing."""
MISSING = "metadata_eval.csv is missing"

pytestmark = pytest.mark.e2e


def run(*command: str, refused: bool = False) -> str:
    """What a command says; ``refused`` where it must fail."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=500, check=False)
    assert (done.returncode != 0) == refused, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def kubectl(*words: str, namespace: str = NAMESPACE, refused: bool = False) -> str:
    return run("kubectl", "--namespace", namespace, *words, refused=refused)


def got(*words: str) -> dict[str, Any]:
    return json.loads(kubectl("get", *words, "--output", "json"))


@pytest.fixture(scope="module")
def cluster() -> None:
    """The cluster, with the image of the working tree in it."""
    if os.environ.get("SPIRA_E2E") != "1":
        pytest.skip("SPIRA_E2E=1 is not set: this takes a cluster and builds an image")
    if subprocess.run(["kubectl", "get", "--raw", "/readyz"], check=False).returncode:
        pytest.skip("no cluster answers: set KUBECONFIG to one")
    run("docker", "build", "--quiet", "--file", "Dockerfile.base", "--tag", IMAGE, ".")
    loaded(run("kubectl", "config", "current-context").strip(), IMAGE)


def base(name: str, folder: Path) -> str:
    """A kustomization of ours as one in a folder names it."""
    return os.path.relpath(ROOT / "manifests" / "base" / name, folder.resolve())


@pytest.fixture(scope="module")
def manifests(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An overlay as anybody would write one: another namespace and image, its own settings."""
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
    """Applied, and taken away again."""
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
    """A namespace to serve in, whose rights are lent to who ticks."""
    folder = tmp_path_factory.mktemp("serving")
    lent = [{"op": "replace", "path": "/subjects/0/namespace", "value": NAMESPACE}]
    overlay = {
        "namespace": SERVING,
        "resources": [base("serving", folder), base("delivery/serving", folder)],
        "patches": [{"target": {"kind": "RoleBinding", "name": "spira-delivery"}, "patch": json.dumps(lent)}],
    }
    (folder / "kustomization.yaml").write_text(json.dumps(overlay))
    try:
        kubectl("apply", "--kustomize", str(folder), namespace=SERVING)
        yield
    finally:
        kubectl("delete", "namespace", SERVING, "--ignore-not-found", "--timeout=120s")


@dataclass(frozen=True)
class Tick:
    """What one left."""

    status: dict[str, Any]
    """Of the Delivery."""
    pod: dict[str, Any]
    log: str


@pytest.fixture(scope="module")
def ticks(delivery: None) -> tuple[Tick, Tick]:
    """One, and another."""
    return tick("first"), tick("second")


def tick(job: str) -> Tick:
    """At once, as the CronJob would do it."""
    kubectl("create", "job", job, "--from=cronjob/spira-delivery")
    try:
        kubectl("wait", f"job/{job}", "--for=condition=Complete", "--timeout=120s")
    except AssertionError as error:
        raise AssertionError(kubectl("describe", f"job/{job}") + kubectl("logs", f"job/{job}")) from error
    (pod,) = got("pods", "--selector", f"job-name={job}")["items"]
    return Tick(got("delivery", "spira")["status"], pod, kubectl("logs", f"job/{job}"))


def test_the_cluster_accepts_every_object(delivery: None, manifests: Path):
    """Each as it is, defaults and schema checked by the API server itself, with not one warning of the namespace."""
    told = kubectl("apply", "--dry-run=server", "--kustomize", str(manifests))
    kinds = ("namespace", "customresourcedefinition", "serviceaccount", "role.", "rolebinding", "configmap", "cronjob")
    assert [kind for kind in kinds if kind not in told] == []
    assert "Warning" not in told


def test_a_tick_runs_and_its_delivery_tells(ticks: tuple[Tick, Tick]):
    """What it saw, in the fields and the conditions; the pod says the same."""
    status = ticks[0].status
    conditions = {each["type"]: each["status"] for each in status["conditions"]}
    assert conditions == {"Fit": "False", "Settled": "Unknown", "Serving": "False", "Healthy": "True"}
    assert MISSING in status["message"]
    assert MISSING in ticks[0].log
    assert (status["training"], status["serving"], status["records"]) == ("nothing fit to train on", "nothing", 1)


def test_kubectl_shows_it(ticks: tuple[Tick, Tick]):
    """In columns, and to wait for."""
    head, row = kubectl("get", "deliveries").splitlines()
    assert head.split() == ["NAME", "TRAINING", "WANTED", "CHAMPION", "SERVING", "HEALTHY", "MESSAGE", "TICK", "AGE"]
    assert MISSING in row
    kubectl("wait", "delivery/spira", "--for=condition=Healthy", "--timeout=1s")


def test_the_ledger_outlives_the_pod(ticks: tuple[Tick, Tick]):
    """The second tick found the first one's record, and nothing that is new: a condition keeps its time."""
    first, second = (each.status for each in ticks)
    assert second["records"] == first["records"]
    assert second["lastTickTime"] > first["lastTickTime"]
    since = [[each["lastTransitionTime"] for each in status["conditions"]] for status in (first, second)]
    assert since[0] == since[1]


def test_a_delivery_that_was_deleted_is_made_again(ticks: tuple[Tick, Tick]):
    """By the next tick, with the rights of its own account."""
    kubectl("delete", "delivery", "spira")
    assert tick("third").status["observedGeneration"] == 1


def test_the_namespace_takes_restricted_pods_only(ticks: tuple[Tick, Tick]):
    """Ours ran there, as a number that isn't root; one that asks for nothing special does not get in."""
    pod = ticks[0].pod
    assert pod["status"]["phase"] == "Succeeded"
    assert pod["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"]
    said = kubectl("run", "root", f"--image={IMAGE}", "--dry-run=server", refused=True)
    assert 'violates PodSecurity "restricted' in said


@pytest.mark.parametrize(
    "may",
    ["get deliveries/spira", "create deliveries", "update deliveries/spira --subresource=status"],
)
def test_who_ticks_may_tell(delivery: None, may: str):
    """Its own Delivery."""
    assert kubectl("auth", "can-i", *may.split(), f"--as={WHO}").strip() == "yes"


@pytest.mark.parametrize(
    "may",
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
def test_who_ticks_may_do_nothing_else(delivery: None, may: str):
    """Nor anything elsewhere."""
    assert kubectl("auth", "can-i", *may.split(), f"--as={WHO}", refused=True).startswith("no")


@pytest.mark.parametrize(
    "may",
    [
        "get inferenceservices.serving.kserve.io/spira",
        "create inferenceservices.serving.kserve.io",
        "update inferenceservices.serving.kserve.io/spira",
        "create services --subresource=proxy",
        "list pods",
    ],
)
def test_where_models_are_served_it_may_serve(serving: None, may: str):
    """What the KServe target needs."""
    assert kubectl("auth", "can-i", *may.split(), f"--as={WHO}", namespace=SERVING).strip() == "yes"


@pytest.mark.parametrize(
    "may", ["get secrets", "create pods", "update servingruntimes.serving.kserve.io/spira", "update deployments"]
)
def test_where_models_are_served_it_may_do_nothing_else(serving: None, may: str):
    """How they are served is the administrator's."""
    assert kubectl("auth", "can-i", *may.split(), f"--as={WHO}", namespace=SERVING, refused=True).startswith("no")
