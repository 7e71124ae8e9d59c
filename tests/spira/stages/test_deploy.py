"""The deploy stage, on the local target and through KServe on an API server that stores objects like a real one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from spira.deployment.kserve import golden_check
from spira.deployment.kserve import target as kserve
from spira.deployment.local import Local
from spira.errors import SpiraError
from spira.registry import Registry, RegistryError, local_uri
from spira.stages import deploy as stage
from tests.support.kubernetes_api import NAMESPACE, ApiServer
from tests.support.packages import make_package
from tests.support.verdicts import make_verdict

pytestmark = pytest.mark.integration

LINEAGE = {"data_fingerprint": "d", "model_fingerprint": "m", "code_fingerprint": "c", "pipeline_run": "by hand"}


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with two versions, the second not approved, and their packages; to copy."""
    folder = tmp_path_factory.mktemp("pushed")
    registry = Registry(local_uri(folder / "work"))
    for number in (1, 2):
        package = make_package(folder / str(number), seed=number).rename(folder / f"package-{number}")
        verdict = make_verdict(approved=number == 1, reasons=["accuracy 0.4"])
        run_id = registry.log_run(f"run {number}", {}, {}, verdict, {}, LINEAGE)
        assert registry.register(package, run_id, verdict, LINEAGE) == number
    return folder


@pytest.fixture
def folder(pushed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pushed, tmp_path / "folder"))


@pytest.fixture
def registry(folder: Path) -> Registry:
    return Registry(local_uri(folder / "work"))


@pytest.fixture
def server(folder: Path, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """A cluster that reads the artifacts of each version from a bucket; the kubeconfig connects to it."""
    monkeypatch.setattr(kserve, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(golden_check, "RETRY_SECONDS", 0.01)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
    uris = {number: registry.show(number).uri for number in (1, 2)}
    packages = {f"s3://mlflow{uri}": folder / f"package-{number}" for number, uri in uris.items()}
    with ApiServer(packages, tmp_path / "kubeconfig") as started:
        yield started


KSERVE = json.dumps({"kind": "kserve", "namespace": NAMESPACE, "artifacts": {"/": "s3://mlflow/"}})


def deploy(folder: Path, version: int, target: str, reason: str = "") -> stage.DeployResult:
    package = folder / f"package-{version}"
    return stage.deploy(package, version, target, registry_uri=str(folder / "work"), force_reason=reason)


def test_a_version_that_serves_on_a_cluster_is_champion(folder: Path, registry: Registry, server: ApiServer) -> None:
    """It is loaded from the location that the cluster can read."""
    assert deploy(folder, 1, KSERVE).model_version == 1
    assert registry.champion().version == 1
    predictor = server.state.objects["spira"]["spec"]["predictor"]
    assert f"{predictor['model']['storageUri']}/package" == f"s3://mlflow{registry.show(1).uri}"
    assert predictor["serviceAccountName"] == "spira-predictor"


def test_a_version_that_cannot_be_champion_is_rolled_back(folder: Path, registry: Registry, server: ApiServer) -> None:
    """The version before serves again, with its package from the model repository."""
    deploy(folder, 1, KSERVE)
    with pytest.raises(RegistryError, match=r"version 2 is not approved \(accuracy 0.4\)"):
        deploy(folder, 2, KSERVE)
    assert server.state.writes[-4:] == ["spira 2", "spira-candidate 1", "spira-candidate gone", "spira 1"]
    history = json.loads(server.state.objects["spira"]["metadata"]["annotations"]["spira/history"])
    assert [entry["action"] for entry in history] == ["apply", "apply", "rollback"]
    assert "not approved" in history[-1]["reason"]
    assert registry.champion().version == 1


def test_the_reason_of_a_forced_version_is_in_the_history(folder: Path, registry: Registry) -> None:
    """The version is champion."""
    target = json.dumps({"kind": "local", "serving": str(folder / "serving")})
    deploy(folder, 2, target, "to compare")
    assert Local(folder / "serving").status().history[-1].reason == "to compare"
    assert registry.champion().version == 2


def test_without_a_target_the_version_waits_for_continuous_delivery(folder: Path, registry: Registry) -> None:
    """Nothing serves, and there is no champion."""
    assert deploy(folder, 1, "").model_version == 1
    assert registry.champion() is None


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ('{"kind": "kserve"}', "target: kserve.namespace: Field required; give JSON as one of targets"),
        ("work/serving", "target: configuration: Invalid JSON"),
        ('{"kind": "local"}', "the target has no serving: name the folder"),
    ],
)
def test_an_invalid_target_is_refused(
    folder: Path, registry: Registry, capsys: pytest.CaptureFixture[str], target: str, words: str
) -> None:
    """The log line has the mark that a runner looks for, the key and the remedy."""
    with pytest.raises(SpiraError):
        deploy(folder, 1, target)
    assert f"spira error: {words}" in capsys.readouterr().err
    assert registry.champion() is None
