"""A synthetic data set with the paper's sizes: it sounds like nothing, and takes as long to read."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from spira.config import SAMPLE_RATE_HZ

OTHERS = 4
"""Recordings in each of the validation and test splits, which are not measured."""
NOISES, NOISE_SECONDS = 8, 60


def make(root: Path, train: int) -> Path:
    """Write recordings of 5 to 12 s, half of each class, and noises, all 16-bit WAV at 16 kHz; kept if there."""
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
    write_csv(root / "noise.csv", ("file_path",), noises)  # last: with it the set is complete
    return root


def syllables(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Noise that swells four times a second: float32 [samples]."""
    samples = round(seconds * SAMPLE_RATE_HZ)
    swell = np.sin(4 * np.pi * np.arange(samples) / SAMPLE_RATE_HZ) ** 2
    return (0.1 * swell * rng.standard_normal(samples)).astype(np.float32)


def hum(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """A tone in noise: float32 [samples]."""
    samples = round(seconds * SAMPLE_RATE_HZ)
    tone = np.sin(2 * np.pi * rng.uniform(80, 800) * np.arange(samples) / SAMPLE_RATE_HZ)
    return (0.05 * tone + 0.02 * rng.standard_normal(samples)).astype(np.float32)


def write(path: Path, waveform: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform, SAMPLE_RATE_HZ, subtype="PCM_16")


def write_csv(path: Path, names: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows])
