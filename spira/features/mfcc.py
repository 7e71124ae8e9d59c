"""MFCC of windows with torchaudio's definitions, computed once for the frames that windows share.

Windows of 4 s every 1 s share three quarters of their frames. A frame is 400 samples under a Hann window
(zero-padded to 1200 for the FFT), so only the two frames at either end of a window see its reflected
edge; all others are the recording's own. The floor ``top_db`` is taken below each window's own peak.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

import torch
import torch.nn.functional as F
import torchaudio.functional as AF
from torch import Tensor

from spira.config import SAMPLE_RATE_HZ, Features, Windows
from spira.features import mel_cpu
from spira.features.windows import count, cut, step_samples, window_samples

AMIN = 1e-10
"""Powers below this are raised to it before the logarithm (torchaudio)."""

FRAMES_AT_ONCE = 256
"""On a CPU: their padded frames and spectra take 1.2 MB, what a core's second-level cache holds."""


def frame_count(samples: int, features: Features) -> int:
    """Frames of a window of this many samples: centred frames, one more than whole hops."""
    return samples // features.hop_length + 1


def mfcc(windows: Tensor, features: Features) -> Tensor:
    """MFCC of independent windows, ``[W, samples] -> [W, T, n_mfcc]``; equals torchaudio's MFCC of each."""
    half = features.win_length // 2
    padded = F.pad(windows, (half, half), mode="reflect")  # [W, samples + win_length]
    frames = padded.unfold(1, features.win_length, features.hop_length)  # [W, T, win_length]
    db = _mel_db(frames.flatten(0, 1), features).unflatten(0, frames.shape[:2])  # [W, T, n_mels]
    return _cepstrum(db, features)


def file_mfcc(waveform: Tensor, windows: Windows, features: Features) -> Tensor:
    """MFCC of all windows of a recording, ``[samples] -> [W, T, n_mfcc]``; equals ``mfcc(cut(waveform))``."""
    return files_mfcc([waveform], windows, features)


def files_mfcc(waveforms: Sequence[Tensor], windows: Windows, features: Features) -> Tensor:
    """MFCC of all windows of some recordings, ``[samples]`` each ``-> [W, T, n_mfcc]``, file after file."""
    window, step, hop = window_samples(windows), step_samples(windows), features.hop_length
    edges = _edge_frames(features)
    if window % hop or step % hop or frame_count(window, features) <= 2 * edges:
        return mfcc(torch.cat([cut(waveform, windows) for waveform in waveforms]), features)

    counts = [count(len(waveform), windows) for waveform in waveforms]
    used = [window + (number - 1) * step for number in counts]  # samples that windows cover
    joined = torch.cat([_exactly(waveform, samples) for waveform, samples in zip(waveforms, used, strict=True)])
    starts = torch.tensor(
        [start + step * number for start, n in zip(_offsets(used), counts, strict=True) for number in range(n)],
        device=joined.device,
    )  # [W], each window's first sample in ``joined``
    inner = joined[edges * hop - features.win_length // 2 :].unfold(0, features.win_length, hop)  # [N, win_length]
    outer = _edges(joined, starts, window, edges, features)  # [W * 2 * edges, win_length]
    db = torch.cat([_mel_db(inner, features), _mel_db(outer, features)])  # [N + W * 2 * edges, n_mels]
    return _cepstrum(db[_frames_of_windows(starts // hop, len(inner), frame_count(window, features), edges)], features)


def _exactly(waveform: Tensor, samples: int) -> Tensor:
    """The first so many samples, zeros after its end."""
    return waveform[:samples] if len(waveform) >= samples else F.pad(waveform, (0, samples - len(waveform)))


def _offsets(lengths: Sequence[int]) -> list[int]:
    """Where each of some arrays laid end to end begins."""
    return [0, *accumulate(lengths)][:-1]


def _edge_frames(features: Features) -> int:
    """Frames at either end of a window that reach over its edge."""
    return -(-(features.win_length // 2) // features.hop_length)


def _edges(joined: Tensor, starts: Tensor, window: int, edges: int, features: Features) -> Tensor:
    """The frames of each window that are reflected at its edges: its first and last ones, ``[W * 2 * edges, *]``."""
    half, hop = features.win_length // 2, features.hop_length
    reach = max(half + (edges - 1) * hop, half + 1)  # samples that these frames see inside the window
    places = joined.unfold(0, reach, 1)  # [any start, reach]
    heads = F.pad(places[starts], (half, 0), mode="reflect")  # [W, half + reach]
    tails = F.pad(places[starts + window - reach], (0, half), mode="reflect")
    first = heads.unfold(1, features.win_length, hop)[:, :edges]  # [W, edges, win_length]
    last = tails.flip(1).unfold(1, features.win_length, hop)[:, :edges].flip(1, 2)
    return torch.cat([first, last], dim=1).flatten(0, 1)


def _frames_of_windows(first_frames: Tensor, inner: int, frames: int, edges: int) -> Tensor:
    """Which frames make each window, ``[W, T]``: places among ``inner`` shared ones, then 2 * edges ones a window."""
    device = first_frames.device
    own = inner + torch.arange(len(first_frames) * 2 * edges, device=device).view(-1, 2 * edges)  # [W, 2 * edges]
    shared = first_frames[:, None] + torch.arange(frames - 2 * edges, device=device)  # [W, T - 2 * edges]
    return torch.cat([own[:, :edges], shared, own[:, edges:]], dim=1)


def _mel_db(frames: Tensor, features: Features) -> Tensor:
    """Log mel power of frames, ``[N, win_length] -> [N, n_mels]`` in dB, not yet floored."""
    power = (_power_cpu if frames.device.type == "cpu" else _power)(frames, features)
    return power.clamp_min_(AMIN).log10_().mul_(10.0)


def _power(frames: Tensor, features: Features) -> Tensor:
    """Power of frames in the mel bands, ``[N, win_length] -> [N, n_mels]``."""
    hann, mel, _ = _constants(features, frames.device)
    left, right = _zeros(features)
    spectra = torch.fft.rfft(F.pad(frames * hann, (left, right)))  # [N, n_fft // 2 + 1]
    return (spectra.real.square() + spectra.imag.square()) @ mel


def _power_cpu(frames: Tensor, features: Features) -> Tensor:
    """:func:`_power` of a few frames at a time, so that their spectra never leave the cache."""
    hann, bank, left = _constants(features, frames.device)[0], _bank(features), _zeros(features)[0]
    padded = torch.zeros(FRAMES_AT_ONCE, features.n_fft)
    windowed = padded[:, left : left + features.win_length]
    power = torch.empty(len(frames), features.n_mels)
    for some, out in zip(frames.split(FRAMES_AT_ONCE), power.split(FRAMES_AT_ONCE), strict=True):
        torch.mul(some, hann, out=windowed[: len(some)])
        spectra = torch.view_as_real(torch.fft.rfft(padded[: len(some)])).flatten(1)
        mel_cpu.bands(spectra.numpy(), bank, out.numpy())
    return power


def _zeros(features: Features) -> tuple[int, int]:
    """Zeros before and after a frame in its Fourier transform, as in torch.stft, so that rounding is the same."""
    left = (features.n_fft - features.win_length) // 2
    return left, features.n_fft - features.win_length - left


def _cepstrum(db: Tensor, features: Features) -> Tensor:
    """Floor each window at ``top_db`` below its peak and take the DCT, ``[W, T, n_mels] -> [W, T, n_mfcc]``."""
    _, _, dct = _constants(features, db.device)
    floor = db.amax(dim=(1, 2), keepdim=True) - features.top_db
    return torch.maximum(db, floor) @ dct


@lru_cache(maxsize=8)
def _constants(features: Features, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    hann = torch.hann_window(features.win_length)
    bins = features.n_fft // 2 + 1
    mel = AF.melscale_fbanks(bins, 0.0, SAMPLE_RATE_HZ / 2, features.n_mels, SAMPLE_RATE_HZ)  # [bins, n_mels]
    dct = AF.create_dct(features.n_mfcc, features.n_mels, norm="ortho")  # [n_mels, n_mfcc]
    return hann.to(device), mel.to(device), dct.to(device)


@lru_cache(maxsize=8)
def _bank(features: Features) -> mel_cpu.Bank:
    return mel_cpu.bank(_constants(features, torch.device("cpu"))[1].numpy())
