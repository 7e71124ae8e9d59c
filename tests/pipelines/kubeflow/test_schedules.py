"""Schedules on Kubeflow, through the real kfp.Client, against a stand-in server on loopback."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelines.kubeflow import schedules, versions
from pipelines.kubeflow.schedules import Schedule
from pipelines.kubeflow.server import Server
from pipelines.kubeflow.settings import KubeflowSettings
from spira import config
from spira.delivery.runner import RunnerError
from spira.delivery.training_request import TrainingRequest
from spira.errors import SpiraError
from spira.evaluation import gate
from tests.support.kfp_server import ServerState

pytestmark = pytest.mark.integration

IMAGE, NEWER = (f"registry.example/spira-train@sha256:{digit * 64}" for digit in "01")
CLUSTER = KubeflowSettings(registry_uri="http://mlflow:5000")
REQUEST = TrainingRequest(data="gs://bucket/data", config=config.smoke(), gate=gate.load())
NIGHTLY = "0 30 3 * * *"


def wanted(server: Server, image: str = IMAGE, cron: str = NIGHTLY) -> Schedule:
    """Return a schedule on the version of an image, which is uploaded if it is not on the server."""
    version = versions.upload(server, image, CLUSTER.compile_options(cached=False))
    return Schedule("nightly", cron, version, CLUSTER.arguments(REQUEST, version))


def only_schedule(state: ServerState) -> dict:
    """Return the one schedule on the server."""
    (schedule,) = state.recurring_runs.values()
    return schedule


def test_a_schedule_is_created(server: Server, state: ServerState):
    """It has one run at a time, no catch-up of missed runs, and the version; Kubeflow names its runs."""
    assert schedules.put(server, wanted(server)) == ["there is no schedule of this name"]
    schedule = only_schedule(state)
    assert schedule["trigger"] == {"cron_schedule": {"cron": NIGHTLY}}
    assert (schedule["max_concurrency"], schedule["no_catchup"], schedule["mode"]) == ("1", True, "ENABLE")
    (version,) = state.versions
    assert schedule["pipeline_version_reference"]["pipeline_version_id"] == version
    assert schedule["runtime_config"]["parameters"]["run_name"] == ""


def test_a_schedule_that_does_not_differ_stays(server: Server, state: ServerState):
    """It keeps its id, and so its history."""
    schedules.put(server, wanted(server))
    before = only_schedule(state)["recurring_run_id"]
    assert schedules.put(server, wanted(server)) == []
    assert schedules.check(server, wanted(server)) == []
    assert only_schedule(state)["recurring_run_id"] == before


def test_a_schedule_follows_the_latest_version(server: Server, state: ServerState):
    """After an upload, the check lists the differences, and the next call replaces the schedule."""
    schedules.put(server, wanted(server))
    old, newer = only_schedule(state), wanted(server, NEWER)
    differences = schedules.check(server, newer)
    assert [line.partition(":")[0] for line in differences] == ["version", "code_digest"]
    assert newer.version.name in differences[1]
    assert only_schedule(state) == old
    assert schedules.put(server, newer) == differences
    assert only_schedule(state)["pipeline_version_reference"]["pipeline_version_id"] == newer.version.version_id


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"mode": "DISABLE"}, "enabled: False, wanted True"),
        ({"max_concurrency": "3"}, "concurrent runs: 3, wanted 1"),
        ({"no_catchup": False}, "catch-up of missed runs: True, wanted False"),
        ({"trigger": {"periodic_schedule": {"interval_second": "60"}}}, f"times: None, wanted {NIGHTLY!r}"),
    ],
)
def test_a_manual_change_is_repaired(server: Server, state: ServerState, change: dict, line: str):
    """The difference has both values."""
    schedules.put(server, wanted(server))
    only_schedule(state).update(change)
    assert schedules.put(server, wanted(server)) == [line]
    assert schedules.check(server, wanted(server)) == []


def test_times_and_parameters_can_be_changed(server: Server, state: ServerState):
    """The differences name both."""
    schedules.put(server, wanted(server))
    hourly = wanted(server, cron="0 0 * * * *")
    changed = replace(hourly, arguments=hourly.arguments | {"memory": "8Gi"})
    assert schedules.put(server, changed) == [
        f"times: {NIGHTLY!r}, wanted '0 0 * * * *'",
        "memory: '4Gi', wanted '8Gi'",
    ]
    assert only_schedule(state)["runtime_config"]["parameters"]["memory"] == "8Gi"


def test_of_several_schedules_the_equal_one_stays(server: Server, state: ServerState):
    """A call that was killed between creation and deletion has left two."""
    schedules.put(server, wanted(server))
    expected = only_schedule(state)["recurring_run_id"]
    state.add("recurring_runs", only_schedule(state) | {"mode": "DISABLE"})
    assert schedules.put(server, wanted(server)) == ["there are 2 schedules of this name"]
    assert only_schedule(state)["recurring_run_id"] == expected


def test_the_old_schedule_stays_if_the_server_refuses_the_new_one(server: Server, state: ServerState):
    """The new one is created before the old one is deleted."""
    schedules.put(server, wanted(server))
    before = only_schedule(state)
    valid = wanted(server)
    with pytest.raises(RunnerError, match=r"schedule nightly cannot be replaced: .* returned 400: parameters"):
        schedules.put(server, replace(valid, arguments=valid.arguments | {"unknown": 1}))
    assert only_schedule(state) == before


def test_a_schedule_is_removed(server: Server, state: ServerState):
    """A schedule of another name stays."""
    schedules.put(server, wanted(server))
    schedules.put(server, replace(wanted(server), name="weekly"))
    assert schedules.remove(server, "nightly") == 1
    assert only_schedule(state)["display_name"] == "weekly"
    assert schedules.remove(server, "nightly") == 0


@pytest.mark.parametrize("cron", ["", "30 3 * * *", "@daily"])
def test_times_without_six_fields_are_refused(server: Server, cron: str):
    """Kubeflow would read five fields, the usual form, in another way."""
    with pytest.raises(SpiraError, match="six fields"):
        wanted(server, cron=cron)


def test_unpinned_data_is_never_answered_from_the_cache(server: Server):
    """The cache compares parameters only, and a schedule's are the same every night, even if the data has changed."""
    version = versions.upload(server, IMAGE, CLUSTER.compile_options())
    with pytest.raises(SpiraError, match="changed data would go unnoticed"):
        Schedule("nightly", NIGHTLY, version, CLUSTER.arguments(REQUEST, version))
    pinned = REQUEST.model_copy(update={"data_digest": "d" * 64})
    Schedule("nightly", NIGHTLY, version, CLUSTER.arguments(pinned, version))
