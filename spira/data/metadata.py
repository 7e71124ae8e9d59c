"""Metadata -> one validated table: which recordings, of which class, in which split.

Two layouts, with paths relative to the data set's root (or else to the folder of the CSV):

    metadata_train.csv, metadata_eval.csv, metadata_test.csv    the splits are given
    metadata.csv                                                split here, by speaker; needs a speaker column

both in the root or in ``SPIRA_Dataset_V2/``, and a noise list, ``noise.csv`` or
``Ruidos-Hospitalares/noise_data.csv``. Columns: ``file_path``, ``class`` (0 control, 1 patient), and optional
ones such as ``speaker``, ``sex``, ``age``, by which the evaluation is sliced.
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
CLASSES = {0: "control", 1: "patient"}
FOLDERS = ("", "SPIRA_Dataset_V2/")
NOISE_LISTS = ("noise.csv", "Ruidos-Hospitalares/noise_data.csv")
RESERVED = ("label", "split", "offset", "samples", "seconds", "sha256", "row")
"""Columns that are added to the table here or in the corpus."""
MIN_SPEAKERS = 3
"""Speakers of a class below which it can't be split: one each for train, eval and test."""
SHOWN_PROBLEMS = 20
MISSING = "is not there (nor may it be a link out of the data set): add the file or take the row out"

Files = dict[str, Entry]


class DataError(SpiraError):
    """A data set that is refused, with every problem found, each naming file, row and rule."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        lines = self.problems[:SHOWN_PROBLEMS]
        if len(self.problems) > SHOWN_PROBLEMS:
            lines.append(f"and {len(self.problems) - SHOWN_PROBLEMS} more")
        super().__init__("\n".join(lines))


@dataclass(frozen=True)
class Dataset:
    """A data set whose metadata is in order; its audio has not been looked at yet."""

    root: str
    """Folder or ``gs://`` prefix."""
    recordings: pd.DataFrame
    """One row a recording: file_path, class (int), split, then speaker and other optional columns, text."""
    noises: list[str]
    """Paths of the noise recordings."""
    where: dict[str, str] = field(repr=False)
    """Path -> the CSV and row that name it."""
    files: Files = field(repr=False)
    """Path -> the stored file, of CSVs, recordings and noises; a missing one is not in it."""


def read_dataset(root: Path | str | Store, preprocess: Preprocess | None = None, missing_ok: bool = False) -> Dataset:
    """Read and validate the metadata of a data set.

    Args:
        root: folder, ``gs://`` prefix, or an open store.
        preprocess: fractions and seed for the split of a single metadata.csv.
        missing_ok: leave missing files to the caller, who skips and reports them.

    Raises:
        DataError: the metadata breaks a rule; all problems at once.
        StorageError: the root or a CSV can't be read.
    """
    store = open_store(root) if isinstance(root, str | Path) else root
    stored = {entry.path: entry for entry in store.list()}
    metadata, noise_list = _metadata(stored), _noise_list(stored)
    tables = {split: _read(store, stored, path) for split, path in metadata.items()}
    noises = _read(store, stored, noise_list)
    recordings = pd.concat([table.assign(split=split) for split, table in tables.items()], ignore_index=True)
    recordings = recordings.fillna("")  # an optional column that only some of the CSVs have

    named = pd.concat([recordings, noises], ignore_index=True)
    problems = [*_broken_cells(recordings), *_broken_cells(noises), *_repeated(named)]
    problems += [] if missing_ok else _missing(named, stored)
    if "" in metadata and not problems:
        recordings["split"] = _split_by_speaker(recordings, metadata[""], preprocess or Preprocess())
    problems += _shared_speakers(recordings)
    problems = problems or empty_cells(recordings)
    if problems:
        raise DataError(problems)
    return _dataset(store, recordings, named, [*metadata.values(), noise_list], stored)


def empty_cells(recordings: pd.DataFrame) -> list[str]:
    """What each split lacks of each class (columns ``split`` and ``class``)."""
    present = set(zip(recordings["split"], recordings["class"].astype(int), strict=True))
    return [
        f"the {split} split has no recording of class {label} ({name}): it needs both classes"
        for split in SPLITS
        for label, name in CLASSES.items()
        if (split, label) not in present
    ]


def _metadata(stored: Files) -> dict[str, str]:
    """Split -> its CSV; the split of a single metadata.csv is named ``""``."""
    for folder in FOLDERS:
        given = {split: f"{folder}metadata_{split}.csv" for split in SPLITS}
        single = f"{folder}metadata.csv"
        found = [path for path in given.values() if path in stored]
        if found and single in stored:
            raise DataError([f"both {single} and {found[0]} are there: keep the one that is meant"])
        if single in stored:
            return {"": single}
        if found:
            missing = [path for path in given.values() if path not in stored]
            if missing:
                raise DataError([f"{path} is missing beside {found[0]}" for path in missing])
            return given
    raise DataError(
        ["no metadata found: expected metadata_train.csv, metadata_eval.csv and metadata_test.csv, or "
         "metadata.csv, in the data set's folder or its SPIRA_Dataset_V2/"]
    )  # fmt: skip


def _noise_list(stored: Files) -> str:
    for path in NOISE_LISTS:
        if path in stored:
            return path
    raise DataError(
        [f"no list of noise recordings found: expected {' or '.join(NOISE_LISTS)} with a column file_path "
         "(training and the noisy test insert ward noise)"]
    )  # fmt: skip


def _read(store: Store, stored: Files, path: str) -> pd.DataFrame:
    """A CSV as text cells, with a column ``row`` that says where each row stands, as an editor counts."""
    lines = _lines(path, store.read(path, stored[path].generation))
    (_, header), *rows = lines or [(1, [])]
    names = [name.strip() for name in header]
    wanted = ["file_path"] if path in NOISE_LISTS else ["file_path", "class"]
    problems = [f"{path}, row 1: {problem}" for problem in _broken_header(names, wanted)]
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
    table["file_path"] = [_place(cell, posixpath.dirname(path), stored) for cell in table["file_path"]]
    return table.assign(row=[f"{path}, row {line}" for line, _ in rows])


def _lines(path: str, content: bytes) -> list[tuple[int, list[str]]]:
    """Line number and cells of every line that isn't blank."""
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        return [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except UnicodeDecodeError as error:
        raise DataError([f"{path}: not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8"]) from error
    except csv.Error as error:
        raise DataError([f"{path}: not a CSV table: {error}"]) from error


def _broken_header(names: list[str], wanted: list[str]) -> Iterable[str]:
    for name in wanted:
        if name not in names:
            yield f"column {name} is missing; found {', '.join(names) or 'nothing'} (separated by commas?)"
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"column {name or '(without a name)'} is there twice"
    for name in RESERVED:
        if name in names:
            yield f"column {name} is reserved: rename it"


def _place(cell: str, folder: str, stored: Files) -> str:
    """A cell's path relative to the root; as it is where it leads out of it, for the validation to refuse."""
    try:
        path = clean(cell)
        beside = clean(posixpath.join(folder, cell))
    except StorageError:
        return cell
    return beside if path not in stored and beside in stored else path


def _broken_cells(table: pd.DataFrame) -> list[str]:
    """Cells that break a column's rule, by row."""
    import pandera.pandas as pa  # 1.5 s that only reading metadata has to pay

    def column(rule: str, holds: Callable[[str], bool]) -> pa.Column:
        return pa.Column(str, pa.Check(holds, element_wise=True, error=rule), required=False)

    rules = {
        "file_path": column("must be a relative path inside the data set", _is_clean),
        "class": column("must be 0 (control) or 1 (patient)", lambda cell: cell in ("0", "1")),
        "speaker": column("must not be empty", bool),
        "age": column("must be years from 0 to 120, or empty", _is_age),
    }
    try:
        pa.DataFrameSchema(rules).validate(table, lazy=True)
    except pa.errors.SchemaErrors as errors:
        cases = errors.failure_cases.sort_values(["index", "column"])
        return [
            f"{table['row'][case.index]}: {case.column} {case.check}, found {case.failure_case!r}"
            for case in cases.itertuples(index=False)
        ]
    return []


def _is_clean(cell: str) -> bool:
    try:
        return clean(cell) == cell
    except StorageError:
        return False


def _is_age(cell: str) -> bool:
    return not cell or (cell.replace(".", "", 1).isdecimal() and float(cell) <= 120)


def _repeated(named: pd.DataFrame) -> list[str]:
    first: dict[str, str] = {}
    return [
        f"{row}: file_path {path!r} is already in {first[path]}: a file must be named once"
        for path, row in zip(named["file_path"], named["row"], strict=True)
        if first.setdefault(path, row) != row
    ]


def _missing(named: pd.DataFrame, stored: Files) -> list[str]:
    return [
        f"{row}: file_path {path!r} {MISSING}"
        for path, row in zip(named["file_path"], named["row"], strict=True)
        if _is_clean(path) and path not in stored
    ]


def _shared_speakers(recordings: pd.DataFrame) -> list[str]:
    """One problem for each speaker and split too many."""
    if "speaker" not in recordings:
        return []
    firsts = recordings[recordings["speaker"] != ""].drop_duplicates(["speaker", "split"])
    home: dict[str, tuple[str, str]] = {}
    return [
        f"{row}: speaker {speaker!r} is in the {split} split and, by {home[speaker][1]}, in the "
        f"{home[speaker][0]} split: a speaker must be in one split alone"
        for speaker, split, row in zip(firsts["speaker"], firsts["split"], firsts["row"], strict=True)
        if home.setdefault(speaker, (split, row)) != (split, row)
    ]


def _split_by_speaker(recordings: pd.DataFrame, path: str, settings: Preprocess) -> pd.Series:
    """The split of each row: speakers in the order of a seeded hash, first for test, then for eval.

    Speakers are dealt out by the classes they have recordings of, so that each split has its share of each.
    The hash keeps most speakers where they are when others join.
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
        splits |= _deal(classes.index[classes == group], settings)
    return recordings["speaker"].map(splits)


def _deal(speakers: Iterable[str], settings: Preprocess) -> dict[str, str]:
    """Speaker -> split; too few of them all go to training."""

    def key(speaker: str) -> str:
        return hashlib.sha256(f"{settings.split_seed}:{speaker}".encode()).hexdigest()

    order = sorted(speakers, key=key)
    if len(order) < MIN_SPEAKERS:
        return dict.fromkeys(order, "train")
    test = max(1, round(len(order) * settings.test_fraction))
    evaluation = max(1, round(len(order) * settings.eval_fraction))
    splits = ["test"] * test + ["eval"] * evaluation + ["train"] * len(order)
    return dict(zip(order, splits, strict=False))


def _dataset(store: Store, recordings: pd.DataFrame, named: pd.DataFrame, csvs: list[str], stored: Files) -> Dataset:
    noises = list(named["file_path"][len(recordings) :])
    where = dict(zip(named["file_path"], named["row"], strict=True))
    files = {path: stored[path] for path in [*csvs, *where] if path in stored}
    table = recordings.drop(columns="row").astype({"class": int})
    first = [name for name in ("file_path", "class", "split", "speaker") if name in table]
    table = table[first + [name for name in table if name not in first]]
    return Dataset(store.uri, table, noises, where, files)
