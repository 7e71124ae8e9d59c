"""Windows of a waveform, cut as the paper cuts them before any feature is computed.

The twin of :mod:`spira.inference.windows`.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from spira.config import SAMPLE_RATE_HZ, Windows
from spira.errors import SpiraError


def window_samples(windows: Windows) -> int:
    """Return the length of a window, samples at 16 kHz."""
    return round(windows.window_seconds * SAMPLE_RATE_HZ)


def step_samples(windows: Windows) -> int:
    """Return the distance from the start of one window to the next, samples at 16 kHz."""
    return round(windows.step_seconds * SAMPLE_RATE_HZ)


def window_count(samples: int, windows: Windows) -> int:
    """Return the number of windows of a waveform of this many samples.

    A window starts at 0, 1 step, 2 steps ... while ``start + window < samples``. The bound is exclusive (the paper's
    code), so a waveform of exactly one window has none. Such a waveform, or a shorter one, counts as one zero-padded
    window, or is refused if ``short_files`` is ``refuse``.
    """
    if windows.mode == "whole":
        return 1
    room = samples - window_samples(windows)
    if room > 0:
        return (room - 1) // step_samples(windows) + 1
    if windows.short_files == "refuse":
        raise SpiraError(
            f"a recording of {samples / SAMPLE_RATE_HZ:.2f} s has no window of {windows.window_seconds} s: "
            "it must be longer; windows.short_files=pad would zero-pad it"
        )
    return 1


def spans(samples: int, windows: Windows) -> list[tuple[float, float]]:
    """Return start and end of each window of a waveform of this many samples, s."""
    length, step = window_samples(windows), step_samples(windows)
    starts = [number * step for number in range(window_count(samples, windows))]
    return [(start / SAMPLE_RATE_HZ, min(start + length, samples) / SAMPLE_RATE_HZ) for start in starts]


def cut(waveform: Tensor, windows: Windows) -> Tensor:
    """Cut a waveform into its windows, ``[samples] -> [windows, window_samples]``; a view unless zeros are added.

    In mode ``whole`` the one window is the whole waveform, zero-padded or cut to ``window_seconds``.
    """
    length = window_samples(windows)
    count = window_count(len(waveform), windows)
    needed = length + (count - 1) * step_samples(windows)
    missing = needed - len(waveform)
    padded = F.pad(waveform, (0, missing)) if missing > 0 else waveform[:needed]
    return padded.unfold(0, length, step_samples(windows))
