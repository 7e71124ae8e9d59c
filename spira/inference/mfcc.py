"""MFCC of one window with torchaudio's definitions, in numpy; the twin of :mod:`spira.features.mfcc`.

As in the paper, each window is computed on its own: the waveform is reflected at the window's edges, and the floor is
``top_db`` below the window's own peak. Computed in float64, so that the only difference from training is the rounding
of training itself.
"""

from __future__ import annotations

from typing import Any, Mapping

import numpy as np
import scipy.fft

from .windows import SAMPLE_RATE_HZ

AMIN = 1e-10
"""Smallest power; smaller powers are raised to it before the logarithm, as in torchaudio."""


class Mfcc:
    """MFCC for one set of feature settings. It holds constants only, so threads can share it.

    Args:
        features: the ``features`` settings of a package.
    """

    def __init__(self, features: Mapping[str, Any]) -> None:
        self.n_fft = features["n_fft"]
        self.win_length = features["win_length"]
        self.hop_length = features["hop_length"]
        self.top_db = features["top_db"]
        self.hann = hann(self.win_length)  # [win_length]
        self.mel = mel_filters(self.n_fft // 2 + 1, features["n_mels"])  # [bins, n_mels]
        self.dct = dct(features["n_mfcc"], features["n_mels"])  # [n_mels, n_mfcc]

    def __call__(self, window: np.ndarray) -> np.ndarray:
        """Return the MFCC of a window, float [window_samples] -> float64 [T, n_mfcc]."""
        half = self.win_length // 2
        padded = np.pad(window.astype(np.float64), half, mode="reflect")  # [samples + win_length]
        frames = np.lib.stride_tricks.sliding_window_view(padded, self.win_length)[:: self.hop_length]
        return self._cepstrum(self._mel_db(frames))

    def _mel_db(self, frames: np.ndarray) -> np.ndarray:
        """Return the log mel power of frames in dB, not floored, ``[T, win_length] -> [T, n_mels]``."""
        spectrum = scipy.fft.rfft(frames * self.hann, n=self.n_fft)  # [T, bins]
        power = np.square(spectrum.real) + np.square(spectrum.imag)
        return 10.0 * np.log10(np.maximum(power @ self.mel, AMIN))

    def _cepstrum(self, db: np.ndarray) -> np.ndarray:
        """Floor a window at ``top_db`` below its peak and take the DCT, ``[T, n_mels] -> [T, n_mfcc]``."""
        return np.maximum(db, db.max() - self.top_db) @ self.dct


def hann(length: int) -> np.ndarray:
    """Return the periodic Hann window, [length]."""
    return 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(length) / length)


def mel_filters(bins: int, n_mels: int) -> np.ndarray:
    """Return triangles of equal width on the HTK mel scale from 0 to 8000 Hz, not normalised: [bins, n_mels]."""
    top_mel = 2595.0 * np.log10(1.0 + SAMPLE_RATE_HZ / 2 / 700.0)
    corners = 700.0 * (10.0 ** (np.linspace(0.0, top_mel, n_mels + 2) / 2595.0) - 1.0)  # Hz, [n_mels + 2]
    hertz = np.linspace(0.0, SAMPLE_RATE_HZ / 2, bins)[:, None]  # [bins, 1]
    width = np.diff(corners)
    rising = (hertz - corners[:-2]) / width[:-1]  # [bins, n_mels]
    falling = (corners[2:] - hertz) / width[1:]
    return np.maximum(0.0, np.minimum(rising, falling))


def dct(n_mfcc: int, n_mels: int) -> np.ndarray:
    """Return the orthonormal DCT-II as a matrix to multiply from the right: [n_mels, n_mfcc]."""
    band = np.arange(n_mels, dtype=np.float32)[:, None]
    # The angles are rounded to float32, as in torchaudio: the network was trained on these cosines. They differ from
    # the exact ones by more than all other roundings here.
    angle = np.float32(np.pi / n_mels) * (band + np.float32(0.5)) * np.arange(n_mfcc, dtype=np.float32)
    matrix = np.cos(angle.astype(np.float64)) * np.sqrt(2.0 / n_mels)
    matrix[:, 0] *= np.sqrt(0.5)
    return matrix
