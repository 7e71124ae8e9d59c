"""``spira predict``: a model's answers for recordings."""

from __future__ import annotations

import csv
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from spira.cli.common.console import err, is_live, print_json, print_line, say
from spira.cli.common.options import DEFAULT_WORK, Json, MLflow, Work
from spira.cli.models.commands import fetch_package, open_registry
from spira.errors import SpiraError
from spira.evaluation.numbers import number
from spira.files import new_file

if TYPE_CHECKING:
    from spira.packaging.prediction import Prediction

ENDINGS = {
    *(".3g2", ".3gp", ".aac", ".aif", ".aifc", ".aiff", ".amr", ".asf", ".au", ".avi", ".caf", ".flac", ".m4a", ".m4b"),
    *(".mka", ".mkv", ".mov", ".mp2", ".mp3", ".mp4", ".mpga", ".nist", ".oga", ".ogg", ".opus", ".rf64", ".snd"),
    *(".sph", ".voc", ".w64", ".wav", ".wave", ".weba", ".webm", ".wma"),
}
"""Endings of the files of a folder that are taken for recordings. A file that is named itself may have any ending."""
MEASURES = (
    "seconds",
    "sample_rate",
    "channels",
    "peak_dbfs",
    "rms_dbfs",
    "background_dbfs",
    "speech_fraction",
    "clipped_fraction",
    "encoding",
)
COLUMNS = (
    *("file", "probability", "diagnosis", "abstained", "flags", "error"),
    *MEASURES,
    *("model_version", "package_digest"),
)
"""Columns of the CSV file."""
DIGITS = 6
"""Digits of a number in the CSV file."""
STDOUT = Path("-")
PROGRESS_SECONDS = 2.0
"""Shortest time between two lines of progress."""


@dataclass(frozen=True)
class ModelIdentity:
    """The package that answers."""

    version: str
    """Number of the version; empty for a package folder."""
    digest: str
    """Digest of the package."""

    def to_json(self) -> dict[str, str]:
        """Return the fields of a row."""
        return {"model_version": self.version, "package_digest": self.digest}


def predict(
    files: Annotated[list[Path], typer.Argument(metavar="FILE|FOLDER...", help="Recordings, or folders of them.")],
    model: Annotated[str, typer.Option("--model", help="Version, alias or package folder.")] = "champion",
    csv_file: Annotated[
        Path | None, typer.Option("--csv", metavar="OUT", help="Write a CSV file, one row a recording; - prints it.")
    ] = None,
    work: Work = DEFAULT_WORK,
    mlflow: MLflow = "",
    as_json: Json = False,
) -> None:
    """Print a model's probability and diagnosis for recordings; exit code 2 if it refuses one.

    A refused recording is a row with the reason. The flags name what makes an answer less certain: short, quiet,
    clipped, little speech.
    """
    from spira.packaging import attestation
    from spira.packaging.verify import iterate_predictions, package_digest

    _check_output(csv_file, files, as_json)
    recordings = find_recordings(files)
    package, version = _package(model, work, mlflow)
    attestation.check(package)
    identity = ModelIdentity(version, package_digest(package))
    is_silent = csv_file is None and not as_json  # every line is progress
    answers = _with_progress(iterate_predictions(package, recordings), len(recordings), is_silent)
    counts: Counter[str] = Counter()
    with _sink(csv_file, identity, as_json) as write:
        for answer in answers:
            write(answer)
            counts[answer.diagnosis or "refused"] += 1
    if csv_file not in (None, STDOUT):
        say(f"wrote {csv_file}: {len(recordings)} rows, {_describe(counts)}")
    elif not is_silent:
        say(f"{len(recordings)} recordings: {_describe(counts)}")
    if counts["refused"]:
        raise typer.Exit(2)


def find_recordings(paths: Sequence[Path]) -> list[Path]:
    """Return the named files, and the recordings in the named folders, sorted by folder; hidden files are left out.

    Raises:
        SpiraError: a folder holds no recording.
    """
    found: dict[Path, None] = {}
    for path in paths:
        inside = list(_recordings_in(path)) if path.is_dir() else [path]
        if not inside:
            raise SpiraError(f"{path} holds no recording by the endings of its files ({', '.join(sorted(ENDINGS))})")
        found |= dict.fromkeys(inside)
    return list(found)


def _recordings_in(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in ENDINGS:
                yield Path(parent, name)


def _check_output(csv_file: Path | None, files: Sequence[Path], as_json: bool) -> None:
    """Refuse an output that cannot be written, before the work is done.

    Raises:
        SpiraError: the place is refused; the message gives a remedy.
    """
    if csv_file is None:
        return
    if csv_file == STDOUT:
        if as_json:
            raise SpiraError("--csv - and --json both write to standard output: give --csv a file name")
        return
    if csv_file.is_dir() or not csv_file.parent.is_dir():
        raise SpiraError(f"--csv {csv_file}: give the name of a file in an existing folder")
    if any(file.exists() and csv_file.exists() and file.samefile(csv_file) for file in files):
        raise SpiraError(f"--csv {csv_file} is one of the recordings: give another name")


def _package(model: str, work: Path, mlflow: str) -> tuple[Path, str]:
    """Return the package folder of a version, alias or folder, and the number of the version."""
    if Path(model).is_dir():
        return Path(model), ""
    version = str(open_registry(work, mlflow).show(model).version)
    return fetch_package(version, work, mlflow), version


@contextmanager
def _sink(csv_file: Path | None, identity: ModelIdentity, as_json: bool) -> Iterator[Callable[[Prediction], None]]:
    """Provide a function that writes one answer; a file appears under its name when all are written."""
    rows: list[dict[str, Any]] = []
    if csv_file is None:
        yield (lambda answer: rows.append({**answer.to_json(), **identity.to_json()})) if as_json else _print_answer
    elif csv_file == STDOUT:
        yield _csv_writer(sys.stdout, identity)
    else:
        with new_file(csv_file) as temporary, _csv_text(temporary) as file:
            write_row = _csv_writer(file, identity)

            def write(answer: Prediction) -> None:
                write_row(answer)
                if as_json:
                    rows.append({**answer.to_json(), **identity.to_json()})

            yield write
    if as_json:
        print_json(rows)


def _csv_text(path: Path) -> TextIO:
    # a file name that is not UTF-8 has surrogates for its bytes
    return path.open("w", newline="", encoding="utf-8", errors="backslashreplace")


def _csv_writer(file: TextIO, identity: ModelIdentity) -> Callable[[Prediction], None]:
    """Write the header, and return a function that writes a row."""
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()

    def write(answer: Prediction) -> None:
        row = answer.to_json()
        values = row | (row.pop("quality") or {}) | identity.to_json() | {"flags": "; ".join(answer.flags)}
        writer.writerow({name: _cell(values.get(name)) for name in COLUMNS})
        file.flush()

    return write


def _cell(value: Any) -> Any:
    """Return a value as a program reads it from a CSV file."""
    if isinstance(value, bool):
        return str(value).lower()
    return round(value, DIGITS) if isinstance(value, float) else value


def _print_answer(answer: Prediction) -> None:
    result = answer.error or f"{number(answer.probability)}  {answer.diagnosis}"
    flags = f"  ({', '.join(answer.flags)})" if answer.flags and not answer.error else ""
    print_line(f"{answer.file}  {result}{flags}")


def _with_progress(answers: Iterable[Prediction], total: int, is_silent: bool) -> Iterator[Prediction]:
    """Yield the answers; show how many there are on standard error, as a bar in a terminal or else as lines."""
    if is_silent:
        yield from answers
    elif is_live(err):
        from rich.progress import track

        yield from track(answers, description="predict", total=total, console=err, transient=True)
    else:
        began = time.monotonic()
        for done, answer in enumerate(answers, 1):
            if done < total and time.monotonic() - began > PROGRESS_SECONDS:
                began = time.monotonic()
                say(f"predict: {done} of {total} recordings")
            yield answer


def _describe(counts: Counter[str]) -> str:
    """Return how many recordings got each answer."""
    names = ("positive", "negative", "inconclusive", "refused")
    return ", ".join(f"{counts[name]} {name}" for name in names if counts[name])
