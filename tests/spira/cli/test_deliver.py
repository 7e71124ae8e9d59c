"""``spira deliver``: the output of every verb as text and as JSON, exit codes, and advice."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from spira.cli import deliver as commands
from spira.cli.main import app
from spira.delivery.history.events import Observed, Pinned
from spira.deployment.local import Local
from spira.deployment.target import Release
from spira.registry import Registry, local_uri
from tests.support import ROOT
from tests.support.ledger_builder import SECOND, START, THIRD, LocalDelivery, observed

pytestmark = pytest.mark.integration


def approve_third(local_delivery: LocalDelivery) -> None:
    """Record a third version that its gate approved and that is not promoted yet."""
    local_delivery.ledger_builder.run(local_delivery.ledger_builder.observe(THIRD), "approved", "3")


def test_init_writes_a_valid_settings_file(tmp_path: Path, deliver: Callable[..., Any], monkeypatch) -> None:
    """Data beside the file are relative to it, others absolute; an existing file is never overwritten."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my voices #1").mkdir()
    result = deliver("init", "--data", "my voices #1")
    assert (result.exit_code, result.stdout) == (0, "")
    assert f"wrote {tmp_path / 'delivery.yaml'}; next: spira deliver tick --wait" in result.stderr
    assert yaml.safe_load((tmp_path / "delivery.yaml").read_text())["data"] == "my voices #1"
    assert deliver("status", "--json").exit_code == 0
    (tmp_path / "sub").mkdir()
    elsewhere = tmp_path / "sub" / "delivery.yaml"
    CliRunner().invoke(app, ["deliver", "init", "--data", "my voices #1", f"--settings={elsewhere}"])
    assert yaml.safe_load(elsewhere.read_text())["data"] == str(tmp_path / "my voices #1")
    refused = deliver("init", "--data", "elsewhere")
    assert refused.exit_code == 2
    assert "exists already: change it, or name another file with --settings" in refused.stderr


@pytest.mark.parametrize(
    "verb",
    [
        ("tick",), ("watch",), ("status",), ("why",), ("history",), ("pin", "1", "--reason=r"), ("unpin",),
        ("rollback", "--reason=r"), ("approve", "1"), ("reproduce", "1"),
    ],
)  # fmt: skip
def test_every_verb_without_settings_is_refused_with_advice(deliver: Callable[..., Any], verb: tuple[str, ...]) -> None:
    """The exit code is 2, and there is no traceback."""
    refused = deliver(*verb)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert (
        "does not exist: write one with spira deliver init --data DIR, or name another with --settings"
        in refused.stderr
    )


@pytest.mark.parametrize("verb", [("pin", "1"), ("rollback",)])
def test_commands_without_a_reason_are_refused(
    deliver: Callable[..., Any], local_delivery: LocalDelivery, verb: tuple[str, ...]
) -> None:
    refused = deliver(*verb)
    assert refused.exit_code == 2
    assert "--reason" in refused.stderr


def test_status_shows_everything_and_changes_nothing(
    deliver: Callable[..., Any], local_delivery: LocalDelivery
) -> None:
    problem = "settings: training.max_epochs: Input should be greater than 0"
    local_delivery.ledger_builder.add(Observed(problem=problem))
    before = local_delivery.kinds
    result = deliver("status")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1:] == [
        "training      nothing fit to train on",
        "wanted        version 2",
        "champion      version 2",
        "target local  version 2",
        "note          the settings are invalid: training.max_epochs: Input should be greater than 0",
    ]
    assert local_delivery.kinds == before


def test_status_as_json(deliver: Callable[..., Any], local_delivery: LocalDelivery) -> None:
    """Standard output has nothing but the JSON."""
    body = json.loads(deliver("status", "--json").stdout)
    assert (body["wanted"], body["champion"], body["serving"]["local"]["version"]) == ("2", "2", "2")
    assert body["observed"]["fingerprint"] == SECOND.fingerprint.digest
    assert (body["training"], body["run"], body["pin"], body["rolled_back"]) == ("approved", None, None, {})
    assert body["records"] == 10


def test_status_of_an_empty_ledger_has_advice(deliver: Callable[..., Any], work: Path) -> None:
    (work.parent / "delivery.yaml").write_text("data: voices\n")
    output = deliver("status").stdout
    assert "nothing observed yet: run spira deliver tick" in output
    assert "no version yet" in output


def test_status_shows_pins_and_torn_records(deliver: Callable[..., Any], local_delivery: LocalDelivery) -> None:
    local_delivery.ledger_builder.add(Pinned(version="2", reason="for the study", who="me"))
    (local_delivery.folder / "work" / "ledger" / "records" / "000012.json").write_text("{")
    output = deliver("status").stdout
    assert "records that were set aside: 12" in output
    assert "version 2: for the study" in output


def test_a_damaged_ledger_stops_delivery_until_it_is_repaired(
    deliver: Callable[..., Any], local_delivery: LocalDelivery, tmp_path: Path
) -> None:
    """What serves stays. ``check-ledger`` names the record, and a backup restores it."""
    ledger = local_delivery.folder / "work" / "ledger"
    backup = shutil.copytree(ledger, tmp_path / "backup")
    record = ledger / "records" / "000003.json"
    intact = record.read_bytes()
    record.write_bytes(intact.replace(b'"approved"', b'"rejected"'))
    ticked = deliver("tick")
    assert ticked.exit_code == 1
    assert "ledger: damaged record 3 (it differs from its checksum)" in ticked.stderr
    assert "run spira deliver check-ledger" in ticked.stderr
    assert (local_delivery.served, len(local_delivery.kinds)) == ("2", 10)
    assert "damaged record 3" in deliver("status").stdout
    checked = deliver("check-ledger")
    assert checked.exit_code == 1
    assert checked.stdout.splitlines()[:2] == [
        "9 of 10 records are intact",
        "record 3: this record is damaged: it differs from its checksum",
    ]
    assert deliver("pin", "1", "--reason", "why not").exit_code == 2
    repaired = deliver("check-ledger", "--repair-from", str(backup))
    assert (repaired.exit_code, repaired.stdout) == (0, "10 of 10 records are intact\n")
    assert record.read_bytes() == intact
    assert deliver("tick").exit_code == 0


def test_damage_is_accepted_with_a_reason(deliver: Callable[..., Any], local_delivery: LocalDelivery) -> None:
    """The record has no effect from then on, and delivery goes on."""
    (local_delivery.folder / "work" / "ledger" / "records" / "000005.json").unlink()
    assert deliver("check-ledger", "--accept-damage").exit_code == 2
    accepted = deliver("check-ledger", "--accept-damage", "--reason", "no backup", "--json")
    assert accepted.exit_code == 0
    assert [problem["record"] for problem in json.loads(accepted.stdout)["torn"]] == [5]
    assert deliver("tick").exit_code == 0
    assert local_delivery.served == "2"
    assert "damaged record 5 is left out" in deliver("history").stdout


def test_tick_records_invalid_input_once(deliver: Callable[..., Any], local_delivery: LocalDelivery) -> None:
    """It is shown at each tick, and is no trouble of delivery: the exit code is 0."""
    result = deliver("tick")
    assert result.exit_code == 0
    assert "the settings are invalid: training.max_epochs" in result.stderr
    assert local_delivery.kinds[-1] == "observed"
    second = json.loads(deliver("tick", "--json").stdout)
    assert second["done"] == []
    assert len(local_delivery.kinds) == second["records"] == 11


def test_tick_repairs_a_target_that_was_changed_manually(
    deliver: Callable[..., Any], local_delivery: LocalDelivery
) -> None:
    Local(local_delivery.folder / "work" / "serving").apply(
        Release("1", local_delivery.registry.fetch("1", local_delivery.folder / "work" / "models" / "1"), "")
    )
    result = deliver("tick")
    assert "local serves version 2 (was 1)" in result.stderr
    assert (local_delivery.served, result.exit_code) == ("2", 0)


def test_tick_with_a_trouble_has_exit_code_1(deliver: Callable[..., Any], local_delivery: LocalDelivery) -> None:
    """The local target has a damaged file."""
    (local_delivery.folder / "work" / "serving" / "serving.json").write_text("{")
    result = deliver("tick")
    assert result.exit_code == 1
    assert "trouble: target local: " in result.stderr
    assert "restore it, or delete it and apply again" in result.stderr
    assert json.loads(deliver("status", "--json").stdout)["serving"] == {"local": None}
    assert "unreachable" in deliver("status").stdout


def test_tick_retries_only_a_failed_observation(deliver: Callable[..., Any], local_delivery: LocalDelivery) -> None:
    """It is refused before anything is done if it is not set."""
    before = local_delivery.kinds
    refused = deliver("tick", "--retry")
    assert refused.exit_code == 2
    assert "nothing to retry: the last run for the observed input has not failed" in refused.stderr
    assert local_delivery.kinds == before


def test_pin_and_unpin_take_effect_at_once(deliver: Callable[..., Any], local_delivery: LocalDelivery) -> None:
    """With ``--json`` the actions are listed."""
    result = deliver("pin", "1", "--reason", "for the study")
    assert (result.exit_code, local_delivery.served) == (0, "1")
    assert "local serves version 1 (was 2)" in result.stderr
    assert local_delivery.registry.champion().version == 1
    body = json.loads(deliver("unpin", "--json").stdout)
    assert "repaired: local serves version 2 (was 1)" in body["done"]
    assert (body["pin"], body["wanted"], local_delivery.served) == (None, "2", "2")
    refused = deliver("unpin")
    assert refused.exit_code == 2
    assert "no version is pinned" in refused.stderr


def test_a_pin_of_an_unknown_version_is_refused(deliver: Callable[..., Any], local_delivery: LocalDelivery) -> None:
    """The message lists the known versions, and the served version stays."""
    refused = deliver("pin", "9", "--reason", "a typing error")
    assert refused.exit_code == 2
    assert "version 9 is not in the ledger; approved or delivered versions: 1, 2" in refused.stderr
    assert local_delivery.served == "2"


def test_a_rolled_back_version_never_serves_again(deliver: Callable[..., Any], local_delivery: LocalDelivery) -> None:
    """It does not come back by a tick or by an unpin."""
    body = json.loads(deliver("rollback", "--reason", "false alarms", "--json").stdout)
    assert (body["wanted"], body["rolled_back"]) == ("1", {"2": "false alarms"})
    assert (local_delivery.served, local_delivery.registry.champion().version) == ("1", 1)
    for verb in ("tick", "unpin", "tick"):
        deliver(verb)
        assert (local_delivery.served, local_delivery.registry.champion().version) == ("1", 1)
    refused = deliver("rollback", "--reason", "this too")
    assert refused.exit_code == 2
    assert "cannot roll back" in refused.stderr


def test_a_rollback_can_name_its_version(deliver: Callable[..., Any], local_delivery: LocalDelivery) -> None:
    approve_third(local_delivery)
    deliver("tick")
    assert local_delivery.served == "3"
    assert deliver("rollback", "--to", "1", "--reason", "back to the study's").exit_code == 0
    assert local_delivery.served == "1"


def test_approve_promotes_the_waiting_version(deliver: Callable[..., Any], local_delivery: LocalDelivery) -> None:
    """The note of the tick has the command; the history has the approval."""
    with (local_delivery.folder / "delivery.yaml").open("a") as file:
        file.write("approval: true\n")
    approve_third(local_delivery)
    result = deliver("tick")
    assert "version 3 waits for manual approval: spira deliver approve 3" in result.stderr
    assert local_delivery.served == "2"
    refused = deliver("approve", "2")
    assert refused.exit_code == 2
    assert "version 2 does not wait for approval; version 3 does" in refused.stderr
    assert deliver("approve", "3").exit_code == 0
    assert local_delivery.served == "3"
    assert "approved by its gate and by an operator" in deliver("history").stdout


def test_a_command_during_an_outage_is_carried_out_later(
    deliver: Callable[..., Any], local_delivery: LocalDelivery
) -> None:
    """The exit code is 1; the command is in the ledger."""
    pointer = local_delivery.folder / "work" / "serving" / "serving.json"
    good = pointer.read_text()
    pointer.write_text("{")
    assert deliver("pin", "1", "--reason", "for the study").exit_code == 1
    pointer.write_text(good)
    assert deliver("tick").exit_code == 0
    assert local_delivery.served == "1"


def test_why_shows_axis_and_settings(deliver: Callable[..., Any], local_delivery: LocalDelivery) -> None:
    """The last observation is the default; JSON has the same content."""
    expected = (
        "version 2 (approved): compared with version 1, changed: model\n  model: training.learning_rate: 0.1 -> 0.2\n"
    )
    assert deliver("why").stdout == deliver("why", "2").stdout == expected
    assert deliver("why", "1").stdout == "version 1 (approved): no version served before it\n"
    body = json.loads(deliver("why", "2", "--json").stdout)
    assert (body["axes"], body["since"], body["version"]) == (["model"], "version 1", "2")
    assert body["changes"][0]["name"] == "training.learning_rate"
    refused = deliver("why", "9")
    assert refused.exit_code == 2
    assert "9 is no version, run or fingerprint of this ledger; versions: 1, 2" in refused.stderr


def test_why_shows_the_first_of_many_changes(deliver: Callable[..., Any], local_delivery: LocalDelivery) -> None:
    """JSON has all of them."""
    local_delivery.ledger_builder.observe(
        observed(data={f"{number:03d}.wav": f"{number:064d} 1" for number in range(50)})
    )
    lines = deliver("why").stdout.splitlines()
    assert re.fullmatch(r"  data: rec-[0-9a-f]+ added", lines[1])
    assert (len(lines), lines[-1]) == (22, "  and 31 more (--json)")  # the learning rate is the 51st
    assert len(json.loads(deliver("why", "--json").stdout)["changes"]) == 51


def test_history_shows_every_record_in_order(deliver: Callable[..., Any], local_delivery: LocalDelivery) -> None:
    """Each record is a numbered line."""
    lines = deliver("history").stdout.splitlines()
    assert [line.split()[0] for line in lines] == [str(number) for number in range(1, 11)]
    events = json.loads(deliver("history", "--json").stdout)
    assert (events[4]["kind"], events[4]["at"]) == ("promoted", (START + timedelta(minutes=4)).isoformat())
    assert "version 1 is champion and serves" in lines[4]


def test_history_shows_what_served_at_a_time(deliver: Callable[..., Any], local_delivery: LocalDelivery) -> None:
    """Before the first delivery no version served."""
    result = deliver("history", "--at", (START + timedelta(minutes=5)).isoformat())
    assert "version 1 served, since" in result.stdout
    assert "approved by its gate" in result.stdout
    at = json.loads(deliver("history", "--json", "--at", (START + timedelta(days=1)).isoformat()).stdout)
    assert (at["version"], at["since"]) == ("2", (START + timedelta(minutes=9)).isoformat())
    assert "no version was meant to serve" in deliver("history", "--at", "2020-01-01").stdout
    assert json.loads(deliver("history", "--at", "2020-01-01", "--json").stdout) is None


def test_an_invalid_time_is_refused(deliver: Callable[..., Any], local_delivery: LocalDelivery) -> None:
    """The message shows two valid forms."""
    refused = deliver("history", "--at", "yesterday")
    assert refused.exit_code == 2
    assert "--at yesterday: write a time as 2026-11-24T06:30 or" in refused.stderr


def test_an_unknown_version_is_not_reproduced(deliver: Callable[..., Any], local_delivery: LocalDelivery) -> None:
    """The message lists the registered versions."""
    refused = deliver("reproduce", "9")
    assert refused.exit_code == 2
    assert "versions: 1, 2, 3" in refused.stderr


def test_every_verb_is_refused_without_its_ledger(deliver: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "delivery.yaml").write_text("data: voices\nledger: file\n")
    (tmp_path / "file").write_text("")
    for verb in ("tick", "status", "history", "why"):
        refused = deliver(verb)
        assert refused.exit_code == 2
        assert f"{tmp_path / 'file'} is a file: give a folder" in refused.stderr


def test_every_verb_is_documented() -> None:
    """The help and the page name it."""
    help_text = CliRunner().invoke(app, ["deliver"]).output
    page = (ROOT / "docs" / "delivery.md").read_text()
    names = (command.name or command.callback.__name__ for command in commands.app.registered_commands)
    verbs = [name.replace("_", "-") for name in names]
    assert len(verbs) >= 11
    assert [verb for verb in verbs if f" {verb} " not in help_text] == []
    assert [verb for verb in verbs if f"`{verb}" not in page and f"deliver {verb}" not in page] == []


def test_one_real_delivery(delivered: Path) -> None:
    """``tick --wait`` trains, promotes and serves; the next tick has nothing to do."""
    settings = f"--settings={delivered / 'delivery.yaml'}"
    kinds = [event["kind"] for event in json.loads(
        CliRunner().invoke(app, ["deliver", "history", "--json", settings]).stdout
    )]  # fmt: skip
    assert kinds == ["observed", "claimed", "finished", "promoting", "promoted"]
    assert Local(delivered / "work" / "serving").status().version == "1"
    champion = Registry(local_uri(delivered / "work")).champion()
    (run,) = (delivered / "work" / "runs").iterdir()
    assert (champion.version, champion.tags["pipeline_run"]) == (1, run.name)
    second = CliRunner().invoke(app, ["deliver", "tick", "--wait", settings])
    assert second.exit_code == 0
    assert "nothing to do: the last observation is settled, and every target serves the wanted version" in second.stderr


def test_after_a_loss_of_the_repository_the_new_weights_serve(
    delivered: Path, tmp_path: Path, new_mlflow: Path
) -> None:
    """The new run is "version 1" again. The digest tells both apart: target, champion and status have the new one."""
    folder = Path(shutil.copytree(delivered, tmp_path / "delivery"))
    settings, work = f"--settings={folder / 'delivery.yaml'}", folder / "work"
    old = Local(work / "serving").status().digest
    settings_file = folder / "delivery.yaml"
    settings_file.write_text(settings_file.read_text().replace("quiet_seconds: 1\n", ""))
    shutil.copy(new_mlflow, work / "mlflow.db")
    lost = CliRunner().invoke(app, ["deliver", "status", settings])
    assert lost.exit_code == 1
    ticked = CliRunner().invoke(app, ["deliver", "tick", settings])
    assert (ticked.exit_code, Local(work / "serving").status().digest) == (1, old)
    assert f"version 1 (package {old[:12]}) is not in the model repository, which was lost or replaced" in ticked.stderr
    (folder / "model.yaml").write_text((folder / "model.yaml").read_text().replace("[42]", "[43]"))
    again = CliRunner().invoke(app, ["deliver", "tick", "--wait", settings])
    assert again.exit_code == 0, again.output
    champion = Registry(local_uri(work)).champion()
    serving = Local(work / "serving").status()
    assert (champion.version, serving.version, serving.digest) == (1, "1", champion.digest)
    assert serving.digest != old
    shown = CliRunner().invoke(app, ["deliver", "status", "--json", settings])
    body = json.loads(shown.stdout)
    assert (shown.exit_code, body["troubles"]) == (0, [])
    assert body["wanted_digest"] == body["champion_digest"] == body["serving"]["local"]["digest"] == champion.digest


def test_a_damaged_package_is_restored_by_the_next_tick(
    deliver: Callable[..., Any], local_delivery: LocalDelivery
) -> None:
    """A status shows it before; the cache of packages is restored too, also if a link was planted in it."""
    deliver("tick")
    package, cached = Local(local_delivery.folder / "work" / "serving").package, local_delivery.folder / "work/models/2"
    (package / "data" / "weights.npz").write_bytes(b"")
    (cached / "data" / "link").symlink_to(package)
    shown = deliver("status")
    assert shown.exit_code == 1
    assert "data/weights.npz was changed: apply version 2 again" in shown.stdout
    assert deliver("tick").exit_code == 0
    assert deliver("status").exit_code == 0
    assert Local(local_delivery.folder / "work" / "serving").verify() <= 1e-5


def test_a_rollback_to_a_version_that_does_not_load_moves_no_alias(
    deliver: Callable[..., Any], deploy: Callable[..., Any], local_delivery: LocalDelivery, tmp_path: Path
) -> None:
    """This holds by hand and by delivery; the status has the problem until it is solved."""
    work = local_delivery.folder / "work"
    (artifact,) = (path for path in work.rglob("weights.npz") if is_of_first_version(path, local_delivery))
    shutil.copy(artifact, tmp_path / "intact")
    artifact.write_bytes(b"")
    for run in (deploy, deliver):
        refused = run("rollback", "--reason", "false alarms")
        assert refused.exit_code == 1
        assert (local_delivery.served, local_delivery.registry.champion().version) == ("2", 2)
    records = len(local_delivery.kinds)
    for _ in range(2):
        assert deliver("tick").exit_code == 1
        shown = deliver("status")
        assert shown.exit_code == 1
        assert "version 1 cannot be used: its artifacts differ from what was registered" in shown.stdout
    assert len(local_delivery.kinds) == records
    shutil.copy(tmp_path / "intact", artifact)
    assert deliver("tick").exit_code == 0
    assert (local_delivery.served, local_delivery.registry.champion().version) == ("1", 1)
    assert deliver("status").exit_code == 0


def is_of_first_version(path: Path, local_delivery: LocalDelivery) -> bool:
    """Return whether a file lies in the artifacts of version 1."""
    return "mlartifacts" in path.parts and local_delivery.registry.show(1).digest[:16] in path.parts
