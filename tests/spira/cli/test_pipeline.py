"""``spira pipeline``: each command, the errors, and the output for programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from pipelines.kubeflow import delivery, versions
from pipelines.kubeflow import settings as cluster
from spira.cli.main import app
from spira.config import ConfigError
from tests.support.kfp_server import ServerState

pytestmark = pytest.mark.integration

IMAGE, NEWER = (f"registry.example/spira-train@sha256:{digit * 64}" for digit in "01")
DATA = ("--data", "gs://bucket/data")

Call = Callable[..., Any]


@pytest.fixture(autouse=True)
def quick_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no clock: the stand-in lists versions in the order of their upload."""
    monkeypatch.setattr(versions, "CLOCK_SECONDS", 0.0)


@pytest.fixture
def call(kfp: tuple[str, ServerState], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Function that runs a command with a cluster file and without a kubeconfig."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    (tmp_path / "cluster.yaml").write_text(f"host: {kfp[0]}\nregistry_uri: http://mlflow:5000\n")
    file = ("--cluster", str(tmp_path / "cluster.yaml"))
    return lambda command, *arguments: CliRunner().invoke(app, ["pipeline", command, *file, *arguments])


def test_submit_starts_a_run_and_prints_its_name(call: Call, state: ServerState):
    """Standard output has the name alone, for programs."""
    result = call("submit", *DATA, "--image", IMAGE)
    (run,) = state.runs.values()
    assert (result.exit_code, result.stdout) == (0, f"{run['display_name']}\n")
    assert run["display_name"].startswith("spira-")


def test_submit_again_is_the_same_run(call: Call, state: ServerState):
    """The name is made from data, settings and version; other settings or another --name make another run."""
    names = [call("submit", *DATA, "--image", IMAGE).stdout for _ in range(2)]
    again = call("submit", *DATA)  # on the latest version, which is the same
    assert names == [again.stdout] * 2
    assert "exists already and is running" in again.stderr
    call("submit", *DATA, "--seed", "7")
    call("submit", *DATA, "--name", "once-more")
    assert len(state.runs) == 3


@pytest.mark.parametrize("also_lost", ["GET /runs", "nothing else"])
def test_submit_after_a_lost_answer_starts_no_second_run(call: Call, state: ServerState, also_lost: str):
    """The server creates the run and drops the connection; the second submit finds the run by its name."""
    call("submit", *DATA, "--image", IMAGE, "--name", "earlier")

    def trouble(request: str) -> str | None:
        if request == also_lost and "POST /runs" in state.requests[count:]:
            return "lost"
        return "lost" if request == "POST /runs" else None

    count, state.trouble = len(state.requests), trouble
    first = call("submit", *DATA)
    assert first.exit_code == (2 if also_lost == "GET /runs" else 0)
    assert len(first.stderr.splitlines()) == 1
    state.trouble = lambda request: None
    assert call("submit", *DATA).exit_code == 0
    assert [run["display_name"] == "earlier" for run in state.runs.values()] == [True, False]


@pytest.mark.parametrize("command", [("submit", *DATA), ("submit", *DATA, "--image", IMAGE)])
def test_a_pipeline_of_another_tool_is_refused(call: Call, state: ServerState, command: tuple[str, ...]):
    """It has our name, and versions that are named otherwise."""
    pipeline = state.add("pipelines", {"display_name": "spira-training"})
    spec = {"pipeline_spec": {"root": {}}}
    state.add("versions", {"display_name": "v1", "pipeline_id": pipeline["pipeline_id"], "pipeline_spec": spec})
    result = call(*command)
    assert (result.exit_code, len(state.versions), state.runs) == (2, 1, {})
    assert "another tool uploaded its version v1; rename or delete that pipeline in Kubeflow" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("fault", ["expired", "login", "redirect"])
@pytest.mark.parametrize("command", [("submit", *DATA), ("status",), ("schedule", "--remove")])
def test_a_login_that_is_not_accepted_is_one_line(call: Call, state: ServerState, fault: str, command: tuple[str, ...]):
    """Exit code 2, and the remedy."""
    state.trouble = lambda request: fault
    result = call(*command)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert "port-forward service/ml-pipeline 8888" in result.stderr


def test_on_overrides_the_cluster_file(call: Call, state: ServerState):
    """Values are YAML."""
    arguments = ("--on", "gpu_count=1", "--on", "node_selector={karpenter.sh/nodepool: gpu}")
    assert call("submit", *DATA, "--image", IMAGE, *arguments).exit_code == 0
    (run,) = state.runs.values()
    parameters = run["runtime_config"]["parameters"]
    assert (parameters["device"], parameters["node_selector"]) == ("cuda", {"karpenter.sh/nodepool": "gpu"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("submit", *DATA), "upload one with --image"),
        (("submit", *DATA, "--image", "spira-train:latest"), "by its digest"),
        (("submit", "--data", "here", "--image", IMAGE), "pods cannot reach this machine"),
        (("submit", *DATA, "--on", "gpus=1"), "gpus: unknown key"),
        (("submit", *DATA, "--on", "gpu_count"), "write key=value"),
        (("submit", *DATA, "--on", "memory=much"), "memory: "),
        (("submit", *DATA, "--host", "http://127.0.0.1:1"), "cannot be reached"),
        (("submit", *DATA, "--set", "training.epochs=1"), "unknown key"),
        (("schedule", *DATA, "--image", IMAGE), "six fields"),
        (("schedule", "--image", IMAGE, "--cron", "0 0 3 * * *"), "data is missing"),
        (("status", "nobody"), "no run nobody"),
    ],
)
def test_refused_input_has_a_message_with_advice(
    call: Call, state: ServerState, arguments: tuple[str, ...], message: str
):
    """Exit code 2, a line on standard error, and nothing started."""
    result = call(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert (state.runs, state.recurring_runs) == ({}, {})


def test_a_schedule_is_created_checked_and_removed(call: Call, state: ServerState):
    """It follows the latest version by itself; --check exits with code 1 if there are differences."""
    nightly = ("schedule", *DATA, "--cron", "0 30 3 * * *")
    assert call(*nightly, "--image", IMAGE).exit_code == 0
    assert call(*nightly, "--check").exit_code == 0
    late = call(*nightly, "--image", NEWER, "--check")
    assert (late.exit_code, "(not uploaded)" in late.stdout, len(state.versions)) == (1, True, 2)
    assert "out of date" in late.stderr
    (before,) = state.recurring_runs
    call("submit", *DATA, "--data-digest", "d" * 64, "--image", NEWER)
    assert "is up to date" in call(*nightly, "--image", NEWER).stderr
    assert list(state.recurring_runs) == [before]
    earlier = call(*nightly, "--image", IMAGE)
    assert (earlier.exit_code, "a schedule follows the latest version; delete" in earlier.stderr) == (2, True)
    assert call(*nightly, "--check").exit_code == 0
    run = state.fire(before)
    assert "its run goes on: repeat this command later" in call("schedule", "--remove").stderr
    run["state"] = "SUCCEEDED"
    assert call("schedule", "--remove").exit_code == 0
    assert state.recurring_runs == {}


def test_status_lists_runs_and_the_reasons_of_failures(call: Call, state: ServerState):
    """The latest is first; --json prints JSON; a success in Kubeflow without a verdict is no success."""
    for name in ("first", "second"):
        call("submit", *DATA, "--image", IMAGE, "--name", name)
    first, second = state.runs.values()
    first.update(state="SUCCEEDED", created_at="2026-01-01T03:30:00Z")
    second.update(state="FAILED", state_history=[{"state": "FAILED", "error": {"message": "deadline exceeded"}}])
    lines = json.loads(call("status", "--json").stdout)
    assert [(line["name"], line["state"]) for line in lines] == [("second", "failed"), ("first", "failed")]
    assert lines[0]["message"] == "deadline exceeded"
    assert lines[1]["begun"] == "2026-01-01 03:30"
    assert "neither branch of the pipeline ran" in lines[1]["message"]
    assert "deadline exceeded" in call("status", "second").stdout


def test_status_without_runs_names_the_command_that_starts_one(call: Call):
    """The server has no experiment yet."""
    assert "spira pipeline submit" in call("status").stdout


def test_compile_refuses_a_tag(tmp_path: Path):
    """--tag-ok accepts it."""
    arguments = ["pipeline", "compile", "--out", str(tmp_path / "out.yaml"), "--image", "spira-train:dev"]
    refused = CliRunner().invoke(app, arguments)
    assert (refused.exit_code, "by its digest" in refused.stderr) == (2, True)
    assert CliRunner().invoke(app, [*arguments, "--tag-ok"]).exit_code == 0
    assert "image: spira-train:dev" in (tmp_path / "out.yaml").read_text()


def test_compile_writes_the_delivery_pipeline(tmp_path: Path):
    """The bytes are those of the golden file; options of the training pipeline are refused."""
    arguments = ["pipeline", "compile", "--delivery", "--out", str(tmp_path / "delivery.yaml")]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert (tmp_path / "delivery.yaml").read_bytes() == delivery.COMPILED.read_bytes()
    for option in ("--cached", "--kubernetes", "--on=gpu_count=1"):
        refused = CliRunner().invoke(app, [*arguments, option])
        assert (refused.exit_code, "--delivery: only" in refused.stderr) == (2, True)


def test_compile_writes_kubernetes_resources(tmp_path: Path):
    """Pipeline and PipelineVersion; the name of the version has a digest of its content."""
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
    assert [resource["kind"] for resource in (pipeline, version)] == ["Pipeline", "PipelineVersion"]
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


def test_compile_takes_the_settings_of_a_cluster(tmp_path: Path):
    """Sizes are fixed in the file; the address of MLflow is a default. --claim overrides the cluster file."""
    (tmp_path / "cluster.yaml").write_text("registry_uri: http://other:5000\nmemory: 16Gi\nclaim: state\n")
    arguments = [
        "pipeline",
        "compile",
        "--out",
        str(tmp_path / "out.yaml"),
        "--cluster",
        str(tmp_path / "cluster.yaml"),
    ]
    assert CliRunner().invoke(app, [*arguments, "--on", "cpu=500m", "--claim", "mine", "--cached"]).exit_code == 0
    spec, platform = yaml.safe_load_all((tmp_path / "out.yaml").read_text())
    resources = spec["deploymentSpec"]["executors"]["exec-train"]["container"]["resources"]
    assert (resources["resourceCpuRequest"], resources["resourceMemoryLimit"]) == ("500m", "16Gi")
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert parameters["registry_uri"]["defaultValue"] == "http://other:5000"
    assert "defaultValue" not in parameters["data_digest"]
    assert "'constant': 'mine'" in str(platform)


def test_submit_takes_the_form_with_the_cache_only_for_pinned_data(call: Call, state: ServerState):
    """The cache compares parameters, and would answer changed data with the corpus of earlier data."""
    call("submit", *DATA, "--image", IMAGE)
    call("submit", *DATA, "--data-digest", "d" * 64)
    names = [
        state.versions[run["pipeline_version_reference"]["pipeline_version_id"]]["display_name"]
        for run in state.runs.values()
    ]
    assert [name.endswith("-uncached") for name in names] == [True, False]
    assert names[0] == f"{names[1]}-uncached"
    assert all(run["display_name"].startswith("spira-data-") for run in state.runs.values())


def test_a_cluster_file_with_an_unknown_key_is_refused(tmp_path: Path):
    """A missing file and one that is not a mapping are refused too."""
    (tmp_path / "cluster.yaml").write_text("gpu: 1\n")
    with pytest.raises(ConfigError, match=r"cluster\.yaml: gpu: unknown key"):
        cluster.load(tmp_path / "cluster.yaml")
    with pytest.raises(ConfigError, match="nowhere"):
        cluster.load(tmp_path / "nowhere.yaml")
    (tmp_path / "cluster.yaml").write_text("- a\n- b\n")
    with pytest.raises(ConfigError, match=r"cluster\.yaml: "):
        cluster.load(tmp_path / "cluster.yaml")


def test_the_schedule_of_delivery_follows_its_sources(call: Call, state: ServerState, tmp_path: Path):
    """It has its own service account and versions; a repeated call replaces it after a change of image or settings."""
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
    assert "is up to date" in call(*arguments, "--check").stderr
    assert call(*arguments[:-1], NEWER).exit_code == 0
    (second,) = state.recurring_runs.values()
    assert second["pipeline_version_reference"] != first["pipeline_version_reference"]
    settings.write_text("data: gs://bucket/other\nregistry: http://mlflow:5000\n")
    assert "settings" in call(*arguments[:-1], NEWER).stdout


def test_the_schedule_of_delivery_refuses_an_image_by_tag(call: Call, tmp_path: Path):
    """A tag can move to another image."""
    (tmp_path / "delivery.yaml").write_text("data: gs://bucket/data\n")
    result = call("schedule-delivery", "--settings", str(tmp_path / "delivery.yaml"), "--image", "spira/base:dev")
    assert result.exit_code == 2
    assert "digest" in result.stderr
