"""Cutting a waveform into windows, as in the paper; the twin of :mod:`spira.features.windows`.

``windows`` is always the ``windows`` settings of a package.
"""

from __future__ import annotations

from typing import Any, Iterator, Mapping

import numpy as np

SAMPLE_RATE_HZ = 16000


def window_samples(windows: Mapping[str, Any]) -> int:
    """Return the length of a window, in samples at 16 kHz."""
    return round(windows["window_seconds"] * SAMPLE_RATE_HZ)


def step_samples(windows: Mapping[str, Any]) -> int:
    """Return the distance between the starts of two windows, in samples at 16 kHz."""
    return round(windows["step_seconds"] * SAMPLE_RATE_HZ)


def window_count(samples: int, windows: Mapping[str, Any]) -> int:
    """Return the number of windows of a waveform, at least one.

    A window starts at 0, 1 step, 2 steps ... while ``start + window < samples``. The bound is exclusive, as in the
    paper's code, so a waveform of exactly one window has none. Such a waveform, or a shorter one, counts as one
    zero-padded window.

    Raises:
        ValueError: the waveform has no window and ``short_files`` is ``refuse``.
    """
    if windows["mode"] == "whole":
        return 1
    room = samples - window_samples(windows)
    if room > 0:
        return (room - 1) // step_samples(windows) + 1
    if windows["short_files"] == "refuse":
        raise ValueError(
            "lasts %.2f s; it must be longer than %g s" % (samples / SAMPLE_RATE_HZ, windows["window_seconds"])
        )
    return 1


def cut(waveform: np.ndarray, windows: Mapping[str, Any]) -> Iterator[np.ndarray]:
    """Yield the windows of a waveform, float [samples] -> [window_samples] each.

    In mode ``whole`` the only window is the whole waveform, zero-padded or cut to ``window_seconds``.

    Raises:
        ValueError: the waveform has no window and ``short_files`` is ``refuse``.
    """
    length = window_samples(windows)
    for number in range(window_count(len(waveform), windows)):
        start = number * step_samples(windows)
        window = waveform[start : start + length]
        yield window if len(window) == length else np.pad(window, (0, length - len(window)))
