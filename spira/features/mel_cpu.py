"""Mel power on a CPU: power and mel bands of a spectrum in one pass, each band over its own bins only.

Nine in ten weights of a mel filter are zero. A power spectrum in memory that is only multiplied by them costs more
than the Fourier transform. Equals ``spectrum.abs().square() @ filters`` but for the order of the sums.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from spira.jit import jit

Array = np.ndarray
LANES = 16
"""The weights of a band are zero-padded to a multiple of this: whole vector registers."""


class SparseFilters(NamedTuple):
    """Weights of the mel bands, end to end, without their zeros."""

    weights: np.ndarray  # float32 [sum of the bands' lengths], each a multiple of LANES
    ends: np.ndarray  # int64 [bands + 1], offset of each band's first weight, and of the end
    first_bins: np.ndarray  # int64 [bands], the bin of each band's first weight
    bins: int  # of a spectrum
    padded_bins: int  # bins that a band may reach; those beyond the spectrum have weight 0


def sparse_filters(filters: np.ndarray) -> SparseFilters:
    """Return the sparse form of dense filters ``[bins, bands]``."""
    weights, first_bins = [], []
    for band in filters.T:
        (support,) = np.nonzero(band)
        first, last = (int(support[0]), int(support[-1]) + 1) if len(support) else (0, 0)
        weights.append(np.pad(band[first:last], (0, (first - last) % LANES)))
        first_bins.append(first)
    ends = np.cumsum([0, *map(len, weights)])
    padded_bins = max([len(filters), *(first + len(band) for first, band in zip(first_bins, weights, strict=True))])
    return SparseFilters(
        np.concatenate(weights).astype(np.float32), ends, np.array(first_bins), len(filters), padded_bins
    )


@jit
def mel_power(spectra: Array, filters: SparseFilters, out: Array) -> None:
    """Write the power in each band, ``[N, 2 * bins] -> out [N, bands]``; a bin is real and imaginary part, float32."""
    power = np.zeros(filters.padded_bins, np.float32)
    for n in range(len(spectra)):
        spectrum = spectra[n]
        for k in range(filters.bins):
            power[k] = spectrum[2 * k] * spectrum[2 * k] + spectrum[2 * k + 1] * spectrum[2 * k + 1]
        for band in range(len(filters.first_bins)):
            weights = filters.weights[filters.ends[band] : filters.ends[band + 1]]
            band_power, total = power[filters.first_bins[band] :], np.float32(0)
            for k in range(len(weights) // LANES * LANES):
                total += weights[k] * band_power[k]
            out[n, band] = total
