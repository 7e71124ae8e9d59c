"""KServe on a real cluster: replaced, broken, rolled back and repaired while users ask, without one failed request.

    make image-serve && SPIRA_E2E=1 .venv/bin/pytest tests/e2e/test_kserve.py

The cluster is that of the kubeconfig's current context; KServe is installed there.
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
from spira.packaging.verify import PackageError
from tests.support.cluster_fixture import IMAGE, Load, Place, loaded
from tests.support.packages import make_package, wrong

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(os.environ.get("SPIRA_E2E") != "1", reason="needs a cluster with KServe: set SPIRA_E2E=1"),
]


FILE = "golden/voice-one-window.wav"


@dataclass(frozen=True)
class Serving:
    """A target, its place, and the releases that lie there."""

    target: KServe
    place: Place
    releases: dict[str, Release]


@pytest.fixture(scope="module")
def context() -> str:
    """The current context of a cluster that answers and knows KServe."""
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not here")
    found = subprocess.run(["kubectl", "config", "current-context"], capture_output=True, text=True)
    kinds = subprocess.run(["kubectl", "get", "crd", "inferenceservices.serving.kserve.io"], capture_output=True)
    if found.returncode or kinds.returncode:
        pytest.skip("no cluster with KServe answers: set KUBECONFIG to one")
    return found.stdout.strip()


@pytest.fixture(scope="module")
def place(context: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A namespace that is gone afterwards, whatever happens."""
    loaded(context, IMAGE)
    made = Place(context, f"spira-e2e-{uuid.uuid4().hex[:8]}")
    try:
        made.make(tmp_path_factory.mktemp("manifests"))
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="module")
def releases(place: Place, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Release]:
    """Versions 1 and 2, and broken ones: wrong probabilities, other weights than registered, none, no such claim."""
    folder = tmp_path_factory.mktemp("packages")
    packages = {version: make_package(folder / version, seed=int(version)) for version in ("1", "2")}
    packages["wrong"] = wrong(packages["2"], folder / "wrong")
    made = {version: Release(version, path, place.store(version, path)) for version, path in packages.items()}
    made["foreign"] = Release("foreign", packages["1"], place.store("foreign", make_package(folder / "3", seed=3)))
    made["absent"] = Release("absent", packages["2"], "pvc://models/absent")
    made["claimless"] = Release("claimless", packages["2"], "pvc://no-such-claim/2")
    return made


@pytest.fixture(scope="module")
def target(place: Place, releases: dict[str, Release], tmp_path_factory: pytest.TempPathFactory) -> KServe:
    """The target with the rights of the service account that deploys, no more."""
    kubeconfig = place.kubeconfig(tmp_path_factory.mktemp("kubeconfig") / "config")
    cluster = KubernetesNamespace(place.name, kubeconfig=kubeconfig)
    return KServe(cluster, lambda version: releases[version].package, timeout_seconds=120)


@pytest.fixture
def serving(target: KServe, place: Place, releases: dict[str, Release]) -> Serving:
    """Version 1 serves; it was applied afresh, so that nothing served before."""
    target.cluster.delete(target.model)
    place.kubectl("wait", "--for=delete", "deployment/spira-predictor", "--timeout=120s")
    assert target.apply(releases["1"]).version == "1"
    return Serving(target, place, releases)


@pytest.fixture
def load(serving: Serving) -> Iterator[Load]:
    """Users who ask all the time; a broken version has no answer that would be right."""
    packages = {version: serving.releases[version].package for version in ("1", "2")}
    listed = {version: golden_recordings(package) for version, package in packages.items()}
    wav = (packages["1"] / "data" / FILE).read_bytes()
    asking = Load(serving.place, "spira-predictor", wav, {version: told[FILE] for version, told in listed.items()})
    yield asking
    asking.stop()


def test_a_version_serves_and_answers_rightly(serving: Serving) -> None:
    """Golden recordings at most 1e-5 from torch, asked through the cluster; apply again changes nothing."""
    assert serving.target.verify() <= 1e-5
    before = serving.target.status()
    assert (before.version, before.previous, before.ready, before.message) == ("1", None, True, "")
    assert [step.split()[0] for step in serving.target.plan(serving.releases["1"]).steps] == ["check"]
    assert serving.target.apply(serving.releases["1"]) == before


def test_replaced_and_rolled_back_under_load(serving: Serving, load: Load) -> None:
    """Every request is answered, first by version 1, then by 2, then by 1 again."""
    status = serving.target.apply(serving.releases["2"])
    assert (status.version, status.previous, status.ready) == ("2", "1", True)
    heard = load.heard_more(load.heard())
    assert heard.answered["1"] > 20
    assert heard.answered["2"] > 10
    status = serving.target.rollback("too many alarms", bad="2")
    assert (status.version, status.previous, status.ready) == ("1", None, True)
    assert [change.action for change in status.history] == ["apply", "apply", "rollback"]
    assert serving.target.rollback("too many alarms", bad="2").version == "1"
    later = load.heard_more(load.heard())
    assert later.answered["1"] > heard.answered["1"]
    assert later.failed == []


def golden_recordings(package: Path) -> dict[str, float]:
    """Torch's probabilities by file."""
    return {one["file"]: one["probability"] for one in json.loads((package / "data" / "golden.json").read_text())}


BROKEN = {
    "wrong": (DeploymentError, "must not be served"),
    "foreign": (PackageError, "must not be served"),
    "absent": (DeploymentError, "holds no whole package"),
    "claimless": (DeploymentError, "no-such-claim"),
}


@pytest.mark.parametrize("version", BROKEN)
def test_a_broken_version_never_serves(serving: Serving, load: Load, version: str) -> None:
    """It is refused with the reason; users don't notice."""
    error, words = BROKEN[version]
    patient = KServe(serving.target.cluster, serving.target.package, timeout_seconds=60)
    with pytest.raises(error, match=words):
        patient.apply(serving.releases[version])
    assert serving.target.status().version == "1"
    heard = load.heard_more(load.heard())
    assert heard.answered.keys() == {"1"}
    assert heard.failed == []
    assert serving.target.cluster.get(serving.target.candidate) is None


def test_a_runtime_that_is_not_there_is_told(serving: Serving) -> None:
    """In KServe's own words, as it makes no pod that could say more."""
    bad = KServe(serving.target.cluster, serving.target.package, runtime="no-such-runtime", timeout_seconds=10)
    with pytest.raises(DeploymentError, match="no-such-runtime"):
        bad.apply(serving.releases["2"])
    assert serving.target.status().version == "1"


def test_drift_is_told_and_repaired(serving: Serving) -> None:
    """Someone points the object to another version by hand."""
    edit = {"spec": {"predictor": {"minReplicas": 2, "model": {"storageUri": serving.releases["2"].uri}}}}
    serving.place.kubectl("patch", "isvc", "spira", "--type=merge", "-p", json.dumps(edit))
    message = serving.target.status().message
    assert "storageUri" in message
    assert "minReplicas" in message
    assert any("repair" in step for step in serving.target.plan(serving.releases["1"]).steps)
    status = serving.target.apply(serving.releases["1"])
    assert (status.version, status.previous, status.ready, status.message) == ("1", None, True, "")
    assert [change.action for change in status.history] == ["apply", "repair"]


def test_nobody_else_is_needed(serving: Serving) -> None:
    """The service account reads no secret and starts no pod."""
    for verb, kind in (("get", "secrets"), ("create", "pods"), ("create", "servingruntimes.serving.kserve.io")):
        who = f"system:serviceaccount:{serving.place.name}:spira-deployer"
        command = ["kubectl", "--context", serving.place.context, "-n", serving.place.name]
        done = subprocess.run([*command, "auth", "can-i", verb, kind, "--as", who], capture_output=True, text=True)
        assert done.stdout.strip() == "no"
