"""Schedules on Kubeflow, through the real kfp.Client, against a stand-in server on loopback."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelines.kubeflow import schedules, versions
from pipelines.kubeflow.schedules import Change, Schedule
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
    """Return a schedule for the version of an image, which is uploaded if it is not on the server."""
    version = versions.upload(server, image, CLUSTER.compile_options())
    return Schedule("nightly", cron, version, CLUSTER.arguments(REQUEST, version))


def only_schedule(state: ServerState) -> dict:
    """Return the one schedule on the server."""
    (schedule,) = state.recurring_runs.values()
    return schedule


def test_a_schedule_is_created(server: Server, state: ServerState):
    """It has one run at a time and no catch-up of missed runs. It names no version, and Kubeflow names its runs."""
    assert put(server, wanted(server)) == ["there is no schedule of this name"]
    schedule = only_schedule(state)
    assert schedule["trigger"] == {"cron_schedule": {"cron": NIGHTLY}}
    assert (schedule["max_concurrency"], schedule["no_catchup"], schedule["mode"]) == ("1", True, "ENABLE")
    (version,) = state.versions.values()
    assert schedule["pipeline_version_reference"] == {"pipeline_id": version["pipeline_id"]}
    assert not {"run_name", "code_digest"} & set(schedule["runtime_config"]["parameters"])


def test_a_schedule_that_does_not_differ_stays(server: Server, state: ServerState):
    """It keeps its id, and so its history."""
    put(server, wanted(server))
    before = only_schedule(state)["recurring_run_id"]
    assert put(server, wanted(server)) == []
    assert schedules.check(server, wanted(server)) == []
    assert only_schedule(state)["recurring_run_id"] == before


def test_a_schedule_follows_the_latest_version_by_itself(server: Server, state: ServerState):
    """After an upload nothing differs, and the next run has the new version."""
    put(server, wanted(server))
    before, newer = only_schedule(state), wanted(server, NEWER)
    assert schedules.check(server, newer) == put(server, newer) == []
    assert only_schedule(state) == before
    run = state.fire(before["recurring_run_id"])
    assert run["pipeline_version_reference"]["pipeline_version_id"] == newer.version.version_id


def test_a_schedule_of_an_earlier_program_is_moved_to_the_latest_version(server: Server, state: ServerState):
    """It named a version, so its runs did not know their own name."""
    schedule = wanted(server)
    put(server, schedule)
    reference = only_schedule(state)["pipeline_version_reference"]
    reference["pipeline_version_id"] = schedule.version.version_id
    assert put(server, schedule) == [f"version: {schedule.version.version_id!r}, wanted 'the latest'"]
    assert schedules.check(server, schedule) == []


def test_a_schedule_of_ticks_stays_on_its_version(server: Server, state: ServerState):
    """An earlier image can then be scheduled again, although a later version is on the server."""
    first, second = (replace(wanted(server, image), pinned=True) for image in (IMAGE, NEWER))
    for schedule in (first, second, first):
        assert len(put(server, schedule)) == 1
        assert only_schedule(state)["pipeline_version_reference"]["pipeline_version_id"] == schedule.version.version_id


def put(server: Server, schedule: Schedule) -> list[str]:
    """Replace the schedule on the server, and return the differences that there were."""
    return schedules.put(server, schedule).differences


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
    put(server, wanted(server))
    only_schedule(state).update(change)
    assert put(server, wanted(server)) == [line]
    assert schedules.check(server, wanted(server)) == []


def test_times_and_parameters_can_be_changed(server: Server, state: ServerState):
    """The differences name both."""
    put(server, wanted(server))
    hourly = wanted(server, cron="0 0 * * * *")
    changed = replace(hourly, arguments=hourly.arguments | {"device": "cpu"})
    assert put(server, changed) == [
        f"times: {NIGHTLY!r}, wanted '0 0 * * * *'",
        "device: 'auto', wanted 'cpu'",
    ]
    assert only_schedule(state)["runtime_config"]["parameters"]["device"] == "cpu"


def test_of_several_schedules_the_equal_one_stays(server: Server, state: ServerState):
    """A call that was killed between creation and deletion has left two."""
    put(server, wanted(server))
    expected = only_schedule(state)["recurring_run_id"]
    state.add("recurring_runs", only_schedule(state) | {"max_concurrency": "3"})
    assert put(server, wanted(server)) == ["there are 2 schedules of this name"]
    assert only_schedule(state)["recurring_run_id"] == expected


def test_the_old_schedule_stays_if_the_server_refuses_the_new_one(server: Server, state: ServerState):
    """The new one is created before the old one is deleted."""
    put(server, wanted(server))
    before = only_schedule(state)
    valid = wanted(server)
    with pytest.raises(RunnerError, match=r"schedule nightly cannot be replaced: .* returned 400: parameters"):
        schedules.put(server, replace(valid, arguments=valid.arguments | {"unknown": 1}))
    assert only_schedule(state) == before


def test_a_changed_schedule_does_not_stop_its_run(server: Server, state: ServerState):
    """Kubeflow deletes the pods of its runs with a schedule, so the old one is disabled until its run has ended."""
    put(server, wanted(server))
    old = only_schedule(state)
    run = state.fire(old["recurring_run_id"])
    state.pods = [{"metadata": {"labels": {"pipeline/runid": run["run_id"]}}}]
    hourly = wanted(server, cron="0 0 * * * *")
    change = schedules.put(server, hourly)
    assert (len(change.differences), change.deleted, change.retained) == (1, 0, 1)
    assert sorted(schedule["mode"] for schedule in state.recurring_runs.values()) == ["DISABLE", "ENABLE"]
    assert schedules.check(server, hourly) == []
    again = schedules.put(server, hourly)
    assert (again.differences, again.retained, len(state.pods)) == ([], 1, 1)
    run["state"] = "SUCCEEDED"
    assert schedules.put(server, hourly) == Change([], deleted=1, retained=0)
    assert only_schedule(state)["trigger"] == {"cron_schedule": {"cron": "0 0 * * * *"}}


def test_a_removed_schedule_does_not_stop_its_run(server: Server, state: ServerState):
    """It starts no other run, and the next call deletes it."""
    put(server, wanted(server))
    run = state.fire(only_schedule(state)["recurring_run_id"])
    assert schedules.remove(server, "nightly") == Change([], deleted=0, retained=1)
    assert only_schedule(state)["mode"] == "DISABLE"
    run["state"] = "FAILED"
    assert schedules.remove(server, "nightly") == Change([], deleted=1, retained=0)
    assert state.recurring_runs == {}


def test_a_schedule_is_disabled_before_its_runs_are_listed(server: Server, state: ServerState):
    """A run that it started in between would be deleted with it."""
    put(server, wanted(server))
    schedule = only_schedule(state)

    def start_late(request: str) -> None:
        if request == "GET /runs" and schedule["mode"] == "ENABLE":
            state.fire(schedule["recurring_run_id"])

    state.trouble = start_late
    schedules.remove(server, "nightly")
    assert (state.runs, state.recurring_runs) == ({}, {})


def test_a_schedule_is_removed(server: Server, state: ServerState):
    """A schedule of another name stays."""
    put(server, wanted(server))
    put(server, replace(wanted(server), name="weekly"))
    assert schedules.remove(server, "nightly").deleted == 1
    assert only_schedule(state)["display_name"] == "weekly"
    assert schedules.remove(server, "nightly").deleted == 0


@pytest.mark.parametrize("cron", ["", "30 3 * * *", "@daily"])
def test_times_without_six_fields_are_refused(server: Server, cron: str):
    """Kubeflow would read five fields, the usual form, in another way."""
    with pytest.raises(SpiraError, match="six fields"):
        wanted(server, cron=cron)


def test_unpinned_data_is_never_answered_from_the_cache(server: Server):
    """The cache compares parameters only, and a schedule's are the same every night, even if the data has changed."""
    version = versions.upload(server, IMAGE, CLUSTER.compile_options(cached=True))
    with pytest.raises(SpiraError, match="changed data would go unnoticed"):
        CLUSTER.arguments(REQUEST, version)
    pinned = REQUEST.model_copy(update={"data_digest": "d" * 64})
    assert CLUSTER.arguments(pinned, version)["data_digest"] == "d" * 64
