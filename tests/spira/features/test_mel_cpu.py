"""The sparse filter bank equals the dense product, whatever the filters."""

from __future__ import annotations

import numpy as np
import pytest
import torchaudio.functional as AF

from spira.features import mel_cpu

RNG = np.random.default_rng(0)
MEL = AF.melscale_fbanks(601, 0.0, 8_000.0, 40, 16_000).numpy()


def bands(spectra: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """Power in each band of complex spectra ``[N, bins]``, ``[N, bands]``."""
    out = np.full((len(spectra), filters.shape[1]), np.nan, np.float32)
    parts = spectra.astype(np.complex64).view(np.float32)  # [N, 2 * bins]
    mel_cpu.bands(parts, mel_cpu.bank(filters), out)
    return out


@pytest.mark.parametrize(
    "filters",
    [
        MEL,
        RNG.random((37, 5)).astype(np.float32),  # dense, no multiple of the lanes
        np.eye(33, dtype=np.float32)[:, [32, 0, 7]],  # a band of the last bin alone
        np.zeros((20, 2), np.float32),  # bands of nothing
    ],
)
def test_bands_are_the_dense_product(filters: np.ndarray) -> None:
    """``|spectrum|^2 @ filters``, to the rounding of float32."""
    spectra = RNG.standard_normal((9, len(filters), 2)) @ np.array([1, 1j])
    expected = np.abs(spectra) ** 2 @ filters.astype(float)
    np.testing.assert_allclose(bands(spectra, filters), expected, rtol=2e-6, atol=1e-6)


def test_a_weak_band_beside_a_strong_one_is_exact() -> None:
    """No band sums bins that are not its own: 120 dB below a neighbour nothing of it is heard."""
    spectra = np.full((1, 601), 1e-6, complex)
    spectra[:, 300:] = 1.0
    quiet = np.flatnonzero(MEL[300:].sum(axis=0) == 0)
    np.testing.assert_allclose(bands(spectra, MEL)[:, quiet], 1e-12 * MEL[:, quiet].sum(axis=0)[None], rtol=1e-5)


def test_not_a_number_stays_so() -> None:
    """A damaged frame doesn't pass for silence, and its neighbours stay whole."""
    spectra = np.ones((3, 601), complex)
    spectra[1, 100] = np.nan
    found = bands(spectra, MEL)
    assert np.isnan(found[1]).any()
    assert np.isfinite(found[[0, 2]]).all()
