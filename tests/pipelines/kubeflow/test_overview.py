"""The table of runs: verdicts, clones, and causes of failures on one screen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.kubeflow.overview import NO_BRANCH, NO_MLFLOW, Line, runs
from pipelines.kubeflow.server import Server
from spira.registry import Outcome, RegistryError
from tests.support.argo_workflow import Workflow
from tests.support.kfp_server import ServerState

pytestmark = pytest.mark.integration

APPROVED = Outcome(True, (), 3, {})
REJECTED = Outcome(False, ("accuracy 0.61 is below 0.80", "calibration error 0.3 is above 0.1"), None, {})
LONG = "the recording has a header that does not match its length, and cannot be decoded; " * 3

AddRun = Callable[..., Workflow]


@pytest.fixture
def add_run(state: ServerState) -> AddRun:
    """Function that adds a run, which has preprocessed its data, and returns its workflow."""
    experiment = state.add("experiments", {"display_name": "spira"})["experiment_id"]

    def add(name: str, run_state: str = "SUCCEEDED", branch: str = "") -> Workflow:
        body = {"display_name": name, "experiment_id": experiment, "state": run_state, "runtime_config": {}}
        body["pipeline_version_reference"] = {"pipeline_id": "p", "pipeline_version_id": "v"}
        run = state.add("runs", body)
        run["created_at"] = f"2026-01-01T03:30:{len(state.runs):02}Z"
        workflow = Workflow(run["run_id"])
        workflow.task("preprocess")
        if branch:
            workflow.task(branch, within=workflow.group("condition-4", within=workflow.group("condition-branches-3")))
        workflow.end("Succeeded" if run_state == "SUCCEEDED" else "Failed")
        state.show(workflow)
        return workflow

    return add


def only(server: Server, outcomes: dict[str, Outcome] | None = None) -> Line:
    """Return the line of the only run, with the outcomes that MLflow has."""
    (line,) = runs(server, [], outcomes.get if outcomes is not None else None)
    return line


@pytest.mark.parametrize(
    ("branch", "outcome", "message"),
    [
        ("push", APPROVED, "approved, version 3"),
        ("reject", REJECTED, "rejected: accuracy 0.61 is below 0.80"),
    ],
)
def test_a_finished_run_has_its_verdict(server: Server, add_run: AddRun, branch: str, outcome: Outcome, message: str):
    """MLflow gives the version or the first reason; without MLflow the branch that ran gives the verdict."""
    add_run("spira-1", branch=branch)
    line = only(server, {"spira-1": outcome})
    assert (line.state, line.message) == ("succeeded", message)
    assert only(server).message == f"{message.partition(',')[0].partition(':')[0]}; {NO_MLFLOW}"


def test_a_success_without_a_branch_has_failed(server: Server, add_run: AddRun):
    """Kubeflow skips a branch whose condition it cannot read, and reports success."""
    add_run("spira-1")
    for outcomes in (None, {}):
        assert (only(server, outcomes).state, only(server, outcomes).message) == ("failed", NO_BRANCH)


@pytest.mark.parametrize("name", ["Clone of spira-1", "Clone of Bob's [best] run", 'a "quoted" run', "ещё раз"])
def test_a_clone_is_a_run_of_its_own(server: Server, state: ServerState, add_run: AddRun, name: str):
    """It has its own verdict by its own name, and the original keeps its."""
    original = add_run("spira-1", branch="push")
    clone = state.clone(original.run_id, name)
    workflow = Workflow(clone["run_id"])
    workflow.task("reject")
    state.show(workflow, state="SUCCEEDED")
    lines = {line.name: line for line in runs(server, [], {"spira-1": APPROVED, name: REJECTED}.get)}
    assert lines["spira-1"].message == "approved, version 3"
    assert lines[name].message == "rejected: accuracy 0.61 is below 0.80"
    (named,) = runs(server, [name], {"spira-1": APPROVED}.get)
    assert (named.state, named.message) == ("succeeded", "rejected; MLflow has no run of this name")


def test_an_mlflow_that_cannot_be_read_leaves_the_verdict(server: Server, add_run: AddRun):
    """One run whose verdict cannot be read does not hide the others."""
    add_run("spira-1", branch="push")
    add_run("spira-2", "FAILED")

    def unreachable(name: str) -> Outcome | None:
        raise RegistryError("MLflow cannot be reached")

    lines = runs(server, [], unreachable)
    assert [line.state for line in lines] == ["failed", "succeeded"]
    assert lines[1].message.startswith("approved; the verdict of run spira-1 cannot be read: MLflow cannot be reached")


def screen(host: str, tmp_path: Path, *arguments: str) -> list[str]:
    """Return the lines that the command writes to a screen of 24 lines and 100 columns."""
    environment = {**os.environ, "COLUMNS": "100", "LINES": "24", "KUBECONFIG": str(tmp_path / "kubeconfig")}
    kubeconfig = {
        "clusters": [{"name": "kind", "cluster": {"server": host}}],
        "users": [{"name": "user", "user": {}}],
        "contexts": [{"name": "test", "context": {"cluster": "kind", "user": "user"}}],
        "current-context": "test",
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(kubeconfig))
    command = [sys.executable, "-m", "spira", "pipeline", "status", "--host", host, *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.splitlines()


def test_the_status_fits_on_one_screen(kfp: tuple[str, ServerState], add_run: AddRun, tmp_path: Path):
    """For one run with nine failed trainings, of many tasks and long causes, and for ten such runs."""
    for number in range(12):
        workflow = add_run(f"Clone of Clone of [Clone] of spira-{number}-with-a-long-name", "FAILED")
        for seed in range(9):
            iteration = f"for-loop-2(0).iteration-item({seed})"
            error = f"spira error: seed {seed}: {LONG}"
            workflow.task("train", "Failed", within=iteration, inputs={"seed": seed}, log=error)
        workflow.group("for-loop-2", "Failed")
        workflow.omitted("evaluate")
        kfp[1].show(workflow)
        assert len(workflow.details()) >= 17
    table = screen(kfp[0], tmp_path)
    assert sum("failed" in line for line in table) == 10
    alone = screen(kfp[0], tmp_path, "Clone of Clone of [Clone] of spira-11-with-a-long-name")
    assert sum(line.startswith("train, seed ") for line in alone) == 5
    assert alone[-1] == "and 4 more"
    for lines in (table, alone):
        assert len(lines) < 24
        assert max(map(len, lines)) <= 100
