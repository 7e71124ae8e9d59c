"""``spira data forget``: remove the recordings of a person who withdrew the consent."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from spira.cli.common.console import print_line
from spira.cli.common.options import DEFAULT_WORK, MLflow, Work
from spira.data.storage import is_bucket
from spira.errors import SpiraError
from spira.files import LockedError, lock


def forget(
    subject: Annotated[
        str, typer.Argument(metavar="SPEAKER", help="Name in the column speaker, or the file_path of a recording.")
    ],
    data: Annotated[str, typer.Option("--data", help="Data set: folder, gs:// or s3:// prefix.")],
    work: Work = DEFAULT_WORK,
    mlflow: MLflow = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be removed; remove nothing.")] = False,
) -> None:
    """Remove a person's recordings and rows from a data set, and what the work folder holds of them.

    Lists the versions that were trained on them. The next tick of continuous delivery trains without them. Repeat the
    command if it was interrupted, and for every copy of the data set and every work folder.
    """
    from spira.data import forget as forgetting

    has_work = work.is_dir()
    try:
        with lock(work / ".lock", wait=False) if has_work else nullcontext():
            removal = forgetting.find(data, subject, work if has_work else None)
            will = "would be removed" if dry_run else "removed"
            trained = _versions_trained_on(removal.person.sha256, work, mlflow)
            if not dry_run:
                forgetting.remove(removal)
    except LockedError:
        raise SpiraError(f"{work}: a run works in this folder: wait for it, then run this command again") from None
    for file in sorted({entry.path for entry in removal.recordings} | (set() if dry_run else removal.person.paths)):
        print_line(f"{will}: {file}")
    for path in removal.work:
        print_line(f"{will}: {path}")
    for table in removal.tables:
        print_line(f"{will}: rows of {table}")
    for entry in removal.old_tables:
        print_line(f"{will}: an old version of {entry.path}")
    print_line(f"{removal.rows} rows and recordings {will}")
    if is_bucket(data):
        kept = removal.store.kept_after_delete() or "the store does not say that it keeps deleted objects"
        print_line(f"{kept}; copies in other regions (replication) and backups are not seen here")
    if trained:
        print_line(f"versions trained on them: {', '.join(trained)}. They stay until a version without them serves")
    else:
        print_line("no version is known to be trained on them")


def _versions_trained_on(sha256: frozenset[str], work: Path, mlflow: str) -> list[str]:
    """Return the versions whose training used one of the recordings; of an unknown training, with a remark."""
    if not mlflow and not (work / "mlflow.db").is_file():
        return []
    from spira.registry import open_at

    registry = open_at(mlflow or str(work))
    versions = []
    for version in reversed(registry.list_versions()):
        files = registry.training_files(version)
        if files is None:
            versions.append(f"{version.version} (its training data are not recorded)")
        elif sha256 & files:
            versions.append(str(version.version))
    return versions
