"""Windows as the paper cuts them, and the treatment of files too short for one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spira.config import Windows
from spira.errors import SpiraError
from spira.features.windows import cut, step_samples, window_count, window_samples

SECOND = 16_000


@given(samples=st.integers(0, 300_000), window=st.integers(1, 100_000), step=st.integers(160, 50_000))
def test_windows_start_while_start_plus_window_is_less_than_the_length(samples: int, window: int, step: int) -> None:
    """The starts are those of the paper's loop with its exclusive bound; one padded window if the loop has none."""
    windows = Windows(window_seconds=window / SECOND, step_seconds=step / SECOND)
    starts = []
    start = 0
    while start + window < samples:
        starts.append(start)
        start += step
    waveform = torch.arange(samples, dtype=torch.float32)
    pieces = cut(waveform, windows)
    assert window_count(samples, windows) == len(pieces) == max(1, len(starts))
    assert pieces.shape[1] == window
    for piece, start in zip(pieces, starts, strict=False):
        assert torch.equal(piece, waveform[start : start + window])


@pytest.mark.parametrize(
    ("samples", "number"),
    [(64_001, 1), (80_000, 1), (80_001, 2), (96_000, 2), (96_001, 3), (12 * SECOND, 8)],
)
def test_a_file_has_the_papers_number_of_windows(samples: int, number: int) -> None:
    """4 s windows every 1 s: one sample more than a whole number of steps gives one more window."""
    assert window_count(samples, Windows()) == number


@pytest.mark.parametrize("samples", [0, 1, 63_999, 64_000])
def test_a_file_not_longer_than_a_window_is_padded_to_one(samples: int) -> None:
    """Exactly 4 s has no window by the paper's rule; it and shorter files are zero-padded at the end."""
    waveform = torch.ones(samples)
    (piece,) = cut(waveform, Windows())
    assert torch.equal(piece, torch.cat([waveform, torch.zeros(64_000 - samples)]))


@pytest.mark.parametrize("samples", [0, 63_999, 64_000])
def test_a_file_not_longer_than_a_window_is_refused_if_configured(samples: int) -> None:
    """``short_files=refuse`` is the paper's own behaviour; the message has both lengths and the remedy."""
    with pytest.raises(SpiraError, match=rf"{samples / SECOND:.2f} s has no window of 4.0 s.*short_files=pad"):
        cut(torch.ones(samples), Windows(short_files="refuse"))


@given(samples=st.integers(0, 100_000))
def test_whole_files_are_padded_or_cut_to_one_window(samples: int) -> None:
    """Mode ``whole`` gives one window of ``window_seconds`` from the start, for files of any length."""
    windows = Windows(mode="whole", window_seconds=3.0, short_files="refuse")
    waveform = torch.arange(1, samples + 1, dtype=torch.float32)
    (piece,) = cut(waveform, windows)
    length = min(samples, 48_000)
    assert len(piece) == 48_000
    assert torch.equal(piece[:length], waveform[:length])
    assert not piece[length:].any()


def test_windows_are_views_unless_padded() -> None:
    """Windows overlap in memory, so many windows cost no more than the recording."""
    waveform = torch.zeros(10 * SECOND)
    waveform[5 * SECOND] = 1
    pieces = cut(waveform, Windows())
    waveform[5 * SECOND] = 2
    assert pieces.max() == 2


def test_seconds_become_the_nearest_sample() -> None:
    """Lengths are rounded to whole samples at 16 kHz."""
    windows = Windows(window_seconds=1.00004, step_seconds=0.33333)
    assert (window_samples(windows), step_samples(windows)) == (16_001, 5_333)
