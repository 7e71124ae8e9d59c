"""``spira deliver``: continuous delivery from the command line.

    spira deliver init --data DIR      # writes delivery.yaml
    spira deliver tick --wait          # looks, and does what is to be done
    spira deliver watch                # again and again
    spira deliver status | why | history

Exit code 2 for what is refused, 1 for a tick that could not reach everything it needs: the next one tries again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from spira import files
from spira.cli.console import out, print_rows, say, say_json
from spira.delivery import explain, operator_commands
from spira.delivery import settings as settings_file
from spira.delivery.ledger import Ledger
from spira.delivery.reconcile import Report
from spira.delivery.settings import Settings
from spira.errors import SpiraError

app = typer.Typer(no_args_is_help=True, help=__doc__)
POLL_SECONDS = 1.0
CHANGES_SHOWN = 20

SettingsFile = Annotated[Path, typer.Option("--settings", help="The settings file.")]
Json = Annotated[bool, typer.Option("--json", help="For programs.")]
Reason = Annotated[str, typer.Option("--reason", help="Kept in the ledger.")]
Version = Annotated[str, typer.Argument(help="Number of a version.")]
DEFAULT = settings_file.DEFAULT


@app.command()
def init(
    data: Annotated[str, typer.Option("--data", help="Data set to watch: folder or gs:// prefix.")],
    settings: SettingsFile = DEFAULT,
) -> None:
    """Write a settings file to begin with."""
    if settings.exists():
        raise SpiraError(f"{settings} is there already: change it, or name another with --settings")
    place = data if "://" in data else str(Path(data).resolve())
    files.write_text(settings, settings_file.example(place))
    say(f"wrote {settings}; next: spira deliver tick --wait")


@app.command()
def tick(
    settings: SettingsFile = DEFAULT,
    wait: Annotated[bool, typer.Option("--wait", help="Until no run is on, or waits for quiet.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Try again what was given up.")] = False,
    as_json: Json = False,
) -> None:
    """Observation at data, settings, code, runs and what serves, and do all that is to be done now."""
    chosen = settings_file.load(settings)
    if retry:
        operator_commands.retry(_ledger(chosen))
    done: list[str] = []
    report = _tick(chosen, done)
    told = ""
    while wait and (report.view.state.active or _is_awaited(report)):
        told = _progress(report, told)
        time.sleep(POLL_SECONDS)
        report = _tick(chosen, done)
    _show_tick(report, done, as_json)
    if report.troubles:
        raise typer.Exit(1)


def _tick(chosen: Settings, done: list[str]) -> Report:
    from spira.cli.compose import reconciler
    from spira.delivery.kubernetes_status import published

    report = published(chosen, reconciler(chosen).tick())
    for line in report.done:
        say(line)
    done += report.done
    return report


def _is_awaited(report: Report) -> bool:
    """Whether a change only stands still, and will be run."""
    return not report.troubles and explain.status(report)["training"] == "due"


def _progress(report: Report, told: str) -> str:
    """Tell what is waited for, once."""
    now = "; ".join(report.decision.notes)
    if now != told:
        say(now)
    return now


def _show_tick(report: Report, done: list[str], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"done": done, **explain.status(report)}, indent=1))
        return
    for line in [*report.decision.notes, *(f"trouble: {trouble}" for trouble in report.troubles)]:
        say(line)
    if not done and not report.troubles and not report.decision.notes:
        say("nothing to do: what is observed is settled, and what serves is what is wanted")


@app.command()
def watch(
    settings: SettingsFile = DEFAULT,
    listen: Annotated[str, typer.Option("--listen", metavar="HOST:PORT", help="Take wake-ups by HTTP.")] = "",
    as_json: Json = False,
) -> None:
    """Tick for ever; begin anew by itself where the code has changed."""
    from spira.cli.watch import watch as run

    run(settings, listen, say_json if as_json else say)


@app.command()
def status(settings: SettingsFile = DEFAULT, as_json: Json = False) -> None:
    """What is going on; changes nothing."""
    from spira.cli.compose import reconciler

    told = explain.status(reconciler(settings_file.load(settings)).look())
    if as_json:
        print(json.dumps(told, indent=1))
        return
    observed = told["observed"]
    seen = observed["fingerprint"][:12] or observed["problem"] if observed else "nothing yet"
    rows = [
        ("observed", seen + (f", since {observed['since'][:19]}" if observed else "")),
        ("training", told["training"] + (f", run {told['run']}" if told["run"] else "")),
        ("wanted", f"version {told['wanted']}" if told["wanted"] else "no version yet"),
        ("champion", f"version {told['champion']}" if told["champion"] else "none"),
        *((f"target {name}", _served(each)) for name, each in told["serving"].items()),
    ]
    if told["pin"]:
        rows.append(("pinned", f"version {told['pin']['version']}: {told['pin']['reason']}"))
    rows += [("note", note) for note in told["notes"]] + [("trouble", trouble) for trouble in told["troubles"]]
    if told["damaged_records"]:
        rows.append(("ledger", f"records that can't be read: {told['damaged_records']}"))
    print_rows(rows)


def _served(each: dict[str, Any] | None) -> str:
    if each is None:
        return "can't be asked"
    serves = f"version {each['version']}" if each["version"] else "nothing"
    return serves + ("" if each["ready"] else f", NOT READY: {each['message']}")


@app.command()
def why(
    subject: Annotated[str, typer.Argument(help="Version, run or fingerprint; what was observed last if none.")] = "",
    settings: SettingsFile = DEFAULT,
    as_json: Json = False,
) -> None:
    """What set a run going: the axis, and the files, settings or sources that changed."""
    told = explain.why(_ledger(settings_file.load(settings)), subject)
    if as_json:
        print(json.dumps({**asdict(told), "axes": told.axes}, indent=1))
        return
    name = f"version {told.version}" if told.version else told.run or told.fingerprint[:12]
    if not told.since:
        out.print(f"{name} ({told.outcome}): nothing served before it", highlight=False)
        return
    changed = " and ".join(told.axes) or "nothing"
    out.print(f"{name} ({told.outcome}): compared with {told.since}, changed: {changed}", highlight=False)
    for change in told.changes[:CHANGES_SHOWN]:
        out.print(f"  {change.axis}: {explain.describe(change)}", markup=False, highlight=False, soft_wrap=True)
    if len(told.changes) > CHANGES_SHOWN:
        out.print(f"  and {len(told.changes) - CHANGES_SHOWN} more (--json)")


@app.command()
def history(
    settings: SettingsFile = DEFAULT,
    at: Annotated[str, typer.Option("--at", metavar="TIME", help="What served then (ISO 8601), and why.")] = "",
    as_json: Json = False,
) -> None:
    """Everything that happened; or what served at a time."""
    records = _ledger(settings_file.load(settings)).read()
    if at:
        _show_service(explain.served_at(records, _time(at)), at, as_json)
        return
    events = explain.history(records)
    if as_json:
        print(json.dumps([asdict(event) | {"at": event.at.isoformat()} for event in events], indent=1))
        return
    print_rows([(f"{event.number}  {event.at.astimezone():%Y-%m-%d %H:%M:%S}", event.text) for event in events])


def _show_service(served: explain.Service | None, at: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps(served and {**asdict(served), "since": served.since.isoformat()}, indent=1))
    elif served is None or served.version is None:
        out.print(f"at {at} no version was meant to serve", markup=False, highlight=False, soft_wrap=True)
    else:
        since = f"{served.since.astimezone():%Y-%m-%d %H:%M:%S}"
        told = f"at {at} version {served.version} served, since {since}: {served.why}"
        out.print(told, markup=False, highlight=False, soft_wrap=True)


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise SpiraError(f"--at {text}: write a time as 2026-11-24T06:30 or 2026-11-24T06:30:00+00:00") from None


@app.command()
def pin(version: Version, reason: Reason, settings: SettingsFile = DEFAULT, as_json: Json = False) -> None:
    """Have a version serve, whatever is trained meanwhile, until it is unpinned."""
    _order(settings, lambda ledger: operator_commands.pin(ledger, version, reason), as_json)


@app.command()
def unpin(settings: SettingsFile = DEFAULT, as_json: Json = False) -> None:
    """Let what is approved serve again."""
    _order(settings, operator_commands.unpin, as_json)


@app.command()
def rollback(
    reason: Reason,
    to: Annotated[str, typer.Option("--to", help="The version to go back to; the one before if not given.")] = "",
    settings: SettingsFile = DEFAULT,
    as_json: Json = False,
) -> None:
    """Leave what serves for good, go back to what served before it, and pin that."""
    _order(settings, lambda ledger: operator_commands.roll_back(ledger, reason, to), as_json)


@app.command()
def approve(version: Version, settings: SettingsFile = DEFAULT, as_json: Json = False) -> None:
    """Let a version serve that its gate has approved, where the settings ask for a person's word."""
    _order(settings, lambda ledger: operator_commands.approve(ledger, version), as_json)


def _order(settings: Path, order: Callable[[Ledger], Any], as_json: bool) -> None:
    """Record it, and carry it out at once."""
    chosen = settings_file.load(settings)
    order(_ledger(chosen))
    done: list[str] = []
    report = _tick(chosen, done)
    _show_tick(report, done, as_json)
    if report.troubles:
        raise typer.Exit(1)


@app.command()
def reproduce(
    version: Version,
    settings: SettingsFile = DEFAULT,
    other_code: Annotated[bool, typer.Option("--other-code", help="Though the code has changed since.")] = False,
    as_json: Json = False,
) -> None:
    """Train a version again from the ledger alone, and compare the weights; exit code 1 if they differ."""
    from spira.cli.compose import repository
    from spira.delivery import reproduce as making

    chosen = settings_file.load(settings)
    package = repository(chosen).package(version)
    seed = json.loads((package / "package.json").read_text())["seed"]
    folder = Path(chosen.work) / "reproduced" / version
    made = making.reproduce(_ledger(chosen), version, package, seed, folder, other_code=other_code, tell=say)
    if as_json:
        print(json.dumps(asdict(made), indent=1))
    else:
        how = (
            "the same weights, to the bit" if made.identical else f"weights differ by up to {made.largest_difference:g}"
        )
        out.print(f"version {version}, seed {seed}, made again: {how}", highlight=False)
    if not made.identical:
        raise typer.Exit(1)


def _ledger(chosen: Settings) -> Ledger:
    from spira.cli.compose import ledger

    return ledger(chosen)
