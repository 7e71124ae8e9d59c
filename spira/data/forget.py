"""Withdrawn consent: remove a person's recordings from a data set and from a work folder.

Everything is found before anything is removed. The rows of the tables go last: a removal that was interrupted can be
repeated, because the rows still say what to remove. Between the two the data set names files that are missing, and
continuous delivery waits for it.

What a bucket keeps of a person
    Replaced and deleted versions of the recordings are removed too, and old versions of a table with the person's rows.
    These versions also name the recordings if the rows of today are gone, as after an interruption. What a store keeps
    out of sight, such as soft-deleted objects and copies in other regions, ends by the store's own rules.

What a work folder holds of a person
    Corpora have the audio, verdict folders and reports the names of recordings, and trainings the names of speakers.
    The folder of a whole run is removed if one of its files names the person. Models and packages hold no recording:
    they stay until a version without the person serves.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from spira.data import content_hash, metadata
from spira.data.metadata import DataError
from spira.data.names import nfc, speaker_key
from spira.data.storage import Entry, Store, open_store
from spira.errors import SpiraError

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
class NewTable:
    """A table without the rows of a person."""

    text: str
    generation: str
    """Generation of the table that it replaces."""


@dataclass(frozen=True)
class Removal:
    """What is to be removed."""

    person: Person
    store: Store
    recordings: tuple[Entry, ...]
    """The person's recordings that are there, and their replaced and deleted versions that the store shows."""
    tables: dict[str, NewTable]
    """Path of a table -> the table that replaces it."""
    rows: int
    """Number of rows that the tables lose."""
    old_tables: tuple[Entry, ...]
    """Replaced or deleted versions of tables that have rows of the person."""
    work: tuple[Path, ...]
    """Files and folders of the work folder."""


def find(data: Path | str, subject: str, work: Path | None) -> Removal:
    """Find everything of a person; remove nothing.

    Args:
        data: folder, ``gs://`` or ``s3://`` prefix of the data set.
        subject: name of the speaker, or the ``file_path`` of a recording where speakers are not known.
        work: work folder; None to search the data set alone.

    Raises:
        SpiraError: no row names the speaker or recording, or a table cannot be read.
    """
    store = open_store(data)
    stored, replaced = {entry.path: entry for entry in store.list()}, store.history()
    names = metadata.tables(store)

    def search(entry: Entry) -> _Search:
        return _Table.read(store, entry).search(subject, lambda cell: metadata.resolve(entry.path, cell, stored))

    current = {name: search(stored[name]) for name in names}
    old = {entry: search(entry) for entry in replaced if entry.path in names and _has_content(entry)}
    named = frozenset[str]().union(*(result.paths for result in (*current.values(), *old.values())))
    if not named:
        raise SpiraError(f"{data}: no row of its tables has this speaker or file_path: nothing was removed")
    # A name in an old table may be that of another person's recording by now.
    others = frozenset[str]().union(*(result.other_paths for result in current.values()))
    paths = frozenset[str]().union(*(result.paths for result in current.values())) | (named - others)
    recordings = [stored[path] for path in sorted(paths & stored.keys())]
    recordings += [entry for entry in replaced if entry.path in named]
    hashes = frozenset(content_hash.hash_file(store, entry).sha256 for entry in recordings if _has_content(entry))
    speakers = frozenset[str]().union(*(result.speakers for result in (*current.values(), *old.values())))
    person = Person(named, speakers, hashes)
    return Removal(
        person=person,
        store=store,
        recordings=tuple(recordings),
        tables={
            name: NewTable(result.rest, stored[name].generation) for name, result in current.items() if result.paths
        },
        rows=sum(result.rows for result in current.values()),
        old_tables=tuple(entry for entry, result in old.items() if result.paths),
        work=tuple(_in_work(work, person)) if work else (),
    )


def remove(removal: Removal) -> None:
    """Remove everything that was found.

    Raises:
        StorageError: a recording or a table cannot be removed or written, or a table has changed meanwhile.
        OSError: a file of the work folder cannot be removed.
    """
    store = removal.store
    for path in removal.work:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for entry in (*removal.recordings, *removal.old_tables):
        store.delete(entry)
    for name, table in removal.tables.items():
        store.replace(name, table.text.encode(), table.generation)
    replaced = {(name, _content_id(table.generation)) for name, table in removal.tables.items()}
    for entry in store.history():  # what the store has kept of all this
        if entry.path in removal.person.paths or (entry.path, _content_id(entry.generation)) in replaced:
            store.delete(entry)


@dataclass(frozen=True)
class _Row:
    """One row of a table."""

    file_path: str
    speaker: str
    lines: range
    """Its lines, and blank ones before it."""


@dataclass(frozen=True)
class _Search:
    """What a table says of a person."""

    paths: frozenset[str]
    """Recordings of the person, relative to the data set."""
    speakers: frozenset[str]
    """Keys of the speaker's names."""
    rows: int
    """Number of rows of the person."""
    other_paths: frozenset[str]
    """Recordings of the other rows."""
    rest: str
    """Text of the table without the rows of the person."""


@dataclass(frozen=True)
class _Table:
    """A table as text, so that the rows that stay are not changed."""

    lines: tuple[str, ...]
    header: range
    rows: tuple[_Row, ...]

    @classmethod
    def read(cls, store: Store, entry: Entry) -> _Table:
        """Read a version of a table.

        Raises:
            DataError: it is no table with a column ``file_path``.
        """
        path = entry.path
        try:
            text = store.read(path, entry.generation).decode()
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

    def search(self, subject: str, resolve: Callable[[str], str]) -> _Search:
        """Find the rows of a person.

        Args:
            subject: see :func:`find`.
            resolve: returns the stored path that a cell names.
        """
        paths, speakers, others, kept = set(), set(), set(), []
        for row in self.rows:
            path = resolve(row.file_path)
            is_named = row.speaker and speaker_key(row.speaker) == speaker_key(subject)
            if is_named or nfc(subject) in (nfc(row.file_path), nfc(path)):
                paths.add(path)
                speakers |= {speaker_key(row.speaker)} if is_named else set()
            else:
                others.add(path)
                kept.append(row)
        numbers = [*self.header, *(number for row in kept for number in row.lines)]
        rest = "".join(self.lines[number] for number in numbers)
        return _Search(frozenset(paths), frozenset(speakers), len(self.rows) - len(kept), frozenset(others), rest)


def _content_id(generation: str) -> str:
    """Return the part of a generation that is the same before and after the content was replaced."""
    return generation.partition(" ")[0]


def _has_content(entry: Entry) -> bool:
    """Return whether a version has a content: a delete marker of S3 has only a name."""
    return not entry.generation.startswith(" ")


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
