"""Withdrawn consent: remove a person's recordings from a data set and from a work folder.

Everything is found before anything is removed. The rows of the tables go last: a removal that was interrupted can be
repeated, because the rows still say what to remove. Between the two the data set names files that are missing, and
continuous delivery waits for it.

What a work folder holds of a person
    Corpora have the audio, verdict folders and reports the names of recordings, and trainings the names of speakers.
    The folder of a whole run is removed if one of its files names the person. Models and packages hold no recording:
    they stay until a version without the person serves.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from spira.data import metadata
from spira.data.metadata import DataError
from spira.data.names import nfc, speaker_key
from spira.data.storage import Folder
from spira.errors import SpiraError
from spira.files import new_file

RUN_FOLDERS = ("pipeline", "pushed", "reproduced", "state")
"""Folders of a work folder with one folder a run, version or training."""
INDEX, PREDICTIONS, CHECKPOINT = "index.parquet", "predictions.parquet", "checkpoint.json"
"""Files that name recordings or speakers: of a corpus, a verdict folder and a checkpoint."""
CACHE, REPORT = Path("cache") / "data.json", "report.html"
"""Files of the work folder that name recordings."""


@dataclass(frozen=True)
class Person:
    """The recordings of one person in a data set."""

    paths: frozenset[str]
    """Relative to the data set."""
    speakers: frozenset[str]
    """Keys of the speaker's names (:func:`spira.data.names.speaker_key`); empty if speakers are not known."""
    sha256: frozenset[str]
    """Content hashes of the recordings that are there."""


@dataclass(frozen=True)
class Removal:
    """What is to be removed."""

    person: Person
    root: Path
    tables: dict[str, str]
    """Path of a table -> its text without the person's rows."""
    rows: int
    """Number of these rows."""
    work: tuple[Path, ...]
    """Files and folders of the work folder."""

    @property
    def recordings(self) -> list[Path]:
        """The recordings that are there."""
        files = (self.root / path for path in sorted(self.person.paths))
        return [file for file in files if file.is_file()]


def find(data: Path, subject: str, work: Path | None) -> Removal:
    """Find everything of a person; remove nothing.

    Args:
        data: folder of the data set.
        subject: name of the speaker, or the ``file_path`` of a recording where speakers are not known.
        work: work folder; None to search the data set alone.

    Raises:
        SpiraError: no row names the speaker or recording, or a table cannot be read.
    """
    store = Folder(data)
    paths: set[str] = set()
    speakers: set[str] = set()
    tables: dict[str, str] = {}
    rows = 0
    stored = {entry.path: entry for entry in store.list()}
    for table in metadata.tables(store):
        text, kept = _Table.read(store, table), []
        for row in text.rows:
            path = metadata.resolve(table, row.file_path, stored)
            is_named = row.speaker and speaker_key(row.speaker) == speaker_key(subject)
            if is_named or nfc(subject) in (nfc(row.file_path), nfc(path)):
                paths.add(path)
                speakers |= {speaker_key(row.speaker)} if is_named else set()
            else:
                kept.append(row)
        if removed := len(text.rows) - len(kept):
            tables[table], rows = text.without(kept), rows + removed
    if not rows:
        raise SpiraError(f"{data}: no row of its tables has this speaker or file_path: nothing was removed")
    files = [data / path for path in paths]
    hashes = {_sha256(file) for file in files if file.is_file()}
    person = Person(frozenset(paths), frozenset(speakers), frozenset(hashes))
    return Removal(person, store.root, tables, rows, tuple(_in_work(work, person)) if work else ())


def remove(removal: Removal) -> None:
    """Remove everything that was found.

    Raises:
        OSError: a file cannot be removed or written.
    """
    for path in removal.work:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for file in removal.recordings:
        file.unlink()
    for table, text in removal.tables.items():
        with new_file(removal.root / table) as temporary:
            temporary.write_bytes(text.encode())


@dataclass(frozen=True)
class _Row:
    """One row of a table."""

    file_path: str
    speaker: str
    lines: range
    """Its lines, and blank ones before it."""


@dataclass(frozen=True)
class _Table:
    """A table as text, so that the rows that stay are not changed."""

    lines: tuple[str, ...]
    header: range
    rows: tuple[_Row, ...]

    @classmethod
    def read(cls, store: Folder, path: str) -> _Table:
        """Read a table.

        Raises:
            DataError: it is no table with a column ``file_path``.
        """
        try:
            text = store.read(path).decode()
            lines = tuple(io.StringIO(text, newline=""))
            reader = csv.reader(iter(lines), strict=True)
            start, parsed = 0, []
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    parsed.append((cells, range(start, reader.line_num)))
                    start = reader.line_num
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError([f"{path}: not a CSV table in UTF-8: run spira data check"]) from error
        names = [name.strip().removeprefix("\ufeff") for name in parsed[0][0]] if parsed else []
        if "file_path" not in names:
            raise DataError([f"{path}, row 1: column file_path is missing"])

        def cell(cells: Sequence[str], name: str) -> str:
            position = names.index(name) if name in names else len(cells)
            return cells[position].strip() if position < len(cells) else ""

        rows = tuple(_Row(cell(cells, "file_path"), cell(cells, "speaker"), lines) for cells, lines in parsed[1:])
        return cls(lines, parsed[0][1], rows)

    def without(self, kept: Sequence[_Row]) -> str:
        """Return the text of the header and of the rows that stay."""
        numbers = [*self.header, *(number for row in kept for number in row.lines)]
        return "".join(self.lines[number] for number in numbers)


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _in_work(work: Path, person: Person) -> Iterator[Path]:
    """Yield the files and folders of a work folder that name a person, or hold the person's voice."""
    units = [unit for name in RUN_FOLDERS for unit in sorted((work / name).glob("*/"))]
    named = [unit for unit in units if any(_names(file, person) for file in _naming_files(unit))]
    yield from named
    if named:  # an unfinished training says nothing about its data
        yield from (unit for unit in units if unit.parent.name == "state" and not any(_naming_files(unit)))
    for predictions in sorted((work / "mlartifacts").rglob(PREDICTIONS)):
        if _names(predictions, person):  # logged by a program that still logged names
            yield from (file for file in (predictions, predictions.with_name(REPORT)) if file.exists())
    for file in (work / CACHE, work / REPORT):
        if file.is_file() and (named or any(path in file.read_text("utf-8") for path in person.paths)):
            yield file


def _naming_files(folder: Path) -> Iterator[Path]:
    for name in (INDEX, PREDICTIONS, CHECKPOINT):
        yield from folder.rglob(name)


def _names(file: Path, person: Person) -> bool:
    """Return whether a file names a person's recordings or speaker; one that cannot be read counts as naming them."""
    try:
        if file.name == CHECKPOINT:
            info = json.loads(file.read_text("utf-8"))
            known = {speaker_key(speaker) for speaker in info.get("train_speakers") or ()}
            return bool(person.speakers & known or person.sha256 & set(info.get("train_files") or ()))
        table = pd.read_parquet(file)
        speakers = set(map(speaker_key, table["speaker"].dropna().astype(str))) if "speaker" in table else set()
        hashes = set(table["sha256"]) if "sha256" in table else set()
        files = set(table["file_path"]) if "file_path" in table else set()
    except (OSError, ValueError, TypeError, AttributeError):
        return True
    return bool(person.paths & files or person.sha256 & hashes or person.speakers & speakers)
