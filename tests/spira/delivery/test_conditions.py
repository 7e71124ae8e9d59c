"""A tick's status as a resource tells it: told of a world in memory, by the reconciler itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.kubeflow import settings as cluster
from spira.delivery import explain, settings
from spira.delivery.conditions import LONGEST, resource_status
from tests.support import ROOT
from tests.support.in_memory_world import World

MANIFESTS = ROOT / "manifests" / "base" / "delivery"
NOW = datetime(2026, 11, 24, 6, 0, 0, 123, tzinfo=UTC)


def told(world: World) -> dict[str, Any]:
    """Of a tick."""
    return explain.status(world.reconciler().tick())


def status(world: World, before: dict[str, Any] | None = None, now: datetime = NOW) -> dict[str, Any]:
    return resource_status(told(world), before or {}, 1, now)


def states(status: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Status and reason of each condition."""
    return {each["type"]: (each["status"], each["reason"]) for each in status["conditions"]}


def messages(status: dict[str, Any]) -> dict[str, str]:
    return {each["type"]: each["message"] for each in status["conditions"]}


@pytest.fixture
def world() -> World:
    """Something to train on, and nothing done yet."""
    return World()


def test_a_run_is_on(world: World):
    """What is fit is not settled while it is trained; nothing serves before the first delivery."""
    found = status(world)
    assert states(found) == {
        "Fit": ("True", "Axes"),
        "Settled": ("False", "Running"),
        "Serving": ("False", "NothingWanted"),
        "Healthy": ("True", "NoTrouble"),
    }
    assert (found["training"], found["serving"], "wanted" in found) == ("running", "nothing", False)
    assert found["run"] in messages(found)["Settled"]


def test_what_is_delivered_serves(world: World):
    """All is as it should be, and the message says just that."""
    world.deliver()
    found = status(world)
    assert {state for state, _ in states(found).values()} == {"True"}
    assert (found["wanted"], found["champion"], found["serving"], found["training"]) == ("1", "1", "1", "approved")
    assert found["message"] == "what is observed is settled, and what serves is what is wanted"
    assert found["targets"] == [
        {"name": "local", "version": "1", "ready": True},
        {"name": "kserve", "version": "1", "ready": True},
    ]


def test_a_rejected_model_settles_what_was_observed(world: World):
    """It was judged: nothing more is due."""
    world.deliver("rejected")
    assert states(status(world))["Settled"] == ("True", "Rejected")


def test_a_failed_run_settles_nothing(world: World):
    """The message tells why, and when the next attempt is due."""
    world.deliver("failed")
    found = status(world)
    assert states(found)["Settled"] == ("False", "Failed")
    assert "out of memory" in found["message"]


def test_what_is_unfit_is_no_trouble_of_ours(world: World):
    """The data's owner is told what to do, and whether it is settled nobody knows."""
    world.unfit = "data: row 2: the file isn't there"
    found = status(world)
    assert states(found)["Fit"] == ("False", "InvalidInput")
    assert states(found)["Settled"] == ("Unknown", "NothingFit")
    assert states(found)["Healthy"] == ("True", "NoTrouble")
    assert world.unfit in messages(found)["Fit"]


def test_a_target_that_serves_something_else_is_named(world: World):
    """Known to be wrong, which outweighs that another can't be asked."""
    world.deliver()
    seen = told(world)
    seen["serving"]["kserve"] = {"version": "7", "ready": False, "message": "no node"}
    seen["serving"]["local"] = None
    found = resource_status(seen, {}, 1, NOW)
    assert states(found)["Serving"] == ("False", "NotAsWanted")
    assert found["serving"] == "local: can't be asked, kserve: 7, not ready: no node"
    assert messages(found)["Serving"] == "version 1 is wanted; kserve: 7, not ready: no node; local: can't be asked"
    assert found["targets"][0] == {"name": "local", "message": "can't be asked"}


def test_a_target_that_cannot_be_asked_is_unknown_and_a_trouble(world: World):
    """Whether what serves is what is wanted can't be said; that it can't be, can."""
    world.deliver()
    world.targets[1].reachable = False
    found = status(world)
    assert states(found)["Serving"] == ("Unknown", "NotAsked")
    assert states(found)["Healthy"] == ("False", "Troubles")
    assert found["message"] == "target kserve: kserve can't be reached"


def test_damage_to_the_ledger_is_a_trouble(world: World):
    """By the number of the record."""
    status(world)
    world.store.files["records/000001.json"] = b"{"
    assert messages(status(world))["Healthy"] == "ledger: record 1 can't be read"


def test_the_time_moves_only_where_the_status_does(world: World):
    """Not when a message changes, nor with every tick."""
    first = status(world)
    world.end_run("approved")
    later = status(world, first, NOW + timedelta(minutes=5))
    since = {each["type"]: each["lastTransitionTime"] for each in later["conditions"]}
    before, after = "2026-11-24T06:00:00Z", "2026-11-24T06:05:00Z"
    assert since == {"Fit": before, "Settled": after, "Serving": after, "Healthy": before}
    assert later["lastTickTime"] == after


def test_a_condition_keeps_its_time_when_only_the_reason_changes(world: World):
    """Kubernetes' own rule: the time is that of the status."""
    first = status(world)
    world.end_run("failed")
    later = status(world, first, NOW + timedelta(minutes=5))
    (settled,) = (each for each in later["conditions"] if each["type"] == "Settled")
    assert (settled["reason"], settled["lastTransitionTime"]) == ("Failed", "2026-11-24T06:00:00Z")


def test_a_long_message_is_cut(world: World):
    """Kubernetes takes no message of any length; the ledger has it in full."""
    world.unfit = "row after row " * LONGEST
    assert {len(each) for each in messages(status(world)).values() if each.endswith("…")} == {LONGEST}


def test_a_pin_is_shown(world: World):
    """By its version."""
    world.deliver()
    seen = told(world) | {"pin": {"version": "1", "reason": "an audit"}}
    assert resource_status(seen, {}, 1, NOW)["pinned"] == "1"


def test_the_cluster_is_told_of_every_field(world: World):
    """Kubernetes drops without a word what the definition of the resource doesn't name."""
    world.deliver()
    seen = told(world) | {"pin": {"version": "1", "reason": "an audit"}, "run": "run-1"}
    seen["serving"]["kserve"]["message"] = "changed by someone else"
    (version,) = yaml.safe_load((MANIFESTS / "crd.yaml").read_text())["spec"]["versions"]
    named = version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    found = resource_status(seen, {}, 1, NOW)
    assert found.keys() == named.keys()
    assert set(found["targets"][1]) == set(named["targets"]["items"]["properties"])
    assert set(found["conditions"][0]) == set(named["conditions"]["items"]["properties"])
    assert found["axes"].keys() == named["axes"]["properties"].keys()


def test_the_settings_of_the_manifests_are_ones():
    """Those of delivery, and of the Kubeflow that it names beside it."""
    shipped = settings.load(MANIFESTS / "delivery.yaml")
    assert shipped.resource == "spira-delivery/spira"
    assert cluster.load(Path(shipped.kubeflow)).registry_uri == shipped.registry
