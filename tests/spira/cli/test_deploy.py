"""``spira deploy``: the verbs of the targets by hand, in words and as JSON, what is refused, and what it says to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from spira.cli import deploy as module
from spira.cli.main import app
from spira.deployment.local import Local
from tests.support import ROOT
from tests.support.ledger_builder import LocalDelivery

AWAY = "targets: [{kind: kserve, namespace: serving, context: no-such-context}, {kind: local}]\n"

Verb = Callable[..., Any]


def by_itself(local_delivery: LocalDelivery) -> None:
    """Nothing of continuous delivery: its ledger isn't there."""
    shutil.rmtree(local_delivery.folder / "work" / "ledger")


def settings(local_delivery: LocalDelivery, more: str) -> None:
    with (local_delivery.folder / "delivery.yaml").open("a") as file:
        file.write(more)


def tag(local_delivery: LocalDelivery, version: str, **tags: str) -> None:
    """What the model repository says of a version."""
    from mlflow.tracking import MlflowClient

    for name, value in tags.items():
        MlflowClient(local_delivery.registry.tracking_uri).set_model_version_tag("spira", version, name, value)


def test_plan_tells_the_steps_and_changes_nothing(deploy: Verb, local_delivery: LocalDelivery) -> None:
    """Numbered; as JSON a list, an entry a target."""
    by_itself(local_delivery)
    told = deploy("plan", "3")
    assert told.exit_code == 0
    assert "continuous delivery" not in told.stderr
    lines = told.stdout.splitlines()
    assert lines[:2] == ["target  local", "serves  version 2"]
    assert [line.split()[:2] for line in lines[2:]] == [["1.", "copy"], ["2.", "check"], ["3.", "serve"]]
    (as_json,) = json.loads(deploy("plan", "3", "--json").stdout)
    assert (as_json["target"], as_json["version"], as_json["serving"]) == ("local", "3", "2")
    assert as_json["steps"][-1] == "serve version 3 instead of 2"
    assert local_delivery.served == "2"


def test_apply_serves_and_the_champion_stays(
    deploy: Verb, local_delivery: LocalDelivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What takes its time is told as it begins, and while it goes on, to the person alone."""
    by_itself(local_delivery)
    monkeypatch.setattr(module, "FIRST_BEAT_SECONDS", 0.1)
    told = deploy("apply", "3")
    assert (told.exit_code, told.stdout) == (0, "target   local\nversion  version 3 serves\n")
    assert "local: checks the golden recordings of version 3\n" in told.stderr
    assert "local: checks the golden recordings of version 3 (0 s)\n" in told.stderr
    assert (local_delivery.served, local_delivery.registry.champion().version) == ("3", 2)
    (as_json,) = json.loads(deploy("apply", "champion", "--json").stdout)
    assert (as_json["version"], as_json["previous"], as_json["ready"], local_delivery.served) == ("2", "3", True, "2")


def test_status_tells_what_serves_and_how_it_came_so(deploy: Verb, local_delivery: LocalDelivery) -> None:
    """The last changes, newest first."""
    by_itself(local_delivery)
    for verb in (("apply", "3"), ("apply", "1"), ("rollback", "--reason", "false alarms")):
        assert deploy(*verb).exit_code == 0
    lines = deploy("status").stdout.splitlines()
    told = {line.split()[0]: line.split()[1] for line in lines[:5]}
    assert told == {"target": "local", "version": "3", "previous": "2", "ready": "yes", "drift": "none"}
    assert lines[5].endswith("  rollback from version 1 to 3: false alarms")
    assert [line.split()[-1] for line in lines[6:]] == ["1", "3", "2"]
    (as_json,) = json.loads(deploy("status", "--json").stdout)
    assert (as_json["version"], as_json["previous"], as_json["drifted"]) == ("3", "2", False)
    assert [each["action"] for each in as_json["history"]] == ["apply", "apply", "apply", "rollback"]


def test_verify_tells_the_largest_difference(deploy: Verb, local_delivery: LocalDelivery) -> None:
    """Beside what is allowed."""
    told = deploy("verify")
    assert told.exit_code == 0
    assert "version 2 answers rightly: at most " in told.stdout
    assert "from torch, 1e-05 is allowed" in told.stdout
    (as_json,) = json.loads(deploy("verify", "--json").stdout)
    assert 0 <= as_json["largest_difference"] <= as_json["bound"] == 1e-5


def test_verify_of_a_package_that_was_changed_ends_with_1(deploy: Verb, local_delivery: LocalDelivery) -> None:
    """By file."""
    (local_delivery.folder / "work" / "serving" / "versions" / "2" / "data" / "weights.npz").write_bytes(b"")
    told = deploy("verify")
    assert told.exit_code == 1
    assert "data/weights.npz" in told.stdout


def test_rollback_serves_what_served_before(deploy: Verb, local_delivery: LocalDelivery) -> None:
    """The champion stays; with --bad the command may be repeated."""
    by_itself(local_delivery)
    deploy("apply", "3")
    for _ in range(2):
        told = deploy("rollback", "--reason", "false alarms", "--bad", "3")
        assert (told.exit_code, told.stdout) == (0, "target   local\nversion  version 2 serves\n")
    assert (local_delivery.served, local_delivery.registry.champion().version) == ("2", 2)
    refused = deploy("rollback", "--reason", "once more")
    assert refused.exit_code == 1
    assert "nothing served before 2: apply a version instead" in refused.stdout


def test_rollback_to_what_was_rolled_back_is_refused(deploy: Verb, local_delivery: LocalDelivery) -> None:
    """The ledger knows that what served before is worse."""
    deploy("apply", "1")
    local_delivery.ledger_builder.add("rolled_back", bad="2", to="1", reason="false alarms", who="me")
    told = deploy("rollback", "--reason", "too slow")
    assert told.exit_code == 1
    assert "version 2 served before, and was rolled back (false alarms): apply another" in told.stdout
    assert local_delivery.served == "1"
    assert deploy("rollback", "--reason", "too slow", "--bad", "7").exit_code == 0


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"approved": "false", "reasons": "accuracy 0.4"}, "version 3 isn't approved (accuracy 0.4)"),
        ({"rolled_back_reason": "false alarms"}, "version 3 was rolled back (false alarms)"),
    ],
)
def test_an_unfit_version_serves_for_a_reason_only(
    deploy: Verb, local_delivery: LocalDelivery, tags: dict[str, str], words: str
) -> None:
    """Plan says so; the reason is kept in the place's history."""
    tag(local_delivery, "3", **tags)
    assert f"{words}: apply refuses it, unless --force REASON" in deploy("plan", "3").stderr
    refused = deploy("apply", "3")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert f"{words}; to serve it all the same, say why: --force REASON" in refused.stderr
    assert local_delivery.served == "2"
    assert deploy("apply", "3", "--force", "to compare").exit_code == 0
    assert (
        local_delivery.served,
        Local(local_delivery.folder / "work" / "serving").status().history[-1]["reason"],
    ) == (
        "3",
        "to compare",
    )


def test_what_the_ledger_rolled_back_is_held_too(deploy: Verb, local_delivery: LocalDelivery) -> None:
    """Though the model repository doesn't know yet."""
    local_delivery.ledger_builder.add("rolled_back", bad="1", to="2", reason="false alarms", who="me")
    refused = deploy("apply", "1")
    assert refused.exit_code == 2
    assert "version 1 was rolled back (false alarms)" in refused.stderr


def test_continuous_delivery_puts_back_what_it_wants(
    deploy: Verb, deliver: Verb, local_delivery: LocalDelivery
) -> None:
    """Which is told in one line where it is so, with what lasts; the next tick does it."""
    line = "continuous delivery wants version 2, and its next tick puts that back; what lasts is spira deliver pin 1"
    assert line in deploy("plan", "1").stderr
    assert line in deploy("apply", "1").stderr
    assert "continuous delivery" not in deploy("apply", "2").stderr
    assert line in deploy("rollback", "--reason", "by hand").stderr
    assert local_delivery.served == "1"
    assert "local serves version 2 (was 1)" in deliver("tick").stderr


def test_by_hand_goes_on_without_the_ledger(deploy: Verb, local_delivery: LocalDelivery) -> None:
    """It can't be asked: that is told, and no more."""
    settings(local_delivery, "ledger: delivery.yaml\n")
    told = deploy("apply", "3")
    assert (told.exit_code, local_delivery.served) == (0, "3")
    assert "the ledger can't be asked, so it isn't known what continuous delivery wants" in told.stderr


KUBECONFIG = """\
apiVersion: v1
kind: Config
contexts: [{name: another, context: {cluster: another, user: another}}]
clusters: [{name: another, cluster: {server: http://127.0.0.1:9}}]
users: [{name: another, user: {}}]
current-context: another
"""
"""A kubeconfig that holds another context than the settings name."""


def test_a_target_that_is_away_is_told_and_the_others_are_gone_on_with(
    deploy: Verb, local_delivery: LocalDelivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 1, for every verb; the one that is asked alone is none of its business."""
    (local_delivery.folder / "kubeconfig").write_text(KUBECONFIG)
    monkeypatch.setattr(
        "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(local_delivery.folder / "kubeconfig")
    )
    settings(local_delivery, AWAY)
    for verb in (("plan", "3"), ("apply", "3"), ("verify",), ("status",), ("rollback", "--reason", "r")):
        told = deploy(*verb, "--json")
        away, local = json.loads(told.stdout)
        assert (told.exit_code, away["target"], local["target"]) == (1, "kserve", "local")
        assert "no-such-context" in away["error"]
        assert "error" not in local
        assert deploy(*verb, "--target", "kserve").exit_code == 1
    assert local_delivery.served == "2"
    assert deploy("verify", "--target", "local").exit_code == 0
    told = deploy("status")
    assert "error   no cluster: " in told.stdout
    assert "version   2" in told.stdout


def test_a_target_that_isnt_there_is_refused(deploy: Verb, local_delivery: LocalDelivery) -> None:
    """With those that are."""
    refused = deploy("status", "--target", "kserve")
    assert refused.exit_code == 2
    assert "--target kserve: the settings have no such target, but local" in refused.stderr


@pytest.mark.parametrize("verb", [("plan", "9"), ("apply", "9")])
def test_a_version_that_nobody_knows_is_refused(
    deploy: Verb, local_delivery: LocalDelivery, verb: tuple[str, ...]
) -> None:
    """With those that are."""
    refused = deploy(*verb)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "versions: 1, 2, 3" in refused.stderr


def test_every_verb_is_explained() -> None:
    """By ``spira deploy`` alone, and in the page that people read; its examples keep their lines."""
    told = CliRunner().invoke(app, ["deploy"]).output
    page = (ROOT / "docs" / "delivery.md").read_text()
    verbs = [command.callback.__name__ for command in module.app.registered_commands]
    assert verbs == ["plan", "apply", "verify", "status", "rollback"]
    assert [verb for verb in verbs if f" {verb} " not in told or f"spira deploy {verb}" not in page] == []
    assert "    spira deploy status" in told
