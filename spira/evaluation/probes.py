"""Changed recordings that show which property a network uses.

The background probe removes the speech and keeps the room. A network that still separates the classes has learnt
the room, not the illness.
"""

from __future__ import annotations

import numpy as np

from spira.config import SAMPLE_RATE_HZ

QUIET_SECONDS = 0.3
"""Length of the segment that represents the background: shorter than a pause between breath groups."""

HOP_SECONDS = 0.02
"""Step of the search for the quietest segment."""


def background(waveform: np.ndarray) -> np.ndarray:
    """Return the quietest 0.3 s of a recording, repeated forwards and backwards to its length, ``[samples]``.

    A recording shorter than 0.3 s is mirrored whole.
    """
    quiet = quietest(waveform)
    mirrored = np.concatenate([quiet, quiet[::-1]])  # mirroring leaves no clicks at the joints
    return np.resize(mirrored, len(waveform)).astype(np.float32)


def quietest(waveform: np.ndarray) -> np.ndarray:
    """Return the 0.3 s with the least energy, searched in steps of 20 ms."""
    length = min(round(QUIET_SECONDS * SAMPLE_RATE_HZ), len(waveform))
    energy = np.concatenate([[0.0], np.cumsum(waveform.astype(np.float64) ** 2)])
    starts = np.arange(0, len(waveform) - length + 1, round(HOP_SECONDS * SAMPLE_RATE_HZ))
    start = starts[np.argmin(energy[starts + length] - energy[starts])]
    return waveform[start : start + length]
