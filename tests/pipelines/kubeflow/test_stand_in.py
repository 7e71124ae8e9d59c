"""The stand-in server's schedules, as they were seen on Kubeflow Pipelines 2.17.0."""

from __future__ import annotations

import pytest

from tests.support.kfp_server import ServerState


@pytest.fixture
def state() -> ServerState:
    """Server with one pipeline of two versions."""
    held = ServerState()
    pipeline = held.add("pipelines", {"display_name": "spira-training"})["pipeline_id"]
    for name in ("old", "new"):
        held.add("versions", {"display_name": name, "pipeline_id": pipeline, "pipeline_spec": {}})
    return held


@pytest.mark.parametrize("is_pinned", [True, False])
def test_a_schedule_follows_the_latest_version_unless_it_is_pinned(state: ServerState, is_pinned: bool):
    """A pinned schedule's runs stay on its version, and their tasks get an empty name of the job."""
    (pipeline,), (old, new) = state.pipelines, state.versions
    reference = {"pipeline_id": pipeline} | ({"pipeline_version_id": old} if is_pinned else {})
    body = {"display_name": "nightly", "experiment_id": "e", "pipeline_version_reference": reference}
    schedule = state.add("recurring_runs", body | {"runtime_config": {"parameters": {}}})
    run = state.fire(schedule["recurring_run_id"])
    assert run["pipeline_version_reference"]["pipeline_version_id"] == (old if is_pinned else new)
    assert state.job_name(run) == ("" if is_pinned else run["display_name"])
