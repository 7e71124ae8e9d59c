"""Golden recordings: synthetic signals in a package, with the probabilities that torch gives them.

They verify that the package computes what the training computed. They hold no recording of the data set: a package
is copied to wherever the model is served, and a voice is personal data. (Real voices take part in the check while a
package is built, but do not enter it: see :mod:`spira.packaging.build`.) The same settings give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy.io import wavfile
from scipy.signal import lfilter
from torch import nn

from spira.config import SAMPLE_RATE_HZ, Config
from spira.data.decoding import decode
from spira.evaluation.predict import predict_waveforms
from spira.inference.model import scaled

SEED = 2021
LISTING = "golden.json"

BACKGROUND = 1e-3
"""RMS of the noise under every signal: no room is silent, and the spectrum of silence is only rounding errors."""

Signal = Callable[[float, int, np.random.Generator], np.ndarray]
"""(seconds, rate in Hz, random numbers) -> float64 [samples]."""


def write(folder: Path, network: nn.Module, config: Config, temperature: float = 1.0) -> None:
    """Write the recordings to ``golden/``, and ``golden.json`` with one entry (file, probability) each.

    The probabilities come from the training's code: :mod:`spira.audio`, :mod:`spira.features.mfcc`, torch.
    They are calibrated by ``temperature``: code that does not know the temperature refuses the package.
    """
    (folder / "golden").mkdir(parents=True)
    entries = []
    for name, samples, rate in recordings(config):
        path = folder / "golden" / f"{name}.wav"
        wavfile.write(path, rate, samples)
        decoded = decode(path, config.preprocess, config.preprocess.max_seconds).samples
        probability = float(predict_waveforms(network, config, [decoded])[0])
        entries.append((path, scaled(probability, temperature)))
    write_listing(folder / LISTING, entries)


def write_listing(listing: Path, entries: list[tuple[Path, float]]) -> None:
    """Write (file, probability) entries as JSON; paths are relative to the listing's folder."""
    rows = [
        {"file": path.relative_to(listing.parent).as_posix(), "probability": probability}
        for path, probability in entries
    ]
    listing.write_text(json.dumps(rows, indent=1))


def recordings(config: Config) -> Iterator[tuple[str, np.ndarray, int]]:
    """Yield name, samples and rate in Hz: several windows, one, less than one; every way of decoding."""
    window = config.windows.window_seconds
    several, few, short = window + 3.3, window + 1.25, 0.6 * window
    plan: list[tuple[str, Signal, float, int, str]] = [
        ("voice-several-windows", voice, several, SAMPLE_RATE_HZ, "float"),
        ("voice-few-windows", voice, few, SAMPLE_RATE_HZ, "float"),
        ("voice-one-window", voice, window, SAMPLE_RATE_HZ, "float"),
        ("voice-short", voice, short, SAMPLE_RATE_HZ, "float"),
        ("voice-8-khz", voice, few, 8_000, "16 bit"),
        ("tone-44-khz-stereo", tone, few, 44_100, "16 bit stereo"),
        ("noise", noise, few, SAMPLE_RATE_HZ, "float"),
        ("near-silence", near_silence, few, SAMPLE_RATE_HZ, "float"),
    ]
    for number, (name, signal, seconds, rate, encoding) in enumerate(plan):
        random = np.random.default_rng([SEED, number])
        yield name, encode(signal(allowed(seconds, config), rate, random), encoding), rate


def allowed(seconds: float, config: Config) -> float:
    """Return the nearest duration that the settings accept."""
    refuses_short = config.windows.mode == "windows" and config.windows.short_files == "refuse"
    min_seconds = config.windows.window_seconds + 0.25 if refuses_short else config.preprocess.min_seconds
    return min(max(seconds, min_seconds), config.preprocess.max_seconds)


def encode(samples: np.ndarray, encoding: str) -> np.ndarray:
    """Return samples in [-1, 1] as the WAV file holds them: float32 or int16, [samples] or [samples, 2]."""
    if encoding == "float":
        return samples.astype(np.float32)
    integers = np.round(samples * 32767).astype(np.int16)
    return np.stack([integers, integers // 2], axis=1) if encoding == "16 bit stereo" else integers


def voice(seconds: float, rate: int, random: np.random.Generator) -> np.ndarray:
    """Return pulses of varying pitch through three formants, in syllables and breath groups."""
    time = np.arange(round(seconds * rate)) / rate
    pitch_hz = random.uniform(90, 220) * (1 + 0.1 * np.sin(2 * np.pi * 0.4 * time + random.uniform(0, 6)))
    sound = 2 * (np.cumsum(pitch_hz / rate) % 1) - 1 + 0.1 * random.standard_normal(len(time))
    for formant_hz, width_hz in ((random.uniform(400, 800), 80), (random.uniform(1000, 1900), 120), (2600, 200)):
        radius = np.exp(-np.pi * width_hz / rate)
        sound = lfilter([1 - radius], [1, -2 * radius * np.cos(2 * np.pi * formant_hz / rate), radius**2], sound)
    syllables = np.clip(np.sin(2 * np.pi * random.uniform(3, 5) * time), 0, 1)
    breath_groups = np.sin(2 * np.pi * random.uniform(0.25, 0.5) * time + 0.5) > -0.5
    return over_background(sound * syllables * breath_groups, 0.6, random)


def tone(seconds: float, rate: int, random: np.random.Generator) -> np.ndarray:
    """Return a tone that rises from 200 to 2000 Hz, modulated in amplitude at 3 Hz."""
    time = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * (200 * time + 900 * time**2 / seconds)
    return over_background(np.sin(phase) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time)), 0.4, random)


def noise(seconds: float, rate: int, random: np.random.Generator) -> np.ndarray:
    """Return white noise."""
    return over_background(random.standard_normal(round(seconds * rate)), 0.5, random)


def near_silence(seconds: float, rate: int, random: np.random.Generator) -> np.ndarray:
    """Return the sound of an empty room: low-pass noise with a peak of -40 dBFS."""
    return over_background(lfilter([0.1], [1, -0.9], random.standard_normal(round(seconds * rate))), 0.01, random)


def over_background(sound: np.ndarray, peak: float, random: np.random.Generator) -> np.ndarray:
    """Return the sound scaled to a peak, with background noise added."""
    return sound * (peak / np.abs(sound).max()) + BACKGROUND * random.standard_normal(len(sound))
