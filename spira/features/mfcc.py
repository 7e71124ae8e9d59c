"""MFCC of windows with torchaudio's definitions, computed once for the frames that windows share.

The twin of :mod:`spira.inference.mfcc`. Windows of 4 s every 1 s share three quarters of their frames. A frame is 400
samples under a Hann window (zero-padded to 1200 for the FFT). Only the two frames at either end of a window therefore
include its reflected edge; all others are frames of the recording. The floor ``top_db`` is below each window's own
peak.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import torch
import torch.nn.functional as F
import torchaudio.functional as AF
from torch import Tensor

from spira.config import SAMPLE_RATE_HZ, Features, Windows
from spira.features import mel_cpu
from spira.features.windows import cut, step_samples, window_count, window_samples

AMIN = 1e-10
"""Powers below this are raised to it before the logarithm (torchaudio)."""

FRAMES_AT_ONCE = 256
"""Frames computed together on a CPU: with their spectra they take 1.2 MB, which a second-level cache holds."""


def frame_count(samples: int, features: Features) -> int:
    """Return the number of frames of a window: frames are centred, so there is one more than whole hops."""
    return samples // features.hop_length + 1


def mfcc(windows: Tensor, features: Features) -> Tensor:
    """Return the MFCC of independent windows, ``[W, samples] -> [W, T, n_mfcc]``; equals torchaudio's for each."""
    half = features.win_length // 2
    padded = F.pad(windows, (half, half), mode="reflect")  # [W, samples + win_length]
    frames = padded.unfold(1, features.win_length, features.hop_length)  # [W, T, win_length]
    db = _mel_db(frames.flatten(0, 1), features).unflatten(0, frames.shape[:2])  # [W, T, n_mels]
    return _cepstrum(db, features)


def file_mfcc(waveform: Tensor, windows: Windows, features: Features) -> Tensor:
    """Return the MFCC of a recording's windows, ``[samples] -> [W, T, n_mfcc]``; equals ``mfcc(cut(waveform))``."""
    return files_mfcc([waveform], windows, features)


def files_mfcc(waveforms: Sequence[Tensor], windows: Windows, features: Features) -> Tensor:
    """Return the MFCC of the windows of recordings, ``[samples]`` each ``-> [W, T, n_mfcc]``, file after file."""
    window, step, hop = window_samples(windows), step_samples(windows), features.hop_length
    edges = _edge_frame_count(features)
    if window % hop or step % hop or frame_count(window, features) <= 2 * edges:
        return mfcc(torch.cat([cut(waveform, windows) for waveform in waveforms]), features)

    counts = [window_count(len(waveform), windows) for waveform in waveforms]
    covered = [window + (count - 1) * step for count in counts]  # samples that windows cover
    joined = torch.cat([_fit(waveform, samples) for waveform, samples in zip(waveforms, covered, strict=True)])
    starts = torch.tensor(
        [offset + step * i for offset, count in zip(_offsets(covered), counts, strict=True) for i in range(count)],
        device=joined.device,
    )  # [W], each window's first sample in ``joined``
    inner = joined[edges * hop - features.win_length // 2 :].unfold(0, features.win_length, hop)  # [N, win_length]
    outer = _edge_frames(joined, starts, window, edges, features)  # [W * 2 * edges, win_length]
    db = torch.cat([_mel_db(inner, features), _mel_db(outer, features)])  # [N + W * 2 * edges, n_mels]
    return _cepstrum(db[_frame_indices(starts // hop, len(inner), frame_count(window, features), edges)], features)


def _fit(waveform: Tensor, samples: int) -> Tensor:
    """Cut or zero-pad a waveform to a number of samples."""
    return waveform[:samples] if len(waveform) >= samples else F.pad(waveform, (0, samples - len(waveform)))


def _offsets(lengths: Sequence[int]) -> list[int]:
    """Return the offset of each of several arrays that are joined end to end."""
    return [0, *accumulate(lengths)][:-1]


def _edge_frame_count(features: Features) -> int:
    """Return the number of frames at either end of a window that reach over its edge."""
    return -(-(features.win_length // 2) // features.hop_length)


def _edge_frames(joined: Tensor, starts: Tensor, window: int, edges: int, features: Features) -> Tensor:
    """Return the first and last frames of each window, reflected at its edges: ``[W * 2 * edges, win_length]``."""
    half, hop = features.win_length // 2, features.hop_length
    reach = max(half + (edges - 1) * hop, half + 1)  # samples of the window that these frames include
    slices = joined.unfold(0, reach, 1)  # [first sample, reach]
    heads = F.pad(slices[starts], (half, 0), mode="reflect")  # [W, half + reach]
    tails = F.pad(slices[starts + window - reach], (0, half), mode="reflect")
    first = heads.unfold(1, features.win_length, hop)[:, :edges]  # [W, edges, win_length]
    last = tails.flip(1).unfold(1, features.win_length, hop)[:, :edges].flip(1, 2)
    return torch.cat([first, last], dim=1).flatten(0, 1)


def _frame_indices(first_frames: Tensor, inner: int, frames: int, edges: int) -> Tensor:
    """Return the indices of each window's frames, ``[W, T]``: ``inner`` shared frames come first, then the edges."""
    device = first_frames.device
    own = inner + torch.arange(len(first_frames) * 2 * edges, device=device).view(-1, 2 * edges)  # [W, 2 * edges]
    shared = first_frames[:, None] + torch.arange(frames - 2 * edges, device=device)  # [W, T - 2 * edges]
    return torch.cat([own[:, :edges], shared, own[:, edges:]], dim=1)


def _mel_db(frames: Tensor, features: Features) -> Tensor:
    """Return the log mel power of frames, ``[N, win_length] -> [N, n_mels]`` in dB, without floor."""
    power = (_mel_power_cpu if frames.device.type == "cpu" else _mel_power)(frames, features)
    return power.clamp_min_(AMIN).log10_().mul_(10.0)


def _mel_power(frames: Tensor, features: Features) -> Tensor:
    """Return the power of frames in the mel bands, ``[N, win_length] -> [N, n_mels]``."""
    constants = _constants(features, frames.device)
    spectra = torch.fft.rfft(F.pad(frames * constants.hann, _fft_padding(features)))  # [N, n_fft // 2 + 1]
    return (spectra.real.square() + spectra.imag.square()) @ constants.mel


def _mel_power_cpu(frames: Tensor, features: Features) -> Tensor:
    """Do :func:`_mel_power` a few frames at a time, so that their spectra never leave the cache."""
    hann_window, filters = _constants(features, frames.device).hann, _sparse_mel_filters(features)
    left, _ = _fft_padding(features)
    padded = torch.zeros(FRAMES_AT_ONCE, features.n_fft)
    windowed = padded[:, left : left + features.win_length]
    power = torch.empty(len(frames), features.n_mels)
    for chunk, out in zip(frames.split(FRAMES_AT_ONCE), power.split(FRAMES_AT_ONCE), strict=True):
        torch.mul(chunk, hann_window, out=windowed[: len(chunk)])
        spectra = torch.view_as_real(torch.fft.rfft(padded[: len(chunk)])).flatten(1)
        mel_cpu.mel_power(spectra.numpy(), filters, out.numpy())
    return power


def _fft_padding(features: Features) -> tuple[int, int]:
    """Return the zeros before and after a frame in its FFT; as in torch.stft, so that rounding is the same."""
    left = (features.n_fft - features.win_length) // 2
    return left, features.n_fft - features.win_length - left


def _cepstrum(db: Tensor, features: Features) -> Tensor:
    """Raise each window to ``top_db`` below its peak and take the DCT, ``[W, T, n_mels] -> [W, T, n_mfcc]``."""
    floor = db.amax(dim=(1, 2), keepdim=True) - features.top_db
    return torch.maximum(db, floor) @ _constants(features, db.device).dct


def hann(length: int) -> Tensor:
    """Return the periodic Hann window, ``[length]``."""
    return torch.hann_window(length)


def mel_filters(bins: int, n_mels: int) -> Tensor:
    """Return triangles of equal width on the HTK mel scale from 0 to 8000 Hz, not normalised: ``[bins, n_mels]``."""
    return AF.melscale_fbanks(bins, 0.0, SAMPLE_RATE_HZ / 2, n_mels, SAMPLE_RATE_HZ)


def dct(n_mfcc: int, n_mels: int) -> Tensor:
    """Return the orthonormal DCT-II as a matrix to multiply from the right: ``[n_mels, n_mfcc]``."""
    return AF.create_dct(n_mfcc, n_mels, norm="ortho")


class Constants(NamedTuple):
    """The matrices that MFCC settings define."""

    hann: Tensor  # [win_length]
    mel: Tensor  # [bins, n_mels]
    dct: Tensor  # [n_mels, n_mfcc]


@lru_cache(maxsize=8)
def _constants(features: Features, device: torch.device) -> Constants:
    return Constants(
        hann(features.win_length).to(device),
        mel_filters(features.n_fft // 2 + 1, features.n_mels).to(device),
        dct(features.n_mfcc, features.n_mels).to(device),
    )


@lru_cache(maxsize=8)
def _sparse_mel_filters(features: Features) -> mel_cpu.SparseFilters:
    return mel_cpu.sparse_filters(_constants(features, torch.device("cpu")).mel.numpy())
