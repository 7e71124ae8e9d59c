"""``spira data``: checks of a data set, its upload into a bucket, and the removal of a person's recordings."""

from __future__ import annotations

import json
from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spira.cli.common.console import out, print_json, print_line, say
from spira.cli.common.options import ConfigFile, ConfigValues, Json, absolute, resolve_config
from spira.cli.forget import forget

if TYPE_CHECKING:
    from spira.config import JsonObject
    from spira.data.corpus import Inspection

PROGRESS_SECONDS = 2.0
"""Shortest time between two lines of progress."""

app = typer.Typer(
    no_args_is_help=True, help="Check a data set before training, upload it, and remove a person's recordings."
)


@app.command()
def check(
    data: Annotated[str, typer.Argument(metavar="DIR", help="Data set: folder, gs:// or s3:// prefix.")],
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write one row a recording.")] = None,
    config: ConfigFile = None,
    setting: ConfigValues = [],  # noqa: B006 (typer makes a new list)
    as_json: Json = False,
) -> None:
    """Report everything that a run would refuse, and the data-quality warnings; train nothing.

    Exit code 0 if the data set is in order, 2 if a run would refuse it.
    """
    from spira.data.corpus import inspect
    from spira.stage_logging import progress_log, stage_logging

    settings = resolve_config(config, setting, []).preprocess
    with stage_logging():
        inspection = inspect(absolute(data), settings, progress_log("check", "recordings"))
    if csv:
        inspection.recordings.to_csv(csv, index=False)
        say(f"wrote {csv}: {len(inspection.recordings)} rows")
    if as_json:
        print_json(to_json(inspection))
    else:
        show(inspection)
    if inspection.problems:
        raise typer.Exit(2)


@app.command()
def upload(
    data: Annotated[Path, typer.Argument(metavar="DIR", help="Data set: folder.")],
    uri: Annotated[str, typer.Argument(metavar="URI", help="gs://bucket/prefix or s3://bucket/prefix.")],
    replace: Annotated[bool, typer.Option("--replace", help="Replace recordings that are there and differ.")] = False,
    config: ConfigFile = None,
    setting: ConfigValues = [],  # noqa: B006 (typer makes a new list)
    as_json: Json = False,
) -> None:
    """Check a data set, and upload what its tables name into a bucket. Repeat the command to continue an upload.

    Files that are there with the same content are skipped, tables go last, and every object is verified at the end.
    Exit code 2 if the data set is refused, or the bucket.
    """
    from spira.data.corpus import inspect
    from spira.data.upload import upload as upload_dataset
    from spira.stage_logging import progress_log, stage_logging

    settings = resolve_config(config, setting, []).preprocess
    with stage_logging():
        inspection = inspect(str(data), settings, progress_log("check", "recordings", every=PROGRESS_SECONDS))
        if inspection.problems:
            show(inspection)
            raise typer.Exit(2)
        report = progress_log("upload", "files", every=PROGRESS_SECONDS)
        summary = upload_dataset(data, uri, replace=replace, progress=report)
    if as_json:
        print_json(summary.model_dump())
        return
    print_line(
        f"{summary.uri}: {summary.files} files verified; {summary.uploaded} uploaded "
        f"({summary.uploaded_bytes / 1e6:.1f} MB), {summary.files - summary.uploaded} were there"
    )
    if summary.others:
        print_line(f"{summary.others} other objects are there; no run reads them")
    print_line(f"data digest: {summary.digest}")


app.command()(forget)


def to_json(inspection: Inspection) -> JsonObject:
    """Return the problems, the number of accepted recordings, the quality report, and one object a recording."""
    recordings = json.loads(inspection.recordings.to_json(orient="records"))
    accepted = sum(recording["accepted"] for recording in recordings)
    quality = inspection.quality and inspection.quality.model_dump(mode="json")
    return {
        "problems": list(inspection.problems),
        "accepted": accepted,
        "quality": quality,
        "recordings": recordings,
    }


def measured(recording: dict[Hashable, Any]) -> str:
    """Return the measures of an accepted recording in words."""
    return (
        f"{recording['seconds']:.1f} s, {recording['encoding']}, {recording['sample_rate']:.0f} Hz, "
        f"{recording['rms_dbfs']:.0f} dBFS"
    )


def show(inspection: Inspection) -> None:
    """Print one row a recording, counts by split, warnings, problems, and the verdict."""
    from rich.table import Table

    for recording in inspection.recordings.to_dict("records"):
        result = measured(recording) if recording["accepted"] else f"refused: {recording['rule']}"
        print_line(f"{recording['split']:5}  {recording['file_path']}  {result}")
    if inspection.quality:
        table = Table("split", "recordings", "minutes", "controls", "patients", "speakers")
        for name, split in inspection.quality.splits.items():
            counts = (str(split.classes.get(label, 0)) for label in ("0", "1"))
            table.add_row(
                name, str(split.files), f"{split.seconds / 60:.1f}", *counts, str(split.speakers or "unknown")
            )
        noise = inspection.quality.noise
        table.add_row("noise", str(noise.files), f"{noise.seconds / 60:.1f}", "", "", "")
        out.print(table)
        for warning in inspection.quality.warnings:
            print_line(f"warning: {warning}")
    for problem in inspection.problems:
        print_line(f"refused: {problem}")
    if inspection.problems:
        count = len(inspection.problems)
        print_line(
            f"{count} problem{'s' * (count > 1)}: correct them. --skip-bad leaves bad and missing recordings out, "
            "but no row of the tables"
        )
    else:
        print_line("The data set is in order.")
