"""MFCC of windows with torchaudio's definitions, computed once for the frames that windows share.

Windows of 4 s every 1 s share three quarters of their frames. A frame is 400 samples under a Hann window
(zero-padded to 1200 for the FFT), so only the two frames at either end of a window see its reflected
edge; all others are the recording's own. The floor ``top_db`` is taken below each window's own peak.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
import torchaudio.functional as AF
from torch import Tensor

from spira.config import SAMPLE_RATE_HZ, Features, Windows
from spira.windows import cut, step_samples

AMIN = 1e-10
"""Powers below this are raised to it before the logarithm (torchaudio)."""


def frame_count(samples: int, features: Features) -> int:
    """Frames of a window of this many samples: centred frames, one more than whole hops."""
    return samples // features.hop_length + 1


def mfcc(windows: Tensor, features: Features) -> Tensor:
    """MFCC of independent windows, ``[W, samples] -> [W, T, n_mfcc]``; equals torchaudio's MFCC of each."""
    half = features.win_length // 2
    padded = F.pad(windows, (half, half), mode="reflect")  # [W, samples + win_length]
    frames = padded.unfold(1, features.win_length, features.hop_length)  # [W, T, win_length]
    return _cepstrum(_mel_db(frames, features), features)


def file_mfcc(waveform: Tensor, windows: Windows, features: Features) -> Tensor:
    """MFCC of all windows of a recording, ``[samples] -> [W, T, n_mfcc]``; equals ``mfcc(cut(waveform))``."""
    pieces = cut(waveform, windows)  # [W, samples]
    edges = _edge_frames(features)
    frames_in_window = frame_count(pieces.shape[1], features)
    aligned = pieces.shape[1] % features.hop_length == 0 and step_samples(windows) % features.hop_length == 0
    if len(pieces) == 1 or not aligned or frames_in_window <= 2 * edges:
        return mfcc(pieces, features)

    half = features.win_length // 2
    step = step_samples(windows) // features.hop_length
    used = step_samples(windows) * (len(pieces) - 1) + pieces.shape[1]
    own = F.pad(waveform[:used], (half, half)).unfold(0, features.win_length, features.hop_length)
    heads, tails = _edges(pieces, edges, features)  # 2 x [W, edges, win_length]
    db = _mel_db(torch.cat([own, heads.flatten(0, 1), tails.flatten(0, 1)]), features)  # [frames, n_mels]
    shared, head_db, tail_db = db.split([len(own), edges * len(pieces), edges * len(pieces)])
    shared = shared.unfold(0, frames_in_window, step).transpose(1, 2)  # [W, T, n_mels]
    inner = shared[:, edges:-edges]
    shape = (len(pieces), edges, features.n_mels)
    return _cepstrum(torch.cat([head_db.view(shape), inner, tail_db.view(shape)], dim=1), features)


def _edge_frames(features: Features) -> int:
    """Frames at either end of a window that reach over its edge."""
    return -(-(features.win_length // 2) // features.hop_length)


def _edges(pieces: Tensor, edges: int, features: Features) -> tuple[Tensor, Tensor]:
    """The first and last frames of each window, reflected at its edge: ``2 x [W, edges, win_length]``."""
    half, hop = features.win_length // 2, features.hop_length
    reach = half + (edges - 1) * hop  # samples that these frames see inside the window
    heads = F.pad(pieces[:, : max(reach, half + 1)], (half, 0), mode="reflect")
    tails = F.pad(pieces[:, -max(reach, half + 1) :], (0, half), mode="reflect")
    first = heads.unfold(1, features.win_length, hop)[:, :edges]
    last = tails.flip(1).unfold(1, features.win_length, hop)[:, :edges].flip(1, 2)
    return first, last


def _mel_db(frames: Tensor, features: Features) -> Tensor:
    """Log mel power of frames, ``[..., win_length] -> [..., n_mels]`` in dB, not yet floored."""
    hann, mel, _ = _constants(features, frames.device)
    left = (features.n_fft - features.win_length) // 2  # zeros lie as in torch.stft, so that rounding is the same
    centred = F.pad(frames * hann, (left, features.n_fft - features.win_length - left))  # [..., n_fft]
    spectrum = torch.fft.rfft(centred)  # [..., n_fft // 2 + 1]
    power = spectrum.real.square() + spectrum.imag.square()
    return 10.0 * (power @ mel).clamp_min(AMIN).log10()


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
