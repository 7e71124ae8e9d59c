"""Continuous delivery: observe data, settings and code; train, evaluate and deploy what has changed.

    spira deliver init --data DIR      # write delivery.yaml
    spira deliver tick --wait          # observe once, and do everything that follows
    spira deliver watch                # tick until stopped
    spira deliver status | why | history

Exit code 2: the command was refused. Exit code 1: something was unreachable or failed; the next tick tries again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spira import files
from spira.cli.common.console import print_json, print_line, print_rows, say, say_json
from spira.cli.common.interrupts import ending_only_this
from spira.cli.common.options import PageLanguage
from spira.data.storage import open_store
from spira.delivery import explain, operator_commands
from spira.delivery import settings as settings_file
from spira.delivery.history import ledger_check
from spira.delivery.history.events import VersionId
from spira.delivery.history.ledger import Ledger, Record
from spira.delivery.history.ledger_check import LedgerCheck
from spira.delivery.reconcile import Report
from spira.delivery.settings import Settings
from spira.delivery.status import DeliveryStatus, TargetStatus, delivery_status, tick_status
from spira.errors import SpiraError

if TYPE_CHECKING:
    from spira.cli.common.after_tick import AfterTick

app = typer.Typer(no_args_is_help=True, help=__doc__)
POLL_SECONDS = 1.0
MAX_CHANGES_SHOWN = 20
REMEDY = """\
Until this is solved, nothing is trained or promoted, and what serves stays. To solve it, either
  restore the records from a copy of the ledger:   spira deliver check-ledger --repair-from BACKUP
  or leave them out for good:                      spira deliver check-ledger --accept-damage --reason TEXT
Before you leave a record out, read it: a lost rollback or pin may bring another version into service."""
DEFAULT = settings_file.DEFAULT

SettingsFile = Annotated[Path, typer.Option("--settings", help="Settings file.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Reason = Annotated[str, typer.Option("--reason", help="Reason, stored in the ledger.")]
Version = Annotated[str, typer.Argument(help="Number of the model version.")]


@app.command()
def init(
    data: Annotated[str, typer.Option("--data", help="Data set to watch: folder, gs:// or s3:// prefix.")],
    settings_path: SettingsFile = DEFAULT,
) -> None:
    """Write a settings file with comments."""
    if settings_path.exists():
        raise SpiraError(f"{settings_path} exists already: change it, or name another file with --settings")
    files.write_text(settings_path, settings_file.example(_location(data, settings_path.parent.resolve())))
    say(f"wrote {settings_path}; next: spira deliver tick --wait")


def _location(data: str, folder: Path) -> str:
    """Return the data set as the settings name it: relative inside their folder, so that both can move together."""
    if "://" in data:
        return data
    path = Path(data).resolve()
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


@app.command()
def tick(
    settings_path: SettingsFile = DEFAULT,
    wait: Annotated[bool, typer.Option("--wait", help="Tick until no run is active or due.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Train again after all attempts have failed.")] = False,
    as_json: Json = False,
) -> None:
    """Observe data, settings, code, runs and targets once, and do everything that is due."""
    settings = settings_file.load(settings_path)
    if retry:
        operator_commands.retry(_ledger(settings))
    from spira.cli.common.after_tick import AfterTick

    done: list[str] = []
    after = AfterTick()
    with ending_only_this("an active run goes on: see spira deliver status, or end it with spira deliver cancel"):
        report = _tick(settings, done, after)
        last_message = ""
        while wait and (report.snapshot.state.active or _is_waiting_for_quiet(report)):
            last_message = _say_progress(report, last_message)
            time.sleep(POLL_SECONDS)
            report = _tick(settings, done, after)
    _show_tick(report, done, as_json)
    _finish(after)
    if report.troubles:
        raise typer.Exit(1)


def _tick(settings: Settings, done: list[str], after: AfterTick) -> Report:
    from spira.cli.common.compose import reconciler
    from spira.delivery.kubernetes.custom_resource import publish_report

    report = publish_report(settings, reconciler(settings).tick())
    after.start(settings, report)
    for line in report.done:
        say(line)
    done += report.done
    return report


def _finish(after: AfterTick) -> None:
    """Wait until the notices are sent. The result was shown before, and a notice that does not arrive is no failure."""
    for problem in after.finish():
        say(f"trouble: {problem}")


def _is_waiting_for_quiet(report: Report) -> bool:
    """Return whether a run is due as soon as the input has stayed the same long enough."""
    return not report.troubles and delivery_status(report).training == "due"


def _say_progress(report: Report, last_message: str) -> str:
    """Print the notes if they have changed."""
    message = "; ".join(report.decision.notes)
    if message != last_message:
        say(message)
    return message


def _show_tick(report: Report, done: list[str], as_json: bool) -> None:
    if as_json:
        print_json(tick_status(report, done).to_json())
        return
    for line in [*report.decision.notes, *(f"trouble: {trouble}" for trouble in report.troubles)]:
        say(line)
    if not done and not report.troubles and not report.decision.notes:
        say("nothing to do: the last observation is settled, and every target serves the wanted version")


@app.command()
def watch(
    settings_path: SettingsFile = DEFAULT,
    listen: Annotated[str, typer.Option("--listen", metavar="HOST:PORT", help="Accept webhooks here.")] = "",
    as_json: Json = False,
) -> None:
    """Tick until stopped; restart when the code has changed."""
    from spira.cli.watch import watch as run

    run(settings_path, listen, say_json if as_json else say)


@app.command()
def status(settings_path: SettingsFile = DEFAULT, as_json: Json = False) -> None:
    """Show what is observed, training, wanted and served; change nothing. Exit code 1: there is a problem."""
    from spira.cli.common.compose import reconciler

    status = delivery_status(reconciler(settings_file.load(settings_path)).dry_run())
    if as_json:
        print_json(status.to_json())
    else:
        _show_status(status)
    if status.has_problem:
        raise typer.Exit(1)


def _show_status(status: DeliveryStatus) -> None:
    observed = "nothing yet"
    if status.observed:
        what = status.observed.fingerprint[:12] or status.observed.problem
        observed = f"{what}, since {status.observed.since:%Y-%m-%dT%H:%M:%S}"
    rows = [
        ("observed", observed),
        ("training", status.training + (f", run {status.run}" if status.run else "")),
        ("wanted", f"version {status.wanted}" if status.wanted else "no version yet"),
        ("champion", f"version {status.champion}" if status.champion else "none"),
        *((f"target {name}", _target_text(target, status.wanted_id)) for name, target in status.serving.items()),
    ]
    if status.pin:
        rows.append(("pinned", f"version {status.pin.version}: {status.pin.reason}"))
    rows += [("note", note) for note in status.notes] + [("trouble", trouble) for trouble in status.troubles]
    rows += [("trouble", problem) for problem in status.notice_problems]
    if status.torn_records:
        rows.append(("ledger", f"records that were set aside: {', '.join(map(str, status.torn_records))}"))
    print_rows(rows)


def _target_text(target: TargetStatus | None, wanted: VersionId | None) -> str:
    if target is None:
        return "unreachable"
    version = f"version {target.version}" if target.version else "nothing"
    if not target.ready or target.drifted:
        return f"{version}, {'DRIFTED' if target.ready else 'NOT READY'}: {target.message}"
    is_another = wanted is not None and target.version == wanted.number and not target.is_as_wanted(wanted)
    return version + (", ANOTHER PACKAGE than the wanted one of this number" if is_another else "")


@app.command()
def page(
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Folder for the page, index.html.")] = None,
    listen: Annotated[
        str, typer.Option("--listen", metavar="HOST:PORT", help="Serve the page of the last tick here, read only.")
    ] = "",
    settings_path: SettingsFile = DEFAULT,
    language: PageLanguage = None,
) -> None:
    """Write or serve a page for people: what serves where, what changed and what came of it, problems now."""
    from spira.cli.common import status_page

    if (out is None) == (not listen):
        raise SpiraError("give either --out DIR, for a file, or --listen HOST:PORT, for a server")
    settings = settings_file.load(settings_path)
    if out is not None:
        say(f"wrote {status_page.write(settings, out, language)}")
    else:
        status_page.serve(settings_path, listen, say, language)


@app.command()
def why(
    subject: Annotated[
        str, typer.Argument(help="Version, run or beginning of a fingerprint; default: the last observation.")
    ] = "",
    settings_path: SettingsFile = DEFAULT,
    as_json: Json = False,
) -> None:
    """Show what caused a run: the axis, and the files, settings or sources that changed."""
    result = explain.why(_ledger(settings_file.load(settings_path)), subject)
    if as_json:
        print_json({**asdict(result), "axes": result.axes})
        return
    name = f"version {result.version}" if result.version else result.run or result.fingerprint[:12]
    if not result.since:
        print_line(f"{name} ({result.outcome}): no version served before it")
        return
    changed = " and ".join(result.axes) or "nothing"
    print_line(f"{name} ({result.outcome}): compared with {result.since}, changed: {changed}")
    for change in result.changes[:MAX_CHANGES_SHOWN]:
        print_line(f"  {change.axis}: {explain.describe_change(change)}")
    if len(result.changes) > MAX_CHANGES_SHOWN:
        print_line(f"  and {len(result.changes) - MAX_CHANGES_SHOWN} more (--json)")


@app.command()
def history(
    settings_path: SettingsFile = DEFAULT,
    at: Annotated[
        str, typer.Option("--at", metavar="TIME", help="Show only what served at this time (ISO 8601), and why.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Show everything that happened, or what served at a time."""
    records = _ledger(settings_file.load(settings_path)).read()
    if at:
        _show_service(explain.served_at(records, _time(at)), at, as_json)
        return
    events = explain.history(records)
    if as_json:
        print_json([asdict(event) | {"at": event.at.isoformat()} for event in events])
        return
    print_rows([(f"{event.number}  {event.at.astimezone():%Y-%m-%d %H:%M:%S}", event.text) for event in events])


def _show_service(period: explain.ServicePeriod | None, at: str, as_json: bool) -> None:
    if as_json:
        print_json(period and {**asdict(period), "since": period.since.isoformat()})
    elif period is None or period.version is None:
        print_line(f"at {at} no version was meant to serve")
    else:
        since = f"{period.since.astimezone():%Y-%m-%d %H:%M:%S}"
        print_line(f"at {at} version {period.version} served, since {since}: {period.why}")


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise SpiraError(f"--at {text}: write a time as 2026-11-24T06:30 or 2026-11-24T06:30:00+00:00") from None


@app.command()
def pin(version: Version, reason: Reason, settings_path: SettingsFile = DEFAULT, as_json: Json = False) -> None:
    """Serve a version until it is unpinned, whatever is trained meanwhile."""
    _record_and_tick(settings_path, lambda ledger: operator_commands.pin(ledger, version, reason), as_json)


@app.command()
def unpin(settings_path: SettingsFile = DEFAULT, as_json: Json = False) -> None:
    """Allow approved versions to be promoted again."""
    _record_and_tick(settings_path, operator_commands.unpin, as_json)


@app.command()
def rollback(
    reason: Reason,
    to: Annotated[str, typer.Option("--to", help="Version to serve; default: the one delivered before.")] = "",
    settings_path: SettingsFile = DEFAULT,
    as_json: Json = False,
) -> None:
    """Exclude the present version from service for good, and pin the version before it."""
    _record_and_tick(settings_path, lambda ledger: operator_commands.roll_back(ledger, reason, to), as_json)


@app.command()
def approve(version: Version, settings_path: SettingsFile = DEFAULT, as_json: Json = False) -> None:
    """Allow a version that waits for manual approval to be promoted (setting ``approval``)."""
    _record_and_tick(settings_path, lambda ledger: operator_commands.approve(ledger, version), as_json)


@app.command()
def cancel(
    reason: Annotated[str, typer.Option("--reason", help="Reason, stored in the ledger.")] = "",
    settings_path: SettingsFile = DEFAULT,
    as_json: Json = False,
) -> None:
    """End the active run. Its input is trained again only after a change, or by tick --retry."""
    _record_and_tick(settings_path, lambda ledger: operator_commands.cancel(ledger, reason), as_json)


def _record_and_tick(settings_path: Path, command: Callable[[Ledger], Record], as_json: bool) -> None:
    """Record an operator's command, and carry it out at once."""
    settings = settings_file.load(settings_path)
    command(_ledger(settings))
    from spira.cli.common.after_tick import AfterTick

    done: list[str] = []
    after = AfterTick()
    report = _tick(settings, done, after)
    _show_tick(report, done, as_json)
    _finish(after)
    if report.troubles:
        raise typer.Exit(1)


@app.command()
def check_ledger(
    repair_from: Annotated[
        str, typer.Option("--repair-from", metavar="BACKUP", help="Copy of the ledger: folder or bucket prefix.")
    ] = "",
    accept_damage: Annotated[
        bool, typer.Option("--accept-damage", help="Leave damaged records out for good; needs --reason.")
    ] = False,
    reason: Annotated[str, typer.Option("--reason", help="Reason, stored in the ledger.")] = "",
    settings_path: SettingsFile = DEFAULT,
    as_json: Json = False,
) -> None:
    """Compare every record with its checksum and with later records; repair or accept damage. Exit code 1: damaged."""
    if accept_damage and not reason:
        raise SpiraError("--accept-damage: give the reason with --reason")
    ledger = _ledger(settings_file.load(settings_path))
    if repair_from:
        numbers = ledger_check.repair(ledger, open_store(repair_from))
        say(f"restored record {', '.join(map(str, numbers))} from {repair_from}")
    if accept_damage:
        operator_commands.accept_damage(ledger, reason)
    result = ledger_check.check(ledger)
    if as_json:
        print_json(_check_json(result))
    else:
        _show_check(result)
    if result.damaged:
        raise typer.Exit(1)


def _check_json(check: LedgerCheck) -> dict[str, object]:
    def problems(records: tuple[Record, ...]) -> list[dict[str, object]]:
        return [{"record": record.number, "problem": explain.describe_record(record)} for record in records]

    return {
        "records": check.records,
        "without_checksum": check.without_checksum,
        "torn": problems(check.torn),
        "damaged": problems(check.damaged),
    }


def _show_check(check: LedgerCheck) -> None:
    intact = check.records - len(check.torn) - len(check.damaged)
    print_line(f"{intact} of {check.records} records are intact")
    if check.without_checksum:
        print_line(f"{check.without_checksum} of them were written by an older version, without a checksum")
    for record in (*check.torn, *check.damaged):
        print_line(f"record {record.number}: {explain.describe_record(record)}")
    if check.damaged:
        print_line(REMEDY)


@app.command()
def reproduce(
    version: Version,
    settings_path: SettingsFile = DEFAULT,
    other_code: Annotated[
        bool, typer.Option("--other-code", help="Train although the code differs from that of the run.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a version again from the ledger, and compare the weights; exit code 1 if they differ."""
    from spira.cli.common.compose import repository
    from spira.delivery import reproduce as reproduction

    settings = settings_file.load(settings_path)
    package = repository(settings).package(version)
    seed = json.loads((package / "package.json").read_text())["seed"]
    folder = Path(settings.work) / "reproduced" / version
    result = reproduction.reproduce(
        _ledger(settings), version, package, seed, folder, other_code=other_code, progress=say
    )
    if as_json:
        print_json(asdict(result))
    else:
        difference = f"the weights differ by up to {result.largest_difference:g}"
        comparison = "the weights are bit-identical" if result.identical else difference
        print_line(f"version {version}, seed {seed}, trained again: {comparison}")
    if not result.identical:
        raise typer.Exit(1)


def _ledger(settings: Settings) -> Ledger:
    from spira.cli.common.compose import ledger

    return ledger(settings)
