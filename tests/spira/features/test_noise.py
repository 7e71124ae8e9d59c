"""Inserted noise: its number, level and source; it depends on its random generator alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spira.config import Noise
from spira.errors import SpiraError
from spira.features.noise import insert, noise_count

NOISES = [np.random.default_rng(number).normal(0, 0.05, 4_000).astype(np.float32) for number in range(3)]
seeds = st.integers(0, 2**32 - 1)


@given(seed=seeds, samples=st.integers(100, 4_000))
def test_a_noise_is_a_slice_of_one_recording_scaled_to_the_range(seed: int, samples: int) -> None:
    """In silence, one noise is a slice of a noise recording times a gain, and its maximum is within the range."""
    added = insert(np.zeros(samples, np.float32), NOISES, 1, Noise(), np.random.default_rng(seed))
    assert added.shape == (samples,)
    assert added.dtype == np.float32
    assert Noise().min_peak * 0.999 <= added.max() <= Noise().max_peak * 1.001
    assert any(is_scaled_slice(added, noise) for noise in NOISES)


def is_scaled_slice(piece: np.ndarray, noise: np.ndarray) -> bool:
    """Return whether ``piece`` [S] is a gain times a slice of ``noise``."""
    slices = np.lib.stride_tricks.sliding_window_view(noise, len(piece))  # [starts, S]
    loudest = int(np.abs(piece).argmax())
    gains = piece[loudest] / slices[:, loudest]  # [starts]
    return bool(np.isclose(slices * gains[:, None], piece, rtol=1e-4, atol=1e-7).all(axis=1).any())


@given(seed=seeds, count=st.integers(0, 7))
def test_noises_are_added_one_after_another_from_the_same_generator(seed: int, count: int) -> None:
    """k noises equal k times one noise: no other number is drawn, and the sum is not rescaled."""
    waveform = np.linspace(-1, 1, 1_000, dtype=np.float32)
    together = insert(waveform, NOISES, count, Noise(), np.random.default_rng(seed))
    rng, one_by_one = np.random.default_rng(seed), waveform
    for _ in range(count):
        one_by_one = insert(one_by_one, NOISES, 1, Noise(), rng)
    np.testing.assert_array_equal(together, one_by_one)


def test_no_noise_changes_nothing() -> None:
    """A count of 0 gives a copy of the waveform."""
    waveform = np.linspace(-1, 1, 100, dtype=np.float32)
    clean = insert(waveform, NOISES, 0, Noise(), np.random.default_rng(0))
    np.testing.assert_array_equal(clean, waveform)
    assert not np.shares_memory(clean, waveform)


def test_the_waveform_is_not_changed() -> None:
    """The corpus is mapped read-only, so noise is added to a copy."""
    waveform = np.zeros(1_000, np.float32)
    waveform.flags.writeable = False
    assert insert(waveform, NOISES, 3, Noise(), np.random.default_rng(0)).any()
    assert not waveform.any()


def test_noise_follows_from_the_random_generator() -> None:
    """Equal generators give equal noise, others other noise."""
    waveform = np.zeros(1_000, np.float32)
    first, again, other = (insert(waveform, NOISES, 2, Noise(), np.random.default_rng(s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_peaks_are_uniform_over_the_whole_range() -> None:
    """Mean and standard deviation of many maxima are those of a uniform variable."""
    noise = Noise(min_peak=0.1, max_peak=0.5)
    rng = np.random.default_rng(0)
    peaks = [insert(np.zeros(500, np.float32), NOISES, 1, noise, rng).max() for _ in range(1_000)]
    assert np.mean(peaks) == pytest.approx(0.3, abs=0.015)
    assert np.std(peaks) == pytest.approx(0.4 / 12**0.5, abs=0.01)


def test_every_recording_and_every_start_is_drawn() -> None:
    """Slices are taken from all noise recordings, from the first sample to the last."""
    noises = [np.arange(1, 6, dtype=np.float32), np.arange(11, 16, dtype=np.float32)]
    noise = Noise(min_peak=1, max_peak=1)
    rng = np.random.default_rng(0)
    first_over_last = {
        round(float(piece[0] / piece[-1]), 4)
        for piece in (insert(np.zeros(2, np.float32), noises, 1, noise, rng) for _ in range(200))
    }
    assert first_over_last == {round(a / (a + 1), 4) for a in (1, 2, 3, 4, 11, 12, 13, 14)}


@settings(max_examples=30)
@given(level=st.sampled_from([0.0, 1e-45, 1e-38, 1e-12, -0.5]))
def test_a_silent_slice_stays_silent(level: float) -> None:
    """A slice without a sample above 0 is added unscaled, without infinity or NaN."""
    noises = [np.full(2_000, level, np.float32)]
    added = insert(np.zeros(1_000, np.float32), noises, 1, Noise(), np.random.default_rng(0))
    np.testing.assert_array_equal(added, noises[0][:1_000])


def test_a_noise_shorter_than_the_utterance_is_refused() -> None:
    """The message gives both lengths."""
    with pytest.raises(SpiraError, match="noise of 4000 samples is shorter than an utterance of 4001"):
        insert(np.zeros(4_001, np.float32), NOISES, 1, Noise(), np.random.default_rng(0))


def test_a_class_has_its_own_number_of_noises() -> None:
    """0 is control, 1 patient."""
    assert (noise_count(0, 4, 3), noise_count(1, 4, 3)) == (4, 3)
