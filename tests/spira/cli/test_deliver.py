"""``spira deliver``: every verb, in words and as JSON, its exit codes, and what it says to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from spira.cli import deliver as commands
from spira.cli.main import app
from spira.deployment.local import Local
from spira.deployment.target import Release
from spira.registry import Registry, local_uri
from tests.support import ROOT
from tests.support.ledger_builder import SECOND, START, THIRD, World, observed


def approve_third(world: World) -> None:
    """A third version, approved by its gate and not yet promoted."""
    world.book.run(world.book.observe(THIRD), "approved", "3")


def test_init_writes_what_the_next_command_reads(tmp_path: Path, deliver: Callable[..., Any], monkeypatch) -> None:
    """With the data's whole path, and what to type next; never over another file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my voices #1").mkdir()
    told = deliver("init", "--data", "my voices #1")
    assert (told.exit_code, told.stdout) == (0, "")
    assert f"wrote {tmp_path / 'delivery.yaml'}; next: spira deliver tick --wait" in told.stderr
    assert yaml.safe_load((tmp_path / "delivery.yaml").read_text())["data"] == str(tmp_path / "my voices #1")
    assert deliver("status", "--json").exit_code == 0
    again = deliver("init", "--data", "elsewhere")
    assert again.exit_code == 2
    assert "is there already: change it, or name another with --settings" in again.stderr


@pytest.mark.parametrize(
    "verb",
    [
        ("tick",), ("watch",), ("status",), ("why",), ("history",), ("pin", "1", "--reason=r"), ("unpin",),
        ("rollback", "--reason=r"), ("approve", "1"), ("reproduce", "1"),
    ],
)  # fmt: skip
def test_every_verb_without_settings_says_how_to_begin(deliver: Callable[..., Any], verb: tuple[str, ...]) -> None:
    """Exit code 2, one line, no traceback."""
    refused = deliver(*verb)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "isn't there: write one (spira deliver init --data DIR), or name it" in refused.stderr


@pytest.mark.parametrize("verb", [("pin", "1"), ("rollback",)])
def test_orders_without_a_reason_are_refused(deliver: Callable[..., Any], world: World, verb: tuple[str, ...]) -> None:
    """Somebody will ask."""
    refused = deliver(*verb)
    assert refused.exit_code == 2
    assert "--reason" in refused.stderr


def test_status_tells_all_at_a_glance(deliver: Callable[..., Any], world: World) -> None:
    """What is observed, wanted, champion and served, and what is wrong: and changes nothing."""
    world.book.add("observed", problem="settings: training.max_epochs: Input should be greater than 0")
    before = world.kinds
    told = deliver("status")
    assert told.exit_code == 0
    assert told.stdout.splitlines()[1:] == [
        "training      nothing fit to train on",
        "wanted        version 2",
        "champion      version 2",
        "target local  version 2",
        "note          not fit to train on: settings: training.max_epochs: Input should be greater than 0",
    ]
    assert world.kinds == before


def test_status_for_programs_is_json_alone(deliver: Callable[..., Any], world: World) -> None:
    """On standard output; the same facts."""
    told = json.loads(deliver("status", "--json").stdout)
    assert (told["wanted"], told["champion"], told["serving"]["local"]["version"]) == ("2", "2", "2")
    assert told["observed"]["fingerprint"] == SECOND.fingerprint.digest
    assert (told["training"], told["run"], told["pin"], told["rolled_back"]) == ("approved", None, None, {})
    assert told["records"] == 10


def test_status_of_an_empty_ledger_says_what_to_do(deliver: Callable[..., Any], work: Path) -> None:
    """Before the first tick."""
    (work.parent / "delivery.yaml").write_text("data: voices\n")
    told = deliver("status").stdout
    assert "nothing was looked at yet: spira deliver tick" in told
    assert "no version yet" in told


def test_status_shows_damage_and_pins(deliver: Callable[..., Any], world: World) -> None:
    """A record that can't be read, by number; a pin with its reason."""
    world.book.add("pinned", version="2", reason="for the study", who="me")
    (world.folder / "work" / "ledger" / "records" / "000001.json").write_text("{")
    told = deliver("status").stdout
    assert "records that can't be read: [1]" in told
    assert "version 2: for the study" in told


def test_tick_tells_what_is_unfit_and_then_nothing_new(deliver: Callable[..., Any], world: World) -> None:
    """Exit code 0: it is no trouble of delivery's; recorded once, told each time."""
    told = deliver("tick")
    assert told.exit_code == 0
    assert "not fit to train on: settings: training.max_epochs" in told.stderr
    assert world.kinds[-1] == "observed"
    again = json.loads(deliver("tick", "--json").stdout)
    assert again["done"] == []
    assert len(world.kinds) == again["records"] == 11


def test_tick_puts_right_what_serves(deliver: Callable[..., Any], world: World) -> None:
    """A pointer that somebody has moved."""
    Local(world.folder / "work" / "serving").apply(
        Release("1", world.registry.fetch("1", world.folder / "work" / "models" / "1"), "")
    )
    told = deliver("tick")
    assert "local serves version 2, instead of 1" in told.stderr
    assert (world.served, told.exit_code) == ("2", 0)


def test_tick_in_trouble_ends_with_1_and_says_so(deliver: Callable[..., Any], world: World) -> None:
    """A pointer that is damaged: the rest was done, the next tick tries again; status ends with 0, it only tells."""
    (world.folder / "work" / "serving" / "serving.json").write_text("{")
    told = deliver("tick")
    assert told.exit_code == 1
    assert "trouble: target local: " in told.stderr
    assert "restore it, or delete it and apply again" in told.stderr
    assert json.loads(deliver("status", "--json").stdout)["serving"] == {"local": None}
    assert "can't be asked" in deliver("status").stdout


def test_tick_retries_only_what_failed(deliver: Callable[..., Any], world: World) -> None:
    """Else it is refused, before anything is done."""
    before = world.kinds
    refused = deliver("tick", "--retry")
    assert refused.exit_code == 2
    assert "nothing to try again: what is observed has not failed" in refused.stderr
    assert world.kinds == before


def test_a_pin_serves_at_once_until_it_is_taken_off(deliver: Callable[..., Any], world: World) -> None:
    """Both ways in one command each; --json tells what was done."""
    told = deliver("pin", "1", "--reason", "for the study")
    assert (told.exit_code, world.served) == (0, "1")
    assert "local serves version 1, instead of 2" in told.stderr
    assert world.registry.champion().version == 1
    done = json.loads(deliver("unpin", "--json").stdout)
    assert "local serves version 2, instead of 1" in done["done"]
    assert (done["pin"], done["wanted"], world.served) == (None, "2", "2")
    refused = deliver("unpin")
    assert refused.exit_code == 2
    assert "no version is pinned" in refused.stderr


def test_an_unknown_version_is_not_pinned(deliver: Callable[..., Any], world: World) -> None:
    """The refusal names those there are; what serves is untouched."""
    refused = deliver("pin", "9", "--reason", "a slip")
    assert refused.exit_code == 2
    assert "the ledger knows no version 9; approved or delivered: 1, 2" in refused.stderr
    assert world.served == "2"


def test_a_rollback_holds(deliver: Callable[..., Any], world: World) -> None:
    """What is left is left for good: neither a tick nor an unpin brings it back."""
    told = json.loads(deliver("rollback", "--reason", "false alarms", "--json").stdout)
    assert (told["wanted"], told["rolled_back"]) == ("1", {"2": "false alarms"})
    assert (world.served, world.registry.champion().version) == ("1", 1)
    for verb in ("tick", "unpin", "tick"):
        deliver(verb)
        assert (world.served, world.registry.champion().version) == ("1", 1)
    refused = deliver("rollback", "--reason", "this too")
    assert refused.exit_code == 2
    assert "nothing to go back to" in refused.stderr


def test_a_rollback_may_name_where_to(deliver: Callable[..., Any], world: World) -> None:
    """Further back than the one before."""
    approve_third(world)
    deliver("tick")
    assert world.served == "3"
    assert deliver("rollback", "--to", "1", "--reason", "back to the study's").exit_code == 0
    assert world.served == "1"


def test_a_person_approves_where_the_settings_ask_for_it(deliver: Callable[..., Any], world: World) -> None:
    """The tick says what to type; it is served then, and by whose word is told."""
    with (world.folder / "delivery.yaml").open("a") as file:
        file.write("approval: true\n")
    approve_third(world)
    told = deliver("tick")
    assert "version 3 waits for a person: spira deliver approve 3" in told.stderr
    assert world.served == "2"
    refused = deliver("approve", "2")
    assert refused.exit_code == 2
    assert "version 2 doesn't wait for approval; version 3 does" in refused.stderr
    assert deliver("approve", "3").exit_code == 0
    assert world.served == "3"
    assert "approved by its gate, and by a person" in deliver("history").stdout


def test_an_order_in_trouble_is_kept_and_told(deliver: Callable[..., Any], world: World) -> None:
    """Exit code 1: it is in the ledger, and carried out once the trouble is over."""
    pointer = world.folder / "work" / "serving" / "serving.json"
    good = pointer.read_text()
    pointer.write_text("{")
    assert deliver("pin", "1", "--reason", "for the study").exit_code == 1
    pointer.write_text(good)
    assert deliver("tick").exit_code == 0
    assert world.served == "1"


def test_why_names_axis_and_settings(deliver: Callable[..., Any], world: World) -> None:
    """Of what was observed last, or of a version by number; the same as JSON."""
    expected = (
        "version 2 (approved): compared with version 1, changed: model\n  model: training.learning_rate: 0.1 -> 0.2\n"
    )
    assert deliver("why").stdout == deliver("why", "2").stdout == expected
    assert deliver("why", "1").stdout == "version 1 (approved): nothing served before it\n"
    told = json.loads(deliver("why", "2", "--json").stdout)
    assert (told["axes"], told["since"], told["version"]) == (["model"], "version 1", "2")
    assert told["changes"][0]["name"] == "training.learning_rate"
    refused = deliver("why", "9")
    assert refused.exit_code == 2
    assert "9 is no version, run or fingerprint of this ledger; versions: 1, 2" in refused.stderr


def test_why_shows_the_first_of_many_changes(deliver: Callable[..., Any], world: World) -> None:
    """And how many more there are; all of them as JSON."""
    world.book.observe(observed(data={f"{number:03d}.wav": f"{number:064d} 1" for number in range(50)}))
    lines = deliver("why").stdout.splitlines()
    assert lines[1] == "  data: 000.wav added"
    assert (len(lines), lines[-1]) == (22, "  and 31 more (--json)")  # the learning rate is the 51st
    assert len(json.loads(deliver("why", "--json").stdout)["changes"]) == 51


def test_history_tells_everything_in_order(deliver: Callable[..., Any], world: World) -> None:
    """A line a record, numbered; as JSON with the time."""
    lines = deliver("history").stdout.splitlines()
    assert [line.split()[0] for line in lines] == [str(number) for number in range(1, 11)]
    events = json.loads(deliver("history", "--json").stdout)
    assert (events[4]["kind"], events[4]["at"]) == ("promoted", (START + timedelta(minutes=4)).isoformat())
    assert "version 1 is champion and serves" in lines[4]


def test_history_tells_what_served_at_a_time(deliver: Callable[..., Any], world: World) -> None:
    """With since when and why; before the first delivery, that nothing did."""
    told = deliver("history", "--at", (START + timedelta(minutes=5)).isoformat())
    assert "version 1 served, since" in told.stdout
    assert "approved by its gate" in told.stdout
    at = json.loads(deliver("history", "--json", "--at", (START + timedelta(days=1)).isoformat()).stdout)
    assert (at["version"], at["since"]) == ("2", (START + timedelta(minutes=9)).isoformat())
    assert "no version was meant to serve" in deliver("history", "--at", "2020-01-01").stdout
    assert json.loads(deliver("history", "--at", "2020-01-01", "--json").stdout) is None


def test_a_time_that_is_none_is_refused(deliver: Callable[..., Any], world: World) -> None:
    """With two forms to write."""
    refused = deliver("history", "--at", "yesterday")
    assert refused.exit_code == 2
    assert "--at yesterday: write a time as 2026-11-24T06:30 or" in refused.stderr


def test_a_version_that_nobody_knows_is_not_reproduced(deliver: Callable[..., Any], world: World) -> None:
    """The repository names those it has."""
    refused = deliver("reproduce", "9")
    assert refused.exit_code == 2
    assert "versions: 1, 2, 3" in refused.stderr


def test_a_ledger_that_cannot_be_reached_is_refused(deliver: Callable[..., Any], tmp_path: Path) -> None:
    """Without it nothing is done."""
    (tmp_path / "delivery.yaml").write_text("data: voices\nledger: file\n")
    (tmp_path / "file").write_text("")
    for verb in ("tick", "status", "history", "why"):
        refused = deliver(verb)
        assert refused.exit_code == 2
        assert f"{tmp_path / 'file'} is a file: give a folder" in refused.stderr


def test_every_verb_is_explained() -> None:
    """By ``spira deliver`` alone, and in the page that people read."""
    told = CliRunner().invoke(app, ["deliver"]).output
    page = (ROOT / "docs" / "delivery.md").read_text()
    verbs = [command.name or command.callback.__name__ for command in commands.app.registered_commands]
    assert len(verbs) >= 11
    assert [verb for verb in verbs if f" {verb} " not in told] == []
    assert [verb for verb in verbs if f"`{verb}" not in page and f"deliver {verb}" not in page] == []


def test_one_delivery_for_real(delivered: Path) -> None:
    """A tick that waits: trained, judged, promoted, served; the next one finds nothing to do."""
    settings = f"--settings={delivered / 'delivery.yaml'}"
    kinds = [event["kind"] for event in json.loads(
        CliRunner().invoke(app, ["deliver", "history", "--json", settings]).stdout
    )]  # fmt: skip
    assert kinds == ["observed", "claimed", "finished", "promoting", "promoted"]
    assert Local(delivered / "work" / "serving").status().version == "1"
    champion = Registry(local_uri(delivered / "work")).champion()
    (run,) = (delivered / "work" / "runs").iterdir()
    assert (champion.version, champion.tags["pipeline_run"]) == (1, run.name)
    again = CliRunner().invoke(app, ["deliver", "tick", "--wait", settings])
    assert again.exit_code == 0
    assert "nothing to do: what is observed is settled, and what serves is what is wanted" in again.stderr
