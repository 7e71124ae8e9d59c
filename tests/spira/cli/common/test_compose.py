"""Composition of the reconciler: every kind of target and runner, each connected at first use."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.kubeflow.runner import Kubeflow
from pipelines.kubeflow.versions import PipelineVersion
from spira.cli.common.compose import kubeflow_runner, reconciler
from spira.config import ConfigError
from spira.delivery.repository import MLflowRepository
from spira.delivery.settings import load

ALL = """\
data: voices
targets:
  - kind: local
  - {kind: kserve, namespace: serving, context: no-such-context}
  - {kind: inference-service, command: [serve, "{env_file}"], nats_url: "nats://nats:4222", minio: "minio:9000"}
"""
KUBECONFIG = """\
current-context: here
clusters: [{name: here, cluster: {server: "http://127.0.0.1:9"}}]
contexts: [{name: here, context: {cluster: here, user: me}}]
users: [{name: me, user: {}}]
"""


def write_settings(folder: Path, text: str) -> Path:
    (folder / "delivery.yaml").write_text(text)
    return folder / "delivery.yaml"


def test_an_unreachable_target_does_not_prevent_the_others(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The troubles name what is missing."""
    for name in ("MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    kubeconfig = work.parent / "kubeconfig"
    kubeconfig.write_text(KUBECONFIG)
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))
    report = reconciler(load(write_settings(work.parent, ALL))).dry_run()
    serving = report.snapshot.serving
    assert serving["local"] is not None
    assert (serving["kserve"], serving["inference-service"]) == (None, None)
    troubles = "\n".join(report.troubles)
    assert "no-such-context" in troubles
    assert "MINIO_ACCESS_KEY" in troubles


def test_an_unreachable_kubeflow_is_reported(work: Path) -> None:
    """Its pipeline version is the code, so nothing is observed or claimed without it."""
    (work.parent / "cluster.yaml").write_text("host: http://127.0.0.1:9\n")
    report = reconciler(load(write_settings(work.parent, "data: voices\nkubeflow: cluster.yaml\n"))).tick()
    assert report.snapshot.observation is None or report.snapshot.records == []
    assert any("voices" in trouble or "127.0.0.1:9" in trouble for trouble in report.troubles)


def test_the_code_on_kubeflow_is_the_pipeline_version(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sources of the reconciler do not count, nor do sizes of pods; an earlier version is known by its name."""
    (work.parent / "cluster.yaml").write_text("host: http://127.0.0.1:9\n")
    monkeypatch.setattr("pipelines.kubeflow.server.connect", lambda host, experiment: host)
    for code_digest, expected in (("sha256:12", "sha256:12"), ("", "spira-training-0123")):
        version = PipelineVersion("spira-training-0123", "", "", code_digest=code_digest)
        monkeypatch.setattr("pipelines.kubeflow.versions.latest", lambda server, cached, version=version: version)
        _, code_parts = kubeflow_runner(work.parent / "cluster.yaml", MLflowRepository(str(work), work / "models"))
        assert code_parts() == {"pipeline": expected}


def test_a_run_of_continuous_delivery_does_not_deploy(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The target in the Kubeflow settings is for other runs: an approved version may have to wait here."""
    (work.parent / "cluster.yaml").write_text(
        "host: http://127.0.0.1:9\nregistry_uri: http://mlflow:5000\ntarget: {kind: kserve, namespace: serving}\n"
        "notify_url: http://chat/hook\n"
    )
    monkeypatch.setattr("pipelines.kubeflow.pods.Pods.here", lambda namespace: None)
    monkeypatch.setattr("pipelines.kubeflow.server.connect", lambda host, experiment: host)
    lazy, _ = kubeflow_runner(work.parent / "cluster.yaml", MLflowRepository(str(work), work / "models"))
    assert isinstance(lazy.runner, Kubeflow)
    assert lazy.runner.cluster.namespace == "kubeflow"
    assert (lazy.runner.cluster.target, lazy.runner.cluster.notify_url) == (None, "")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("data: x\ntargets: [{kind: mlserver}]\n", "mlserver"),
        ("data: x\ntargets: [{kind: kserve}]\n", "namespace"),
        ("data: x\ntargets: [{kind: kserve, namespace: n, password: x}]\n", "password"),
    ],
)
def test_an_invalid_target_is_refused_by_name(tmp_path: Path, text: str, rule: str) -> None:
    """Unknown kinds, unknown keys and missing keys are refused."""
    with pytest.raises(ConfigError, match=rule):
        load(write_settings(tmp_path, text))
