"""Sparse mel filters equal the dense product for any filters."""

from __future__ import annotations

import numpy as np
import pytest
import torchaudio.functional as AF

from spira.features import mel_cpu

RNG = np.random.default_rng(0)
MEL = AF.melscale_fbanks(601, 0.0, 8_000.0, 40, 16_000).numpy()


def mel_power(spectra: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """Return the power in each band of complex spectra, ``[N, bins] -> [N, bands]``."""
    out = np.full((len(spectra), filters.shape[1]), np.nan, np.float32)
    parts = spectra.astype(np.complex64).view(np.float32)  # [N, 2 * bins]
    mel_cpu.mel_power(parts, mel_cpu.sparse_filters(filters), out)
    return out


@pytest.mark.parametrize(
    "filters",
    [
        MEL,
        RNG.random((37, 5)).astype(np.float32),  # dense, not a multiple of the lanes
        np.eye(33, dtype=np.float32)[:, [32, 0, 7]],  # a band with only the last bin
        np.zeros((20, 2), np.float32),  # empty bands
    ],
)
def test_mel_power_equals_the_dense_product(filters: np.ndarray) -> None:
    """It equals ``|spectrum|^2 @ filters`` to the rounding of float32."""
    spectra = RNG.standard_normal((9, len(filters), 2)) @ np.array([1, 1j])
    expected = np.abs(spectra) ** 2 @ filters.astype(float)
    np.testing.assert_allclose(mel_power(spectra, filters), expected, rtol=2e-6, atol=1e-6)


def test_a_weak_band_beside_a_strong_one_is_exact() -> None:
    """A band sums its own bins only: a neighbour 120 dB above it does not leak in."""
    spectra = np.full((1, 601), 1e-6, complex)
    spectra[:, 300:] = 1.0
    quiet = np.flatnonzero(MEL[300:].sum(axis=0) == 0)
    np.testing.assert_allclose(mel_power(spectra, MEL)[:, quiet], 1e-12 * MEL[:, quiet].sum(axis=0)[None], rtol=1e-5)


def test_nan_is_propagated() -> None:
    """A damaged frame is not taken for silence, and its neighbours stay finite."""
    spectra = np.ones((3, 601), complex)
    spectra[1, 100] = np.nan
    power = mel_power(spectra, MEL)
    assert np.isnan(power[1]).any()
    assert np.isfinite(power[[0, 2]]).all()
