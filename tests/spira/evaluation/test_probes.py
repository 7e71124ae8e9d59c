"""The background probe keeps the room and loses the voice."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from spira.evaluation import probes

RATE = 16_000


def test_speech_is_gone_and_the_room_stays() -> None:
    """A loud tone over quiet noise leaves the noise's level."""
    rng = np.random.default_rng(0)
    room = rng.normal(0, 0.01, 5 * RATE)
    voiced = room.copy()
    voiced[RATE : 3 * RATE] += np.sin(np.arange(2 * RATE))
    background = probes.background(voiced.astype(np.float32))
    assert np.abs(background).max() < 0.06
    assert 0.008 < background.std() < 0.012


def test_the_quietest_stretch_is_found_wherever_it_lies() -> None:
    """A second of near silence in the middle of noise is what is repeated."""
    waveform = np.random.default_rng(1).normal(0, 0.1, 4 * RATE)
    waveform[2 * RATE : 3 * RATE] *= 0.01
    assert probes.quietest(waveform).std() < 0.002


@given(samples=st.integers(1, 3 * RATE))
def test_the_length_is_kept(samples: int) -> None:
    """Also for a recording shorter than the stretch."""
    waveform = np.linspace(-1, 1, samples, dtype=np.float32)
    assert probes.background(waveform).shape == (samples,)
