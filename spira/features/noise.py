"""Inserting ward noise into recordings, so that the ward is not evidence for a class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spira.config import Noise
from spira.errors import SpiraError
from spira.jit import jit

SILENT_PEAK = 1e-6
"""Maximum below which a slice holds no noise to scale: -120 dB re full scale."""


def insert(
    waveform: np.ndarray, noises: Sequence[np.ndarray], count: int, noise: Noise, rng: np.random.Generator
) -> np.ndarray:
    """Add ``count`` random slices of random noises, each as long as the waveform (Casanova and others, 2021).

    A slice is scaled so that its maximum is uniform between ``min_peak`` and ``max_peak``.

    Args:
        waveform: ``[samples]``, 16 kHz in [-1, 1]; not changed.
        noises: noise recordings, each at least as long as the waveform.
        rng: source of all randomness.

    Returns:
        ``[samples]`` float32; it may exceed [-1, 1], as in the paper.
    """
    mixed = waveform.astype(np.float32, copy=True)
    for _ in range(count):
        piece, gain = _slice(noises[int(rng.integers(len(noises)))], len(waveform), noise, rng)
        _add(mixed, piece, gain)
    return mixed


@jit
def _add(mixed: np.ndarray, piece: np.ndarray, gain: np.float32) -> None:
    for i in range(len(mixed)):
        mixed[i] += gain * piece[i]


def _slice(
    recording: np.ndarray, samples: int, noise: Noise, rng: np.random.Generator
) -> tuple[np.ndarray, np.float32]:
    """Return a random slice, float32 [samples], and the gain that scales its maximum to a random target."""
    room = len(recording) - samples
    if room < 0:
        raise SpiraError(f"a noise of {len(recording)} samples is shorter than an utterance of {samples}")
    start = rng.integers(room + 1)
    piece = recording[start : start + samples]  # [samples]
    peak = piece.max()
    target = rng.uniform(noise.min_peak, noise.max_peak)
    return piece, np.float32(target / peak if peak > SILENT_PEAK else 1)  # a silent slice stays silent


def noise_count(label: int, controls: int, patients: int) -> int:
    """Return the number of noises for a recording of this class (0 control, 1 patient)."""
    return patients if label else controls
