"""SpiraConv's four blocks a window at a time, so that its maps never leave the processor's cache.

Trained as separate operations on a whole batch, SpiraConv moves maps of hundreds of megabytes through memory
some thirty times a step; the arithmetic is a tenth of the time. Nothing in a block with GroupNorm ties one window
to another, so here each window goes through all blocks by itself, forward, and forward again and backward for
the gradients: a few MB of maps, made anew rather than kept. Training on a CPU only; elsewhere eager torch.

A map is ``[channels, time * coefficients]``. A tap of a (k, 1) convolution is then the same row read further on,
so that a convolution, and its gradient too, is a weighted sum of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor, nn

ROWS = 8
"""Rows summed at once: what the registers hold."""
TILE = 2048
"""Columns done at once: what the first-level cache holds."""
CHUNK = 8
"""Windows a task; gradients are summed by task, so that they don't depend on the number of threads."""
KINDS = (nn.Conv2d, nn.GroupNorm, nn.Mish, nn.MaxPool2d, nn.Dropout)


class Block(NamedTuple):
    """A block's weights and sizes, as the compiled code reads them."""

    weight: np.ndarray  # [O, R], R = channels * taps, zeros up to a multiple of ROWS
    rows: np.ndarray  # [R], where in the flattened input each row begins
    back_weight: np.ndarray  # [C, R'], R' = O * taps likewise: the transposed convolution
    back_rows: np.ndarray  # [R'], into gradients [O, edge + N + edge]
    bias: np.ndarray  # [O]
    scale: np.ndarray  # [O], GroupNorm's
    shift: np.ndarray  # [O], GroupNorm's
    columns: int  # N = time * coefficients after the convolution
    edge: int  # columns that the convolution takes off
    width: int  # coefficients: columns of one frame
    pool: int  # 2, or 1 for none
    group: int  # channels of a group
    epsilon: float  # GroupNorm's


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Machine code without the GIL; NaN stays NaN. Kept beside the source or in the user's cache, if there is one."""
    options = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "arcp", "nsz"}}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # nowhere to write: compile in every process
        return numba.njit(**options)(function)


@compiled
def sum_rows(x, rows, weight, y):
    """Add to ``y[o]`` the sum over r of ``weight[o, r] * x[rows[r] : rows[r] + N]``; ``x`` flat, ``y [O, N]``."""
    for start in range(0, y.shape[1], TILE):
        n = min(TILE, y.shape[1] - start)
        for r in range(0, len(rows), ROWS):
            x0, x1, x2, x3 = x[rows[r] + start :], x[rows[r + 1] + start :], x[rows[r + 2] + start :], x[rows[r + 3] + start :]
            x4, x5, x6, x7 = x[rows[r + 4] + start :], x[rows[r + 5] + start :], x[rows[r + 6] + start :], x[rows[r + 7] + start :]
            for o in range(len(y)):
                w0, w1, w2, w3, w4, w5, w6, w7 = weight[o, r], weight[o, r + 1], weight[o, r + 2], weight[o, r + 3], weight[o, r + 4], weight[o, r + 5], weight[o, r + 6], weight[o, r + 7]
                out = y[o, start:]
                for i in range(n):
                    out[i] += (
                        w0 * x0[i] + w1 * x1[i] + w2 * x2[i] + w3 * x3[i] + w4 * x4[i] + w5 * x5[i] + w6 * x6[i] + w7 * x7[i]
                    )

@compiled
def dot_rows(x, rows, y, weight):
    """Add to ``weight[o, r]`` the product of ``y[o]`` and row r of ``x``: the gradient of :func:`sum_rows`."""
    zero = np.float32(0)
    for start in range(0, y.shape[1], TILE):
        n = min(TILE, y.shape[1] - start)
        for r in range(0, len(rows), ROWS):
            x0, x1, x2, x3 = x[rows[r] + start :], x[rows[r + 1] + start :], x[rows[r + 2] + start :], x[rows[r + 3] + start :]
            x4, x5, x6, x7 = x[rows[r + 4] + start :], x[rows[r + 5] + start :], x[rows[r + 6] + start :], x[rows[r + 7] + start :]
            for o in range(len(y)):
                dy = y[o, start:]
                s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = zero
                for i in range(n):
                    s0 += dy[i] * x0[i]
                    s1 += dy[i] * x1[i]
                    s2 += dy[i] * x2[i]
                    s3 += dy[i] * x3[i]
                    s4 += dy[i] * x4[i]
                    s5 += dy[i] * x5[i]
                    s6 += dy[i] * x6[i]
                    s7 += dy[i] * x7[i]
                weight[o, r] += s0
                weight[o, r + 1] += s1
                weight[o, r + 2] += s2
                weight[o, r + 3] += s3
                weight[o, r + 4] += s4
                weight[o, r + 5] += s5
                weight[o, r + 6] += s6
                weight[o, r + 7] += s7
