"""What serves, and another version in its place, by hand.

    spira deploy status
    spira deploy plan 7                # what apply would do
    spira deploy apply 7               # or an alias, such as champion
    spira deploy verify                # asks it the golden recordings
    spira deploy rollback --reason R   # serves what served before

It acts on the targets of delivery.yaml alone: the champion of the model
repository stays who it is. Where continuous delivery is in use, its next
tick puts back what it wants: spira deliver pin and rollback last.

Exit code 2 for what is refused; 1 where a target can't do it, and the
other targets are gone on with.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spira.cli.console import print_rows, say
from spira.cli.deliver import DEFAULT, Json, SettingsFile
from spira.delivery import settings as settings_file
from spira.delivery.decide import wanted
from spira.delivery.settings import Settings
from spira.delivery.state import DeliveryState, state_of
from spira.deployment.target import DeploymentError, Release, Status, Target
from spira.errors import SpiraError
from spira.packaging.verify import TOLERANCE

if TYPE_CHECKING:
    from spira.cli.compose import LazyTarget
    from spira.delivery.repository import MLflowRepository
    from spira.registry import RegisteredVersion

app = typer.Typer(no_args_is_help=True, help=__doc__.replace("    spira", "\b\n    spira", 1))  # as it stands: indented
CHANGES_SHOWN = 5
FIRST_BEAT_SECONDS, BEAT_SECONDS = 2.0, 10.0
"""After which what goes on is told."""

Version = Annotated[str, typer.Argument(help="Number of a version, or an alias such as champion.")]
Only = Annotated[str, typer.Option("--target", metavar="KIND", help="One of the targets; all if not given.")]
Rows = list[tuple[str, str]]


@dataclass(frozen=True)
class Given:
    """What the verbs act on."""

    models: MLflowRepository
    places: list[LazyTarget]
    state: DeliveryState
    """What continuous delivery has recorded; nothing where it isn't in use."""

    @classmethod
    def of(cls, settings: Path, only: str) -> Given:
        """As the settings say, the targets those of a kind if it is given.

        Raises:
            SpiraError: there are none.
        """
        from spira.cli.compose import repository, targets

        chosen = settings_file.load(settings)
        models = repository(chosen)
        there = targets(chosen, models)
        places = [target for target in there if only in ("", target.name)]
        if not places:
            names = ", ".join(target.name for target in there)
            raise SpiraError(f"--target {only}: the settings have no such target, but {names or 'none at all'}")
        return cls(models, places, _state(chosen))

    def release(self, version: str) -> tuple[Release, str]:
        """A version by number or alias, and why it should not serve; empty where it may."""
        with _progress("model repository"):
            registered = self.models.registry.show(version)
            return self.models.release(str(registered.version)), _unfit(registered, self.state.rolled_back)


def _state(chosen: Settings) -> DeliveryState:
    """By hand goes on where the ledger can't be asked."""
    from spira.cli.compose import ledger

    try:
        return state_of(ledger(chosen).read())
    except SpiraError as error:
        say(f"the ledger can't be asked, so it isn't known what continuous delivery wants: {error}")
        return DeliveryState()


@app.command()
def plan(version: Version, settings: SettingsFile = DEFAULT, only: Only = "", as_json: Json = False) -> None:
    """What apply would do, step by step; changes nothing."""
    given = Given.of(settings, only)
    release, unfit = given.release(version)
    if unfit:
        say(f"version {release.version} {unfit}: apply refuses it, unless --force REASON says why it may serve")
    _tell_wanted(given.state, release.version)
    _each(given.places, lambda target: asdict(target.plan(release)), _planned, as_json)


def _planned(told: Mapping[str, Any]) -> Rows:
    steps = [(f"{number}.", step) for number, step in enumerate(told["steps"], 1)]
    return [("serves", f"version {told['serving']}" if told["serving"] else "nothing"), *steps]


@app.command()
def apply(
    version: Version,
    force: Annotated[
        str, typer.Option("--force", metavar="REASON", help="Though it was rolled back or isn't approved; is kept.")
    ] = "",
    settings: SettingsFile = DEFAULT,
    only: Only = "",
    as_json: Json = False,
) -> None:
    """Serve a version, once its golden recordings come out right there; the champion stays who it is."""
    given = Given.of(settings, only)
    release, unfit = given.release(version)
    if unfit and not force:
        raise SpiraError(f"version {release.version} {unfit}; to serve it all the same, say why: --force REASON")
    _tell_wanted(given.state, release.version)
    forced = replace(release, reason=force)
    _each(given.places, lambda target: _told(target.apply(forced)), _served, as_json)


@app.command()
def verify(settings: SettingsFile = DEFAULT, only: Only = "", as_json: Json = False) -> None:
    """Ask what serves for its golden recordings, as its users ask; exit code 1 if one is off by more than 1e-5."""

    def ask(target: Target) -> dict[str, Any]:
        return {"version": target.status().version, "largest_difference": target.verify(), "bound": TOLERANCE}

    _each(Given.of(settings, only).places, ask, _verified, as_json)


def _verified(told: Mapping[str, Any]) -> Rows:
    difference = f"at most {told['largest_difference']:.1e} from torch, {told['bound']:g} is allowed"
    return [("version", f"version {told['version']} answers rightly: {difference}")]


@app.command()
def status(settings: SettingsFile = DEFAULT, only: Only = "", as_json: Json = False) -> None:
    """What serves, what served before, whether it answers and is as it was applied; changes nothing."""
    _each(Given.of(settings, only).places, lambda target: _told(target.status()), _described, as_json)


def _described(told: Mapping[str, Any]) -> Rows:
    changes = told["history"][-CHANGES_SHOWN:]
    return [
        ("version", told["version"] or "none"),
        ("previous", told["previous"] or "none"),
        ("ready", "yes" if told["ready"] else "NO"),
        ("drift", "YES: apply the version again" if told["drifted"] else "none"),
        *([("message", told["message"])] if told["message"] else []),
        *(("change", f"{one['at']}  {_changed(one)}") for one in reversed(changes)),
    ]


def _changed(one: Mapping[str, Any]) -> str:
    from_to = f"from version {one['left']} to" if "left" in one else "version"
    return f"{one['action']} {from_to} {one['version']}" + (f": {one['reason']}" if one.get("reason") else "")


@app.command()
def rollback(
    reason: Annotated[str, typer.Option("--reason", help="Kept in the target's history.")],
    bad: Annotated[
        str, typer.Option("--bad", metavar="VERSION", help="Only where this one serves: so it is safe to repeat.")
    ] = "",
    settings: SettingsFile = DEFAULT,
    only: Only = "",
    as_json: Json = False,
) -> None:
    """Serve what served before; in each target that which served there. The champion stays who it is."""
    given = Given.of(settings, only)
    state = given.state

    def back(target: Target) -> dict[str, Any]:
        now = target.status()
        why = state.rolled_back.get(now.previous or "")
        if why and bad in ("", now.version):
            raise DeploymentError(f"version {now.previous} served before, and was rolled back ({why}): apply another")
        served = target.rollback(reason, bad or None)
        _tell_wanted(state, served.version)
        return _told(served)

    _each(given.places, back, _served, as_json)


def _told(status: Status) -> dict[str, Any]:
    return asdict(status) | {"history": list(status.history)}


def _served(told: Mapping[str, Any]) -> Rows:
    serves = f"version {told['version']} serves" if told["version"] else "nothing serves"
    rows = [("version", serves if told["ready"] else f"{serves}, NOT READY")]
    return rows + ([("message", told["message"])] if told["message"] else [])


def _unfit(version: RegisteredVersion, bad: Mapping[str, str]) -> str:
    """Why a version should not serve; empty where it may."""
    if held := bad.get(str(version.version)) or version.tags.get("rolled_back_reason"):
        return f"was rolled back ({held})"
    return "" if version.approved else f"isn't approved ({version.tags.get('reasons') or 'no reason recorded'})"


def _tell_wanted(state: DeliveryState, version: str | None) -> None:
    """That what was, or will be, done by hand doesn't last where continuous delivery is in use."""
    want = wanted(state, state.rolled_back)
    if state.last and version != want:
        wants = f"wants version {want}, and its next tick puts that back" if want else "serves what it delivers next"
        say(f"continuous delivery {wants}; what lasts is spira deliver pin {version} or spira deliver rollback")


def _each(
    places: Sequence[LazyTarget], ask: Callable[[Target], dict[str, Any]], rows: Callable[[Any], Rows], as_json: bool
) -> None:
    """Ask one target after the other; what one can't do is told, and the others are gone on with.

    Raises:
        typer.Exit: with code 1, where one couldn't.
    """
    answers = []
    for place in places:
        with _progress(place.name):
            try:
                answers.append({"target": place.name, **ask(place)})
            except (SpiraError, OSError) as error:  # a full disk is a target's trouble too
                answers.append({"target": place.name, "error": str(error)})
        if not as_json:
            told = answers[-1]
            print_rows([("target", place.name), *([("error", told["error"])] if "error" in told else rows(told))])
    if as_json:
        print(json.dumps(answers, indent=1))
    if any("error" in told for told in answers):
        raise typer.Exit(1)


@contextmanager
def _progress(name: str) -> Iterator[None]:
    """What is begun, and that it goes on where it takes its time, is told."""
    logger, teller, ended = logging.getLogger("spira.deployment"), _Teller(name), Event()
    level = logger.level
    logger.addHandler(teller)
    logger.setLevel(logging.INFO)
    beats = Thread(target=teller.beat, args=(ended,), daemon=True)
    beats.start()
    try:
        yield
    finally:
        ended.set()
        beats.join()
        logger.removeHandler(teller)
        logger.setLevel(level)


class _Teller(logging.Handler):
    """Says each line of a target's, to the person."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.told = f"{name}: asked"

    def emit(self, record: logging.LogRecord) -> None:
        name = self.told.partition(": ")[0]
        self.told = f"{name}: {record.getMessage()}"
        say(self.told)

    def beat(self, ended: Event) -> None:
        """Say the last line again with its time, until all has ended."""
        began, pause = time.monotonic(), FIRST_BEAT_SECONDS
        while not ended.wait(pause):
            say(f"{self.told} ({time.monotonic() - began:.0f} s)")
            pause = BEAT_SECONDS
