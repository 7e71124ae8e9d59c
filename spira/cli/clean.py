"""``spira clean``: bound the folders of runs, trainings and models in a work folder."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spira.cli.common.console import print_line
from spira.cli.common.options import DEFAULT_WORK, parse_folder
from spira.errors import SpiraError
from spira.files import LockedError, is_locked, lock, read_json

if TYPE_CHECKING:
    from spira.delivery.settings import Settings

REMOVED = ".removed"
"""End of the name of a folder that is being removed: a half-removed folder must not look complete."""


@dataclass(frozen=True)
class InUse:
    """What must stay, whatever its age."""

    versions: frozenset[str]
    """Versions that serve or served last, are champion, pinned or awaited."""
    runs: frozenset[str]
    """Runs whose end is not in the ledger yet."""


def clean(
    keep: Annotated[int, typer.Option("--keep", metavar="N", min=1, help="Newest folders of each kind that stay.")],
    work: Annotated[
        Path | None,
        typer.Option(
            "--work", parser=parse_folder, metavar="PATH", help="Work folder; that of the settings by default."
        ),
    ] = None,
    settings_path: Annotated[
        Path | None,
        typer.Option("--settings", help="Settings of continuous delivery; delivery.yaml by default, if any."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be removed; remove nothing.")] = False,
) -> None:
    """Remove old pipeline, run, state and model folders from a work folder, and say what that freed.

    What serves, what a rollback returns to, what is pinned, unfinished runs, MLflow, the ledger and the serving folders
    stay. So does what spira deliver reproduce needs: the ledger, and the packages in MLflow, from which a removed
    model folder is fetched again.
    """
    from spira.delivery import settings as settings_file

    path = settings_path or settings_file.DEFAULT
    settings = settings_file.load(path) if work is None and path.exists() else None
    folder = Path(settings.work) if settings else (work or DEFAULT_WORK).resolve()
    if not folder.is_dir():
        raise SpiraError(f"{folder}: no such work folder")
    try:
        with lock(folder / ".lock", wait=False):
            folders = list(removable(folder, keep, in_use(settings or _default_settings(folder))))
            freed = freed_bytes(folders)
            if not dry_run:
                for old in folders:
                    _remove(old)
    except LockedError:
        raise SpiraError(f"{folder}: a run works in this folder: wait for it, then run this command again") from None
    for removed in folders:
        print_line(f"{'would remove' if dry_run else 'removed'} {removed.relative_to(folder)}")
    verb = "would be freed" if dry_run else "freed"
    print_line(f"{len(folders)} folders, {freed / 1e6:.1f} MB {verb}")


def _default_settings(work: Path) -> Settings:
    """Return the settings of a work folder without a settings file: ledger, MLflow and local target are in it."""
    from spira.delivery import settings as settings_file
    from spira.delivery.settings import Settings

    return settings_file.absolute(Settings(data="", work=str(work)), work)


def in_use(settings: Settings) -> InUse:
    """Return what must stay.

    Raises:
        SpiraError: the ledger, the repository or a target cannot be read, so that what is in use is not known.
    """
    from spira.cli.common.compose import ledger, repository, targets
    from spira.delivery.decide import wanted
    from spira.delivery.history.ledger import describe_damage
    from spira.delivery.history.state import state_of

    records = ledger(settings).read()
    if damage := describe_damage(records):
        raise SpiraError(damage)
    state = state_of(records)
    models = repository(settings)
    delivered = [delivery.version for delivery in state.deliveries[-2:]]
    known = [wanted(state, state.rolled_back), state.promoting, state.pin.version if state.pin else None, *delivered]
    versions: set[str | None] = {version.number for version in known if version}
    if "://" in settings.registry or (Path(settings.registry) / "mlflow.db").is_file():
        versions |= {str(version.version) for version in models.registry.list_versions() if version.aliases}
    for target in targets(settings, models):
        status = target.status()
        versions |= {status.version, status.previous}
    runs = {attempt.run for attempt in state.attempts if not attempt.outcome}
    return InUse(frozenset(version for version in versions if version), frozenset(runs))


def removable(work: Path, keep: int, used: InUse) -> Iterator[Path]:
    """Yield the folders to remove, and those that an interrupted removal left."""
    for kind in ("pipeline", "pushed", "reproduced", "runs", "models", "state"):
        yield from (work / kind).glob(f".*{REMOVED}")
    yield from _old(_folders(work / "pipeline"), keep, _shown_run(work))
    yield from _old(_folders(work / "pushed"), keep)
    yield from _old(_folders(work / "reproduced"), keep)
    yield from _old(_folders(work / "runs"), keep, {run.name for run in _folders(work / "runs") if _is_open(run, used)})
    yield from _old(_folders(work / "models"), keep, used.versions)
    states = _folders(work / "state")
    yield from _old([state for state in states if state.name.startswith("corpus-")], keep)
    trainings = [state for state in states if not state.name.startswith("corpus-")]
    keys = list(dict.fromkeys(training.name.rpartition("-")[0] for training in trainings))[:keep]  # all seeds of one
    yield from (training for training in trainings if training.name.rpartition("-")[0] not in keys)


def _folders(parent: Path) -> list[Path]:
    """Return the folders of a folder, the one that changed last first."""
    folders = [path for path in parent.glob("*/") if not path.name.startswith(".") and not path.is_symlink()]
    return sorted(folders, key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)


def _old(folders: list[Path], keep: int, used: Collection[str] = ()) -> list[Path]:
    """Return the folders after the newest ones that are not in use."""
    return [folder for folder in folders[keep:] if folder.name not in used]


def _shown_run(work: Path) -> set[str]:
    """Return the name of the pipeline folder to which the summary in the work folder refers."""
    try:
        return {Path(read_json(work / "summary.json")["paths"]["log"]).parent.name}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _is_open(run: Path, used: InUse) -> bool:
    """Return whether a run has not ended, or its end is not in the ledger yet."""
    return run.name in used.runs or not (run / "outcome.json").exists() or is_locked(run / ".lock")


def freed_bytes(folders: Collection[Path]) -> int:
    """Return the bytes that a removal frees: a file with another name elsewhere keeps its space."""
    names: Counter[tuple[int, int, int, int]] = Counter()
    for folder in folders:
        for parent, _, files in os.walk(folder):
            for file in files:
                status = os.lstat(os.path.join(parent, file))
                names[status.st_dev, status.st_ino, status.st_nlink, status.st_size] += 1
    return sum(size for (_, _, links, size), count in names.items() if count == links)


def _remove(folder: Path) -> None:
    if not folder.name.endswith(REMOVED):
        folder = folder.rename(folder.with_name(f".{folder.name}{REMOVED}"))
    shutil.rmtree(folder)
