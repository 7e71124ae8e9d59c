"""One recording: decoded block by block to 16 kHz mono, refused where it is bad, and measured.

What is wrong with it is an :class:`spira.inference.wav.AudioError` whose message follows the file's name.
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
FULL_SCALE = 0.999
FLOOR_DBFS = -120.0
SPEECH_ABOVE_BACKGROUND_DB = 10.0


@dataclass(frozen=True)
class Take:
    """One decoded recording."""

    samples: np.ndarray
    """float32 [samples], 16 kHz mono."""
    sample_rate: int
    """Hz, as it was recorded."""
    channels: int
    clipped: float
    """Share of the samples, over all channels, at full scale."""


def decode(file: Path, settings: Preprocess, max_seconds: float) -> Take:
    """Read an audio file of any format libsndfile knows, block by block, and resample it.

    Raises:
        AudioError: what is wrong with it, to follow the file's name in a message.
    """
    if not file.stat().st_size:
        raise wav.AudioError("is empty: 0 bytes")
    try:
        with soundfile.SoundFile(file) as source:
            _refuse_header(source, settings, max_seconds)
            samples, clipped = _read(source, int(max_seconds * source.samplerate))
            rate, channels = source.samplerate, source.channels
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: headerless formats (.raw)
        raise wav.AudioError(f"can't be decoded: {error}") from error
    return Take(wav.resample(samples, rate, SAMPLE_RATE_HZ), rate, channels, clipped)


def _refuse_header(source: soundfile.SoundFile, settings: Preprocess, max_seconds: float) -> None:
    """Refuse by what the header says, before anything is allocated for it."""
    low, high = settings.min_sample_rate_hz, settings.max_sample_rate_hz
    if not low <= source.samplerate <= high:
        raise wav.AudioError(f"has a sample rate of {source.samplerate} Hz, outside {low} to {high} Hz")
    _refuse_promise(source.extra_info)
    if source.frames > max_seconds * source.samplerate:
        seconds = source.frames / source.samplerate
        raise wav.AudioError(f"lasts {seconds:.1f} s, more than the {max_seconds:g} s allowed")


def _refuse_promise(log: str) -> None:
    """Refuse a header that promises more than the file holds, which libsndfile only notes in its log.

    Some programs write a RIFF size a few bytes too large, hence the slack.
    """
    said = log.partition("\n")[2]  # the first line is the file's own path
    for promised, held in re.findall(r"(\d+) \(?should be (\d+)", said):
        if int(promised) > int(held) + 64:
            raise wav.AudioError(
                f"has a header that promises {promised} bytes where the file holds {held}: a truncated "
                "upload or a damaged header, copy the file again"
            )
    if "truncated" in said:
        raise wav.AudioError("is truncated: copy the file again")


def _read(source: soundfile.SoundFile, limit: int) -> tuple[np.ndarray, float]:
    """Mono samples, float32 [samples], and the share at full scale."""
    blocks: list[np.ndarray] = []
    frames = clipped = 0
    while len(block := source.read(BLOCK_SAMPLES // source.channels or 1, dtype="float32", always_2d=True)):
        if not np.isfinite(block).all():
            raise wav.AudioError("holds samples that are not finite numbers (NaN or infinity)")
        frames += len(block)
        if frames > limit:
            raise wav.AudioError(f"lasts more than the {limit / source.samplerate:g} s allowed")
        clipped += int(np.count_nonzero(np.abs(block) >= FULL_SCALE))
        blocks.append(wav.mono(block))
    if not frames:
        raise wav.AudioError("is empty: it holds no samples")
    if frames < 0.99 * source.frames:
        raise wav.AudioError(f"promises {source.frames} samples and holds {frames}: copy the file again")
    return np.concatenate(blocks), clipped / (frames * source.channels)


def check(take: Take, settings: Preprocess) -> Take:
    """The recording itself, if it is long, loud and clean enough.

    Raises:
        AudioError: which rule it breaks, to follow the file's name in a message.
    """
    seconds = len(take.samples) / SAMPLE_RATE_HZ
    if seconds < settings.min_seconds:
        raise wav.AudioError(f"lasts {seconds:.2f} s, less than {settings.min_seconds:g} s")
    loudest = frame_levels(take.samples).max()
    if loudest < settings.silence_dbfs:
        raise wav.AudioError(f"is silent: its loudest 20 ms are at {loudest:.0f} dBFS, below {settings.silence_dbfs:g}")
    if take.clipped > settings.max_clipped_fraction:
        raise wav.AudioError(
            f"is clipped: {take.clipped:.1%} of its samples are at full scale or beyond, more than "
            f"{settings.max_clipped_fraction:.1%}"
        )
    return take


def frame_levels(samples: np.ndarray) -> np.ndarray:
    """RMS level of each 20 ms frame in dBFS: [samples] -> [frames], not below -120."""
    frames = samples[: len(samples) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    return _dbfs(np.sqrt(np.mean(frames * frames, axis=1, dtype=np.float64)))


def _dbfs(amplitude: Any) -> Any:
    return 20 * np.log10(np.maximum(amplitude, 10 ** (FLOOR_DBFS / 20)))


def measure(take: Take) -> dict[str, Any]:
    """Describe a recording; background is the 10th percentile of the 20 ms frames, speech 10 dB above it."""
    levels = frame_levels(take.samples)
    background = np.percentile(levels, 10)
    return {
        "seconds": len(take.samples) / SAMPLE_RATE_HZ,
        "sample_rate": take.sample_rate,
        "channels": take.channels,
        "peak_dbfs": float(_dbfs(np.abs(take.samples).max())),
        "rms_dbfs": float(_dbfs(np.sqrt(np.mean(np.square(take.samples), dtype=np.float64)))),
        "background_dbfs": float(background),
        "speech_fraction": float(np.mean(levels > background + SPEECH_ABOVE_BACKGROUND_DB)),
        "clipped_fraction": take.clipped,
    }
