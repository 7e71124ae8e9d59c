"""A corpus in memory, with properties of the recordings as a test wants them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from spira.audio import DecodedAudio
from spira.config import SAMPLE_RATE_HZ, Preprocess
from spira.data.corpus import FORMAT, Corpus, CorpusManifest
from spira.data.decoding import measure
from spira.data.quality import quality_report

SECONDS = 0.6


def make_corpus(speakers: int = 20, seed: int = 0, splits: tuple[str, ...] = ("train", "eval", "test")) -> Corpus:
    """Return a corpus of noise: in each split, speakers of alternating class with two recordings each.

    Age, sex and site are drawn without regard to the class. :func:`with_property` changes that.
    """
    rng = np.random.default_rng(seed)
    rows = [
        {
            "file_path": f"{split}/{speaker}_{number}.wav",
            "label": speaker % 2,
            "split": split,
            "sha256": f"{split}{speaker}{number}",
            "speaker": f"{split}{speaker}",
        }
        for split in splits
        for speaker in range(speakers)
        for number in range(2)
    ]
    waveforms = [
        (0.1 * rng.standard_normal(int(rng.uniform(1, 2) * SECONDS * SAMPLE_RATE_HZ))).astype(np.float32) for _ in rows
    ]
    noise = (0.1 * rng.standard_normal(3 * SAMPLE_RATE_HZ)).astype(np.float32)
    index = pd.DataFrame([*rows, {"file_path": "ward.wav", "label": -1, "split": "noise", "sha256": "ward"}])
    lengths = [*map(len, waveforms), len(noise)]
    index["offset"] = [*np.cumsum([0, *lengths[:-2]]), 0]
    index["samples"] = lengths
    index["seconds"] = index["samples"] / SAMPLE_RATE_HZ
    measures = pd.DataFrame(
        [measure(DecodedAudio(waveform, SAMPLE_RATE_HZ, 1, 0.0, "WAV PCM_16")) for waveform in [*waveforms, noise]]
    )
    quality = quality_report(
        measures.assign(split=index["split"], label=index["label"], speaker=index["speaker"]), [], [], ""
    )
    manifest = CorpusManifest(
        format=FORMAT, digest="d" * 64, preprocess=Preprocess().model_dump(), uri="/nowhere", files={}
    )
    measures.insert(0, "file_path", index["file_path"])
    return Corpus(Path("/nowhere"), index, np.concatenate(waveforms), noise, quality, manifest, measures)
