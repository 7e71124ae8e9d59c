"""Decoding of one recording to 16 kHz mono, block by block, with checks and measures.

A bad recording raises :class:`spira.inference.wav.AudioError`, whose message is written to follow the file's name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from spira.config import SAMPLE_RATE_HZ, Preprocess
from spira.inference import wav

FRAME_SAMPLES = SAMPLE_RATE_HZ // 50  # 20 ms
BLOCK_SAMPLES = 1 << 18
"""Samples over all channels that are read at once."""
FULL_SCALE = 0.999
FLOOR_DBFS = -120.0
HEADER_SLACK_BYTES = 64
"""Some programs write a RIFF size that is a few bytes too large."""
MIN_SAMPLES_SHARE = 0.99
"""Share of the samples promised by the header below which a file is truncated."""
SPEECH_ABOVE_BACKGROUND_DB = 10.0


@dataclass(frozen=True)
class DecodedAudio:
    """One decoded recording."""

    samples: np.ndarray
    """float32 [samples], 16 kHz mono."""
    sample_rate: int
    """Sample rate as recorded, Hz."""
    channels: int
    clipped: float
    """Share of the samples at full scale, over all channels."""


def decode(file: Path, settings: Preprocess, max_seconds: float) -> DecodedAudio:
    """Read an audio file of any format that libsndfile supports, block by block, and resample it.

    Raises:
        AudioError: the file is damaged, or its header breaks a rule.
    """
    if not file.stat().st_size:
        raise wav.AudioError("is empty: 0 bytes")
    try:
        with soundfile.SoundFile(file) as source:
            _refuse_header(source, settings, max_seconds)
            samples, clipped = _read(source, int(max_seconds * source.samplerate))
            rate, channels = source.samplerate, source.channels
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: headerless formats (.raw)
        raise wav.AudioError(f"cannot be decoded: {error}") from error
    return DecodedAudio(wav.resample(samples, rate, SAMPLE_RATE_HZ), rate, channels, clipped)


def _refuse_header(source: soundfile.SoundFile, settings: Preprocess, max_seconds: float) -> None:
    """Refuse a header that breaks a rule, before any memory is allocated for the samples."""
    low, high = settings.min_sample_rate_hz, settings.max_sample_rate_hz
    if not low <= source.samplerate <= high:
        raise wav.AudioError(f"has a sample rate of {source.samplerate} Hz, outside {low} to {high} Hz")
    _refuse_truncated(source.extra_info)
    if source.frames > max_seconds * source.samplerate:
        seconds = source.frames / source.samplerate
        raise wav.AudioError(f"lasts {seconds:.1f} s, more than the {max_seconds:g} s allowed")


def _refuse_truncated(log: str) -> None:
    """Refuse a file shorter than its header promises; libsndfile only notes this in its log."""
    notes = log.partition("\n")[2]  # the first line is the file's own path
    for promised, held in re.findall(r"(\d+) \(?should be (\d+)", notes):
        if int(promised) > int(held) + HEADER_SLACK_BYTES:
            raise wav.AudioError(
                f"has a header that promises {promised} bytes where the file holds {held}: a truncated "
                "upload or a damaged header, copy the file again"
            )
    if "truncated" in notes:
        raise wav.AudioError("is truncated: copy the file again")


def _read(source: soundfile.SoundFile, max_frames: int) -> tuple[np.ndarray, float]:
    """Return mono samples, float32 [samples], and the share at full scale."""
    blocks: list[np.ndarray] = []
    frames = clipped = 0
    while len(block := source.read(BLOCK_SAMPLES // source.channels or 1, dtype="float32", always_2d=True)):
        if not np.isfinite(block).all():
            raise wav.AudioError("holds samples that are not finite numbers (NaN or infinity)")
        frames += len(block)
        if frames > max_frames:
            raise wav.AudioError(f"lasts more than the {max_frames / source.samplerate:g} s allowed")
        clipped += int(np.count_nonzero(np.abs(block) >= FULL_SCALE))
        blocks.append(wav.mono(block))
    if not frames:
        raise wav.AudioError("is empty: it holds no samples")
    if frames < MIN_SAMPLES_SHARE * source.frames:
        raise wav.AudioError(f"promises {source.frames} samples and holds {frames}: copy the file again")
    return np.concatenate(blocks), clipped / (frames * source.channels)


def check(audio: DecodedAudio, settings: Preprocess) -> DecodedAudio:
    """Return the recording if it is long, loud and clean enough.

    Raises:
        AudioError: it is too short, silent or clipped.
    """
    seconds = len(audio.samples) / SAMPLE_RATE_HZ
    if seconds < settings.min_seconds:
        raise wav.AudioError(f"lasts {seconds:.2f} s, less than {settings.min_seconds:g} s")
    loudest = frame_levels(audio.samples).max()
    if loudest < settings.silence_dbfs:
        raise wav.AudioError(f"is silent: its loudest 20 ms are at {loudest:.0f} dBFS, below {settings.silence_dbfs:g}")
    if audio.clipped > settings.max_clipped_fraction:
        raise wav.AudioError(
            f"is clipped: {audio.clipped:.1%} of its samples are at full scale or beyond, more than "
            f"{settings.max_clipped_fraction:.1%}"
        )
    return audio


def frame_levels(samples: np.ndarray) -> np.ndarray:
    """Return the RMS level of each 20 ms frame in dBFS, at least -120: [samples] -> [frames]."""
    frames = samples[: len(samples) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    return _dbfs(np.sqrt(np.mean(frames * frames, axis=1, dtype=np.float64)))


def _dbfs(amplitude: Any) -> Any:
    return 20 * np.log10(np.maximum(amplitude, 10 ** (FLOOR_DBFS / 20)))


def measure(audio: DecodedAudio) -> dict[str, Any]:
    """Return the measures of a recording.

    Background is the 10th percentile of the levels of 20 ms frames; speech is more than 10 dB above it.
    """
    levels = frame_levels(audio.samples)
    background = np.percentile(levels, 10)
    return {
        "seconds": len(audio.samples) / SAMPLE_RATE_HZ,
        "sample_rate": audio.sample_rate,
        "channels": audio.channels,
        "peak_dbfs": float(_dbfs(np.abs(audio.samples).max())),
        "rms_dbfs": float(_dbfs(np.sqrt(np.mean(np.square(audio.samples), dtype=np.float64)))),
        "background_dbfs": float(background),
        "speech_fraction": float(np.mean(levels > background + SPEECH_ABOVE_BACKGROUND_DB)),
        "clipped_fraction": audio.clipped,
    }
