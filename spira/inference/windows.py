"""Cutting a waveform into windows, the paper's way; the twin of :mod:`spira.features.windows`."""

from __future__ import annotations

from typing import Any, Iterator, Mapping

import numpy as np

SAMPLE_RATE_HZ = 16000


def cut(waveform: np.ndarray, settings: Mapping[str, Any]) -> Iterator[np.ndarray]:
    """The windows of a waveform, float [samples] -> [window_samples] each; at least one.

    A window starts at 0, 1 step, 2 steps ... while ``start + window < samples``: the bound is exclusive (the
    paper's). A waveform that has none so is zero-padded to one, or refused where ``short_files`` says so; in mode
    ``whole`` it is zero-padded or cut to one.

    Raises:
        ValueError: the waveform is too short and ``short_files`` is ``refuse``.
    """
    length = round(settings["window_seconds"] * SAMPLE_RATE_HZ)
    step = round(settings["step_seconds"] * SAMPLE_RATE_HZ)
    starts = range(0, len(waveform) - length, step)
    if settings["mode"] == "whole" or not starts:
        if settings["mode"] != "whole" and settings["short_files"] == "refuse":
            raise ValueError(
                "the recording lasts %.2f s, it must be longer than %g s"
                % (len(waveform) / SAMPLE_RATE_HZ, settings["window_seconds"])
            )
        starts = range(1)
    for start in starts:
        window = waveform[start : start + length]
        yield window if len(window) == length else np.pad(window, (0, length - len(window)))
