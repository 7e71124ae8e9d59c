"""The corpus of a data set: every recording decoded and checked, at 16 kHz mono, in one memory-mapped array.

    audio.npy         float32 [samples], all recordings end to end
    noise.npy         the noise recordings likewise
    index.parquet     one row per recording: its place in the array and its metadata
    measures.parquet  measures of each recording as recorded, such as its sample rate and level
    quality.json      the data-quality report
    manifest.json     content hashes of the files, and the settings
    SHA256SUMS        digests of the files above (:mod:`spira.digests`)

Recordings are decoded one by one, so memory does not grow with their number. The corpus appears under its name only
when it is complete. Building it again from the same content and settings does nothing.
"""

from __future__ import annotations

import hashlib
import sys
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import pandas as pd
from pydantic import JsonValue

from spira import digests, temporary
from spira.audio import DecodedAudio
from spira.config import SAMPLE_RATE_HZ, FrozenModel, Preprocess
from spira.data import content_hash, metadata
from spira.data.content_hash import Hashed
from spira.data.decoding import Measures, check, decode, measure
from spira.data.metadata import DataError, Dataset, examine, read_dataset
from spira.data.pseudonyms import shown_recording
from spira.data.quality import CorpusQuality, SkippedRecording, quality_report
from spira.data.storage import Store, open_store
from spira.digests import DamagedError
from spira.errors import SpiraError
from spira.files import new_folder, read_json, write_json
from spira.inference import wav

AUDIO, NOISE, INDEX, QUALITY, MANIFEST = "audio.npy", "noise.npy", "index.parquet", "quality.json", "manifest.json"
MEASURES = "measures.parquet"
REQUIRED = (AUDIO, NOISE, INDEX, QUALITY, MANIFEST)
"""Files of a corpus of every version; those before format 5 have no measures of single recordings."""
FILES = (*REQUIRED, MEASURES)
REMEDY = "run preprocess again"
"""End of the message about a damaged corpus."""
READMES = ("README.md", "README.txt")
FORMAT = 5
"""Part of the manifest. Raise it when the same input must give another corpus."""
SPLIT_ORDER = ("test", "eval", "train", "noise")
"""Test first: if two splits hold the same audio, the copy outside the frozen test is refused. External test sets come
last: whatever they hold, training and the frozen test are the same with and without them."""
WORKERS = 2
NOISE_LABEL = -1
"""Label of the noise recordings' rows in the index."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class CorpusError(SpiraError):
    """A folder that is not a complete corpus."""


class CorpusManifest(FrozenModel):
    """The files and settings that a corpus was built from, stored in its ``manifest.json``."""

    format: int
    digest: str
    """SHA-256 over the sorted paths, sizes and hashes of the CSVs, recordings and noises."""
    preprocess: dict[str, JsonValue]
    """Settings as they were written; a later version of the code may have others."""
    uri: str
    """Folder, ``gs://`` or ``s3://`` prefix of the data set."""
    files: dict[str, Hashed]
    """Path -> content hash, of CSVs, recordings and noises."""


@dataclass(frozen=True)
class Split:
    """The recordings of one split: a table, and the waveforms that it refers to."""

    table: pd.DataFrame
    """file_path, label (0, 1), split, offset, samples, seconds, sha256, then the optional columns."""
    audio: np.ndarray
    """float32 [samples of the whole corpus], mapped from disk."""

    def __len__(self) -> int:
        return len(self.table)

    @property
    def labels(self) -> np.ndarray:
        """Classes, int [recordings]: 0 control, 1 patient."""
        return self.table["label"].to_numpy()

    def waveform(self, i: int) -> np.ndarray:
        """Return recording ``i`` of the table: float32 [samples], 16 kHz; a read-only view of the mapped file."""
        start, samples = (int(self.table[name].to_numpy()[i]) for name in ("offset", "samples"))
        return self.audio[start : start + samples]


@dataclass(frozen=True)
class Corpus:
    """A complete corpus on disk, memory-mapped."""

    path: Path
    index: pd.DataFrame
    audio: np.ndarray
    noise: np.ndarray
    quality: CorpusQuality
    manifest: CorpusManifest
    measures: pd.DataFrame | None = None
    """One row per recording: file_path and the columns of :func:`spira.data.decoding.measure`; None before format 5."""

    @classmethod
    def open(cls, path: Path | str) -> Corpus:
        """Map the corpus in a folder, after a comparison of its files with their digests.

        Raises:
            CorpusError: a file is missing, damaged, or shorter than the index requires.
        """
        path = Path(path)
        missing = [name for name in REQUIRED if not (path / name).is_file()]
        if missing:
            raise CorpusError(f"{path} is not a complete corpus, {missing[0]} is missing: {REMEDY}")
        try:
            digests.check(path, FILES, REMEDY)
        except DamagedError as error:
            raise CorpusError(str(error)) from error
        try:
            audio, noise = (np.load(path / name, mmap_mode="r") for name in (AUDIO, NOISE))
            index = pd.read_parquet(path / INDEX)
            quality = CorpusQuality.model_validate(read_json(path / QUALITY))
            manifest = CorpusManifest.model_validate(read_json(path / MANIFEST))
            measures = pd.read_parquet(path / MEASURES) if (path / MEASURES).is_file() else None
        except (ValueError, EOFError, OSError) as error:
            raise CorpusError(f"{path} is damaged ({error}): {REMEDY}") from error
        if len(audio) + len(noise) != index["samples"].sum():
            raise CorpusError(f"{path}: its arrays and its index disagree: {REMEDY}")
        return cls(path, index, audio, noise, quality, manifest, measures)

    @property
    def digest(self) -> str:
        """Digest of the data set's content, see :class:`CorpusManifest`."""
        return self.manifest.digest

    @property
    def test_digest(self) -> str:
        """SHA-256 over the test recordings in their order, their classes, and the noises: what the frozen test is.

        Two models with the same one answered the same recordings, whatever they were trained on.
        """
        rows = self.index.loc[self.index["split"].isin(["test", "noise"]), ["split", "label", "sha256"]]
        return hashlib.sha256(rows.to_csv(index=False, lineterminator="\n").encode()).hexdigest()

    @property
    def noises(self) -> list[np.ndarray]:
        """Noise recordings, float32 [samples] each, views of the mapped file."""
        noises = Split(self._rows("noise"), self.noise)
        return [noises.waveform(i) for i in range(len(noises))]

    def split(self, name: str) -> Split:
        """Return the recordings of ``train``, ``eval``, ``test`` or an external test set."""
        return Split(self._rows(name), self.audio)

    @property
    def external(self) -> tuple[str, ...]:
        """Splits that are external test sets."""
        return metadata.external_splits(self.index["split"])

    def _rows(self, split: str) -> pd.DataFrame:
        return self.index[self.index["split"] == split].reset_index(drop=True)


def build(
    dataset_uri: Path | str,
    out: Path,
    preprocess: Preprocess | None = None,
    skip_bad: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> CorpusQuality:
    """Build the corpus of a data set in the folder ``out``, or return the report of the one that is there already.

    Args:
        dataset_uri: folder, ``gs://`` or ``s3://`` prefix in one of the layouts of :mod:`spira.data.metadata`.
        out: appears when it is complete; a complete corpus of the same content and settings is kept.
        preprocess: rules for recordings.
        skip_bad: leave bad recordings out and list them in the report, instead of refusing the data set.
        progress: called with the number of decoded recordings and their total.

    Returns:
        The data-quality report.

    Raises:
        DataError: the metadata or recordings break a rule; all problems at once.
        StorageError: a file cannot be read.
        CorpusError: ``out`` holds other files.
    """
    settings = preprocess or Preprocess()
    store = open_store(dataset_uri)
    dataset = read_dataset(store, settings, missing_ok=skip_bad)
    _refuse_foreign(out)
    if _is_current(out, store, dataset, settings, skip_bad):
        return Corpus.open(out).quality
    with new_folder(out) as folder:
        _Builder(store, dataset, settings, folder).run(skip_bad, progress)
    return Corpus.open(out).quality


@dataclass(frozen=True)
class Inspection:
    """Result of checking a data set without keeping a corpus."""

    problems: tuple[str, ...]
    """Everything that :func:`build` would refuse, in its words: file, row and rule. Empty if all is in order."""
    recordings: pd.DataFrame
    """One row a recording or noise: its row of the tables, ``accepted``, ``rule`` (that it breaks) and its measures."""
    quality: CorpusQuality | None
    """Report on the accepted recordings; None if the tables are refused or a class is left without recordings."""


def inspect(
    dataset_uri: Path | str, preprocess: Preprocess | None = None, progress: Callable[[int, int], None] | None = None
) -> Inspection:
    """Check every table and recording of a data set. Decoded audio goes to a temporary folder and is deleted.

    Raises:
        StorageError: a file cannot be read.
    """
    settings = preprocess or Preprocess()
    store = open_store(dataset_uri)
    try:
        examined = examine(store, settings)
    except DataError as error:
        return Inspection(tuple(error.problems), pd.DataFrame(), None)
    with temporary.folder() as folder:
        builder = _Builder(store, examined.dataset, settings, folder)
        builder.decode_all(progress)
        missing = builder.missing_classes()
        quality = None if missing else builder.quality()
    if examined.problems:
        missing = []  # build() does not count the classes of tables with bad rows, with skip_bad neither
    problems = [*missing, *examined.problems, *(skipped.message for skipped in builder.skipped)]
    return Inspection(tuple(problems), _with_refused_rows(builder.table(), examined.refused), quality)


def _with_refused_rows(recordings: pd.DataFrame, refused: pd.DataFrame) -> pd.DataFrame:
    """Return the recordings, with the rows of the tables that break a rule marked or added."""
    rows: list[dict[Hashable, Any]] = recordings.to_dict("records")
    by_name = {(row["file_path"], row["split"]): row for row in rows}
    for refusal in refused.to_dict("records"):
        row = by_name.get((refusal["file_path"], refusal["split"]))
        if row is None:
            rows.append({**refusal, "accepted": False})
        else:
            row |= {"accepted": False, "rule": "; ".join(filter(None, (row["rule"], refusal["rule"])))}
    return pd.DataFrame(rows, columns=recordings.columns)


@dataclass(frozen=True)
class TableRow:
    """A row of the tables of a data set: a recording, or noise."""

    file_path: str
    split: str
    """``train``, ``eval``, ``test``, ``noise`` or an external test set."""
    label: int
    """0 control, 1 patient, or :data:`NOISE_LABEL`."""
    optional: Mapping[str, object]
    """Optional columns, such as ``speaker``; none for noise."""

    @property
    def is_noise(self) -> bool:
        """Return whether it is noise."""
        return self.split == "noise"

    def columns(self) -> dict[str, object]:
        """Return all columns by name."""
        return {"file_path": self.file_path, "split": self.split, "label": self.label, **self.optional}


@dataclass(frozen=True)
class DecodedRow:
    """A row and its audio, or the rule that the audio breaks."""

    row: TableRow
    audio: DecodedAudio | wav.AudioError
    hashed: Hashed | None = None
    """Hash of the file; None if it is missing."""


@dataclass(frozen=True)
class CorpusRow:
    """A row whose audio is in the corpus."""

    row: TableRow
    sha256: str
    """Hash of the file."""
    offset: int
    """Index of its first sample in the array."""
    samples: int
    measures: Measures

    def columns(self) -> dict[str, object]:
        """Return the columns of the index."""
        return {
            "file_path": self.row.file_path,
            "label": self.row.label,
            "split": self.row.split,
            "offset": self.offset,
            "samples": self.samples,
            "seconds": self.measures.seconds,
            "sha256": self.sha256,
            **self.row.optional,
        }


class _Builder:
    """State of one build: the recordings written so far, and the problems."""

    def __init__(self, store: Store, dataset: Dataset, settings: Preprocess, folder: Path) -> None:
        self.store, self.dataset, self.settings, self.folder = store, dataset, settings, folder
        self.rows: list[CorpusRow] = []
        self.skipped: list[SkippedRecording] = []
        self.repeats: list[str] = []
        self.shortest_noise = sys.maxsize  # samples
        self.seen_audio: dict[str, TableRow] = {}  # hash of the decoded samples -> its row
        csvs = {path: entry for path, entry in dataset.files.items() if path.endswith(".csv")}
        self.files = content_hash.hash_files(store, csvs, {})  # every file that has been read, by path

    def run(self, skip_bad: bool, progress: Callable[[int, int], None] | None) -> None:
        """Decode, check and append every recording, then write the tables."""
        self.decode_all(progress)
        if self.skipped and not skip_bad:
            raise DataError(skipped.message for skipped in self.skipped)
        if missing := self.missing_classes():
            raise DataError([*missing, *(skipped.message for skipped in self.skipped)])
        self._write_tables()

    def decode_all(self, progress: Callable[[int, int], None] | None) -> None:
        """Decode, check and append every recording; list those that break a rule."""
        catalogue = _catalogue(self.dataset)
        with _GrowingArray(self.folder / AUDIO) as audio_array, _GrowingArray(self.folder / NOISE) as noise_array:
            for done, decoded in enumerate(_map_in_order(self._decode, catalogue), start=1):
                self._add(decoded, noise_array if decoded.row.is_noise else audio_array)
                if progress:
                    progress(done, len(catalogue))

    def _decode(self, row: TableRow) -> DecodedRow:
        """Decode and check one recording; runs in a worker thread."""
        path = row.file_path
        if path not in self.dataset.files:
            return DecodedRow(row, wav.AudioError(self.dataset.missing[path]))
        max_seconds = self.settings.max_noise_seconds if row.is_noise else self.settings.max_seconds
        entry = self.dataset.files[path]
        with self.store.local(path, entry.generation) as file:
            hashed = content_hash.hash_local(file, entry)
            try:
                return DecodedRow(row, check(decode(file, self.settings, max_seconds), self.settings), hashed)
            except wav.AudioError as error:
                return DecodedRow(row, error, hashed)

    def _add(self, decoded: DecodedRow, array: _GrowingArray) -> None:
        """Append one recording, or record the rule that it breaks."""
        row, audio, hashed = decoded.row, decoded.audio, decoded.hashed
        if hashed:
            self.files[row.file_path] = hashed
        problem = str(audio) if isinstance(audio, wav.AudioError) else self._conflict(row, audio)
        if problem or isinstance(audio, wav.AudioError) or hashed is None:
            self._skip(row, problem)
            return
        offset = array.append(audio.samples)
        self.rows.append(CorpusRow(row, hashed.sha256, offset, len(audio.samples), measure(audio)))
        if row.is_noise:
            self.shortest_noise = min(self.shortest_noise, len(audio.samples))

    def _conflict(self, row: TableRow, audio: DecodedAudio) -> str:
        """Return the rule that a recording breaks together with an earlier one, or an empty string."""
        if row.is_noise and len(audio.samples) < (longest := self._longest_samples()):
            return (
                f"noise of {len(audio.samples) / SAMPLE_RATE_HZ:.1f} s is shorter than the longest recording "
                f"({longest / SAMPLE_RATE_HZ:.1f} s): a slice as long as the recording cannot be cut from it"
            )
        if metadata.is_external(row.split) and len(audio.samples) > self.shortest_noise:
            return (
                f"lasts {len(audio.samples) / SAMPLE_RATE_HZ:.1f} s, longer than the shortest noise "
                f"({self.shortest_noise / SAMPLE_RATE_HZ:.1f} s): a slice as long as it cannot be cut from the noise"
            )
        twin = self.seen_audio.setdefault(hashlib.sha256(audio.samples.data).hexdigest(), row)
        if twin is row:
            return ""
        repeat = f"holds the same audio as {self.dataset.source_rows[twin.file_path]}"
        if twin.split != row.split and metadata.is_external(row.split):
            return f"{repeat} of the {twin.split} split: an external test set needs recordings of its own"
        if twin.split != row.split:
            return f"{repeat} of the {twin.split} split: training audio must not be tested on"
        if twin.label != row.label:
            return f"{repeat} under the other class: one of the two labels is wrong"
        self.repeats.append(f"{self.dataset.source_rows[row.file_path]}, {repeat}, in the same split")
        return ""

    def _longest_samples(self) -> int:
        return max((each.samples for each in self.rows if not each.row.is_noise), default=0)

    def _skip(self, row: TableRow, rule: str) -> None:
        path, where = row.file_path, self.dataset.source_rows[row.file_path]
        message = f"{where}: {shown_recording(path)} {rule}"
        label = None if row.is_noise else row.label
        self.skipped.append(
            SkippedRecording(file_path=path, split=row.split, label=label, where=where, rule=rule, message=message)
        )

    def missing_classes(self) -> list[str]:
        """Return a problem for each class that a split lacks, and for noise, after bad recordings were skipped."""
        classes = [(each.row.split, each.row.label) for each in self.rows if not each.row.is_noise]
        problems = metadata.missing_classes(pd.DataFrame(classes, columns=["split", "class"]), self.dataset.splits)
        if not any(each.row.is_noise for each in self.rows):
            problems.append("no noise recording is left")
        after = f"after skipping {len(self.skipped)} bad recordings: " if self.skipped else ""
        return [f"{after}{problem}" for problem in problems]

    def _write_tables(self) -> None:
        """Write the tables, the manifest, without which a folder is not complete, and the digests of all files."""
        pd.DataFrame([each.columns() for each in self.rows]).to_parquet(self.folder / INDEX)
        measures = [{"file_path": each.row.file_path, **asdict(each.measures)} for each in self.rows]
        pd.DataFrame(measures).to_parquet(self.folder / MEASURES)
        write_json(self.folder / QUALITY, self.quality().model_dump(mode="json"))
        manifest = _manifest(self.dataset, self.settings, self.files)
        write_json(self.folder / MANIFEST, manifest.model_dump(mode="json"))
        digests.record(self.folder, FILES)

    def quality(self) -> CorpusQuality:
        """Return the report on the recordings that were accepted."""
        measures = [
            {
                "split": each.row.split,
                "label": each.row.label,
                "speaker": each.row.optional.get("speaker"),
                **asdict(each.measures),
            }
            for each in self.rows
        ]
        return quality_report(pd.DataFrame(measures), self.repeats, self.skipped, _readme(self.store))

    def table(self) -> pd.DataFrame:
        """Return one row a recording, accepted or not, in the order of the tables."""
        results: dict[str, dict[str, object]] = {
            each.row.file_path: {"sha256": each.sha256, **asdict(each.measures), "accepted": True, "rule": ""}
            for each in self.rows
        }
        results |= {skipped.file_path: {"accepted": False, "rule": skipped.rule} for skipped in self.skipped}
        rows = _catalogue(self.dataset)
        table = pd.DataFrame([{**row.columns(), **results.get(row.file_path, {})} for row in rows])
        first = ["file_path", "split", "label", "accepted", "rule"]
        others = [name for name in table if name not in first]
        return table.reindex(columns=first + others)


class _GrowingArray:
    """An .npy file of float32 that grows. numpy leaves room in its header, which is rewritten at the end."""

    def __init__(self, path: Path) -> None:
        self.samples = 0
        self._file: BinaryIO = path.open("wb")
        self._write_header()

    def __enter__(self) -> _GrowingArray:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.seek(0)
        self._write_header()
        self._file.close()

    def append(self, samples: np.ndarray) -> int:
        """Append samples and return the offset of the first one."""
        offset = self.samples
        self._file.write(samples.astype("<f4", copy=False).data)
        self.samples += len(samples)
        return offset

    def _write_header(self) -> None:
        layout = {"descr": "<f4", "fortran_order": False, "shape": (self.samples,)}
        np.lib.format.write_array_header_1_0(self._file, layout)


def _map_in_order(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield results in the order of the items. At most ``WORKERS + 1`` results wait, so memory stays bounded."""
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(WORKERS) as pool:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > WORKERS:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _readme(store: Store) -> str:
    """Return the data set's README, or an empty string."""
    readmes = [entry for entry in store.list() if entry.path in READMES]
    return store.read(readmes[0].path, readmes[0].generation).decode(errors="replace") if readmes else ""


def _catalogue(dataset: Dataset) -> list[TableRow]:
    """Return a row for each recording and noise, in the order in which they are written."""
    recordings = dataset.recordings
    if "age" in recordings:
        recordings = recordings.assign(age=pd.to_numeric(recordings["age"]))
    rows = []
    for columns in recordings.to_dict("records"):
        path, split, label = (columns.pop(name) for name in ("file_path", "split", "class"))
        rows.append(TableRow(path, split, int(label), {str(name): value for name, value in columns.items()}))
    rows += [TableRow(path, "noise", NOISE_LABEL, {}) for path in dataset.noises]
    return sorted(rows, key=lambda row: _order(row.split))


def _order(split: str) -> tuple[int, str]:
    """Return a key that sorts splits as :data:`SPLIT_ORDER`, and external test sets after them by name."""
    return (len(SPLIT_ORDER), split) if metadata.is_external(split) else (SPLIT_ORDER.index(split), "")


def _manifest(dataset: Dataset, settings: Preprocess, files: Mapping[str, Hashed]) -> CorpusManifest:
    return CorpusManifest(
        format=FORMAT,
        digest=content_hash.digest(files),
        preprocess=settings.model_dump(mode="json"),
        uri=dataset.root,
        files={path: files[path] for path in sorted(files)},
    )


def _is_current(out: Path, store: Store, dataset: Dataset, settings: Preprocess, skip_bad: bool) -> bool:
    """Return whether ``out`` is a complete corpus of this content and these settings."""
    try:
        corpus = Corpus.open(out)
    except CorpusError:
        return False
    if corpus.quality.skipped and not skip_bad:
        return False
    built = corpus.manifest
    known = built.files if built.uri == dataset.root else {}
    current = _manifest(dataset, settings, content_hash.hash_files(store, dataset.files, known))
    return (built.format, built.digest, built.preprocess) == (current.format, current.digest, current.preprocess)


def _refuse_foreign(out: Path) -> None:
    """Refuse to replace a folder that holds anything but a corpus."""
    names = [path.name for path in out.iterdir()] if out.is_dir() else []
    foreign = sorted(set(names) - {*FILES, digests.FILE})
    if foreign or out.is_file():
        raise CorpusError(f"{out} holds {foreign[0] if foreign else 'a file'}, not a corpus: choose another folder")
