"""Schedules made to be as they are wanted, through the real kfp.Client, against a stand-in server on loopback."""

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

IMAGE, NEWER = (f"registry.example/spira-train@sha256:{digit * 64}" for digit in "01")
CLUSTER = KubeflowSettings(registry_uri="http://mlflow:5000")
REQUEST = TrainingRequest(data="gs://bucket/data", config=config.smoke(), gate=gate.load())
NIGHTLY = "0 30 3 * * *"


def wanted(server: Server, image: str = IMAGE, cron: str = NIGHTLY) -> Schedule:
    """On the version of an image, uploaded if need be."""
    version = versions.upload(server, image, CLUSTER.form(cached=False))
    return Schedule("nightly", cron, version, CLUSTER.arguments(REQUEST, version))


def there(state: ServerState) -> dict:
    """The one schedule."""
    (schedule,) = state.recurring_runs.values()
    return schedule


def test_a_schedule_is_made(server: Server, state: ServerState):
    """One run at a time, none made up for, on the version that was looked up, its runs named by Kubeflow."""
    assert schedules.put(server, wanted(server)) == ["there is no such schedule"]
    made = there(state)
    assert made["trigger"] == {"cron_schedule": {"cron": NIGHTLY}}
    assert (made["max_concurrency"], made["no_catchup"], made["mode"]) == ("1", True, "ENABLE")
    (version,) = state.versions
    assert made["pipeline_version_reference"]["pipeline_version_id"] == version
    assert made["runtime_config"]["parameters"]["run_name"] == ""


def test_one_that_is_right_is_left_alone(server: Server, state: ServerState):
    """It keeps its id, and so its history."""
    schedules.put(server, wanted(server))
    before = there(state)["recurring_run_id"]
    assert schedules.put(server, wanted(server)) == []
    assert schedules.check(server, wanted(server)) == []
    assert there(state)["recurring_run_id"] == before


def test_it_follows_the_latest_version(server: Server, state: ServerState):
    """After an upload the check says what is out of date, and the next call replaces the schedule."""
    schedules.put(server, wanted(server))
    old, newer = there(state), wanted(server, NEWER)
    told = schedules.check(server, newer)
    assert [line.partition(":")[0] for line in told] == ["version", "code_digest"]
    assert newer.version.name in told[1]
    assert there(state) == old
    assert schedules.put(server, newer) == told
    assert there(state)["pipeline_version_reference"]["pipeline_version_id"] == newer.version.version_id


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"mode": "DISABLE"}, "enabled: False, wanted True"),
        ({"max_concurrency": "3"}, "runs at once: 3, wanted 1"),
        ({"no_catchup": False}, "catching up: True, wanted False"),
        ({"trigger": {"periodic_schedule": {"interval_second": "60"}}}, f"times: None, wanted {NIGHTLY!r}"),
    ],
)
def test_what_was_changed_by_hand_is_put_right(server: Server, state: ServerState, change: dict, line: str):
    """Named, as it is and as it is wanted."""
    schedules.put(server, wanted(server))
    there(state).update(change)
    assert schedules.put(server, wanted(server)) == [line]
    assert schedules.check(server, wanted(server)) == []


def test_times_and_parameters_can_be_changed(server: Server, state: ServerState):
    """Both are part of what is wanted."""
    schedules.put(server, wanted(server))
    hourly = wanted(server, cron="0 0 * * * *")
    changed = replace(hourly, arguments=hourly.arguments | {"memory": "8Gi"})
    assert schedules.put(server, changed) == [
        f"times: {NIGHTLY!r}, wanted '0 0 * * * *'",
        "memory: '4Gi', wanted '8Gi'",
    ]
    assert there(state)["runtime_config"]["parameters"]["memory"] == "8Gi"


def test_of_several_the_right_one_stays(server: Server, state: ServerState):
    """A call that was killed between creating and deleting left two."""
    schedules.put(server, wanted(server))
    right = there(state)["recurring_run_id"]
    state.add("recurring_runs", there(state) | {"mode": "DISABLE"})
    assert schedules.put(server, wanted(server)) == ["there are 2 of this name"]
    assert there(state)["recurring_run_id"] == right


def test_a_schedule_that_the_server_refuses_costs_none(server: Server, state: ServerState):
    """The new one is created before the old one is deleted."""
    schedules.put(server, wanted(server))
    before = there(state)
    bad = wanted(server)
    with pytest.raises(RunnerError, match=r"schedule nightly can't be put right: .* says 400: parameters"):
        schedules.put(server, replace(bad, arguments=bad.arguments | {"unknown": 1}))
    assert there(state) == before


def test_a_schedule_is_removed(server: Server, state: ServerState):
    """By its name; another stays."""
    schedules.put(server, wanted(server))
    schedules.put(server, replace(wanted(server), name="weekly"))
    assert schedules.remove(server, "nightly") == 1
    assert there(state)["display_name"] == "weekly"
    assert schedules.remove(server, "nightly") == 0


@pytest.mark.parametrize("cron", ["", "30 3 * * *", "@daily"])
def test_times_of_another_form_are_refused(server: Server, cron: str):
    """Five fields, as elsewhere, would mean something else."""
    with pytest.raises(SpiraError, match="six fields"):
        wanted(server, cron=cron)


def test_unpinned_data_is_never_answered_from_the_cache(server: Server):
    """A cache looks at parameters only: a schedule's are the same every night, whatever became of the data."""
    version = versions.upload(server, IMAGE, CLUSTER.form())
    with pytest.raises(SpiraError, match="changed data would go unnoticed"):
        Schedule("nightly", NIGHTLY, version, CLUSTER.arguments(REQUEST, version))
    pinned = REQUEST.model_copy(update={"data_digest": "d" * 64})
    Schedule("nightly", NIGHTLY, version, CLUSTER.arguments(pinned, version))
