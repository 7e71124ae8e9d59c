"""A data set -> the corpus: every recording decoded, checked, at 16 kHz mono, in one mappable array.

    audio.npy       float32 [samples], all recordings end to end
    noise.npy       the noise recordings likewise
    index.parquet   one row a recording: where it lies and what it is
    quality.json    what the recordings are like, and what to be wary of
    manifest.json   which files, by content, and which settings made it

Recordings pass through one by one, so memory doesn't grow with their number. The corpus appears under its
name only when it is complete; building it again from the same content and settings does nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import pandas as pd

from spira.config import SAMPLE_RATE_HZ, Preprocess
from spira.data import content_hash, metadata
from spira.data.content_hash import Hashed
from spira.data.decoding import Take, check, decode, measure
from spira.data.metadata import DataError, Dataset, read_dataset
from spira.data.quality import quality_report
from spira.data.storage import Store, open_store
from spira.errors import SpiraError
from spira.inference import wav

FILES = ("audio.npy", "noise.npy", "index.parquet", "quality.json", "manifest.json")
READMES = ("README.md", "README.txt")
FORMAT = 2
"""Part of the manifest: raise it when the same input must give another corpus."""
ORDER = ("test", "eval", "train", "noise")
"""Test first: of the same audio in two splits, the copy outside the frozen test is the one to refuse."""
WORKERS = 2
HASHED = "hashed"
"""Key of a row's file while the corpus is built; no column of the index."""
NO_CLASS = -1
"""Label of the noise recordings' rows in the index."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class CorpusError(SpiraError):
    """A folder that is no complete corpus."""


@dataclass(frozen=True)
class Recordings:
    """One split of a corpus: a table, and the waveforms it points to."""

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
        """Recording ``i`` of the table: float32 [samples], 16 kHz; a read-only view of the mapped file."""
        start, samples = (int(self.table[name].to_numpy()[i]) for name in ("offset", "samples"))
        return self.audio[start : start + samples]


@dataclass(frozen=True)
class Corpus:
    """A complete corpus on disk, mapped rather than read."""

    path: Path
    index: pd.DataFrame
    audio: np.ndarray
    noise: np.ndarray
    quality: dict[str, Any]
    manifest: dict[str, Any]

    @classmethod
    def open(cls, path: Path | str) -> Corpus:
        """Map the corpus in a folder.

        Raises:
            CorpusError: a file is missing or shorter than the index says.
        """
        path = Path(path)
        missing = [name for name in FILES if not (path / name).is_file()]
        if missing:
            raise CorpusError(f"{path} is no complete corpus, {missing[0]} is missing: run preprocess again")
        try:
            audio, noise = (np.load(path / name, mmap_mode="r") for name in ("audio.npy", "noise.npy"))
            index = pd.read_parquet(path / "index.parquet")
            quality, manifest = (json.loads((path / name).read_bytes()) for name in FILES[3:])
        except (ValueError, EOFError, OSError) as error:
            raise CorpusError(f"{path} is damaged ({error}): run preprocess again") from error
        if len(audio) + len(noise) != index["samples"].sum():
            raise CorpusError(f"{path}: its arrays and its index disagree: run preprocess again")
        return cls(path, index, audio, noise, quality, manifest)

    @property
    def digest(self) -> str:
        """SHA-256 over the sorted paths, sizes and hashes of the CSVs, recordings and noises."""
        return self.manifest["digest"]

    @property
    def noises(self) -> list[np.ndarray]:
        """The noise recordings, float32 [samples] each, views of the mapped file."""
        noises = Recordings(self._rows("noise"), self.noise)
        return [noises.waveform(i) for i in range(len(noises))]

    def split(self, name: str) -> Recordings:
        """The recordings of ``train``, ``eval`` or ``test``."""
        return Recordings(self._rows(name), self.audio)

    def _rows(self, split: str) -> pd.DataFrame:
        return self.index[self.index["split"] == split].reset_index(drop=True)


def build(
    dataset_uri: Path | str,
    out: Path,
    preprocess: Preprocess | None = None,
    skip_bad: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Build the corpus of a data set in the folder ``out``, or find that it is there already.

    Args:
        dataset_uri: folder or ``gs://`` prefix in one of the layouts of :mod:`spira.data.metadata`.
        out: appears when it is complete; a complete one of the same content and settings is kept.
        preprocess: what a recording must be.
        skip_bad: leave bad recordings out and list them in the report, instead of refusing the data set.
        progress: called with the number of recordings done and their total.

    Returns:
        The data-quality report (``quality.json``).

    Raises:
        DataError: the metadata or recordings break a rule; all problems at once.
        StorageError: something can't be read.
        CorpusError: ``out`` holds something else.
    """
    settings = preprocess or Preprocess()
    store = open_store(dataset_uri)
    dataset = read_dataset(store, settings, missing_ok=skip_bad)
    _refuse_foreign(out)
    if _is_current(out, store, dataset, settings, skip_bad):
        return Corpus.open(out).quality
    with _replacing(out) as folder:
        _Builder(store, dataset, settings, folder).run(skip_bad, progress)
    return Corpus.open(out).quality


class _Builder:
    """One build: what has been laid down so far, and what was wrong."""

    def __init__(self, store: Store, dataset: Dataset, settings: Preprocess, folder: Path) -> None:
        self.store, self.dataset, self.settings, self.folder = store, dataset, settings, folder
        self.rows: list[dict[str, Any]] = []
        self.measures: list[dict[str, Any]] = []
        self.skipped: list[dict[str, str]] = []
        self.repeats: list[str] = []
        self.heard: dict[str, dict[str, Any]] = {}  # hash of the decoded samples -> its row
        csvs = {path: entry for path, entry in dataset.files.items() if path.endswith(".csv")}
        self.files = content_hash.look(store, csvs, {})  # what has been read, by path

    def run(self, skip_bad: bool, progress: Callable[[int, int], None] | None) -> None:
        """Decode, check and append every recording, then write the tables."""
        catalogue = _catalogue(self.dataset)
        with _Array(self.folder / "audio.npy") as audio, _Array(self.folder / "noise.npy") as noise:
            for done, (row, take) in enumerate(_in_order(self._take, catalogue), start=1):
                self._add(row, take, noise if row["split"] == "noise" else audio)
                if progress:
                    progress(done, len(catalogue))
        if self.skipped and not skip_bad:
            raise DataError(bad["message"] for bad in self.skipped)
        self._refuse_empty()
        self._write_tables()

    def _take(self, row: dict[str, Any]) -> tuple[dict[str, Any], Take | wav.AudioError]:
        """Decode and check one recording; runs in a worker."""
        path = row["file_path"]
        if path not in self.dataset.files:
            return row, wav.AudioError(metadata.MISSING)
        longest = self.settings.max_noise_seconds if row["split"] == "noise" else self.settings.max_seconds
        entry = self.dataset.files[path]
        with self.store.local(path, entry.generation) as file:
            hashed = content_hash.hash_local(file, entry)
            row = {**row, "sha256": hashed.sha256, HASHED: hashed}
            try:
                return row, check(decode(file, self.settings, longest), self.settings)
            except wav.AudioError as error:
                return row, error

    def _add(self, row: dict[str, Any], take: Take | wav.AudioError, array: _Array) -> None:
        """Append one recording, or note why not."""
        if HASHED in row:
            self.files[row["file_path"]] = row.pop(HASHED)
        problem = str(take) if isinstance(take, wav.AudioError) else self._clash(row, take)
        if problem or isinstance(take, wav.AudioError):
            self._skip(row, problem)
            return
        samples = len(take.samples)
        row |= {"offset": array.append(take.samples), "samples": samples, "seconds": samples / SAMPLE_RATE_HZ}
        self.rows.append(row)
        self.measures.append({"split": row["split"], "label": row["label"], **measure(take)})

    def _clash(self, row: dict[str, Any], take: Take) -> str:
        """What is wrong with a recording beside the ones before it."""
        if row["split"] == "noise" and len(take.samples) < (longest := self._longest()):
            return (
                f"noise of {len(take.samples) / SAMPLE_RATE_HZ:.1f} s is shorter than the longest recording "
                f"({longest / SAMPLE_RATE_HZ:.1f} s): a slice as long as the recording can't be cut from it"
            )
        twin = self.heard.setdefault(hashlib.sha256(take.samples.data).hexdigest(), row)
        if twin is row:
            return ""
        same = f"holds the same audio as {twin['file_path']} ({self.dataset.where[twin['file_path']]})"
        if twin["split"] != row["split"]:
            return f"{same} of the {twin['split']} split: what is trained on must not be tested on"
        if twin["label"] != row["label"]:
            return f"{same} under the other class: one of the two labels is wrong"
        self.repeats.append(f"{row['file_path']} {same}, in the same split")
        return ""

    def _longest(self) -> int:
        return max((row["samples"] for row in self.rows if row["split"] != "noise"), default=0)

    def _skip(self, row: dict[str, Any], rule: str) -> None:
        path, where = row["file_path"], self.dataset.where[row["file_path"]]
        entry = {"file_path": path, "split": row["split"], "where": where, "rule": rule}
        self.skipped.append({**entry, "message": f"{where}: {path} {rule}"})

    def _refuse_empty(self) -> None:
        kept = pd.DataFrame([row for row in self.rows if row["split"] != "noise"], columns=["split", "label"])
        problems = metadata.empty_cells(kept.rename(columns={"label": "class"}))
        if not any(row["split"] == "noise" for row in self.rows):
            problems.append("no noise recording is left")
        if problems:
            raise DataError(
                [f"after skipping {len(self.skipped)} bad recordings: {problem}" for problem in problems]
                + [bad["message"] for bad in self.skipped]
            )

    def _write_tables(self) -> None:
        """The manifest last: a folder without one is not complete."""
        index = pd.DataFrame(self.rows)
        first = ["file_path", "label", "split", "offset", "samples", "seconds", "sha256"]
        index = index[first + [name for name in index if name not in first]]
        index.to_parquet(self.folder / "index.parquet")
        measures = pd.DataFrame(self.measures).assign(speaker=index.get("speaker"))
        quality = quality_report(measures, self.repeats, self.skipped) | {"about": _about(self.store)}
        _write_json(self.folder / "quality.json", quality)
        _write_json(self.folder / "manifest.json", _manifest(self.dataset, self.settings, self.files))


class _Array:
    """An .npy file of float32 that grows: numpy leaves room in its header, which is rewritten at the end."""

    def __init__(self, path: Path) -> None:
        self.samples = 0
        self._file: BinaryIO = path.open("wb")
        self._header()

    def __enter__(self) -> _Array:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.seek(0)
        self._header()
        self._file.close()

    def append(self, samples: np.ndarray) -> int:
        """Add samples at the end; where they begin."""
        offset = self.samples
        self._file.write(samples.astype("<f4", copy=False).data)
        self.samples += len(samples)
        return offset

    def _header(self) -> None:
        layout = {"descr": "<f4", "fortran_order": False, "shape": (self.samples,)}
        np.lib.format.write_array_header_1_0(self._file, layout)


def _in_order(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Results in the order of the items, a few at work ahead and no more, so that memory stays bounded."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(WORKERS) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > WORKERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _about(store: Store) -> str:
    """What the data set says of itself: its README, or nothing."""
    readmes = [entry for entry in store.list() if entry.path in READMES]
    return store.read(readmes[0].path, readmes[0].generation).decode(errors="replace") if readmes else ""


def _catalogue(dataset: Dataset) -> list[dict[str, Any]]:
    """A row for each recording and noise, in the order in which they are laid down."""
    recordings = dataset.recordings.rename(columns={"class": "label"})
    if "age" in recordings:
        recordings["age"] = pd.to_numeric(recordings["age"])
    rows: list[dict[str, Any]] = recordings.to_dict("records")  # type: ignore[assignment]  # names are text
    rows += [{"file_path": path, "split": "noise", "label": NO_CLASS} for path in dataset.noises]
    return sorted(rows, key=lambda row: ORDER.index(row["split"]))


def _manifest(dataset: Dataset, settings: Preprocess, files: Mapping[str, Hashed]) -> dict[str, Any]:
    """What a corpus was made of."""
    return {
        "format": FORMAT,
        "digest": content_hash.digest(files),
        "preprocess": settings.model_dump(mode="json"),
        "uri": dataset.root,
        "files": {path: vars(files[path]) for path in sorted(files)},
    }


def _is_current(out: Path, store: Store, dataset: Dataset, settings: Preprocess, skip_bad: bool) -> bool:
    """Whether ``out`` is a complete corpus of this very content and these settings."""
    try:
        corpus = Corpus.open(out)
    except CorpusError:
        return False
    if corpus.quality["skipped"] and not skip_bad:
        return False
    known = corpus.manifest
    seen = {path: Hashed(**file) for path, file in known["files"].items()} if known["uri"] == dataset.root else {}
    now = _manifest(dataset, settings, content_hash.look(store, dataset.files, seen))
    return all(now[key] == known.get(key) for key in ("format", "digest", "preprocess"))


def _refuse_foreign(out: Path) -> None:
    """Never replace a folder that holds anything but a corpus."""
    foreign = sorted(path.name for path in out.iterdir() if path.name not in FILES) if out.is_dir() else []
    if foreign or out.is_file():
        raise CorpusError(f"{out} holds {foreign[0] if foreign else 'a file'}, not a corpus: choose another folder")


@contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """An empty folder beside ``out`` that takes its place when the block ends well, cleared up if not."""
    partial, old = out.with_name(f".{out.name}.partial"), out.with_name(f".{out.name}.old")
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if out.exists():
            os.replace(out, old)
        os.replace(partial, out)
    finally:
        for leftover in (partial, old):
            shutil.rmtree(leftover, ignore_errors=True)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
