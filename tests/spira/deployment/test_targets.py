"""The settings of the targets: refused keys and values, and the connected target."""

from __future__ import annotations

from pathlib import Path

import pytest

from spira.config import ConfigError
from spira.deployment import targets
from spira.deployment.inference_service.contract import Service
from spira.deployment.inference_service.target import InferenceService
from spira.deployment.kserve.target import KServe
from spira.deployment.local import Local
from spira.deployment.target import DeploymentError
from tests.support.kubernetes_api import NAMESPACE, ApiServer

SERVICE = '{"kind": "inference-service", "command": ["serve"], "nats_url": "nats://n:4222", "minio": "m:9000"%s}'


def package(version: str) -> Path:
    raise AssertionError(f"connecting must not fetch version {version}")


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
def test_invalid_settings_are_refused(text: str, words: str) -> None:
    """The message has the key, the rule and the place of valid examples."""
    with pytest.raises(ConfigError, match=words) as error:
        targets.read(text)
    assert str(error.value).startswith("target: ")
    assert str(error.value).endswith("; give JSON as one of targets in delivery.yaml")


@pytest.mark.parametrize(
    "target", [targets.LocalTarget(serving="x"), targets.KServeTarget(kind="kserve", namespace="n")]
)
def test_settings_survive_a_round_trip_through_json(target: targets.AnyTarget) -> None:
    """A pipeline passes them to its task as JSON."""
    assert targets.read(target.model_dump_json()) == target


def test_a_local_target_is_connected(tmp_path: Path) -> None:
    """Without a folder it is refused: the working directory is no default."""
    connected = targets.connect(targets.LocalTarget(serving=str(tmp_path)), "registry", package)
    assert isinstance(connected, Local)
    assert connected.serving == tmp_path
    with pytest.raises(DeploymentError, match="the target has no serving: name the folder"):
        targets.connect(targets.LocalTarget(), "registry", package)


def test_every_target_gets_the_key_of_signatures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KServe's and the Inference Service's too."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
    for name in ("MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"):
        monkeypatch.setenv(name, "value")
    with ApiServer({}, tmp_path / "kubeconfig"):
        every = (
            targets.LocalTarget(serving=str(tmp_path)),
            targets.KServeTarget(kind="kserve", namespace=NAMESPACE),
            targets.read(SERVICE % f', "folder": "{tmp_path}"'),
        )
        keys = []
        for settings in every:
            connected = targets.connect(settings, "http://mlflow:5000", package, "verify.pem")
            assert isinstance(connected, Local | KServe | InferenceService)
            keys.append((connected.record if isinstance(connected, InferenceService) else connected).verify_key)
    assert keys == ["verify.pem"] * 3


def test_a_kserve_target_is_connected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The target has the values of the settings."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
    values = {"model": "m", "runtime": "r", "service_account": "reader", "timeout_seconds": 7, "artifacts": {"a": "b"}}
    with ApiServer({}, tmp_path / "kubeconfig"):
        settings = targets.KServeTarget.model_validate({"kind": "kserve", "namespace": NAMESPACE, **values})
        connected = targets.connect(settings, "registry", package)
        assert isinstance(connected, KServe)
        assert {name: getattr(connected, name) for name in values} == values
        assert connected.status().version is None


def test_the_inference_service_is_connected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its keys come from the environment only."""
    monkeypatch.delenv("MINIO_ACCESS_KEY", raising=False)
    monkeypatch.setenv("MINIO_SECRET_KEY", "secret")
    settings = targets.read(SERVICE % f', "folder": "{tmp_path}"')
    with pytest.raises(DeploymentError, match="set MINIO_ACCESS_KEY and MINIO_SECRET_KEY"):
        targets.connect(settings, "http://mlflow:5000", package)
    monkeypatch.setenv("MINIO_ACCESS_KEY", "key")
    connected = targets.connect(settings, "http://mlflow:5000", package)
    assert isinstance(connected, InferenceService)
    assert (connected.service.mlflow_uri, connected.service.secret_key) == ("http://mlflow:5000", "secret")
    with pytest.raises(DeploymentError, match="the target has no folder: name the folder"):
        targets.connect(targets.read(SERVICE % ""), "http://mlflow:5000", package)


def test_the_settings_of_the_service_reach_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Model, channels and time limits reach it; the defaults are those of the contract."""
    monkeypatch.setenv("MINIO_ACCESS_KEY", "key")
    monkeypatch.setenv("MINIO_SECRET_KEY", "secret")

    def service(more: str) -> Service:
        connected = targets.connect(targets.read(SERVICE % f', "folder": "{tmp_path}"{more}'), "http://m", package)
        assert isinstance(connected, InferenceService)
        return connected.service

    default = service("")
    assert default.channels == ("spira-topic", "result_updates")
    own = service(
        ', "receiving_channel": "model_channel", "central_channel": "a.b", "model": "m", "start_seconds": 1, '
        '"answer_seconds": 2, "stop_seconds": 3'
    )
    assert (own.channels, own.model) == (("model_channel", "a.b"), "m")
    assert (own.start_seconds, own.answer_seconds, own.stop_seconds) == (1, 2, 3)
    with pytest.raises(DeploymentError, match="must differ from each other"):
        service(', "receiving_channel": "same", "central_channel": "same"')
    with pytest.raises(DeploymentError, match="which the golden check uses"):
        service(', "receiving_channel": "spira-probe-topic"')


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ('"receiving_channel": "a.*"', "receiving_channel"),
        ('"receiving_channel": "two words"', "receiving_channel"),
        ('"central_channel": ""', "central_channel"),
        ('"central_channel": "a..b"', "central_channel"),
        ('"central_channel": "a\\n"', "central_channel"),
        ('"model": "spira/eu"', "model"),
        ('"answer_seconds": 0', "answer_seconds"),
        ('"start_seconds": -1', "start_seconds"),
        ('"variables": {"receiving_channel": "x"}', "receiving_channel would have no effect"),
    ],
)
def test_invalid_settings_of_the_service_are_refused(setting: str, words: str) -> None:
    """Wildcards, blanks and empty parts are no subject of one channel; a time limit is positive."""
    with pytest.raises(ConfigError, match=words):
        targets.read(SERVICE % f", {setting}")
