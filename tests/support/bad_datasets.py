"""A small valid data set, and ways to damage it, each with words that the error message must contain."""

from __future__ import annotations

import io
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000
SPEAKERS = 2  # of each class and split


def voice(seed: int, seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    """Return a speech-like modulated tone over a little noise, float32 [samples]; another one for each seed."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * rate)) / rate
    tone = np.sin(2 * np.pi * (150 + 10 * seed) * time) * (np.sin(2 * np.pi * 3 * time) > 0)
    return (0.3 * tone + 0.003 * rng.standard_normal(len(time))).astype(np.float32)


def wav_bytes(samples: np.ndarray, rate: int = RATE, **options: str) -> bytes:
    """Return the bytes of an audio file; a WAV of 16 bit unless ``options`` name another format."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, **{"format": "WAV", **options})
    return file.getvalue()


def make(root: Path) -> Path:
    """Write a valid data set: 2 speakers of each class in each split, 1 s each, and a noise of 2 s."""
    seed = 0
    for split in ("train", "eval", "test"):
        lines = ["file_path,class,speaker,age"]
        for label in (0, 1):
            for speaker in range(SPEAKERS):
                path = f"{split}/{label}{speaker}.wav"
                write(root, path, wav_bytes(voice(seed := seed + 1)))
                lines.append(f"{path},{label},{split}{label}{speaker},{30 + seed}")
        write(root, f"metadata_{split}.csv", "\n".join(lines) + "\n")
    write(root, "noise.csv", "file_path\nward.wav\n")
    write(root, "ward.wav", wav_bytes(voice(99, seconds=2.0)))
    return root


def add_external(root: Path, name: str = "north", first_seed: int = 50) -> Path:
    """Add an external test set to a data set of :func:`make`: 2 speakers of each class, 1 s each."""
    lines = ["file_path,class,speaker,age"]
    for number in range(2 * SPEAKERS):
        label, speaker = divmod(number, SPEAKERS)
        path = f"{name}/{label}{speaker}.wav"
        write(root, path, wav_bytes(voice(first_seed + number)))
        lines.append(f"{path},{label},{name}{label}{speaker},{60 + number}")
    write(root, f"metadata_test_{name}.csv", "\n".join(lines) + "\n")
    return root


def write(root: Path, path: str, content: bytes | str) -> None:
    """Write a file and its folders."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)


def replace(path: str, old: str, new: str) -> Callable[[Path], None]:
    """Return a change that replaces the first ``old`` in a text file."""

    def change(root: Path) -> None:
        text = (root / path).read_text()
        assert old in text
        write(root, path, text.replace(old, new, 1))

    return change


def put(path: str, content: bytes | str) -> Callable[[Path], None]:
    """Return a change that replaces a whole file."""
    return lambda root: write(root, path, content)


def remove(path: str) -> Callable[[Path], None]:
    """Return a change that removes a file."""
    return lambda root: (root / path).unlink()


def link_out(root: Path) -> None:
    """Replace a recording by a link to a file outside the data set."""
    shutil.move(root / "train/00.wav", root.parent / "outside.wav")
    (root / "train/00.wav").symlink_to(root.parent / "outside.wav")


TRAIN = "metadata_train.csv"
METADATA: dict[str, tuple[Callable[[Path], None], str]] = {
    "unknown class": (
        replace(TRAIN, "00.wav,0", "00.wav,2"),
        f"{TRAIN}, row 2: class must be 0 (control) or 1",
    ),
    "class is a word": (replace(TRAIN, "01.wav,0", "01.wav,control"), f"{TRAIN}, row 3: class must be"),
    "empty speaker": (replace(TRAIN, "train00", ""), f"{TRAIN}, row 2: speaker must not be empty"),
    "impossible age": (replace(TRAIN, ",31", ",131"), f"{TRAIN}, row 2: age must be years from 0 to 120"),
    "path traversal": (
        replace(TRAIN, "train/00.wav", "../../etc/passwd"),
        f"{TRAIN}, row 2: file_path must be a rel",
    ),
    "absolute path": (
        replace(TRAIN, "train/00.wav", "/etc/passwd"),
        f"{TRAIN}, row 2: file_path must be a relative",
    ),
    "empty path": (replace(TRAIN, "train/00.wav", ""), f"{TRAIN}, row 2: file_path must be a relative path"),
    "missing file": (remove("train/00.wav"), f"{TRAIN}, row 2: train/00.wav was not found"),
    "missing noise": (remove("ward.wav"), "noise.csv, row 2: ward.wav was not found"),
    "same file twice": (
        replace(TRAIN, "train/01.wav", "train/./00.wav"),
        f"{TRAIN}, row 3: file_path 'train/00.wav' is already in {TRAIN}, row 2",
    ),
    "same file in two splits": (
        replace("metadata_test.csv", "test/00.wav", "train/00.wav"),
        f"metadata_test.csv, row 2: file_path 'train/00.wav' is already in {TRAIN}, row 2",
    ),
    "recording as noise": (
        put("noise.csv", "file_path\ntrain/00.wav\n"),
        "noise.csv, row 2: file_path 'train/00.wav'",
    ),
    "speaker in two splits": (
        replace("metadata_test.csv", "test00", "train00"),
        f"metadata_test.csv, row 2: speaker 'train00' is in the test split and, by {TRAIN}, row 2, in",
    ),
    "row after a blank line": (
        replace(TRAIN, "\ntrain/00.wav,0", "\n\ntrain/00.wav,7"),
        f"{TRAIN}, row 3: class",
    ),
    "row too short": (replace(TRAIN, ",train00,31", ""), f"{TRAIN}, row 2: 2 cells where the header has 4"),
    "semicolons": (
        put(TRAIN, "file_path;class\na.wav;0\n"),
        "column file_path is missing; found file_path;class: it has semicolons; save the table with commas",
    ),
    "no class column": (replace(TRAIN, "class", "label_of_it"), f"{TRAIN}, row 1: column class is missing"),
    "column twice": (replace(TRAIN, "speaker", "class"), f"{TRAIN}, row 1: column class occurs twice"),
    "column without a name": (replace(TRAIN, "speaker", ""), f"{TRAIN}, row 1: column 3 has no name"),
    "two columns without names": (
        replace(TRAIN, "speaker,age", ","),
        f"{TRAIN}, row 1: column 3 has no name: give it one or delete the column\n{TRAIN}, row 1: column 4",
    ),
    "speaker in two splits, other case": (
        replace("metadata_test.csv", "test00", "Train00"),
        "metadata_test.csv, row 2: speaker 'Train00' is in the test split and, by metadata_train.csv, row 2, in "
        "the train split, written 'train00' there",
    ),
    "file name in other case": (
        replace(TRAIN, "train/00.wav", "train/00.WAV"),
        f"{TRAIN}, row 2: train/00.WAV was not found in the data set (links out of it are not followed): "
        "'train/00.wav' is there; write that name",
    ),
    "file name of another ending": (
        replace(TRAIN, "train/00.wav", "train/00.mp3"),
        "'train/00.wav' is there; write that name",
    ),
    "backslash": (replace(TRAIN, "train/00.wav", "train\\00.wav"), "'train/00.wav' is there; write that name"),
    "other folder": (replace("noise.csv", "ward.wav", "noise/ward.wav"), "'ward.wav' is there; write that name"),
    "tables in a folder": (
        lambda root: [file.rename(root / "train" / file.name) for file in root.glob("metadata_*")],
        "'train/metadata_train.csv' is there: rename it, or give its folder",
    ),
    "reserved column": (replace(TRAIN, "age", "offset"), f"{TRAIN}, row 1: column offset is reserved"),
    "not UTF-8": (put(TRAIN, "file_path,class\nmaçã.wav,0\n".encode("latin-1")), f"{TRAIN}: not UTF-8 text"),
    "a NUL byte": (
        put(TRAIN, b"file_path,class\na\0.wav,0\n"),
        f"{TRAIN}, row 2: a cell holds a NUL byte: the table is damaged",
    ),
    "a NUL byte in any column": (replace(TRAIN, "train00", "train\0"), f"{TRAIN}, row 2: a cell holds a NUL byte"),
    "a block of NUL bytes at the end": (
        lambda root: (root / TRAIN).write_bytes((root / TRAIN).read_bytes() + bytes(512)),
        f"{TRAIN}, row 6: 1 cells where the header has 4\n{TRAIN}, row 6: a cell holds a NUL byte",
    ),
    "a quote opened and closed in one column": (
        replace(TRAIN, "train00,31\ntrain/01.wav,0,train01", '"train00,31\ntrain/01.wav,0,train01"'),
        f"{TRAIN}, row 3: a cell holds 2 lines that look like rows: is a quotation mark missing?",
    ),
    "a quote opened and closed in two columns": (
        replace(TRAIN, "train00,31\ntrain/01.wav,0", '"train00,31\ntrain/01.wav,0"'),
        f"{TRAIN}, row 3: 5 cells where the header has 4",
    ),
    "row too long": (replace(TRAIN, ",train00,31", ",train00,31,1"), f"{TRAIN}, row 2: 5 cells where the header has 4"),
    "tabs": (
        put(TRAIN, "file_path\tclass\na.wav\t0\n"),
        "column file_path is missing; found file_path\tclass: it has tabs; save the table with commas between cells",
    ),
    "Excel's line about its separator": (put(TRAIN, "sep=;\nfile_path;class\n"), "save the table with commas"),
    "an Excel workbook": (put(TRAIN, b"PK\3\4" + bytes(99)), f"{TRAIN}: an Excel workbook or another archive"),
    "UTF-16 with a mark": (
        put(TRAIN, "file_path,class\na.wav,0\n".encode("utf-16")),
        f"{TRAIN}: not UTF-8 text (UTF-16",
    ),
    "not UTF-8 in a row": (
        put(TRAIN, "file_path,class\na.wav,0\nmaçã.wav,0\n".encode("latin-1")),
        f"{TRAIN}: not UTF-8 text (invalid continuation byte in row 3)",
    ),
    "unclosed quote": (put(TRAIN, 'file_path,class\n"a.wav,0\n'), f"{TRAIN}, row 2: no row of a CSV table"),
    "UTF-16 without a mark": (put(TRAIN, "file_path,class\na.wav,0\n".encode("utf-16-le")), f"{TRAIN}: not UTF-8 text"),
    "empty table": (put(TRAIN, ""), f"{TRAIN}, row 1: column file_path is missing; found nothing"),
    "header only": (put(TRAIN, "file_path,class\n"), f"{TRAIN}: no rows below the header"),
    "no metadata": (
        lambda root: [f.unlink() for f in root.glob("metadata_*")],
        "no metadata found: expected",
    ),
    "split missing": (remove("metadata_eval.csv"), "metadata_eval.csv is missing beside metadata_train.csv"),
    "two layouts": (
        put("metadata.csv", "file_path,class\n"),
        "both metadata.csv and metadata_train.csv exist",
    ),
    "no noise list": (remove("noise.csv"), "no list of noise recordings found: expected noise.csv"),
    "one class only": (
        put(TRAIN, "file_path,class,speaker,age\ntrain/00.wav,0,a,\n"),
        "the train split has no recording of class 1 (patient)",
    ),
}


def _promising(promised: int) -> bytes:
    """Return a WAV whose header promises ``promised`` bytes of samples."""
    content = bytearray(wav_bytes(voice(7)))
    struct.pack_into("<I", content, content.index(b"data") + 4, promised)
    return bytes(content)


def _at_rate(rate: int) -> bytes:
    """Return a WAV whose header has another sample rate."""
    content = bytearray(wav_bytes(voice(7)))
    struct.pack_into("<I", content, content.index(b"fmt ") + 12, rate)
    return bytes(content)


def _with_sample(value: float) -> bytes:
    """Return a WAV of float samples, one of which has the value."""
    samples = voice(7)
    samples[800] = value
    return wav_bytes(samples, subtype="FLOAT")


AUDIO: dict[str, tuple[bytes, str]] = {
    "no bytes": (b"", "is empty: 0 bytes"),
    "no samples": (wav_bytes(np.zeros(0, np.float32)), "is empty: it holds no samples"),
    "not audio": (b"<html>404 not found</html>" * 50, "is text, not a recording"),
    "silent": (wav_bytes(np.zeros(RATE, np.float32)), "is silent"),
    "clipped": (wav_bytes(np.clip(voice(7) * 50, -1, 1)), "is clipped"),
    "integers as floats": (wav_bytes(voice(7) * 32768, subtype="FLOAT"), "is clipped"),
    "too short": (wav_bytes(voice(7, seconds=0.1)), "lasts 0.10 s, less than 0.5 s"),
    "too long": (wav_bytes(voice(7, seconds=11.0)), "lasts 11.0 s, more than the 10 s allowed"),
    "NaN": (_with_sample(np.nan), "not finite numbers"),
    "infinity": (_with_sample(np.inf), "not finite numbers"),
    "sample rate too low": (_at_rate(100), "has a sample rate of 100 Hz, outside 4000 to 384000 Hz"),
    "sample rate absurd": (_at_rate(2**31 - 1), "Hz, outside 4000 to 384000 Hz"),
    "header promises 1 GB": (_promising(2**30), "header promises 1073741824 bytes of samples and the file holds 32000"),
    "dead microphone": (wav_bytes(np.full(RATE, 0.3, np.float32) + 1e-4 * voice(7)), "is silent"),
    "truncated WAV": (wav_bytes(voice(7))[:20_000], "is cut off"),
    "truncated ADPCM": (wav_bytes(voice(7), subtype="IMA_ADPCM")[:4_000], "is cut off"),
    "truncated FLAC": (wav_bytes(voice(7), format="FLAC")[:8_000], "cannot be decoded"),
    "truncated AIFF": (wav_bytes(voice(7), format="AIFF")[:20_000], "is cut off"),
    "truncated AU": (wav_bytes(voice(7), format="AU")[:20_000], "is cut off"),
    "truncated W64": (wav_bytes(voice(7), format="W64")[:20_000], "is cut off"),
    "truncated CAF": (wav_bytes(voice(7), format="CAF")[:20_000], "is cut off"),
    "truncated RF64": (wav_bytes(voice(7), format="RF64")[:20_000], "is cut off"),
    "truncated Ogg": (wav_bytes(voice(7), format="OGG")[:2_000], "is cut off within a page"),
    "truncated MP3": (
        wav_bytes(voice(7, seconds=4), format="MP3")[:9_000],
        "promises 64000 samples and",
    ),
}
