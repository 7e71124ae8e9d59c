"""MFCC equals that of torchaudio and librosa, window by window, whether windows share frames or not."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import scipy.fft
import torch
import torchaudio
import torchaudio.functional as AF
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spira.config import Features, Windows
from spira.features import mfcc as features
from spira.features.mfcc import file_mfcc, files_mfcc, frame_count, mfcc
from spira.features.windows import cut

SECOND = 16_000
TOLERANCE = 1e-4
FEATURES = Features()
MELKWARGS = {"n_fft": 1200, "win_length": 400, "hop_length": 160, "n_mels": 40}
TORCHAUDIO = torchaudio.transforms.MFCC(SECOND, n_mfcc=40, melkwargs=MELKWARGS)


def torchaudio_mfcc(windows: Tensor) -> Tensor:
    """Return torchaudio's MFCC, one window at a time, ``[W, samples] -> [W, T, 40]``."""
    return torch.stack([TORCHAUDIO(window).T for window in windows])


EXACT = torchaudio.transforms.MFCC(SECOND, n_mfcc=40, melkwargs=MELKWARGS).double()


def rounding(windows: Tensor) -> float:
    """Return the largest difference that two float32 orders of the same sums may have.

    A coefficient of -400 dB has a last digit of 3e-5, and bands 80 dB under a frame's peak hold the rounding of
    its Fourier transform: torchaudio itself differs from double precision by as much.
    """
    exact = torch.stack([EXACT(window.double()).T for window in windows])
    own_error = (torchaudio_mfcc(windows).double() - exact).abs().max()
    return float(4 * own_error + 1e-6 * exact.abs().max())


def assert_equals_torchaudio(actual: Tensor, windows: Tensor) -> None:
    """Require torchaudio's MFCC of each window within 1e-4 and the rounding of both."""
    atol = TOLERANCE + rounding(windows)
    torch.testing.assert_close(actual, torchaudio_mfcc(windows), rtol=0, atol=atol)


MEL = AF.melscale_fbanks(601, 0.0, 8_000.0, 40, SECOND).double().numpy().T  # [40, 601]
DCT = AF.create_dct(40, 40, norm="ortho").double().numpy()  # [40 bands, 40 coefficients]


def librosa_mfcc(window: np.ndarray) -> np.ndarray:
    """Return librosa's spectrum and decibels in double precision, ``[samples] -> [T, 40]``.

    torchaudio computes mel filters and DCT in float32, which alone changes a coefficient by up to 3e-4. They are
    torchaudio's here, and compared with librosa's and SciPy's below.
    """
    hann = torch.hann_window(400).double().numpy()  # near its ends float32 has only three digits, torchaudio's too
    spectrum = librosa.stft(window, n_fft=1200, win_length=400, hop_length=160, window=hann, pad_mode="reflect")
    decibels = librosa.power_to_db(MEL @ np.abs(spectrum) ** 2, ref=1.0, amin=1e-10, top_db=80.0)  # [40, T]
    return decibels.T @ DCT


@st.composite
def signals(draw: st.DrawFn, min_samples: int = 2_000, max_samples: int = 70_000, broadband: bool = False) -> Tensor:
    """Draw waveforms with any level, clicks and silent ends, and unless broadband with tones and offset."""
    samples = draw(st.integers(min_samples, max_samples))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    time = np.arange(samples) / SECOND
    loudness = 10.0 ** draw(st.integers(-6, 0))
    signal = loudness * 0.3 * rng.standard_normal(samples)
    if not broadband:
        signal += draw(st.sampled_from([0.0, 0.01, 0.8])) * np.sin(2 * np.pi * rng.uniform(50, 7_900) * time)
        signal += draw(st.sampled_from([0.0, -0.3, 0.5]))
    signal[rng.integers(0, samples, draw(st.integers(0, 3)))] = 1.0
    signal[samples - int(draw(st.sampled_from([0.0, 0.3, 0.9])) * samples) :] = 0.0
    return torch.from_numpy(np.clip(signal, -1, 1).astype(np.float32))


@given(signal=signals())
def test_a_window_has_torchaudios_mfcc(signal: Tensor) -> None:
    """The test draws one window of any content and length."""
    actual = mfcc(signal[None], FEATURES)
    assert actual.shape == (1, frame_count(len(signal), FEATURES), 40)
    assert_equals_torchaudio(actual, signal[None])


@pytest.mark.integration
@settings(max_examples=40)
@given(signal=signals(max_samples=40_000, broadband=True))
def test_a_window_has_librosas_mfcc(signal: Tensor) -> None:
    """An implementation without torch differs only by the rounding of float32."""
    expected = torch.from_numpy(librosa_mfcc(signal.double().numpy()))
    actual = mfcc(signal[None], FEATURES)[0]
    atol = TOLERANCE + rounding(signal[None])
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=atol)


def test_mel_filters_and_dct_equal_those_of_librosa_and_scipy() -> None:
    """HTK bands without normalisation and the orthonormal DCT-II are equal to the rounding of float32."""
    bank = librosa.filters.mel(sr=SECOND, n_fft=1200, n_mels=40, htk=True, norm=None, dtype=np.float64)
    np.testing.assert_allclose(MEL, bank, rtol=0, atol=1e-5)
    np.testing.assert_allclose(DCT, scipy.fft.dct(np.eye(40), norm="ortho"), rtol=0, atol=1e-5)


@settings(max_examples=60)
@given(
    signal=signals(min_samples=1_000, max_samples=60_000),
    window=st.integers(7, 60).map(lambda frames: frames * 160),
    step=st.one_of(st.integers(10, 20).map(lambda frames: frames * 160), st.integers(1_600, 4_000)),
)
def test_windows_that_share_frames_equal_independent_windows(signal: Tensor, window: int, step: int) -> None:
    """The steps are whole frames, and others."""
    windows = Windows(window_seconds=window / SECOND, step_seconds=step / SECOND)
    assert_equals_torchaudio(file_mfcc(signal, windows, FEATURES), cut(signal, windows))


@settings(max_examples=30)
@given(
    recordings=st.lists(signals(min_samples=1_000, max_samples=30_000), min_size=1, max_size=4),
    window=st.integers(7, 60).map(lambda frames: frames * 160),
    step=st.one_of(st.integers(10, 20).map(lambda frames: frames * 160), st.integers(1_600, 4_000)),
)
def test_recordings_computed_together_equal_single_ones(recordings: list[Tensor], window: int, step: int) -> None:
    """No recording affects its neighbours' windows, however short or loud it is."""
    windows = Windows(window_seconds=window / SECOND, step_seconds=step / SECOND)
    together = files_mfcc(recordings, windows, FEATURES)
    counts = [len(cut(recording, windows)) for recording in recordings]
    for recording, actual in zip(recordings, together.split(counts), strict=True):
        assert_equals_torchaudio(actual, cut(recording, windows))


@pytest.mark.parametrize("seconds", [3.0, 4.0, 4.01, 5.0, 5.01, 7.3, 12.0])
@pytest.mark.parametrize("window_seconds", [3.0, 4.0, 3.9999])
def test_the_papers_windows_have_torchaudios_mfcc(seconds: float, window_seconds: float) -> None:
    """Windows of 3 and 4 s every second, of shorter, equal and longer files, and one of no whole number of hops."""
    generator = torch.Generator().manual_seed(0)
    signal = 0.1 * torch.randn(int(seconds * SECOND), generator=generator)
    windows = Windows(window_seconds=window_seconds)
    expected = torchaudio_mfcc(cut(signal, windows))
    torch.testing.assert_close(file_mfcc(signal, windows, FEATURES), expected, rtol=0, atol=TOLERANCE)


def test_a_window_of_4_seconds_has_401_frames_of_40_coefficients() -> None:
    """This is the input size of the paper's network."""
    assert mfcc(torch.zeros(2, 4 * SECOND), FEATURES).shape == (2, 401, 40)


def test_a_loud_window_does_not_raise_the_floor_of_others() -> None:
    """The floor is 80 dB below each window's own peak; for [W, samples] torchaudio uses the loudest window's."""
    generator = torch.Generator().manual_seed(0)
    quiet = 1e-6 * torch.randn(1, 16_000, generator=generator)
    both = torch.cat([quiet, torch.ones(1, 16_000)])
    batched = TORCHAUDIO(both)[0].T
    alone = torchaudio_mfcc(quiet)[0]
    assert (batched - alone).abs().max() > 1  # torchaudio differs
    torch.testing.assert_close(mfcc(both, FEATURES)[0], alone, rtol=0, atol=TOLERANCE)


def test_a_loud_second_does_not_raise_the_floor_of_other_windows() -> None:
    """The same for a recording whose windows share frames."""
    generator = torch.Generator().manual_seed(0)
    signal = 1e-5 * torch.randn(12 * SECOND, generator=generator)
    signal[:SECOND] = torch.randn(SECOND, generator=generator).clamp(-1, 1)
    expected = torchaudio_mfcc(cut(signal, Windows()))
    torch.testing.assert_close(file_mfcc(signal, Windows(), FEATURES), expected, rtol=0, atol=TOLERANCE)


def test_other_devices_compute_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code path of other devices, plain torch with dense filters, gives the same; it is run here on the CPU."""
    signal = 0.1 * torch.randn(9 * SECOND, generator=torch.Generator().manual_seed(0))
    here = file_mfcc(signal, Windows(), FEATURES)
    monkeypatch.setattr(features, "_mel_power_cpu", features._mel_power)
    torch.testing.assert_close(file_mfcc(signal, Windows(), FEATURES), here, rtol=0, atol=TOLERANCE)


def test_digital_silence_is_finite() -> None:
    """All-zero windows, as padding makes them, have the MFCC of the floor."""
    silent = mfcc(torch.zeros(1, SECOND), FEATURES)
    assert torch.equal(silent, torchaudio_mfcc(torch.zeros(1, SECOND)))
    assert silent.isfinite().all()


@pytest.mark.parametrize(
    "other",
    [
        Features(n_fft=512, win_length=400, hop_length=200, n_mels=26, n_mfcc=13),
        Features(n_fft=402, win_length=400, hop_length=100),
        Features(n_fft=400, win_length=400, top_db=40.0),
        Features(n_fft=1200, win_length=400, hop_length=400),
        Features(n_fft=1200, win_length=400, hop_length=500),
    ],
)
def test_other_settings_have_torchaudios_mfcc(other: Features) -> None:
    """Other lengths, hops, bands and floors, with shared frames."""
    melkwargs = other.model_dump(include={"n_fft", "win_length", "hop_length", "n_mels"})
    transform = torchaudio.transforms.MFCC(SECOND, n_mfcc=other.n_mfcc, melkwargs=melkwargs)
    transform.amplitude_to_DB.top_db = other.top_db
    signal = torch.randn(3 * SECOND, generator=torch.Generator().manual_seed(0)) * torch.linspace(0, 1, 3 * SECOND)
    windows = Windows(window_seconds=1.0, step_seconds=0.5)
    expected = torch.stack([transform(window).T for window in cut(signal, windows)])
    torch.testing.assert_close(file_mfcc(signal, windows, other), expected, rtol=0, atol=TOLERANCE)


def test_training_works_after_a_prediction_in_the_same_process() -> None:
    """Constants that are first computed in inference mode can still be used with gradients."""
    other = Features(top_db=79.0)  # of no other test, so its constants are computed here
    with torch.inference_mode():
        mfcc(torch.zeros(1, SECOND), other)
    layer = torch.nn.Linear(40, 1)
    layer(mfcc(torch.zeros(1, SECOND), other)).sum().backward()
    assert layer.weight.grad is not None
