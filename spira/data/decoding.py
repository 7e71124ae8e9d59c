"""Decoding of one recording of a data set, with checks and measures.

A bad recording raises :class:`spira.inference.wav.AudioError`, whose message is written to follow the file's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spira import audio
from spira.audio import DecodedAudio
from spira.config import SAMPLE_RATE_HZ, Preprocess
from spira.inference.model import loudest_dbfs
from spira.inference.wav import AudioError

FRAME_SAMPLES = SAMPLE_RATE_HZ // 50  # 20 ms
FLOOR_DBFS = -120.0
SPEECH_ABOVE_BACKGROUND_DB = 10.0


@dataclass(frozen=True)
class Measures:
    """Measures of a recording. Levels are without the mean, since an offset of the microphone is no sound."""

    seconds: float
    sample_rate: int
    """As recorded, Hz."""
    channels: int
    """As recorded."""
    peak_dbfs: float
    """Of the samples, with their mean."""
    rms_dbfs: float
    background_dbfs: float
    """10th percentile of the levels of 20 ms frames."""
    speech_fraction: float
    """Share of the frames that are more than 10 dB above the background."""
    clipped_fraction: float
    """Share of the samples at full scale, over all channels."""
    encoding: str
    """As recorded, such as ``WAV PCM``."""


def decode(file: Path, settings: Preprocess, max_seconds: float) -> DecodedAudio:
    """Read an audio file of any format that :mod:`spira.audio` supports and resample it.

    Raises:
        AudioError: the file is damaged, or its header breaks a rule.
    """
    with audio.open_recording(file) as recording:
        return audio.decode(recording, max_seconds, settings.min_sample_rate_hz, settings.max_sample_rate_hz)


def check(audio: DecodedAudio, settings: Preprocess) -> DecodedAudio:
    """Return the recording if it is long, loud and clean enough.

    Raises:
        AudioError: it is too short, silent or clipped.
    """
    seconds = len(audio.samples) / SAMPLE_RATE_HZ
    if seconds < settings.min_seconds:
        raise AudioError(f"lasts {seconds:.2f} s, less than {settings.min_seconds:g} s")
    loudest = loudest_dbfs(audio.samples)
    if loudest < settings.silence_dbfs:
        raise AudioError(f"is silent: its loudest 20 ms are at {loudest:.0f} dBFS, below {settings.silence_dbfs:g}")
    if audio.clipped > settings.max_clipped_fraction:
        raise AudioError(
            f"is clipped: {audio.clipped:.1%} of its samples are at full scale or beyond, more than "
            f"{settings.max_clipped_fraction:.1%}"
        )
    return audio


def frame_levels(samples: np.ndarray) -> np.ndarray:
    """Return the RMS level of each 20 ms frame in dBFS, at least -120, without the frame's mean: [samples] -> [frames].

    An offset of the microphone is no sound. Without the mean of the whole recording instead, an offset of the speech
    alone would turn digital silence between the words into a background.
    """
    frames = samples[: len(samples) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    return _dbfs(np.std(frames, axis=1, dtype=np.float64))


def _dbfs(amplitude: Any) -> Any:
    return 20 * np.log10(np.maximum(amplitude, 10 ** (FLOOR_DBFS / 20)))


def measure(audio: DecodedAudio) -> Measures:
    """Return the measures of a recording."""
    levels = frame_levels(audio.samples)
    background = np.percentile(levels, 10)
    return Measures(
        seconds=len(audio.samples) / SAMPLE_RATE_HZ,
        sample_rate=audio.sample_rate,
        channels=audio.channels,
        peak_dbfs=float(_dbfs(np.abs(audio.samples).max())),
        rms_dbfs=float(_dbfs(np.std(audio.samples, dtype=np.float64))),
        background_dbfs=float(background),
        speech_fraction=float(np.mean(levels > background + SPEECH_ABOVE_BACKGROUND_DB)),
        clipped_fraction=audio.clipped,
        encoding=audio.encoding,
    )
