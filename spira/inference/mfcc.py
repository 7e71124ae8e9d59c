"""MFCC of windows with torchaudio's definitions, in numpy; the twin of :mod:`spira.features.mfcc`.

The paper cuts first and computes each window's features alone: the waveform's edge is reflected at the window's
ends, and the floor lies ``top_db`` below the window's own peak. In float64, so that what differs from training
is training's rounding alone.
"""

from __future__ import annotations

from typing import Any, Mapping

import numpy as np
import scipy.fft

from .windows import SAMPLE_RATE_HZ

AMIN = 1e-10
"""Powers below this are raised to it before the logarithm (torchaudio)."""


class Mfcc:
    """MFCC by the sizes of a package's ``features`` settings; holds constants only, so threads may share it."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.n_fft = settings["n_fft"]
        self.win_length = settings["win_length"]
        self.hop_length = settings["hop_length"]
        self.top_db = settings["top_db"]
        self.hann = hann(self.win_length)  # [win_length]
        self.mel = mel_filters(self.n_fft // 2 + 1, settings["n_mels"])  # [bins, n_mels]
        self.dct = dct(settings["n_mfcc"], settings["n_mels"])  # [n_mels, n_mfcc]

    def __call__(self, window: np.ndarray) -> np.ndarray:
        """Float [window_samples] -> float64 [frames, n_mfcc]."""
        half = self.win_length // 2
        padded = np.pad(window.astype(np.float64), half, mode="reflect")  # [samples + win_length]
        frames = np.lib.stride_tricks.sliding_window_view(padded, self.win_length)[:: self.hop_length]
        spectrum = scipy.fft.rfft(frames * self.hann, n=self.n_fft)  # [frames, bins]
        power = np.square(spectrum.real) + np.square(spectrum.imag)
        db = 10.0 * np.log10(np.maximum(power @ self.mel, AMIN))  # [frames, n_mels]
        return np.maximum(db, db.max() - self.top_db) @ self.dct  # [frames, n_mfcc]


def hann(length: int) -> np.ndarray:
    """Periodic Hann window, [length]."""
    return 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(length) / length)


def mel_filters(bins: int, n_mels: int) -> np.ndarray:
    """Triangles of equal width on the HTK mel scale from 0 to 8000 Hz, not normalised: [bins, n_mels]."""
    top_mel = 2595.0 * np.log10(1.0 + SAMPLE_RATE_HZ / 2 / 700.0)
    corners = 700.0 * (10.0 ** (np.linspace(0.0, top_mel, n_mels + 2) / 2595.0) - 1.0)  # Hz, [n_mels + 2]
    hertz = np.linspace(0.0, SAMPLE_RATE_HZ / 2, bins)[:, None]  # [bins, 1]
    width = np.diff(corners)
    rising = (hertz - corners[:-2]) / width[:-1]  # [bins, n_mels]
    falling = (corners[2:] - hertz) / width[1:]
    return np.maximum(0.0, np.minimum(rising, falling))


def dct(n_mfcc: int, n_mels: int) -> np.ndarray:
    """Orthonormal DCT-II as a matrix to multiply from the right: [n_mels, n_mfcc].

    The angles are rounded as torchaudio rounds them, to float32: the network was trained on these cosines, and they
    differ from the true ones by more than all else here.
    """
    band = np.arange(n_mels, dtype=np.float32)[:, None]
    angle = np.float32(np.pi / n_mels) * (band + np.float32(0.5)) * np.arange(n_mfcc, dtype=np.float32)
    matrix = np.cos(angle.astype(np.float64)) * np.sqrt(2.0 / n_mels)
    matrix[:, 0] *= np.sqrt(0.5)
    return matrix
