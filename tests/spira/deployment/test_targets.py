"""The targets as settings name them: what is refused, by key, and what each is connected to."""

from __future__ import annotations

from pathlib import Path

import pytest

from spira.config import ConfigError
from spira.deployment import targets
from spira.deployment.inference_service.target import InferenceService
from spira.deployment.kserve.target import KServe
from spira.deployment.local import Local
from spira.deployment.target import DeploymentError
from tests.support.kubernetes_api import NAMESPACE, ApiServer

SERVICE = '{"kind": "inference-service", "command": ["serve"], "nats_url": "nats://n:4222", "minio": "m:9000"%s}'


def package(version: str) -> Path:
    raise AssertionError(f"nobody needs version {version} to connect")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "Invalid JSON"),
        ('"local"', "should be an object"),
        ('{"serving": "x"}', "kind"),
        ('{"kind": "lunar"}', "lunar"),
        ('{"kind": "kserve"}', "kserve.namespace: Field required"),
        ('{"kind": "kserve", "namespace": "n", "password": "x"}', "kserve.password: unknown key"),
        ('{"kind": "kserve", "namespace": "n", "service_account": ""}', "kserve.service_account"),
    ],
)
def test_what_is_no_target_is_refused(text: str, words: str) -> None:
    """By key and rule, with what to give."""
    with pytest.raises(ConfigError, match=words) as refused:
        targets.read(text)
    assert str(refused.value).startswith("target: ")
    assert str(refused.value).endswith("; give JSON as one of targets in delivery.yaml")


@pytest.mark.parametrize(
    "target", [targets.LocalTarget(serving="x"), targets.KServeTarget(kind="kserve", namespace="n")]
)
def test_json_is_read_as_it_was_written(target: targets.AnyTarget) -> None:
    """By a task of the pipeline, say."""
    assert targets.read(target.model_dump_json()) == target


def test_a_folder_is_connected(tmp_path: Path) -> None:
    """As it is named; without a name it would be wherever the process happens to run."""
    connected = targets.connect(targets.LocalTarget(serving=str(tmp_path)), "registry", package)
    assert isinstance(connected, Local)
    assert connected.serving == tmp_path
    with pytest.raises(DeploymentError, match="the target has no serving: name the folder"):
        targets.connect(targets.LocalTarget(), "registry", package)


def test_a_cluster_is_connected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all that the settings say."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
    told = {"model": "m", "runtime": "r", "service_account": "who", "timeout_seconds": 7, "artifacts": {"a": "b"}}
    with ApiServer({}, tmp_path / "kubeconfig"):
        wanted = targets.KServeTarget.model_validate({"kind": "kserve", "namespace": NAMESPACE, **told})
        connected = targets.connect(wanted, "registry", package)
        assert isinstance(connected, KServe)
        assert {name: getattr(connected, name) for name in told} == told
        assert connected.status().version is None


def test_the_inference_service_is_connected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its keys stand in the environment, and nowhere else."""
    monkeypatch.delenv("MINIO_ACCESS_KEY", raising=False)
    monkeypatch.setenv("MINIO_SECRET_KEY", "secret")
    wanted = targets.read(SERVICE % f', "folder": "{tmp_path}"')
    with pytest.raises(DeploymentError, match="set MINIO_ACCESS_KEY and MINIO_SECRET_KEY"):
        targets.connect(wanted, "http://mlflow:5000", package)
    monkeypatch.setenv("MINIO_ACCESS_KEY", "key")
    connected = targets.connect(wanted, "http://mlflow:5000", package)
    assert isinstance(connected, InferenceService)
    assert (connected.service.mlflow_uri, connected.service.secret_key) == ("http://mlflow:5000", "secret")
    with pytest.raises(DeploymentError, match="the target has no folder: name the folder"):
        targets.connect(targets.read(SERVICE % ""), "http://mlflow:5000", package)
