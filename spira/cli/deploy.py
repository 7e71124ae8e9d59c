"""Move versions on and off the targets by hand.

    spira deploy status
    spira deploy plan 7                # the steps of an apply
    spira deploy apply 7               # or an alias, such as champion
    spira deploy verify                # send the golden recordings
    spira deploy rollback --reason R   # serve the previous version again

The targets are those of delivery.yaml; with --work FOLDER, or without a
settings file, the local target FOLDER/serving. Once every target serves
the version, it becomes the champion; with --target KIND the champion stays.
If continuous delivery is in use, its next tick restores the version that
it wants: use spira deliver pin or rollback for a lasting change.

Exit code 2 if the command is refused; 1 if a target fails, after the
other targets have been tried.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import JsonValue

from spira import project as projects
from spira.cli.common.console import print_rows, say
from spira.cli.common.options import DEFAULT_WORK, parse_folder
from spira.cli.deliver import DEFAULT, Json, SettingsFile
from spira.cli.models.commands import check_repository
from spira.config import JsonObject
from spira.delivery import settings as settings_file
from spira.delivery.decide import wanted
from spira.delivery.history.events import VersionId
from spira.delivery.history.state import DeliveryState, state_of
from spira.delivery.settings import Settings
from spira.deployment import promotion
from spira.deployment.promotion import NotServedError
from spira.deployment.target import DeploymentError, Plan, Release, Status, Target
from spira.deployment.targets import LocalTarget
from spira.deployment.version_stack import Change, to_json
from spira.errors import SpiraError
from spira.packaging.verify import TOLERANCE

if TYPE_CHECKING:
    from spira.cli.common.compose import LazyTarget
    from spira.delivery.repository import MLflowRepository
    from spira.registry import RegisteredVersion

# In the help the examples keep their lines: \b turns off wrapping for a paragraph.
app = typer.Typer(no_args_is_help=True, help=__doc__.replace("    spira", "\b\n    spira", 1))
CHANGES_SHOWN = 5
FIRST_PROGRESS_SECONDS, PROGRESS_SECONDS = 2.0, 10.0
"""Time until the last line is repeated for the first time, and between further repetitions."""

Version = Annotated[str, typer.Argument(help="Number of a version, or an alias such as champion.")]
Kind = Annotated[str, typer.Option("--target", metavar="KIND", help="One of the targets only; the champion stays.")]
WorkFolder = Annotated[
    Path | None,
    typer.Option(
        "--work",
        parser=parse_folder,
        metavar="PATH",
        help="Work folder: its local target and repository, without a settings file.",
    ),
]
MLflow = Annotated[str, typer.Option("--mlflow", metavar="URL", help="MLflow server; SQLite in --work by default.")]
Rows = list[tuple[str, str]]


@dataclass(frozen=True)
class Outcome:
    """What a call of one target returned, as JSON and as text."""

    fields: JsonObject
    rows: Rows
    is_error: bool = False


Call = Callable[[Target], Outcome]


@dataclass(frozen=True)
class Scope:
    """Model repository and targets that a command acts on."""

    models: MLflowRepository
    targets: list[LazyTarget]
    state: DeliveryState
    """State of continuous delivery; empty if it is not in use."""
    is_partial: bool
    """Whether ``--target`` limits the targets."""

    @classmethod
    def load(cls, settings: Path, work: Path | None, mlflow: str, kind: str) -> Scope:
        """Return the scope of the options.

        Raises:
            SpiraError: the settings have no such target, or the work folder has no model repository.
        """
        from spira.cli.common.compose import repository, targets

        chosen = settings_of(settings, work, mlflow)
        models = repository(chosen)
        available = targets(chosen, models)
        selected = [target for target in available if kind in ("", target.name)]
        if not selected:
            names = ", ".join(target.name for target in available)
            raise SpiraError(f"--target {kind}: the settings have no such target, only {names or 'none'}")
        return cls(models, selected, _delivery_state(chosen), bool(kind))

    def release(self, version: str) -> tuple[Release, str]:
        """Return the release of a version or alias, and why it should not serve, empty if it may."""
        check_repository(self.models.uri)
        with _progress("model repository"):
            registered = self.models.registry.show(version)
            version_id = VersionId(str(registered.version), registered.digest)
            return self.models.release(version_id), _unfit(registered, self.state)


def settings_of(file: Path, work: Path | None, mlflow: str) -> Settings:
    """Return the settings of the file, or those of a work folder if ``--work`` is given or no file exists.

    Raises:
        SpiraError: the options contradict each other, or the work folder has no model repository.
    """
    if work is None and (file.exists() or file != DEFAULT):
        if mlflow:
            raise SpiraError(f"--mlflow {mlflow}: {file} names the model repository: leave one out, or give --work too")
        return settings_file.load(file)
    if file != DEFAULT:
        raise SpiraError("--work and --settings: give only one of them")
    folder = work or DEFAULT_WORK
    if not mlflow:
        check_repository(str(folder))
    root = folder.resolve()
    return Settings(
        data="",
        work=str(root),
        ledger=str(root / "ledger"),
        registry=mlflow or str(root),
        project=str(projects.find(None, root) or ""),
        targets=(LocalTarget(serving=str(root / "serving")),),
    )


def _delivery_state(chosen: Settings) -> DeliveryState:
    """Return the state of continuous delivery. Manual deployment still works when the ledger is unreachable."""
    from spira.cli.common.compose import ledger

    try:
        return state_of(ledger(chosen).read())
    except SpiraError as error:
        say(f"the ledger cannot be read, so the version that continuous delivery wants is unknown: {error}")
        return DeliveryState()


@app.command()
def plan(
    version: Version,
    settings: SettingsFile = DEFAULT,
    work: WorkFolder = None,
    mlflow: MLflow = "",
    kind: Kind = "",
    as_json: Json = False,
) -> None:
    """Print the steps of an apply; change nothing."""
    scope = Scope.load(settings, work, mlflow, kind)
    release, unfit = scope.release(version)
    if unfit:
        say(f"version {release.version} {unfit}: apply refuses it, unless --force REASON gives a reason to serve it")
    _warn_if_not_wanted(scope.state, _id_of(release))
    results = Results(as_json)
    results.call_all(scope.targets, lambda target: _plan_outcome(target.plan(release)))
    results.finish()


def _plan_outcome(plan: Plan) -> Outcome:
    steps = [(f"{number}.", step) for number, step in enumerate(plan.steps, 1)]
    return Outcome(asdict(plan), [("serves", f"version {plan.serving}" if plan.serving else "nothing"), *steps])


@app.command()
def apply(
    version: Version,
    force: Annotated[
        str, typer.Option("--force", metavar="REASON", help="Serve it although rolled back or not approved; recorded.")
    ] = "",
    settings: SettingsFile = DEFAULT,
    work: WorkFolder = None,
    mlflow: MLflow = "",
    kind: Kind = "",
    as_json: Json = False,
) -> None:
    """Serve a version after the golden check on each target, then make it champion."""
    scope = Scope.load(settings, work, mlflow, kind)
    release, unfit = scope.release(version)
    if unfit and not force:
        raise SpiraError(f"version {release.version} {unfit}; to serve it anyway, give a reason: --force REASON")
    _warn_if_not_wanted(scope.state, _id_of(release))
    forced = replace(release, reason=force)

    def set_champion() -> None:
        scope.models.promote(_id_of(release), force)
        say(f"version {release.version} is champion")

    replaced: dict[str, str | None] = {}

    def serve(target: Target) -> Status:
        replaced[target.name] = promotion.apply(target, forced)
        return target.status()

    _move(scope, serve, set_champion, replaced, as_json)


@app.command()
def verify(
    settings: SettingsFile = DEFAULT,
    work: WorkFolder = None,
    mlflow: MLflow = "",
    kind: Kind = "",
    as_json: Json = False,
) -> None:
    """Send the golden recordings as a client would; exit code 1 if an answer differs by more than 1e-5."""

    def verify_target(target: Target) -> Outcome:
        version, difference = target.status().version, target.verify()
        difference_text = f"largest difference from torch {difference:.1e} (limit {TOLERANCE:g})"
        return Outcome(
            {"version": version, "largest_difference": difference, "bound": TOLERANCE},
            [("version", f"version {version} answers correctly: {difference_text}")],
        )

    results = Results(as_json)
    results.call_all(Scope.load(settings, work, mlflow, kind).targets, verify_target)
    results.finish()


@app.command()
def status(
    settings: SettingsFile = DEFAULT,
    work: WorkFolder = None,
    mlflow: MLflow = "",
    kind: Kind = "",
    as_json: Json = False,
) -> None:
    """Print the serving and the previous version, readiness, drift and the last changes; change nothing."""
    results = Results(as_json)
    results.call_all(Scope.load(settings, work, mlflow, kind).targets, lambda target: _status_outcome(target.status()))
    results.finish()


def _status_outcome(status: Status) -> Outcome:
    rows = [
        ("version", status.version or "none"),
        ("previous", status.previous or "none"),
        ("ready", "yes" if status.ready else "NO"),
        ("drift", "YES: apply the version again" if status.drifted else "none"),
        *([("message", status.message)] if status.message else []),
        *(("change", f"{change.at}  {_describe(change)}") for change in reversed(status.history[-CHANGES_SHOWN:])),
    ]
    return Outcome(_status_json(status), rows)


def _describe(change: Change) -> str:
    from_to = f"from version {change.left} to" if change.left else "version"
    return f"{change.action} {from_to} {change.version}" + (f": {change.reason}" if change.reason else "")


@app.command()
def rollback(
    reason: Annotated[str, typer.Option("--reason", help="Recorded in the history of the target.")],
    bad: Annotated[
        str, typer.Option("--bad", metavar="VERSION", help="Only while this version serves: safe to repeat.")
    ] = "",
    settings: SettingsFile = DEFAULT,
    work: WorkFolder = None,
    mlflow: MLflow = "",
    kind: Kind = "",
    as_json: Json = False,
) -> None:
    """Serve the previous version of each target again, then make it champion."""
    scope = Scope.load(settings, work, mlflow, kind)
    moves: list[tuple[str | None, VersionId | None]] = []
    """Version that each target left, and version that it serves now."""

    def go_back(target: Target) -> Status:
        before = target.status()
        earlier_reason = scope.state.rollback_reason(VersionId(before.previous)) if before.previous else ""
        if earlier_reason and bad in ("", before.version):
            raise DeploymentError(
                f"version {before.previous} was rolled back ({earlier_reason}): apply another version"
            )
        after = target.rollback(reason, bad or None)
        serving = VersionId(after.version, after.digest) if after.version else None
        moves.append((bad or before.version, serving))
        _warn_if_not_wanted(scope.state, serving)
        return after

    # No version to restore: the targets must not serve the bad version again if the alias cannot be moved.
    _move(scope, go_back, lambda: _set_champion_back(scope, moves, reason), {}, as_json)


def _set_champion_back(scope: Scope, moves: Sequence[tuple[str | None, VersionId | None]], reason: str) -> None:
    """Move the champion alias from the version that all targets left to the version that all serve now."""
    left, served = moves[0]
    if any(left != other or str(served) != str(now) or not _is_same(served, now) for other, now in moves):
        say(
            "the champion stays: the targets serve different versions; spira deploy apply VERSION serves one everywhere"
        )
        return
    check_repository(scope.models.uri)
    serving = scope.models.number(served) if served else None
    registry = scope.models.registry
    aliases = {alias: str(version.version) for version in registry.list_versions() for alias in version.aliases}
    champion, previous = aliases.get("champion"), aliases.get("previous")
    if champion is None or serving is None or champion not in (left, serving):
        say(f"the champion stays: {f'version {champion}' if champion else 'none'}")
        return
    if not scope.state.last and previous == serving:
        # Also holds the version that is left, which then needs --force to serve again. Where both aliases are one
        # version, an earlier rollback was killed half-way: this call completes it.
        registry.rollback(reason, int(champion))
    elif champion != serving:
        # Continuous delivery decides itself which versions it holds: only the alias follows the targets.
        scope.models.promote(served or VersionId(serving), "")
    say(f"version {serving} is champion")


def _is_same(a: VersionId | None, b: VersionId | None) -> bool:
    return a is b or (a is not None and b is not None and a.is_same(b))


def _move(
    scope: Scope,
    serve: Callable[[Target], Status],
    set_champion: Callable[[], None],
    replaced: Mapping[str, str | None],
    as_json: bool,
) -> None:
    """Serve on every target and print the results, then move the champion alias, unless ``--target`` is given.

    Args:
        scope: targets to serve on.
        serve: serves the version on one target.
        set_champion: moves the alias.
        replaced: filled by ``serve``: version to restore, by target, if the alias cannot be moved.
        as_json: whether to print JSON.

    Raises:
        SpiraError: the alias could not be moved.
        typer.Exit: with code 1, if a target failed.
    """
    results = Results(as_json)

    def serve_and_report(target: Target) -> str | None:
        results.call(target, lambda target: _served_outcome(serve(target)))
        return replaced.get(target.name)

    if scope.is_partial:
        set_champion = partial(say, "the champion stays: --target moves one target only")
    try:
        promotion.move_champion(scope.targets, serve_and_report, set_champion, try_all=True)
    except NotServedError:
        say("the champion stays: a target does not serve the version")
    except SpiraError:
        results.print_json()
        raise
    results.finish()


def _status_json(status: Status) -> JsonObject:
    history: list[JsonValue] = [*to_json(status.history)]
    return {**asdict(status), "history": history}


def _served_outcome(status: Status) -> Outcome:
    serving = f"version {status.version} serves" if status.version else "nothing serves"
    rows = [("version", serving if status.ready else f"{serving}, NOT READY")]
    return Outcome(_status_json(status), rows + ([("message", status.message)] if status.message else []))


def _id_of(release: Release) -> VersionId:
    return VersionId(release.version, release.digest)


def _unfit(version: RegisteredVersion, state: DeliveryState) -> str:
    """Return why a version should not serve, empty if it may."""
    identity = VersionId(str(version.version), version.digest)
    if reason := state.rollback_reason(identity) or version.tags.get("rolled_back_reason"):
        return f"was rolled back ({reason})"
    return "" if version.approved else f"is not approved ({version.tags.get('reasons') or 'no reason recorded'})"


def _warn_if_not_wanted(state: DeliveryState, version: VersionId | None) -> None:
    """Warn that a manual change does not last if continuous delivery wants another version."""
    want = wanted(state, state.rolled_back)
    if state.last and not (version and want and version.is_same(want)):
        wants = f"wants version {want}, and its next tick restores it" if want else "serves what it delivers next"
        lasting = f"spira deliver pin {version} or spira deliver rollback"
        say(f"continuous delivery {wants}; for a lasting change use {lasting}")


@dataclass
class Results:
    """Results of the targets, printed as they come, or at the end as JSON."""

    as_json: bool
    outcomes: list[tuple[str, Outcome]] = field(default_factory=list)
    """Name of a target, and what its call returned."""

    def call(self, target: Target, call: Call) -> None:
        """Call one target and record its result.

        Raises:
            DeploymentError: the target failed.
        """
        with _progress(target.name):
            try:
                self._record(target.name, call(target))
            except (SpiraError, OSError) as error:  # a full disk is a failure of one target too
                self._record(target.name, Outcome({"error": str(error)}, [("error", str(error))], is_error=True))
                raise DeploymentError(str(error)) from error

    def call_all(self, targets: Sequence[Target], call: Call) -> None:
        """Call all targets; a target that fails does not stop the others."""
        for target in targets:
            try:
                self.call(target, call)
            except DeploymentError:
                continue  # recorded; finish() sets the exit code

    def print_json(self) -> None:
        """Print the results as JSON if ``--json`` is given."""
        if self.as_json:
            results = [{"target": target, **outcome.fields} for target, outcome in self.outcomes]
            print(json.dumps(results, indent=1))

    def finish(self) -> None:
        """Print the JSON.

        Raises:
            typer.Exit: with code 1, if a target failed.
        """
        self.print_json()
        if any(outcome.is_error for _, outcome in self.outcomes):
            raise typer.Exit(1)

    def _record(self, target: str, outcome: Outcome) -> None:
        self.outcomes.append((target, outcome))
        if not self.as_json:
            print_rows([("target", target), *outcome.rows])


@contextmanager
def _progress(name: str) -> Iterator[None]:
    """Print what ``spira.deployment`` logs, and repeat the last line with the elapsed time while a call takes long."""
    logger, handler, ended = logging.getLogger("spira.deployment"), _ProgressHandler(name), Event()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    thread = Thread(target=handler.repeat, args=(ended,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        logger.removeHandler(handler)
        logger.setLevel(level)


class _ProgressHandler(logging.Handler):
    """Print each log line with the name of the target, on standard error."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.prefix = name
        self.line = f"{name}: waiting for an answer"

    def emit(self, record: logging.LogRecord) -> None:
        self.line = f"{self.prefix}: {record.getMessage()}"
        say(self.line)

    def repeat(self, ended: Event) -> None:
        """Repeat the last line with the elapsed time until ``ended`` is set."""
        began, pause = time.monotonic(), FIRST_PROGRESS_SECONDS
        while not ended.wait(pause):
            say(f"{self.line} ({time.monotonic() - began:.0f} s)")
            pause = PROGRESS_SECONDS
