"""Status of the custom resource after ticks of a reconciler in memory."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.kubeflow import settings as kubeflow_settings
from spira.delivery import settings
from spira.delivery.kubernetes.conditions import MAX_MESSAGE_CHARACTERS, resource_status
from spira.delivery.status import DeliveryStatus, PinStatus, TargetStatus, delivery_status
from tests.support import ROOT
from tests.support.in_memory_world import InMemoryWorld

MANIFESTS = ROOT / "manifests" / "base" / "delivery"
NOW = datetime(2026, 11, 24, 6, 0, 0, 123, tzinfo=UTC)


def tick(world: InMemoryWorld) -> DeliveryStatus:
    return delivery_status(world.reconciler().tick())


def resource_after_tick(
    world: InMemoryWorld, previous: dict[str, Any] | None = None, now: datetime = NOW
) -> dict[str, Any]:
    return resource_status(tick(world), previous or {}, 1, now).to_json()


def states(resource: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Return status and reason of each condition."""
    return {condition["type"]: (condition["status"], condition["reason"]) for condition in resource["conditions"]}


def messages(resource: dict[str, Any]) -> dict[str, str]:
    return {condition["type"]: condition["message"] for condition in resource["conditions"]}


@pytest.fixture
def world() -> InMemoryWorld:
    """Valid input, and no tick yet."""
    return InMemoryWorld()


def test_an_active_run_is_not_settled(world: InMemoryWorld):
    """Before the first delivery nothing serves."""
    resource = resource_after_tick(world)
    assert states(resource) == {
        "Fit": ("True", "Observed"),
        "Settled": ("False", "Running"),
        "Serving": ("False", "NothingWanted"),
        "Healthy": ("True", "NoTrouble"),
    }
    assert (resource["training"], resource["serving"], "wanted" in resource) == ("running", "nothing", False)
    assert resource["run"] in messages(resource)["Settled"]


def test_after_a_delivery_every_condition_is_true(world: InMemoryWorld):
    world.deliver()
    resource = resource_after_tick(world)
    assert {state for state, _ in states(resource).values()} == {"True"}
    fields = ("wanted", "champion", "serving", "training")
    assert [resource[field] for field in fields] == ["1", "1", "1", "approved"]
    assert resource["message"] == (
        "up to date: the last observation is settled, and every target serves the wanted version"
    )
    assert resource["targets"] == [
        {"name": "local", "version": "1", "ready": True},
        {"name": "kserve", "version": "1", "ready": True},
    ]


def test_a_rejection_settles_the_input(world: InMemoryWorld):
    world.deliver("rejected")
    assert states(resource_after_tick(world))["Settled"] == ("True", "Rejected")


def test_a_failed_run_settles_nothing(world: InMemoryWorld):
    """The message has the cause, and the time of the next attempt."""
    world.deliver("failed")
    resource = resource_after_tick(world)
    assert states(resource)["Settled"] == ("False", "Failed")
    assert "out of memory" in resource["message"]


def test_invalid_input_is_no_trouble_of_delivery(world: InMemoryWorld):
    """The message helps the owner of the data; whether the input is settled is unknown."""
    world.problem = "data: row 2: the file does not exist"
    resource = resource_after_tick(world)
    assert states(resource)["Fit"] == ("False", "InvalidInput")
    assert states(resource)["Settled"] == ("Unknown", "NothingFit")
    assert states(resource)["Healthy"] == ("True", "NoTrouble")
    assert messages(resource)["Fit"] == "the data cannot be trained on: row 2: the file does not exist"


def test_a_target_with_another_version_is_named(world: InMemoryWorld):
    """A known error matters more than an unreachable target."""
    world.deliver()
    serving = {"local": None, "kserve": TargetStatus(version="7", ready=False, message="no node")}
    resource = resource_status(tick(world).model_copy(update={"serving": serving}), {}, 1, NOW).to_json()
    assert states(resource)["Serving"] == ("False", "NotAsWanted")
    assert resource["serving"] == "local: unreachable, kserve: 7, not ready: no node"
    assert messages(resource)["Serving"] == "version 1 is wanted; kserve: 7, not ready: no node; local: unreachable"
    assert resource["targets"][0] == {"name": "local", "message": "unreachable"}


def test_an_unreachable_target_is_unknown_and_a_trouble(world: InMemoryWorld):
    world.deliver()
    world.targets[1].reachable = False
    resource = resource_after_tick(world)
    assert states(resource)["Serving"] == ("Unknown", "Unreachable")
    assert states(resource)["Healthy"] == ("False", "Troubles")
    assert resource["message"] == "target kserve: kserve is unreachable"


def test_a_damaged_record_is_a_trouble(world: InMemoryWorld):
    resource_after_tick(world)
    world.store.files["records/000001.json"] = b"{}"
    assert "ledger: damaged record 1 " in messages(resource_after_tick(world))["Healthy"]


def test_the_transition_time_changes_only_with_the_status(world: InMemoryWorld):
    """It does not change with a message, nor with every tick."""
    first = resource_after_tick(world)
    world.end_run("approved")
    later = resource_after_tick(world, first, NOW + timedelta(minutes=5))
    since = {condition["type"]: condition["lastTransitionTime"] for condition in later["conditions"]}
    before, after = "2026-11-24T06:00:00Z", "2026-11-24T06:05:00Z"
    assert since == {"Fit": before, "Settled": after, "Serving": after, "Healthy": before}
    assert later["lastTickTime"] == after


def test_the_transition_time_stays_if_only_the_reason_changes(world: InMemoryWorld):
    """This is the convention of Kubernetes."""
    first = resource_after_tick(world)
    world.end_run("failed")
    later = resource_after_tick(world, first, NOW + timedelta(minutes=5))
    (settled,) = (condition for condition in later["conditions"] if condition["type"] == "Settled")
    assert (settled["reason"], settled["lastTransitionTime"]) == ("Failed", "2026-11-24T06:00:00Z")


def test_a_long_message_is_cut(world: InMemoryWorld):
    world.problem = "row after row " * MAX_MESSAGE_CHARACTERS
    cut = [message for message in messages(resource_after_tick(world)).values() if message.endswith("…")]
    assert {len(message) for message in cut} == {MAX_MESSAGE_CHARACTERS}


def test_a_pinned_version_is_shown(world: InMemoryWorld):
    world.deliver()
    status = tick(world).model_copy(update={"pin": PinStatus(version="1", reason="an audit")})
    assert resource_status(status, {}, 1, NOW).pinned == "1"


def test_the_resource_definition_declares_every_field(world: InMemoryWorld):
    """Kubernetes drops a field that the definition does not declare, without an error."""
    world.deliver()
    status = tick(world)
    changed = TargetStatus(version="1", ready=True, message="changed by someone else")
    update = {
        "pin": PinStatus(version="1", reason="an audit"),
        "run": "run-1",
        "serving": {**status.serving, "kserve": changed},
    }
    resource = resource_status(status.model_copy(update=update), {}, 1, NOW).to_json()
    (version,) = yaml.safe_load((MANIFESTS / "crd.yaml").read_text())["spec"]["versions"]
    declared = version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    assert resource.keys() == declared.keys()
    assert set(resource["targets"][1]) == set(declared["targets"]["items"]["properties"])
    assert set(resource["conditions"][0]) == set(declared["conditions"]["items"]["properties"])
    assert resource["axes"].keys() == declared["axes"]["properties"].keys()


def test_the_settings_in_the_manifests_are_valid():
    """Those of delivery, and the Kubeflow settings that they name."""
    shipped = settings.load(MANIFESTS / "delivery.yaml")
    assert shipped.resource == "spira-delivery/spira"
    assert kubeflow_settings.load(Path(shipped.kubeflow)).registry_uri == shipped.registry
