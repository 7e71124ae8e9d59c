"""A reconciler as the settings say: every kind of target and runner, each connected when it is first asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from spira.cli.compose import OnKubeflow, reconciler
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


def written(folder: Path, text: str) -> Path:
    (folder / "delivery.yaml").write_text(text)
    return folder / "delivery.yaml"


def test_a_target_that_is_away_is_no_trouble_of_the_others(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is asked by itself; what can't be asked is told by name, with what to do."""
    for name in ("MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    report = reconciler(load(written(work.parent, ALL))).look()
    serving = report.view.serving
    assert serving["local"] is not None
    assert (serving["kserve"], serving["inference-service"]) == (None, None)
    told = "\n".join(report.troubles)
    assert "no-such-context" in told
    assert "MINIO_ACCESS_KEY" in told


def test_a_kubeflow_that_is_away_is_told(work: Path) -> None:
    """Its version is the code: without it nothing is observed, nothing is claimed, and it is said why."""
    (work.parent / "cluster.yaml").write_text("host: http://127.0.0.1:9\n")
    report = reconciler(load(written(work.parent, "data: voices\nkubeflow: cluster.yaml\n"))).tick()
    assert report.view.look is None or report.view.records == []
    assert any("voices" in trouble or "127.0.0.1:9" in trouble for trouble in report.troubles)


def test_the_code_on_kubeflow_is_the_version_there(work: Path) -> None:
    """Not the sources of the reconciler: another image is another version, and so another code."""
    (work.parent / "cluster.yaml").write_text("host: http://127.0.0.1:9\n")
    there = OnKubeflow(work.parent / "cluster.yaml", MLflowRepository(str(work), work / "models"))
    there.__dict__["_version"] = type("Version", (), {"name": "spira-training-0123"})()
    assert there.code() == {"pipeline": "spira-training-0123"}


def test_a_run_of_continuous_delivery_never_deploys_by_itself(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the cluster file, which is for other runs too, names a target: what is approved may have to wait."""
    (work.parent / "cluster.yaml").write_text(
        "host: http://127.0.0.1:9\nregistry_uri: http://mlflow:5000\ntarget: {kind: kserve, namespace: serving}\n"
    )
    monkeypatch.setattr("pipelines.kubeflow.pods.Pods.here", lambda namespace: None)
    there = OnKubeflow(work.parent / "cluster.yaml", MLflowRepository(str(work), work / "models"))
    there.__dict__["_server"] = object()
    assert there._runner.cluster.namespace == "kubeflow"
    assert there._runner.cluster.target is None


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("data: x\ntargets: [{kind: mlserver}]\n", "mlserver"),
        ("data: x\ntargets: [{kind: kserve}]\n", "namespace"),
        ("data: x\ntargets: [{kind: kserve, namespace: n, password: x}]\n", "password"),
    ],
)
def test_a_target_that_is_wrong_is_refused_by_name(tmp_path: Path, text: str, rule: str) -> None:
    """Unknown kinds and keys, and what is missing."""
    with pytest.raises(ConfigError, match=rule):
        load(written(tmp_path, text))
