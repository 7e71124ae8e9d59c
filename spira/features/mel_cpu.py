"""The mel filter bank on a CPU: power and bands of a spectrum in one pass, each band over its own bins only.

Nine in ten weights of a bank are zero, and a power spectrum made in memory only to be multiplied by them costs more
than the Fourier transform. Equals ``spectrum.abs().square() @ bank`` but for the order of the sums.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from spira.jit import compiled

Array = np.ndarray
LANES = 16
"""Weights of a band are filled up with zeros to a multiple of this: whole vector registers."""


class Bank(NamedTuple):
    """The bands' weights, end to end."""

    weights: np.ndarray  # float32 [sum of the bands' lengths], each a multiple of LANES
    ends: np.ndarray  # int64 [bands + 1], where each band's weights begin and the last one's end
    first_bins: np.ndarray  # int64 [bands], the bin of each band's first weight
    bins: int  # of a spectrum
    room: int  # bins that a band may reach, those beyond the spectrum having weight 0


def bank(filters: np.ndarray) -> Bank:
    """The bank of dense filters ``[bins, bands]``."""
    weights, first_bins = [], []
    for band in filters.T:
        (support,) = np.nonzero(band)
        first, last = (int(support[0]), int(support[-1]) + 1) if len(support) else (0, 0)
        weights.append(np.pad(band[first:last], (0, (first - last) % LANES)))
        first_bins.append(first)
    ends = np.cumsum([0, *map(len, weights)])
    room = max([len(filters), *(first + len(band) for first, band in zip(first_bins, weights, strict=True))])
    return Bank(np.concatenate(weights).astype(np.float32), ends, np.array(first_bins), len(filters), room)


@compiled
def bands(spectra: Array, bank: Bank, out: Array) -> None:
    """Power in each band, ``[N, 2 * bins] -> out [N, bands]``; a bin is its real and its imaginary part, float32."""
    power = np.zeros(bank.room, np.float32)
    for n in range(len(spectra)):
        spectrum = spectra[n]
        for k in range(bank.bins):
            power[k] = spectrum[2 * k] * spectrum[2 * k] + spectrum[2 * k + 1] * spectrum[2 * k + 1]
        for band in range(len(bank.first_bins)):
            weights = bank.weights[bank.ends[band] : bank.ends[band + 1]]
            of_band, total = power[bank.first_bins[band] :], np.float32(0)
            for k in range(len(weights) // LANES * LANES):
                total += weights[k] * of_band[k]
            out[n, band] = total
