"""Tests of the KServe target on a real cluster: deploy, refuse, roll back and repair under load, no failed request.

    make images && SPIRA_E2E=1 .venv/bin/pytest tests/e2e/test_kserve.py

The tests use the current context of the kubeconfig. The cluster must have KServe.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from spira.deployment.kserve.cluster import KubernetesNamespace
from spira.deployment.kserve.target import KServe
from spira.deployment.target import DeploymentError, Release
from tests.support.cluster_fixture import IMAGE, ClusterNamespace, LoadGenerator, load_image
from tests.support.packages import make_package, wrong

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(os.environ.get("SPIRA_E2E") != "1", reason="needs a cluster with KServe: set SPIRA_E2E=1"),
]


FILE = "golden/voice-one-window.wav"


@dataclass(frozen=True)
class Serving:
    """A target, its namespace, and the releases stored in the namespace."""

    target: KServe
    namespace: ClusterNamespace
    releases: dict[str, Release]


@pytest.fixture(scope="module")
def context() -> str:
    """Return the current context if its cluster has KServe; skip otherwise."""
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed")
    current = subprocess.run(["kubectl", "config", "current-context"], capture_output=True, text=True)
    crd = subprocess.run(["kubectl", "get", "crd", "inferenceservices.serving.kserve.io"], capture_output=True)
    if current.returncode or crd.returncode:
        pytest.skip("no cluster with KServe answers: set KUBECONFIG")
    return current.stdout.strip()


@pytest.fixture(scope="module")
def namespace(context: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterNamespace]:
    """Create a namespace for serving, and delete it afterwards."""
    load_image(context, IMAGE)
    namespace = ClusterNamespace(context, f"spira-e2e-{uuid.uuid4().hex[:8]}")
    try:
        namespace.create_for_serving(tmp_path_factory.mktemp("manifests"))
        yield namespace
    finally:
        namespace.delete()


@pytest.fixture(scope="module")
def releases(namespace: ClusterNamespace, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Release]:
    """Store versions 1 and 2 and broken ones: wrong probabilities, other weights, no folder, no claim."""
    folder = tmp_path_factory.mktemp("packages")
    packages = {version: make_package(folder / version, seed=int(version)) for version in ("1", "2")}
    packages["wrong"] = wrong(packages["2"], folder / "wrong")
    releases = {v: Release(v, package, namespace.store_package(v, package)) for v, package in packages.items()}
    uri = namespace.store_package("foreign", make_package(folder / "3", seed=3))
    releases["foreign"] = Release("foreign", packages["1"], uri)
    releases["absent"] = Release("absent", packages["2"], "pvc://models/absent")
    releases["claimless"] = Release("claimless", packages["2"], "pvc://no-such-claim/2")
    return releases


@pytest.fixture(scope="module")
def target(
    namespace: ClusterNamespace, releases: dict[str, Release], tmp_path_factory: pytest.TempPathFactory
) -> KServe:
    """Return a target with only the rights of the service account that deploys."""
    kubeconfig = namespace.write_kubeconfig(tmp_path_factory.mktemp("kubeconfig") / "config")
    cluster = KubernetesNamespace(namespace.name, kubeconfig=kubeconfig)
    return KServe(cluster, lambda version: releases[version].package, timeout_seconds=120)


@pytest.fixture
def serving(target: KServe, namespace: ClusterNamespace, releases: dict[str, Release]) -> Serving:
    """Delete what serves and apply version 1, so that the target has no previous version."""
    target.cluster.delete(target.model)
    namespace.kubectl("wait", "--for=delete", "deployment/spira-predictor", "--timeout=120s")
    assert target.apply(releases["1"]).version == "1"
    return Serving(target, namespace, releases)


@pytest.fixture
def load(serving: Serving) -> Iterator[LoadGenerator]:
    """Send requests all the time. Only versions 1 and 2 have right answers."""
    packages = {version: serving.releases[version].package for version in ("1", "2")}
    probabilities = {version: golden_recordings(package)[FILE] for version, package in packages.items()}
    wav = (packages["1"] / "data" / FILE).read_bytes()
    generator = LoadGenerator(serving.namespace, "spira-predictor", wav, probabilities)
    yield generator
    generator.stop()


def test_a_version_serves_its_golden_recordings(serving: Serving) -> None:
    """Through the cluster they are within 1e-5 of torch; a second apply changes nothing."""
    assert serving.target.verify() <= 1e-5
    before = serving.target.status()
    assert (before.version, before.previous, before.ready, before.message) == ("1", None, True, "")
    assert [step.split()[0] for step in serving.target.plan(serving.releases["1"]).steps] == ["check"]
    assert serving.target.apply(serving.releases["1"]) == before


def test_deploy_and_rollback_under_load(serving: Serving, load: LoadGenerator) -> None:
    """Every request is answered: by version 1, then by 2, then by 1 again."""
    status = serving.target.apply(serving.releases["2"])
    assert (status.version, status.previous, status.ready) == ("2", "1", True)
    result = load.wait_for_answers(load.result())
    assert result.answered["1"] > 20
    assert result.answered["2"] > 10
    status = serving.target.rollback("too many alarms", bad="2")
    assert (status.version, status.previous, status.ready) == ("1", None, True)
    assert [change.action for change in status.history] == ["apply", "apply", "rollback"]
    assert serving.target.rollback("too many alarms", bad="2").version == "1"
    later = load.wait_for_answers(load.result())
    assert later.answered["1"] > result.answered["1"]
    assert later.failed == []


def golden_recordings(package: Path) -> dict[str, float]:
    """Return torch's probabilities by file."""
    entries = json.loads((package / "data" / "golden.json").read_text())
    return {entry["file"]: entry["probability"] for entry in entries}


BROKEN = {
    "wrong": "must not be served",
    "foreign": "was deployed: deploy the version again",
    "absent": "holds no complete package",
    "claimless": "no-such-claim",
}
"""Version -> what its refusal says."""


@pytest.mark.parametrize("version", BROKEN)
def test_a_broken_version_never_serves(serving: Serving, load: LoadGenerator, version: str) -> None:
    """It is refused with the reason, and clients notice nothing."""
    target = KServe(serving.target.cluster, serving.target.package, timeout_seconds=60)
    with pytest.raises(DeploymentError, match=BROKEN[version]):
        target.apply(serving.releases[version])
    assert serving.target.status().version == "1"
    result = load.wait_for_answers(load.result())
    assert result.answered.keys() == {"1"}
    assert result.failed == []
    assert serving.target.cluster.get(serving.target.candidate) is None


def test_a_missing_runtime_is_reported(serving: Serving) -> None:
    """The error contains KServe's message, because KServe creates no pod."""
    target = KServe(serving.target.cluster, serving.target.package, runtime="no-such-runtime", timeout_seconds=10)
    with pytest.raises(DeploymentError, match="no-such-runtime"):
        target.apply(serving.releases["2"])
    assert serving.target.status().version == "1"


def test_drift_is_reported_and_repaired(serving: Serving) -> None:
    """The object is changed to another version by hand."""
    edit = {"spec": {"predictor": {"minReplicas": 2, "model": {"storageUri": serving.releases["2"].uri}}}}
    serving.namespace.kubectl("patch", "isvc", "spira", "--type=merge", "-p", json.dumps(edit))
    message = serving.target.status().message
    assert "storageUri" in message
    assert "minReplicas" in message
    assert any("repair" in step for step in serving.target.plan(serving.releases["1"]).steps)
    status = serving.target.apply(serving.releases["1"])
    assert (status.version, status.previous, status.ready, status.message) == ("1", None, True, "")
    assert [change.action for change in status.history] == ["apply", "repair"]


def test_the_deployer_has_no_further_rights(serving: Serving) -> None:
    """Its service account cannot read a secret or create a pod."""
    for verb, kind in (("get", "secrets"), ("create", "pods"), ("create", "servingruntimes.serving.kserve.io")):
        account = f"system:serviceaccount:{serving.namespace.name}:spira-deployer"
        command = ["kubectl", "--context", serving.namespace.context, "-n", serving.namespace.name]
        result = subprocess.run(
            [*command, "auth", "can-i", verb, kind, "--as", account], capture_output=True, text=True
        )
        assert result.stdout.strip() == "no"
