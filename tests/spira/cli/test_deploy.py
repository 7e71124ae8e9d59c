"""``spira deploy``: its verbs as text and as JSON, and its refusals with their remedies."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from spira.cli import deploy as module
from spira.cli.main import app
from spira.delivery.history.events import RolledBack
from spira.deployment.local import Local
from spira.errors import SpiraError
from tests.support import ROOT
from tests.support.ledger_builder import LocalDelivery

pytestmark = pytest.mark.integration

AWAY = "targets: [{kind: kserve, namespace: serving, context: no-such-context}, {kind: local}]\n"

Command = Callable[..., Any]


def without_delivery(local_delivery: LocalDelivery) -> None:
    """Remove the ledger, so that continuous delivery is not in use."""
    shutil.rmtree(local_delivery.folder / "work" / "ledger")


def append_settings(local_delivery: LocalDelivery, lines: str) -> None:
    with (local_delivery.folder / "delivery.yaml").open("a") as file:
        file.write(lines)


def tag(local_delivery: LocalDelivery, version: str, **tags: str) -> None:
    """Set tags of a version in the model repository."""
    from mlflow.tracking import MlflowClient

    for name, value in tags.items():
        MlflowClient(local_delivery.registry.tracking_uri).set_model_version_tag("spira", version, name, value)


def test_plan_prints_the_steps_and_changes_nothing(deploy: Command, local_delivery: LocalDelivery) -> None:
    """The steps are numbered; the JSON is a list with one entry per target."""
    without_delivery(local_delivery)
    result = deploy("plan", "3")
    assert result.exit_code == 0
    assert "continuous delivery" not in result.stderr
    lines = result.stdout.splitlines()
    assert lines[:2] == ["target  local", "serves  version 2"]
    assert [line.split()[:2] for line in lines[2:]] == [["1.", "copy"], ["2.", "check"], ["3.", "serve"]]
    (as_json,) = json.loads(deploy("plan", "3", "--json").stdout)
    assert (as_json["target"], as_json["version"], as_json["serving"]) == ("local", "3", "2")
    assert as_json["steps"][-1] == "serve version 3 instead of 2"
    assert local_delivery.served == "2"


def test_apply_serves_a_version_and_makes_it_champion(
    deploy: Command, local_delivery: LocalDelivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress goes to standard error, at the start of a step and again while it takes long."""
    without_delivery(local_delivery)
    for name in ("FIRST_PROGRESS_SECONDS", "PROGRESS_SECONDS"):
        monkeypatch.setattr(module, name, 0.005)
    result = deploy("apply", "3")
    assert (result.exit_code, result.stdout) == (0, "target   local\nversion  version 3 serves\n")
    assert "local: checking the golden recordings of version 3\n" in result.stderr
    assert "local: checking the golden recordings of version 3 (0 s)\n" in result.stderr
    assert "version 3 is champion\n" in result.stderr
    assert (local_delivery.served, local_delivery.registry.champion().version) == ("3", 3)
    (as_json,) = json.loads(deploy("apply", "previous", "--json").stdout)
    assert (as_json["version"], as_json["previous"], as_json["ready"], local_delivery.served) == ("2", "3", True, "2")
    assert local_delivery.registry.champion().version == 2


def test_apply_to_one_target_leaves_the_champion(deploy: Command, local_delivery: LocalDelivery) -> None:
    """One line reports it."""
    without_delivery(local_delivery)
    result = deploy("apply", "3", "--target", "local")
    assert (result.exit_code, result.stdout) == (0, "target   local\nversion  version 3 serves\n")
    assert "the champion stays: --target moves one target only" in result.stderr
    assert (local_delivery.served, local_delivery.registry.champion().version) == ("3", 2)
    result = deploy("rollback", "--reason", "false alarms", "--target", "local")
    assert "the champion stays: --target moves one target only" in result.stderr
    assert (result.exit_code, local_delivery.served, local_delivery.registry.champion().version) == (0, "2", 2)
    assert local_delivery.registry.champion_status()[:2] == ("2", frozenset())


def test_an_alias_that_cannot_move_restores_the_target(
    deploy: Command, local_delivery: LocalDelivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2 with the reason; the JSON is printed all the same."""
    from spira.delivery.repository import MLflowRepository

    def refuse(self: MLflowRepository, version: str, reason: str) -> None:
        raise SpiraError("the version cannot be promoted: disk full")

    without_delivery(local_delivery)
    monkeypatch.setattr(MLflowRepository, "promote", refuse)
    result = deploy("apply", "3", "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout)[0]["version"] == "3"
    assert "error: the version cannot be promoted: disk full" in result.stderr
    assert (local_delivery.served, local_delivery.registry.champion().version) == ("2", 2)


def test_status_prints_the_serving_version_and_the_last_changes(deploy: Command, local_delivery: LocalDelivery) -> None:
    """The newest change comes first."""
    without_delivery(local_delivery)
    for verb in (("apply", "3"), ("apply", "1"), ("rollback", "--reason", "false alarms")):
        assert deploy(*verb).exit_code == 0
    lines = deploy("status").stdout.splitlines()
    values = {line.split()[0]: line.split()[1] for line in lines[:5]}
    assert values == {"target": "local", "version": "3", "previous": "2", "ready": "yes", "drift": "none"}
    assert lines[5].endswith("  rollback from version 1 to 3: false alarms")
    assert [line.split()[-1] for line in lines[6:]] == ["1", "3", "2"]
    (as_json,) = json.loads(deploy("status", "--json").stdout)
    assert (as_json["version"], as_json["previous"], as_json["drifted"]) == ("3", "2", False)
    assert [change["action"] for change in as_json["history"]] == ["apply", "apply", "apply", "rollback"]


def test_verify_prints_the_largest_difference(deploy: Command, local_delivery: LocalDelivery) -> None:
    """The limit stands beside it."""
    result = deploy("verify")
    assert result.exit_code == 0
    assert "version 2 answers correctly: largest difference from torch " in result.stdout
    assert "(limit 1e-05)" in result.stdout
    (as_json,) = json.loads(deploy("verify", "--json").stdout)
    assert 0 <= as_json["largest_difference"] <= as_json["bound"] == 1e-5


def test_verify_of_a_modified_package_exits_with_1(deploy: Command, local_delivery: LocalDelivery) -> None:
    """The message names the file."""
    (Local(local_delivery.folder / "work" / "serving").package / "data" / "weights.npz").write_bytes(b"")
    result = deploy("verify")
    assert result.exit_code == 1
    assert "data/weights.npz" in result.stdout


def test_rollback_serves_the_previous_version_and_makes_it_champion(
    deploy: Command, local_delivery: LocalDelivery
) -> None:
    """With --bad the command can be repeated. The version that was left is held in the model repository."""
    without_delivery(local_delivery)
    deploy("apply", "3")
    for _ in range(2):
        result = deploy("rollback", "--reason", "false alarms", "--bad", "3")
        assert (result.exit_code, result.stdout) == (0, "target   local\nversion  version 2 serves\n")
    assert (local_delivery.served, local_delivery.registry.champion().version) == ("2", 2)
    assert local_delivery.registry.champion_status()[:2] == ("2", frozenset({"3"}))
    refused = deploy("rollback", "--reason", "once more")
    assert refused.exit_code == 1
    assert "nothing served before 2: apply a version instead" in refused.stdout


def test_the_targets_go_back_before_the_alias_moves(
    deploy: Command, local_delivery: LocalDelivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the model repository fails, the previous version serves; repeated with --bad, the alias follows."""
    from spira.registry import Registry, RegistryError

    without_delivery(local_delivery)
    deploy("apply", "3")
    with monkeypatch.context() as patch:

        def fail(self: Registry, reason: str, bad: int | None = None) -> None:
            raise RegistryError("the champion cannot be rolled back: disk full")

        patch.setattr(Registry, "rollback", fail)
        result = deploy("rollback", "--reason", "false alarms", "--bad", "3")
        assert (result.exit_code, local_delivery.served, local_delivery.registry.champion().version) == (2, "2", 3)
        assert "error: the champion cannot be rolled back: disk full" in result.stderr
    result = deploy("rollback", "--reason", "false alarms", "--bad", "3")
    assert (result.exit_code, local_delivery.served, local_delivery.registry.champion().version) == (0, "2", 2)


def test_a_rollback_to_a_version_that_is_not_the_previous_alias_moves_the_champion(
    deploy: Command, local_delivery: LocalDelivery
) -> None:
    """The target's history decides: version 1 served on it alone before version 3."""
    without_delivery(local_delivery)
    deploy("apply", "1", "--target", "local")
    deploy("apply", "3")
    assert deploy("rollback", "--reason", "false alarms").exit_code == 0
    assert (local_delivery.served, local_delivery.registry.champion().version) == ("1", 1)


def test_a_rollback_to_a_rolled_back_version_is_refused(deploy: Command, local_delivery: LocalDelivery) -> None:
    """The ledger has the earlier rollback."""
    deploy("apply", "1")
    local_delivery.ledger_builder.add(RolledBack(bad="2", to="1", reason="false alarms", who="me"))
    result = deploy("rollback", "--reason", "too slow")
    assert result.exit_code == 1
    assert "version 2 was rolled back (false alarms): apply another version" in result.stdout
    assert local_delivery.served == "1"
    assert deploy("rollback", "--reason", "too slow", "--bad", "7").exit_code == 0


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"approved": "false", "reasons": "accuracy 0.4"}, "version 3 is not approved (accuracy 0.4)"),
        ({"rolled_back_reason": "false alarms"}, "version 3 was rolled back (false alarms)"),
    ],
)
def test_an_unfit_version_serves_only_with_a_reason(
    deploy: Command, local_delivery: LocalDelivery, tags: dict[str, str], words: str
) -> None:
    """Plan warns; the reason is recorded in the history of the target."""
    tag(local_delivery, "3", **tags)
    assert f"{words}: apply refuses it, unless --force REASON gives a reason to serve it" in deploy("plan", "3").stderr
    refused = deploy("apply", "3")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert f"{words}; to serve it anyway, give a reason: --force REASON" in refused.stderr
    assert local_delivery.served == "2"
    assert deploy("apply", "3", "--force", "to compare").exit_code == 0
    assert local_delivery.served == "3"
    assert Local(local_delivery.folder / "work" / "serving").status().history[-1].reason == "to compare"
    assert local_delivery.registry.champion().version == 3


def test_a_version_that_only_the_ledger_rolled_back_is_refused(deploy: Command, local_delivery: LocalDelivery) -> None:
    """The model repository has no tag for it yet."""
    local_delivery.ledger_builder.add(RolledBack(bad="1", to="2", reason="false alarms", who="me"))
    refused = deploy("apply", "1")
    assert refused.exit_code == 2
    assert "version 1 was rolled back (false alarms)" in refused.stderr


def test_continuous_delivery_restores_the_version_it_wants(
    deploy: Command, deliver: Command, local_delivery: LocalDelivery
) -> None:
    """One line warns of it and names the lasting commands; the next tick restores the version."""
    lasting = "for a lasting change use spira deliver pin 1"
    line = f"continuous delivery wants version 2, and its next tick restores it; {lasting}"
    assert line in deploy("plan", "1").stderr
    assert line in deploy("apply", "1").stderr
    assert "continuous delivery" not in deploy("apply", "2").stderr
    assert line in deploy("rollback", "--reason", "by hand").stderr
    assert (local_delivery.served, local_delivery.registry.champion().version) == ("1", 1)
    assert "local serves version 2 (was 1)" in deliver("tick").stderr
    assert (local_delivery.served, local_delivery.registry.champion().version) == ("2", 2)


def test_manual_deployment_works_without_the_ledger(deploy: Command, local_delivery: LocalDelivery) -> None:
    """One line reports that the ledger is unreachable."""
    append_settings(local_delivery, "ledger: delivery.yaml\n")
    result = deploy("apply", "3")
    assert (result.exit_code, local_delivery.served) == (0, "3")
    assert "the ledger cannot be read, so the version that continuous delivery wants is unknown" in result.stderr


KUBECONFIG = """\
apiVersion: v1
kind: Config
contexts: [{name: another, context: {cluster: another, user: another}}]
clusters: [{name: another, cluster: {server: http://127.0.0.1:9}}]
users: [{name: another, user: {}}]
current-context: another
"""
"""A kubeconfig without the context of the settings."""


def test_an_unreachable_target_is_reported_and_the_others_are_served(
    deploy: Command, local_delivery: LocalDelivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every verb exits with 1, and the champion stays; a verb for another target alone succeeds."""
    (local_delivery.folder / "kubeconfig").write_text(KUBECONFIG)
    monkeypatch.setattr(
        "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(local_delivery.folder / "kubeconfig")
    )
    append_settings(local_delivery, AWAY)
    for verb in (("plan", "3"), ("apply", "3"), ("verify",), ("status",), ("rollback", "--reason", "r")):
        result = deploy(*verb, "--json")
        away, local = json.loads(result.stdout)
        assert (result.exit_code, away["target"], local["target"]) == (1, "kserve", "local")
        assert "no-such-context" in away["error"]
        assert "error" not in local
        assert deploy(*verb, "--target", "kserve").exit_code == 1
        if verb[0] == "apply":
            assert "the champion stays: a target does not serve the version" in result.stderr
    assert (local_delivery.served, local_delivery.registry.champion().version) == ("2", 2)
    assert deploy("verify", "--target", "local").exit_code == 0
    result = deploy("status")
    assert "error   no cluster: " in result.stdout
    assert "version   2" in result.stdout


def test_an_unknown_target_is_refused(deploy: Command, local_delivery: LocalDelivery) -> None:
    """The message names the known ones."""
    refused = deploy("status", "--target", "kserve")
    assert refused.exit_code == 2
    assert "--target kserve: the settings have no such target, only local" in refused.stderr


@pytest.mark.parametrize("verb", [("plan", "9"), ("apply", "9")])
def test_an_unknown_version_is_refused(deploy: Command, local_delivery: LocalDelivery, verb: tuple[str, ...]) -> None:
    """The message names the known ones."""
    refused = deploy(*verb)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "versions: 1, 2, 3" in refused.stderr


def test_every_verb_is_explained() -> None:
    """The help and the documentation have every verb, and the examples in the help keep their lines."""
    output = CliRunner().invoke(app, ["deploy"]).output
    page = (ROOT / "docs" / "delivery.md").read_text()
    verbs = [command.callback.__name__ for command in module.app.registered_commands]
    assert verbs == ["plan", "apply", "verify", "status", "rollback"]
    assert [verb for verb in verbs if f" {verb} " not in output or f"spira deploy {verb}" not in page] == []
    assert "    spira deploy status" in output


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["deploy", *map(str, arguments)])


@pytest.mark.parametrize("option", [True, False])
def test_a_work_folder_needs_no_settings_file(
    local_delivery: LocalDelivery, monkeypatch: pytest.MonkeyPatch, option: bool
) -> None:
    """The commands use its local target and its repository; without --work the folder is ``work``."""
    without_delivery(local_delivery)
    (local_delivery.folder / "delivery.yaml").unlink()
    monkeypatch.chdir(local_delivery.folder)
    work = ["--work", local_delivery.folder / "work"] if option else []
    result = run("apply", "3", *work)
    assert (result.exit_code, result.stdout) == (0, "target   local\nversion  version 3 serves\n")
    assert (local_delivery.served, local_delivery.registry.champion().version) == ("3", 3)
    assert run("verify", *work).exit_code == 0
    assert "version   3" in run("status", *work).stdout
    assert run("plan", "1", *work, "--mlflow", local_delivery.registry.tracking_uri).exit_code == 0
    assert run("rollback", "--reason", "false alarms", *work).exit_code == 0
    assert (local_delivery.served, local_delivery.registry.champion().version) == ("2", 2)


def test_a_work_folder_with_a_ledger_warns(local_delivery: LocalDelivery) -> None:
    """Continuous delivery in the same folder restores the version that it wants."""
    assert "continuous delivery wants version 2" in run("plan", "1", "--work", local_delivery.folder / "work").stderr


VERBS = [("status",), ("plan", "1"), ("apply", "1"), ("verify",), ("rollback", "--reason", "r")]


@pytest.mark.parametrize("verb", VERBS)
def test_a_folder_without_a_repository_is_refused_and_stays_empty(tmp_path: Path, verb: tuple[str, ...]) -> None:
    """The message names the command that makes one."""
    result = run(*verb, "--work", tmp_path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"no model repository in {tmp_path}" in result.stderr
    assert f"run `spira run --work {tmp_path}` first" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_contradicting_options_are_refused(deploy: Command, local_delivery: LocalDelivery) -> None:
    """The settings file already names work folder and model repository."""
    assert "give only one of them" in deploy("status", "--work", str(local_delivery.folder / "work")).stderr
    assert "names the model repository" in deploy("status", "--mlflow", "http://127.0.0.1:9").stderr
