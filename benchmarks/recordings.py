"""A synthetic data set with the sizes of the paper's. It is not speech, but takes as long to read."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from spira.config import SAMPLE_RATE_HZ

OTHERS = 4
"""Number of recordings in each of the validation and test splits, which are not measured."""
NOISES, NOISE_SECONDS = 8, 60


def make(root: Path, train: int) -> Path:
    """Write recordings of 5 to 12 s, half of each class, and noises, as 16-bit WAV at 16 kHz, unless they exist."""
    if (root / "noise.csv").exists():
        return root
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("eval", OTHERS), ("test", OTHERS)):
        rows = [(f"{split}/{i}.wav", i % 2) for i in range(count)]
        for path, _ in rows:
            write(root / path, syllables(rng.uniform(5, 12), rng))
        write_csv(root / f"metadata_{split}.csv", ("file_path", "class"), rows)
    noises = [(f"noise/{i}.wav",) for i in range(NOISES)]
    for (path,) in noises:
        write(root / path, hum(NOISE_SECONDS, rng))
    write_csv(root / "noise.csv", ("file_path",), noises)  # written last: it marks a complete data set
    return root


def syllables(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Return noise whose amplitude rises four times a second: float32 [samples]."""
    samples = round(seconds * SAMPLE_RATE_HZ)
    envelope = np.sin(4 * np.pi * np.arange(samples) / SAMPLE_RATE_HZ) ** 2
    return (0.1 * envelope * rng.standard_normal(samples)).astype(np.float32)


def hum(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Return a tone in noise: float32 [samples]."""
    samples = round(seconds * SAMPLE_RATE_HZ)
    tone = np.sin(2 * np.pi * rng.uniform(80, 800) * np.arange(samples) / SAMPLE_RATE_HZ)
    return (0.05 * tone + 0.02 * rng.standard_normal(samples)).astype(np.float32)


def write(path: Path, waveform: np.ndarray) -> None:
    """Write a waveform as a 16-bit WAV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform, SAMPLE_RATE_HZ, subtype="PCM_16")


def write_csv(path: Path, names: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> None:
    """Write a CSV file with a header."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows])
