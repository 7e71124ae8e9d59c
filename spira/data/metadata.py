"""Metadata of a data set: one validated table of recordings with class and split.

Paths are relative to the data set's root, or else to the folder of the CSV. Two layouts are accepted, in the root or
in ``SPIRA_Dataset_V2/``:

    metadata_train.csv, metadata_eval.csv, metadata_test.csv    the splits are given
    metadata.csv                                                split here by speaker; needs a speaker column

Beside either, ``metadata_test_NAME.csv`` names an external test set: a split of its own, called ``test_NAME``, which is
reported and takes no part in training or in the decision.

A noise list is needed too: ``noise.csv`` or ``Ruidos-Hospitalares/noise_data.csv``. Columns are ``file_path``,
``class`` (0 control, 1 patient) and optional ones such as ``speaker``, ``sex`` and ``age``, which the evaluation
slices by. Names of files and speakers are compared as :mod:`spira.data.names` says.
"""

from __future__ import annotations

import csv
import hashlib
import io
import posixpath
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from spira.config import Preprocess
from spira.data.names import NearMatches, nfc, speaker_key
from spira.data.pseudonyms import shown_cell, shown_header, shown_recording, shown_speaker
from spira.data.storage import Entry, StorageError, Store, clean, open_store
from spira.errors import SpiraError

SPLITS = ("train", "eval", "test")
EXTERNAL_TABLE = re.compile(r"metadata_(test_[A-Za-z0-9_-]{1,40})\.csv")
"""Name of the table of an external test set, without its folder; the group is the name of its split."""
CLASS_NAMES = {0: "control", 1: "patient"}
FOLDERS = ("", "SPIRA_Dataset_V2/")
NOISE_LISTS = ("noise.csv", "Ruidos-Hospitalares/noise_data.csv")
RESERVED_COLUMNS = ("label", "split", "offset", "samples", "seconds", "sha256", "row")
"""Columns that are added to the table here or in the corpus."""
MIN_SPEAKERS = 3
"""Fewest speakers of a class in a data set that is split here: one each for train, eval and test."""
MAX_SHOWN_PROBLEMS = 20
MISSING = "was not found in the data set (links out of it are not followed): "
REMEDY = "add the file or remove the row"

SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
"""What a header that is no list of names with commas has instead -> its name."""

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
    missing: dict[str, str] = field(repr=False)
    """Path of a missing file -> the rule that it breaks, to follow the path in a message."""

    @property
    def splits(self) -> tuple[str, ...]:
        """``train``, ``eval``, ``test`` and then the external test sets."""
        return (*SPLITS, *external_splits(self.recordings["split"]))


@dataclass(frozen=True)
class Examination:
    """The metadata of a data set, sound or not."""

    dataset: Dataset
    """The sound rows."""
    refused: pd.DataFrame
    """One row for each row of the tables that breaks a rule: ``file_path``, ``split`` (``noise`` too) and ``rule``."""
    problems: list[str]
    """What the rows break, each with CSV and row. Missing files are in ``dataset.missing``."""


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
    examined = examine(store, preprocess or Preprocess())
    dataset, problems = examined.dataset, list(examined.problems)
    if not missing_ok:
        problems += [
            f"{dataset.source_rows[path]}: {shown_recording(path)} {rule}" for path, rule in dataset.missing.items()
        ]
    problems = problems or missing_classes(dataset.recordings, dataset.splits)
    if problems:
        raise DataError(problems)
    return dataset


def examine(store: Store, preprocess: Preprocess) -> Examination:
    """Read the metadata of a data set and check every row.

    Raises:
        DataError: a CSV is missing or is no table of the required columns, or its recordings cannot be split.
        StorageError: the root or a CSV cannot be read.
    """
    stored = {entry.path: entry for entry in store.list()}
    csv_paths, noise_list = _csv_paths(stored), _noise_list(stored)
    stored_names = _by_nfc(stored)
    tables = {split: _read(store, stored, stored_names, path) for split, path in csv_paths.items()}
    noises = _read(store, stored, stored_names, noise_list)
    recordings = pd.concat([table.assign(split=split) for split, table in tables.items()], ignore_index=True)
    recordings = recordings.fillna("")  # an optional column that only some of the CSVs have

    named = pd.concat([recordings, noises], ignore_index=True)
    broken = _broken_cells(recordings) | {len(recordings) + row: rule for row, rule in _broken_cells(noises).items()}
    repeated = _repeated_files(named)
    if "" in csv_paths:
        if broken or repeated:  # the split depends on every row
            raise DataError(_texts(named, broken, repeated))
        to_split = recordings["split"] == ""
        # Without the external rows: whatever spelling of a name they have, the split stays the same.
        splits = _split_by_speaker(_unify_speakers(recordings[to_split]), csv_paths[""], preprocess)
        recordings.loc[to_split, "split"] = splits
    shared = _shared_speakers(recordings)
    sound = [row for row in named.index if row not in broken and row not in repeated]
    recordings = _unify_speakers(recordings).loc[[row for row in sound if row < len(recordings)]]
    dataset = _dataset(store, recordings, named.loc[sound], [*csv_paths.values(), noise_list], stored)
    refused = [
        {"file_path": named["file_path"][row], "split": named["split"][row], "rule": rule}
        for rows in (broken, repeated, shared)
        for row, rules in rows.items()
        for rule in rules
    ]
    table = pd.DataFrame(refused, columns=["file_path", "split", "rule"]).fillna({"split": "noise"})
    return Examination(dataset, table, _texts(named, broken, repeated, shared))


def tables(store: Store) -> list[str]:
    """Return the paths of a data set's tables of recordings; rules of their rows are not checked.

    Raises:
        DataError: there is none, or one is missing.
        StorageError: the root cannot be read.
    """
    return list(_csv_paths({entry.path: entry for entry in store.list()}).values())


def resolve(table: str, cell: str, stored: StoredFiles) -> str:
    """Return the stored path that a cell of a table names; see :func:`_resolve`."""
    return _resolve(cell, posixpath.dirname(table), stored, _by_nfc(stored))


def is_external(split: str) -> bool:
    """Return whether a split is an external test set."""
    return split.startswith("test_")


def external_splits(splits: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the external test sets among the splits, sorted and each once."""
    return tuple(sorted({split for split in splits if is_external(split)}))


def is_external_table(path: str) -> bool:
    """Return whether a path is where the table of an external test set is looked for."""
    folder, name = path[: path.rfind("/") + 1], path[path.rfind("/") + 1 :]
    return folder in FOLDERS and EXTERNAL_TABLE.fullmatch(name) is not None


def missing_classes(recordings: pd.DataFrame, splits: Iterable[str] = SPLITS) -> list[str]:
    """Return a problem for each split without a recording of a class (columns ``split`` and ``class``)."""
    present = set(zip(recordings["split"], recordings["class"].astype(int), strict=True))
    return [
        f"the {split} split has no recording of class {label} ({name}): it needs both classes"
        for split in splits
        for label, name in CLASS_NAMES.items()
        if (split, label) not in present
    ]


def _csv_paths(stored: StoredFiles) -> dict[str, str]:
    """Return split -> its CSV, external test sets last; the split of a single metadata.csv is named ``""``."""
    return _split_paths(stored) | _external_paths(stored)


def _external_paths(stored: StoredFiles) -> dict[str, str]:
    """Return split -> CSV of each external test set."""
    paths: dict[str, str] = {}
    problems = []
    for path in sorted(stored):
        folder, name = path[: path.rfind("/") + 1], path[path.rfind("/") + 1 :]
        if folder not in FOLDERS or not (name.startswith("metadata_test_") and name.endswith(".csv")):
            continue
        match = EXTERNAL_TABLE.fullmatch(name)
        if not match:
            problems.append(
                f"{path}: an external test set is named by 1 to 40 letters without accents, digits, - and _, as in "
                "metadata_test_north.csv: rename it"
            )
        elif match[1] in paths:
            problems.append(f"both {paths[match[1]]} and {path} exist: keep one of the two")
        else:
            paths[match[1]] = path
    if problems:
        raise DataError(problems)
    return paths


def _split_paths(stored: StoredFiles) -> dict[str, str]:
    """Return split -> its CSV, without external test sets."""
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
         "metadata.csv, in the data set's folder or its SPIRA_Dataset_V2/"
         + _similar(stored, "metadata_train.csv", "metadata.csv")]
    )  # fmt: skip


RowProblems = dict[int, list[str]]
"""Index of a row -> the rules that it breaks."""


def _texts(named: pd.DataFrame, *problems: RowProblems) -> list[str]:
    """Return the messages of problems, each with CSV and row."""
    return [f"{named['row'][row]}: {rule}" for rows in problems for row, rules in rows.items() for rule in rules]


def _similar(stored: StoredFiles, *names: str) -> str:
    """Return the end of a message that names a file which was probably meant as one of the tables, or nothing."""
    near = NearMatches(stored)
    similar = [path for name in names if (path := near.nearest(name))]
    return f"; {similar[0]!r} is there: rename it, or give its folder as the data set" if similar else ""


def _noise_list(stored: StoredFiles) -> str:
    """Return the path of the noise list."""
    for path in NOISE_LISTS:
        if path in stored:
            return path
    raise DataError(
        [f"no list of noise recordings found: expected {' or '.join(NOISE_LISTS)} with a column file_path. It is "
         "always needed, also if all noise.* counts are 0: one corpus serves every configuration, and whether the ward "
         f"gives the class away can only be tested with noise of wards{_similar(stored, 'noise.csv')}"]
    )  # fmt: skip


def _by_nfc(stored: StoredFiles) -> dict[str, list[str]]:
    """Return the stored paths by their composed form."""
    by_nfc: dict[str, list[str]] = {}
    for path in stored:
        by_nfc.setdefault(nfc(path), []).append(path)
    return by_nfc


def _read(store: Store, stored: StoredFiles, stored_names: dict[str, list[str]], path: str) -> pd.DataFrame:
    """Return a CSV as text cells, with a column ``row`` that names file and row as an editor counts them."""
    lines = _lines(path, store.read(path, stored[path].generation))
    (_, header), *rows = lines or [(1, [])]
    names = [name.strip() for name in header]
    required = ["file_path"] if path in NOISE_LISTS else ["file_path", "class"]
    problems = [f"{path}, row 1: {problem}" for problem in _broken_header(names, required)]
    problems += [f"{path}, row {line}: {problem}" for line, cells in rows for problem in _broken_row(cells, len(names))]
    if not rows:
        problems.append(f"{path}: no rows below the header")
    if problems:
        raise DataError(problems)
    table = pd.DataFrame([[cell.strip() for cell in cells] for _, cells in rows], columns=names, dtype=str)
    column = names.index("file_path")
    folder = posixpath.dirname(path)
    table["file_path"] = [_resolve(cells[column], folder, stored, stored_names) for _, cells in rows]
    return table.assign(row=[f"{path}, row {line}" for line, _ in rows])


def _lines(path: str, content: bytes) -> list[tuple[int, list[str]]]:
    """Return line number and cells of every line that is not blank."""
    lines: list[tuple[int, list[str]]] = []
    if content.startswith(b"PK\3\4"):
        raise DataError([f"{path}: an Excel workbook or another archive, not a CSV table: save it as CSV (UTF-8)"])
    if b"\0" in content[:4]:  # letters of two bytes
        raise DataError([f"{path}: not UTF-8 text (UTF-16, or damaged): save it as UTF-8"])
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        lines.extend((reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells))
        return lines
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        raise DataError([f"{path}: not UTF-8 text ({error.reason} in row {row}): save it as UTF-8"]) from error
    except csv.Error as error:
        row = lines[-1][0] + 1 if lines else 1
        raise DataError(
            [f"{path}, row {row}: no row of a CSV table ({error}): is a quotation mark missing?"]
        ) from error


def _broken_row(cells: list[str], columns: int) -> Iterable[str]:
    """Return what is wrong with the cells of a row, whatever their columns are.

    A row without its closing quotation mark goes on to the next quotation mark. If that is in the same column, the
    number of cells is right, but one of them holds all rows between.
    """
    if len(cells) != columns:
        yield f"{len(cells)} cells where the header has {columns}"
    for cell in cells:
        if "\0" in cell:
            yield "a cell holds a NUL byte: the table is damaged; copy or save it again"
        breaks = len(cell.strip().splitlines()) - 1
        if breaks > 0 and cell.count(",") >= breaks * (columns - 1):
            yield f"a cell holds {breaks + 1} lines that look like rows: is a quotation mark missing?"


def _broken_header(names: list[str], required: list[str]) -> Iterable[str]:
    separator = next((word for sign, word in SEPARATORS.items() if len(names) == 1 and sign in names[0]), None)
    if separator:
        header = f"column {required[0]} is missing; found {shown_header(names)}"
        yield f"{header}: it has {separator}; save the table with commas between cells"
        return
    for name in required:
        if name not in names:
            yield f"column {name} is missing; found {shown_header(names) or 'nothing'} (separated by commas?)"
    for number, name in enumerate(names, start=1):
        if not name:
            yield f"column {number} has no name: give it one or delete the column"
    for name in sorted({name for name in names if name and names.count(name) > 1}):
        yield f"column {shown_header([name])} occurs twice"
    for name in RESERVED_COLUMNS:
        if name in names:
            yield f"column {name} is reserved: rename it"


def _resolve(cell: str, folder: str, stored: StoredFiles, stored_names: dict[str, list[str]]) -> str:
    """Return the stored path that a cell names, relative to the root: exactly, or else after NFC.

    Spaces around it are ignored, unless the name of a file has them. A path that names no file is returned as it is,
    and one that leads out of the root too, for validation to refuse.
    """
    if cell in stored:
        return cell
    cell = cell.strip()
    try:
        path = clean(cell)
        beside = clean(posixpath.join(folder, cell))
    except StorageError:
        return cell
    for candidate in (path, beside):
        if candidate in stored:
            return candidate
    for candidate in (path, beside):
        if len(same := stored_names.get(nfc(candidate), [])) == 1:
            return same[0]
    return path


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


def _broken_cells(table: pd.DataFrame) -> RowProblems:
    """Return a problem for each cell that breaks its column's rule."""
    broken: RowProblems = {}
    for column, (rule, is_valid) in CELL_RULES.items():
        for row, cell in enumerate(table.get(column, ())):
            if not is_valid(cell):
                broken.setdefault(row, []).append(f"{column} {rule}, found {shown_cell(cell)}")
    return dict(sorted(broken.items()))


def _repeated_files(named: pd.DataFrame) -> RowProblems:
    """Return a problem for each row that names a file for a second time."""
    first: dict[str, str] = {}
    return {
        index: [f"file_path {shown_recording(path)!r} is already in {first[path]}: a file must be named once"]
        for index, (path, row) in enumerate(zip(named["file_path"], named["row"], strict=True))
        if first.setdefault(path, row) != row
    }


def _missing_files(paths: Iterable[str], stored: StoredFiles) -> dict[str, str]:
    """Return the rule that each missing file breaks, with a hint to a file of nearly the same name."""
    missing = [path for path in paths if path not in stored]
    if not missing:
        return {}
    near = NearMatches(stored)
    return {path: MISSING + (near.hint(path, shown_recording) or REMEDY) for path in missing}


def _unify_speakers(recordings: pd.DataFrame) -> pd.DataFrame:
    """Give all spellings of a speaker's name the same one of them."""
    if "speaker" not in recordings:
        return recordings
    keys = recordings["speaker"].map(speaker_key)
    return recordings.assign(speaker=recordings["speaker"].groupby(keys).transform("min"))


def _shared_speakers(recordings: pd.DataFrame) -> RowProblems:
    """Return a problem for each split that a speaker is in beside the first."""
    if "speaker" not in recordings:
        return {}
    firsts = recordings[recordings["speaker"] != ""].assign(key=recordings["speaker"].map(speaker_key))
    firsts = firsts.drop_duplicates(["key", "split"])
    home: dict[str, tuple[str, str, str]] = {}  # key -> split, row and name of the first recording
    problems: RowProblems = {}
    columns = (firsts[name] for name in ("key", "speaker", "split", "row"))
    for index, key, name, split, row in zip(firsts.index, *columns, strict=True):
        first = home.get(key) if is_external(split) else home.setdefault(key, (split, row, name))
        if first is None:
            continue
        first_split, first_row, first_name = first
        # Of an external set only training and validation must not know the speaker: another microphone is a fair test.
        if first_split != split and not (is_external(split) and first_split == "test"):
            spelled = "" if name == first_name else f", written {shown_speaker(first_name)!r} there"
            if spelled and nfc(name) == nfc(first_name):
                spelled = ", its accents stored in another form"  # printed, the two look the same
            shown = shown_speaker(name)
            problems[index] = [
                f"speaker {shown!r} is in the {split} split and, by {first_row}, in the {first_split} split"
                f"{spelled}: a speaker must be in one split alone"
            ]
    return problems


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
    return Dataset(store.uri, table, noises, source_rows, files, _missing_files(source_rows, stored))
