"""Tests of the features and windows of a package against those of training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchaudio.functional as AF
from hypothesis import given, settings
from hypothesis import strategies as st

from spira.config import Features, Windows
from spira.errors import SpiraError
from spira.features import windows as training_windows
from spira.features.mfcc import file_mfcc
from spira.inference import windows
from spira.inference.mfcc import Mfcc, dct, hann, mel_filters
from spira.inference.windows import cut
from tests.support.packages import signal


@pytest.mark.parametrize("seconds", [0.7, 4.0, 4.001, 9.3])
def test_mfcc_equal_those_of_training(seconds: float) -> None:
    """Every coefficient is within 1e-3 of torch's float32; values reach several hundred."""
    waveform = signal(seconds)
    expected = file_mfcc(torch.from_numpy(waveform), Windows(), Features()).numpy()
    mfcc = Mfcc(Features().model_dump())
    actual = np.stack([mfcc(window) for window in cut(waveform, Windows().model_dump())])
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() < 1e-3


@pytest.mark.parametrize("sizes", [{"n_fft": 512, "hop_length": 200}, {"n_mels": 64, "n_mfcc": 13, "top_db": 40.0}])
def test_mfcc_of_other_sizes_equal_those_of_training(sizes: dict[str, float]) -> None:
    """The sizes come from the settings, not from the defaults."""
    features = Features(**sizes)
    waveform = signal(2.0)
    expected = file_mfcc(torch.from_numpy(waveform), Windows(window_seconds=2.0), features).numpy()[0]
    actual = Mfcc(features.model_dump())(waveform)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() < 1e-3


def test_constants_equal_those_of_torchaudio() -> None:
    """Hann window, mel filters and cosines differ by float32 rounding only."""
    bands = AF.melscale_fbanks(601, 0.0, 8000.0, 40, 16_000).numpy()
    assert np.abs(mel_filters(601, 40) - bands).max() < 1e-4
    assert np.abs(hann(400) - torch.hann_window(400).numpy()).max() < 1e-6
    assert np.abs(dct(40, 40) - AF.create_dct(40, 40, norm="ortho").numpy()).max() < 1e-7


@given(
    samples=st.integers(1, 200_000),
    window_seconds=st.sampled_from([0.5, 3.0, 4.0]),
    step_seconds=st.sampled_from([0.25, 1.0, 5.0]),
    mode=st.sampled_from(["windows", "whole"]),
    short_files=st.sampled_from(["pad", "refuse"]),
)
@settings(max_examples=60)
def test_windows_equal_those_of_training(samples: int, **values: object) -> None:
    """The windows are equal sample for sample, and the same recordings are refused."""
    waveform = np.arange(samples, dtype=np.float32)
    config = Windows(**values)
    packaged = config.model_dump()
    try:
        expected = training_windows.cut(torch.from_numpy(waveform), config).numpy()
    except SpiraError:
        with pytest.raises(ValueError, match="must be longer"):
            list(cut(waveform, packaged))
        return
    assert np.array_equal(np.stack(list(cut(waveform, packaged))), expected)
    assert windows.window_count(samples, packaged) == len(expected)


def test_a_recording_as_long_as_a_window_is_one_window() -> None:
    """The exclusive bound gives it no window, so it is padded, by nothing, to one."""
    waveform = signal(4.0)
    (window,) = cut(waveform, Windows().model_dump())
    assert np.array_equal(window, waveform)


def test_digital_silence_has_finite_features() -> None:
    """A power of zero is raised to AMIN before the logarithm."""
    assert np.isfinite(Mfcc(Features().model_dump())(np.zeros(64_000, np.float32))).all()
