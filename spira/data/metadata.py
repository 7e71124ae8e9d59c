"""Metadata of a data set: one validated table of recordings with class and split.

Paths are relative to the data set's root, or else to the folder of the CSV. Two layouts are accepted, in the root or
in ``SPIRA_Dataset_V2/``:

    metadata_train.csv, metadata_eval.csv, metadata_test.csv    the splits are given
    metadata.csv                                                split here by speaker; needs a speaker column

A noise list is needed too: ``noise.csv`` or ``Ruidos-Hospitalares/noise_data.csv``. Columns are ``file_path``,
``class`` (0 control, 1 patient) and optional ones such as ``speaker``, ``sex`` and ``age``, which the evaluation
slices by.
"""

from __future__ import annotations

import csv
import hashlib
import io
import posixpath
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from spira.config import Preprocess
from spira.data.storage import Entry, StorageError, Store, clean, open_store
from spira.errors import SpiraError

SPLITS = ("train", "eval", "test")
CLASS_NAMES = {0: "control", 1: "patient"}
FOLDERS = ("", "SPIRA_Dataset_V2/")
NOISE_LISTS = ("noise.csv", "Ruidos-Hospitalares/noise_data.csv")
RESERVED_COLUMNS = ("label", "split", "offset", "samples", "seconds", "sha256", "row")
"""Columns that are added to the table here or in the corpus."""
MIN_SPEAKERS = 3
"""Fewest speakers of a class in a data set that is split here: one each for train, eval and test."""
MAX_SHOWN_PROBLEMS = 20
MISSING = "was not found in the data set (links out of it are not followed): add the file or remove the row"

StoredFiles = dict[str, Entry]
"""Path -> stored file."""


class DataError(SpiraError):
    """A refused data set. The message lists every problem with file, row and rule."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        lines = self.problems[:MAX_SHOWN_PROBLEMS]
        if len(self.problems) > MAX_SHOWN_PROBLEMS:
            lines.append(f"and {len(self.problems) - MAX_SHOWN_PROBLEMS} more")
        super().__init__("\n".join(lines))


@dataclass(frozen=True)
class Dataset:
    """A data set with valid metadata; its audio has not been read yet."""

    root: str
    """Folder, ``gs://`` or ``s3://`` prefix."""
    recordings: pd.DataFrame
    """One row per recording: file_path, class (int), split, then speaker and other optional columns as text."""
    noises: list[str]
    """Paths of the noise recordings."""
    source_rows: dict[str, str] = field(repr=False)
    """Path -> the CSV and row that name it."""
    files: StoredFiles = field(repr=False)
    """The stored CSVs, recordings and noises; a missing file has no entry."""


def read_dataset(root: Path | str | Store, preprocess: Preprocess | None = None, missing_ok: bool = False) -> Dataset:
    """Read and validate the metadata of a data set.

    Args:
        root: folder, ``gs://`` or ``s3://`` prefix, or an open store.
        preprocess: fractions and seed for the split of a single metadata.csv.
        missing_ok: accept missing files; the caller skips and reports them.

    Raises:
        DataError: the metadata breaks a rule; all problems at once.
        StorageError: the root or a CSV cannot be read.
    """
    store = open_store(root) if isinstance(root, str | Path) else root
    stored = {entry.path: entry for entry in store.list()}
    csv_paths, noise_list = _csv_paths(stored), _noise_list(stored)
    tables = {split: _read(store, stored, path) for split, path in csv_paths.items()}
    noises = _read(store, stored, noise_list)
    recordings = pd.concat([table.assign(split=split) for split, table in tables.items()], ignore_index=True)
    recordings = recordings.fillna("")  # an optional column that only some of the CSVs have

    named = pd.concat([recordings, noises], ignore_index=True)
    problems = [*_broken_cells(recordings), *_broken_cells(noises), *_repeated_files(named)]
    problems += [] if missing_ok else _missing_files(named, stored)
    if "" in csv_paths and not problems:
        recordings["split"] = _split_by_speaker(recordings, csv_paths[""], preprocess or Preprocess())
    problems += _shared_speakers(recordings)
    problems = problems or missing_classes(recordings)
    if problems:
        raise DataError(problems)
    return _dataset(store, recordings, named, [*csv_paths.values(), noise_list], stored)


def missing_classes(recordings: pd.DataFrame) -> list[str]:
    """Return a problem for each split without a recording of a class (columns ``split`` and ``class``)."""
    present = set(zip(recordings["split"], recordings["class"].astype(int), strict=True))
    return [
        f"the {split} split has no recording of class {label} ({name}): it needs both classes"
        for split in SPLITS
        for label, name in CLASS_NAMES.items()
        if (split, label) not in present
    ]


def _csv_paths(stored: StoredFiles) -> dict[str, str]:
    """Return split -> its CSV; the split of a single metadata.csv is named ``""``."""
    for folder in FOLDERS:
        by_split = {split: f"{folder}metadata_{split}.csv" for split in SPLITS}
        single = f"{folder}metadata.csv"
        present = [path for path in by_split.values() if path in stored]
        if present and single in stored:
            raise DataError([f"both {single} and {present[0]} exist: keep one of the two layouts"])
        if single in stored:
            return {"": single}
        if present:
            missing = [path for path in by_split.values() if path not in stored]
            if missing:
                raise DataError([f"{path} is missing beside {present[0]}" for path in missing])
            return by_split
    raise DataError(
        ["no metadata found: expected metadata_train.csv, metadata_eval.csv and metadata_test.csv, or "
         "metadata.csv, in the data set's folder or its SPIRA_Dataset_V2/"]
    )  # fmt: skip


def _noise_list(stored: StoredFiles) -> str:
    """Return the path of the noise list."""
    for path in NOISE_LISTS:
        if path in stored:
            return path
    raise DataError(
        [f"no list of noise recordings found: expected {' or '.join(NOISE_LISTS)} with a column file_path "
         "(training and the noisy test insert ward noise)"]
    )  # fmt: skip


def _read(store: Store, stored: StoredFiles, path: str) -> pd.DataFrame:
    """Return a CSV as text cells, with a column ``row`` that names file and row as an editor counts them."""
    lines = _lines(path, store.read(path, stored[path].generation))
    (_, header), *rows = lines or [(1, [])]
    names = [name.strip() for name in header]
    required = ["file_path"] if path in NOISE_LISTS else ["file_path", "class"]
    problems = [f"{path}, row 1: {problem}" for problem in _broken_header(names, required)]
    problems += [
        f"{path}, row {line}: {len(cells)} cells where the header has {len(names)}"
        for line, cells in rows
        if len(cells) != len(names)
    ]
    if not rows:
        problems.append(f"{path}: no rows below the header")
    if problems:
        raise DataError(problems)
    table = pd.DataFrame([[cell.strip() for cell in cells] for _, cells in rows], columns=names, dtype=str)
    table["file_path"] = [_resolve(cell, posixpath.dirname(path), stored) for cell in table["file_path"]]
    return table.assign(row=[f"{path}, row {line}" for line, _ in rows])


def _lines(path: str, content: bytes) -> list[tuple[int, list[str]]]:
    """Return line number and cells of every line that is not blank."""
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        return [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except UnicodeDecodeError as error:
        raise DataError([f"{path}: not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8"]) from error
    except csv.Error as error:
        raise DataError([f"{path}: not a CSV table: {error}"]) from error


def _broken_header(names: list[str], required: list[str]) -> Iterable[str]:
    for name in required:
        if name not in names:
            yield f"column {name} is missing; found {', '.join(names) or 'nothing'} (separated by commas?)"
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"column {name or '(without a name)'} occurs twice"
    for name in RESERVED_COLUMNS:
        if name in names:
            yield f"column {name} is reserved: rename it"


def _resolve(cell: str, folder: str, stored: StoredFiles) -> str:
    """Return a cell's path relative to the root; unchanged if it leads out of the root, for validation to refuse."""
    try:
        path = clean(cell)
        beside = clean(posixpath.join(folder, cell))
    except StorageError:
        return cell
    return beside if path not in stored and beside in stored else path


def _is_clean(cell: str) -> bool:
    try:
        return clean(cell) == cell
    except StorageError:
        return False


def _is_class(cell: str) -> bool:
    return cell in ("0", "1")


def _is_age(cell: str) -> bool:
    return not cell or (cell.replace(".", "", 1).isdecimal() and float(cell) <= 120)


CELL_RULES: dict[str, tuple[str, Callable[[str], bool]]] = {
    "age": ("must be years from 0 to 120, or empty", _is_age),
    "class": ("must be 0 (control) or 1 (patient)", _is_class),
    "file_path": ("must be a relative path inside the data set", _is_clean),
    "speaker": ("must not be empty", bool),
}
"""Column -> (rule, whether a cell keeps it); in the order in which the problems of a row are listed."""


def _broken_cells(table: pd.DataFrame) -> list[str]:
    """Return a problem for each cell that breaks its column's rule, by row."""
    broken = [
        (row, f"{table['row'][row]}: {column} {rule}, found {cell!r}")
        for column, (rule, is_valid) in CELL_RULES.items()
        if column in table
        for row, cell in zip(table.index, table[column], strict=True)
        if not is_valid(cell)
    ]
    return [problem for _, problem in sorted(broken, key=lambda item: item[0])]


def _repeated_files(named: pd.DataFrame) -> list[str]:
    first: dict[str, str] = {}
    return [
        f"{row}: file_path {path!r} is already in {first[path]}: a file must be named once"
        for path, row in zip(named["file_path"], named["row"], strict=True)
        if first.setdefault(path, row) != row
    ]


def _missing_files(named: pd.DataFrame, stored: StoredFiles) -> list[str]:
    return [
        f"{row}: file_path {path!r} {MISSING}"
        for path, row in zip(named["file_path"], named["row"], strict=True)
        if _is_clean(path) and path not in stored
    ]


def _shared_speakers(recordings: pd.DataFrame) -> list[str]:
    """Return a problem for each split that a speaker is in beside the first."""
    if "speaker" not in recordings:
        return []
    firsts = recordings[recordings["speaker"] != ""].drop_duplicates(["speaker", "split"])
    home: dict[str, tuple[str, str]] = {}  # speaker -> split and row of the first recording
    return [
        f"{row}: speaker {speaker!r} is in the {split} split and, by {home[speaker][1]}, in the "
        f"{home[speaker][0]} split: a speaker must be in one split alone"
        for speaker, split, row in zip(firsts["speaker"], firsts["split"], firsts["row"], strict=True)
        if home.setdefault(speaker, (split, row)) != (split, row)
    ]


def _split_by_speaker(recordings: pd.DataFrame, path: str, settings: Preprocess) -> pd.Series:
    """Return the split of each row: speakers in the order of a seeded hash, first for test, then for eval.

    Speakers are grouped by the classes of their recordings, so that each split has its share of each group.
    The hash keeps most speakers in their split when others join.
    """
    if "speaker" not in recordings:
        raise DataError(
            [f"{path}, row 1: column speaker is missing: split by file, one voice would be in two splits. "
             "Add it, or give the splits as metadata_train.csv, metadata_eval.csv and metadata_test.csv"]
        )  # fmt: skip
    for label, speakers in recordings.groupby("class")["speaker"].nunique().items():
        if speakers < MIN_SPEAKERS:
            raise DataError([f"{path}: class {label} has {speakers} speakers: to be split it needs {MIN_SPEAKERS}"])
    classes = recordings.groupby("speaker")["class"].agg(lambda labels: "".join(sorted(set(labels))))
    splits: dict[str, str] = {}
    for group in sorted(set(classes)):
        splits |= _assign_splits(classes.index[classes == group], settings)
    return recordings["speaker"].map(splits)


def _assign_splits(speakers: Iterable[str], settings: Preprocess) -> dict[str, str]:
    """Return speaker -> split; a group that is too small goes to training as a whole."""

    def key(speaker: str) -> str:
        return hashlib.sha256(f"{settings.split_seed}:{speaker}".encode()).hexdigest()

    order = sorted(speakers, key=key)
    if len(order) < MIN_SPEAKERS:
        return dict.fromkeys(order, "train")
    tests = max(1, round(len(order) * settings.test_fraction))
    evals = max(1, round(len(order) * settings.eval_fraction))
    splits = ["test"] * tests + ["eval"] * evals + ["train"] * len(order)
    return dict(zip(order, splits, strict=False))


def _dataset(
    store: Store, recordings: pd.DataFrame, named: pd.DataFrame, csv_paths: list[str], stored: StoredFiles
) -> Dataset:
    noises = list(named["file_path"][len(recordings) :])
    source_rows = dict(zip(named["file_path"], named["row"], strict=True))
    files = {path: stored[path] for path in [*csv_paths, *source_rows] if path in stored}
    table = recordings.drop(columns="row").astype({"class": int})
    first = [name for name in ("file_path", "class", "split", "speaker") if name in table]
    table = table[first + [name for name in table if name not in first]]
    return Dataset(store.uri, table, noises, source_rows, files)
