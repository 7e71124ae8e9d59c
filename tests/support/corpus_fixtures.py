"""A small corpus of synthetic recordings: controls hum without pause, patients in short bursts over hiss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from spira.config import SAMPLE_RATE_HZ
from spira.data import corpus as corpora
from spira.data.corpus import Corpus

SPEAKERS = {"train": 6, "eval": 2, "test": 4}
"""Number of speakers by split, of alternating class."""
RECORDINGS_PER_SPEAKER = 2


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a data set in SPIRA's layout: 24 recordings of 5 to 6 s by 12 speakers, 3 noises of 8 s."""
    root = tmp_path_factory.mktemp("dataset")
    rng = np.random.default_rng(0)
    for split, speakers in SPEAKERS.items():
        rows = [
            (f"{split}_{speaker}_{number}.wav", speaker % 2, f"{split}{speaker}")
            for speaker in range(speakers)
            for number in range(RECORDINGS_PER_SPEAKER)
        ]
        for path, label, _ in rows:
            soundfile.write(root / path, hum(label, rng.uniform(5.0, 6.0), rng), SAMPLE_RATE_HZ)
        table = pd.DataFrame(rows, columns=["file_path", "class", "speaker"])
        table.to_csv(root / f"metadata_{split}.csv", index=False)
    noises = [f"noise_{number}.wav" for number in range(3)]
    for path in noises:
        soundfile.write(root / path, 0.1 * rng.standard_normal(8 * SAMPLE_RATE_HZ), SAMPLE_RATE_HZ)
    pd.DataFrame({"file_path": noises}).to_csv(root / "noise.csv", index=False)
    return root


@pytest.fixture(scope="session")
def corpus(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The corpus of ``dataset``."""
    out = tmp_path_factory.mktemp("corpus") / "corpus"
    corpora.build(dataset, out)
    return Corpus.open(out)


def hum(label: int, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Return a voice-like buzz, ``[samples]``; a patient's (label 1) stops twice a second."""
    time = np.arange(int(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    pitch = rng.uniform(90, 220)
    voice = sum(np.sin(2 * np.pi * pitch * k * time + rng.uniform(0, 6)) / k for k in range(1, 12))
    breath = np.where((2 * time) % 1 < 0.6, 1.0, 0.02) if label else 1.0
    return 0.1 * voice * breath + 0.001 * rng.standard_normal(len(time))
