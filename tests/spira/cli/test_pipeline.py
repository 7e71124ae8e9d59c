"""The command line of the pipelines: each verb, its refusals, and what it prints for programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from pipelines.kubeflow import settings as cluster
from spira.cli.main import app
from spira.config import ConfigError
from tests.support.kfp_server import ServerState

IMAGE, NEWER = (f"registry.example/spira-train@sha256:{digit * 64}" for digit in "01")
DATA = ("--data", "gs://bucket/data")

Call = Callable[..., Any]


@pytest.fixture
def call(kfp: tuple[str, ServerState], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """A verb with a cluster file; no kubeconfig."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    (tmp_path / "cluster.yaml").write_text(f"host: {kfp[0]}\nregistry_uri: http://mlflow:5000\n")
    file = ("--cluster", str(tmp_path / "cluster.yaml"))
    return lambda verb, *arguments: CliRunner().invoke(app, ["pipeline", verb, *file, *arguments])


def test_submit_begins_a_run_and_says_its_name(call: Call, state: ServerState):
    """The name, for programs, on standard output alone."""
    result = call("submit", *DATA, "--image", IMAGE)
    (run,) = state.runs.values()
    assert (result.exit_code, result.stdout) == (0, f"{run['display_name']}\n")
    assert run["display_name"].startswith("spira-")


def test_submit_again_is_the_same_run(call: Call, state: ServerState):
    """The name follows from what is trained; what differs, or has a name of its own, is another run."""
    names = [call("submit", *DATA, "--image", IMAGE).stdout for _ in range(2)]
    again = call("submit", *DATA)  # on the latest version, which is the same
    assert names == [again.stdout] * 2
    assert "there already, running" in again.stderr
    call("submit", *DATA, "--seed", "7")
    call("submit", *DATA, "--name", "once-more")
    assert len(state.runs) == 3


def test_a_gpu_is_asked_for_over_the_cluster_file(call: Call, state: ServerState):
    """Values are YAML."""
    arguments = ("--on", "gpu_count=1", "--on", "node_selector={karpenter.sh/nodepool: gpu}")
    assert call("submit", *DATA, "--image", IMAGE, *arguments).exit_code == 0
    (run,) = state.runs.values()
    given = run["runtime_config"]["parameters"]
    assert (given["gpu_count"], given["node_selector"]) == ("1", {"karpenter.sh/nodepool": "gpu"})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("submit", *DATA), "upload one with --image"),
        (("submit", *DATA, "--image", "spira-train:latest"), "by its digest"),
        (("submit", "--data", "here", "--image", IMAGE), "pods don't see this machine"),
        (("submit", *DATA, "--on", "gpus=1"), "gpus: unknown key"),
        (("submit", *DATA, "--on", "gpu_count"), "write key=value"),
        (("submit", *DATA, "--on", "memory=much"), "memory: "),
        (("submit", *DATA, "--host", "http://127.0.0.1:1"), "can't be reached"),
        (("submit", *DATA, "--set", "training.epochs=1"), "unknown key"),
        (("schedule", *DATA, "--image", IMAGE), "six fields"),
        (("schedule", "--image", IMAGE, "--cron", "0 0 3 * * *"), "data is not named"),
        (("status", "nobody"), "no run nobody"),
    ],
)
def test_a_refusal_says_what_to_do(call: Call, state: ServerState, arguments: tuple[str, ...], said: str):
    """Exit code 2, a line on standard error, and nothing begun."""
    result = call(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert (state.runs, state.recurring_runs) == ({}, {})


def test_a_schedule_is_made_checked_and_removed(call: Call, state: ServerState):
    """It follows the latest version when it is called again; the check has an exit code of its own."""
    nightly = ("schedule", *DATA, "--cron", "0 30 3 * * *")
    assert call(*nightly, "--image", IMAGE).exit_code == 0
    assert call(*nightly, "--check").exit_code == 0
    late = call(*nightly, "--image", NEWER, "--check")
    assert (late.exit_code, "wanted 'not uploaded'" in late.stdout, len(state.versions)) == (1, True, 1)
    assert "out of date" in late.stderr
    call("submit", *DATA, "--data-digest", "d" * 64, "--image", NEWER)
    assert "answers from the cache" in call(*nightly).stderr  # the latest is of a pinned submission
    assert "put right" in call(*nightly, "--image", NEWER).stderr
    assert call(*nightly, "--check").exit_code == 0
    assert call("schedule", "--remove").exit_code == 0
    assert state.recurring_runs == {}


def test_status_lists_runs_and_why_they_failed(call: Call, state: ServerState):
    """The latest first, for programs as JSON; a success without MLflow is not called approved."""
    for name in ("first", "second"):
        call("submit", *DATA, "--image", IMAGE, "--name", name)
    first, second = state.runs.values()
    first.update(state="SUCCEEDED", created_at="2026-01-01T03:30:00Z")
    second.update(state="FAILED", state_history=[{"state": "FAILED", "error": {"message": "deadline exceeded"}}])
    lines = json.loads(call("status", "--json").stdout)
    assert [(line["name"], line["state"]) for line in lines] == [("second", "failed"), ("first", "succeeded")]
    assert lines[0]["message"] == "deadline exceeded"
    assert lines[1]["begun"] == "2026-01-01 03:30"
    assert "approved" not in lines[1]["message"]
    assert "deadline exceeded" in call("status", "second").stdout


def test_status_without_runs_says_how_one_begins(call: Call):
    """No experiment is there yet."""
    assert "spira pipeline submit" in call("status").stdout


def test_compile_refuses_a_tag(tmp_path: Path):
    """Unless it is said to be right."""
    arguments = ["pipeline", "compile", "--out", str(tmp_path / "out.yaml"), "--image", "spira-train:dev"]
    refused = CliRunner().invoke(app, arguments)
    assert (refused.exit_code, "by its digest" in refused.stderr) == (2, True)
    assert CliRunner().invoke(app, [*arguments, "--tag-ok"]).exit_code == 0
    assert "image: spira-train:dev" in (tmp_path / "out.yaml").read_text()


def test_compile_writes_the_resources_of_kubernetes(tmp_path: Path):
    """Pipeline and PipelineVersion, the version named by its content, with what pods need."""
    out = tmp_path / "out.yaml"
    arguments = [
        "pipeline",
        "compile",
        "--out",
        str(out),
        "--image",
        IMAGE,
        "--kubernetes",
        "--namespace",
        "ml",
        "--claim",
        "c",
    ]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    pipeline, version = yaml.safe_load_all(out.read_text())
    assert [each["kind"] for each in (pipeline, version)] == ["Pipeline", "PipelineVersion"]
    assert pipeline["metadata"] == {"name": "spira-training", "namespace": "ml"}
    assert version["spec"]["pipelineName"] == "spira-training"
    assert version["metadata"]["name"].startswith("spira-training-")
    assert IMAGE in out.read_text()
    assert "pvcMount" in str(version["spec"]["platformSpec"])
    first = out.read_bytes()
    CliRunner().invoke(app, arguments)
    assert out.read_bytes() == first
    CliRunner().invoke(app, [*arguments, "--image", NEWER])
    (_, other) = yaml.safe_load_all(out.read_text())
    assert other["metadata"]["name"] != version["metadata"]["name"]


def test_a_cluster_file_is_refused_by_its_key(tmp_path: Path):
    """Nothing is guessed."""
    (tmp_path / "cluster.yaml").write_text("gpu: 1\n")
    with pytest.raises(ConfigError, match=r"cluster\.yaml: gpu: unknown key"):
        cluster.load(tmp_path / "cluster.yaml")
    with pytest.raises(ConfigError, match="nowhere"):
        cluster.load(tmp_path / "nowhere.yaml")
    (tmp_path / "cluster.yaml").write_text("- a\n- b\n")
    with pytest.raises(ConfigError, match=r"cluster\.yaml: "):
        cluster.load(tmp_path / "cluster.yaml")


def test_delivery_is_scheduled_and_follows_its_sources(call: Call, state: ServerState, tmp_path: Path):
    """A recurring run of the tick with its own account, beside the training's versions; again after any change."""
    settings = tmp_path / "delivery.yaml"
    settings.write_text("data: gs://bucket/data\nregistry: http://mlflow:5000\n")
    arguments = ("schedule-delivery", "--settings", str(settings), "--image", IMAGE)
    call("submit", *DATA, "--image", IMAGE)
    assert call(*arguments, "--check").exit_code == 1
    assert call(*arguments).exit_code == 0
    (first,) = state.recurring_runs.values()
    assert (first["service_account"], first["runtime_config"]["parameters"]["settings"]) == (
        "spira-delivery",
        settings.read_text(),
    )
    version = state.versions[first["pipeline_version_reference"]["pipeline_version_id"]]
    assert version["display_name"].startswith("spira-delivery-")
    assert "as it should be" in call(*arguments, "--check").stderr
    assert call(*arguments[:-1], NEWER).exit_code == 0
    (second,) = state.recurring_runs.values()
    assert second["pipeline_version_reference"] != first["pipeline_version_reference"]
    settings.write_text("data: gs://bucket/other\nregistry: http://mlflow:5000\n")
    assert "settings" in call(*arguments[:-1], NEWER).stdout


def test_delivery_wants_an_image_by_digest(call: Call, tmp_path: Path):
    """A tag may be another image tomorrow."""
    (tmp_path / "delivery.yaml").write_text("data: gs://bucket/data\n")
    result = call("schedule-delivery", "--settings", str(tmp_path / "delivery.yaml"), "--image", "spira/base:dev")
    assert result.exit_code == 2
    assert "digest" in result.stderr
