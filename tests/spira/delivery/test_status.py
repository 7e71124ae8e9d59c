"""JSON form of the status: the keys that older programs read."""

from __future__ import annotations

import json

from spira.delivery import operator_commands
from spira.delivery.status import TickStatus, delivery_status, tick_status
from tests.support.in_memory_world import InMemoryWorld

KEYS = {
    "observed", "training", "run", "wanted", "champion", "serving", "pin", "rolled_back", "notes", "troubles",
    "torn_records", "damaged_records", "records", "wanted_digest", "champion_digest", "notice_problems",
}  # fmt: skip


def test_the_json_form_has_the_keys_of_earlier_versions() -> None:
    world = InMemoryWorld()
    world.deliver()
    operator_commands.pin(world.ledger, "1", "an audit")
    world.targets[1].reachable = False
    status = delivery_status(world.reconciler().tick())
    body = json.loads(json.dumps(status.to_json()))
    fingerprint = world.observed().fingerprint
    assert set(body) == KEYS
    assert body["observed"] == {
        "fingerprint": fingerprint.digest,
        "axes": {"data": fingerprint.data, "model": fingerprint.model, "code": fingerprint.code},
        "problem": "",
        "since": "2026-11-24T00:00:00+00:00",
    }
    local = {"version": "1", "ready": True, "message": "", "digest": world.targets[0].digest, "drifted": False}
    assert body["serving"] == {"local": local, "kserve": None}
    assert body["pin"] == {"version": "1", "reason": "an audit"}
    assert (body["training"], body["notes"]) == ("approved", ["target kserve is unreachable"])


def test_before_the_first_tick_the_status_has_no_observation() -> None:
    status = delivery_status(InMemoryWorld().reconciler().dry_run())
    assert status.to_json()["observed"] is None
    assert status.training == "nothing observed yet: run spira deliver tick"


def test_the_status_of_a_tick_survives_json() -> None:
    """The recurring tick reads it from the output of another process."""
    world = InMemoryWorld()
    status = tick_status(world.reconciler().tick(), ["claimed run run-1"])
    assert TickStatus.model_validate_json(json.dumps(status.to_json())) == status
    assert set(status.to_json()) == KEYS | {"done"}
