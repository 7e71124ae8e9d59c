"""``spira models dossier``: everything recorded about a version, in one folder or ZIP file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spira.cli.common.console import print_line
from spira.cli.common.options import PageLanguage, parse_folder
from spira.errors import SpiraError

SETTINGS = Path("delivery.yaml")
"""Default of ``--settings``, as that of :mod:`spira.delivery.settings`, whose import takes longer than help may."""


def dossier(
    version: Annotated[str, typer.Argument(metavar="VERSION", help="Number of a version, or an alias: champion.")],
    to: Annotated[
        Path | None, typer.Option("--out", help="New folder, or FILE.zip; dossier-VERSION by default.")
    ] = None,
    settings: Annotated[Path, typer.Option("--settings", help="Settings file of continuous delivery.")] = SETTINGS,
    work: Annotated[
        Path | None,
        typer.Option(
            "--work",
            parser=parse_folder,
            metavar="PATH",
            help="Work folder: its repository and ledger, without a settings file.",
        ),
    ] = None,
    mlflow: Annotated[str, typer.Option("--mlflow", metavar="URL", help="MLflow server.")] = "",
    language: PageLanguage = None,
) -> None:
    """Write what an ethics board asks for: data, verdict, gate, approvals, changes, limits, provenance, report."""
    from spira.cli.common.compose import ledger
    from spira.cli.deploy import settings_of
    from spira.cli.models.commands import check_repository
    from spira.delivery.dossier import contents as dossiers
    from spira.registry import open_at

    chosen = settings_of(settings, work, mlflow)
    check_repository(chosen.registry)
    registry = open_at(chosen.registry)
    number = registry.show(version).version
    out = to or Path(f"dossier-{number}")
    try:
        records, notes = ledger(chosen).read(), []
    except SpiraError as error:
        records, notes = (
            [],
            [f"The ledger of continuous delivery could not be read, so approvals may be missing: {error}"],
        )
    written = dossiers.write(registry, number, records, out, notes, language or chosen.language)
    print_line(f"dossier of version {number}: {out if out.suffix == '.zip' else out / dossiers.PAGE}")
    for name, reason in written.missing.items():
        print_line(f"left out: {name}: {reason}")
    for note in notes:
        print_line(f"warning: {note}")
