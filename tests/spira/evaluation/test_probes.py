"""The background probe keeps the room and removes the voice."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from spira.evaluation import probes

RATE = 16_000


def test_speech_is_removed_and_the_room_remains() -> None:
    """Of a loud tone over quiet noise, the level of the noise remains."""
    rng = np.random.default_rng(0)
    room = rng.normal(0, 0.01, 5 * RATE)
    voiced = room.copy()
    voiced[RATE : 3 * RATE] += np.sin(np.arange(2 * RATE))
    background = probes.background(voiced.astype(np.float32))
    assert np.abs(background).max() < 0.06
    assert 0.008 < background.std() < 0.012


def test_the_quietest_segment_is_found_at_any_position() -> None:
    """A second of near silence in the middle of noise is repeated."""
    waveform = np.random.default_rng(1).normal(0, 0.1, 4 * RATE)
    waveform[2 * RATE : 3 * RATE] *= 0.01
    assert probes.quietest(waveform).std() < 0.002


@given(samples=st.integers(1, 3 * RATE))
def test_the_length_is_kept(samples: int) -> None:
    """The length is kept even if the recording is shorter than the segment."""
    waveform = np.linspace(-1, 1, samples, dtype=np.float32)
    assert probes.background(waveform).shape == (samples,)
