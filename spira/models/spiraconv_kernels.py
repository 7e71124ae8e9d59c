"""The compiled arithmetic of :mod:`spira.models.spiraconv_cpu`: one window through SpiraConv's blocks, and back.

A map is ``[channels, time * coefficients]`` float32. A tap of a (k, 1) convolution is then the same row read
further on, so a convolution, and its gradient too, is a weighted sum of rows. All maps of a window are a few MB
and stay in the processor's cache. Loops are plain, so that the compiler makes vector code of them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from spira.jit import compiled

Array = np.ndarray
Float = np.float32

ROWS = 4
"""Rows summed at once: what the registers hold."""
TILE = 2048
"""Columns done at once: what the first-level cache holds."""
ZERO, ONE, TWO, FOUR = Float(0), Float(1), Float(2), Float(4)
LOWEST, HIGHEST = Float(-87), Float(20)
"""Where Mish takes its exponential: below it is 0 and above it is the identity, to float32."""


class Block(NamedTuple):
    """A block's weights and sizes: C channels in, O out, N columns out of the convolution."""

    weight: np.ndarray  # [O, R], R = C * taps, zeros up to a multiple of ROWS
    rows: np.ndarray  # [R], where in the flattened input each row begins
    back_weight: np.ndarray  # [C, R'], R' = O * taps likewise: the transposed convolution
    back_rows: np.ndarray  # [R'], into the flattened gradient [O, edge + N + edge]
    bias: np.ndarray  # [O]
    scale: np.ndarray  # [O], GroupNorm's
    shift: np.ndarray  # [O], GroupNorm's
    groups: int  # GroupNorm's
    epsilon: float  # GroupNorm's
    columns: int  # N = time * coefficients
    edge: int  # columns that the convolution takes off
    width: int  # columns of a frame: its coefficients
    pool: int  # frames pooled: 2, or 1 for none
    drop: float  # probability of dropout


@compiled
def sum_rows(x: Array, rows: Array, weight: Array, y: Array) -> None:
    """Add to each ``y[o] [N]`` the sum over r of ``weight[o, r] * x[rows[r] : rows[r] + N]``; ``x`` flat."""
    for start in range(0, y.shape[1], TILE):
        n = min(TILE, y.shape[1] - start)
        for r in range(0, len(rows), ROWS):
            at = rows[r : r + ROWS] + start
            x0, x1, x2, x3 = x[at[0] :], x[at[1] :], x[at[2] :], x[at[3] :]
            for o in range(len(y)):
                out, w = y[o, start:], weight[o, r:]
                w0, w1, w2, w3 = w[0], w[1], w[2], w[3]
                for i in range(n):
                    out[i] += w0 * x0[i] + w1 * x1[i] + w2 * x2[i] + w3 * x3[i]


@compiled
def dot_rows(x: Array, rows: Array, y: Array, edge: int, weight: Array) -> None:
    """Add to ``weight[o, r]`` the product of ``y[o, edge : -edge]`` with row r: the gradient of :func:`sum_rows`."""
    columns = y.shape[1] - 2 * edge
    for start in range(0, columns, TILE):
        n = min(TILE, columns - start)
        for r in range(0, len(rows), ROWS):
            at = rows[r : r + ROWS] + start
            x0, x1, x2, x3 = x[at[0] :], x[at[1] :], x[at[2] :], x[at[3] :]
            for o in range(len(y)):
                out = y[o, edge + start :]
                s0 = s1 = s2 = s3 = ZERO
                for i in range(n):
                    s0 += out[i] * x0[i]
                    s1 += out[i] * x1[i]
                    s2 += out[i] * x2[i]
                    s3 += out[i] * x3[i]
                w = weight[o, r:]
                w[0], w[1], w[2], w[3] = w[0] + s0, w[1] + s1, w[2] + s2, w[3] + s3


@compiled
def whole_frames(block: Block) -> int:
    """Frames after pooling; an odd one at the end is left out."""
    return block.columns // block.width // block.pool


@compiled
def exponential(z: Float) -> Float:
    """e to the power z for z in [-87, 88], within a part in two million: 2^k by its bits, the rest by its series."""
    k = np.floor(z * Float(1.4426950408889634) + Float(0.5))
    f = z - k * Float(0.6931471805599453)
    series = Float(1 / 720)
    for factor in (1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0):
        series = series * f + Float(factor)
    return series * np.int32((np.int32(k) + np.int32(127)) << np.int32(23)).view(Float)


@compiled
def mish(z: Float) -> tuple[Float, Float]:
    """``z * tanh(log(1 + e^z))`` and its slope."""
    e = exponential(min(max(z, LOWEST), HIGHEST))
    n = e * (e + TWO)
    inverse = ONE / (n + TWO)
    gate = n * inverse
    return z * gate, gate + z * FOUR * e * (e + ONE) * inverse * inverse


@compiled
def kept(seed: np.uint32, place: int, threshold: np.uint32) -> np.bool_:
    """Whether dropout keeps a place: a hash of both (the finaliser of MurmurHash3) reaches the threshold."""
    h = np.uint32(seed + np.uint32(place))
    h = np.uint32((h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B))
    h = np.uint32((h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35))
    return np.uint32(h ^ (h >> np.uint32(16))) >= threshold


@compiled
def normalised(block: Block, x: Array) -> tuple[Array, Array]:
    """Convolution of ``x [C, *]``, each group brought to mean 0, variance 1: ``[O, N]``; the factors: ``[groups]``."""
    y = np.empty((len(block.bias), block.columns), Float)
    for o in range(len(y)):
        y[o] = block.bias[o]
    sum_rows(x.ravel(), block.rows, block.weight, y)
    groups = y.reshape(block.groups, -1)
    rates = np.empty(block.groups, Float)
    for g in range(block.groups):
        group = groups[g]
        group -= Float(group.sum() / Float(len(group)))
        variance = (group * group).sum() / Float(len(group))
        rates[g] = ONE / np.sqrt(variance + Float(block.epsilon))
        group *= rates[g]
    return y, rates


@compiled
def activated(block: Block, y: Array, seed: np.uint32) -> Array:
    """Scale and shift, Mish, the larger of two frames, dropout: ``[O, N] -> [O, N // pool]`` in whole frames."""
    width, frames = block.width, whole_frames(block)
    out = np.empty((len(y), frames * width), Float)
    threshold, gain = np.uint32(block.drop * 2**32), Float(1 / (1 - block.drop))
    for o in range(len(y)):
        scale, shift = block.scale[o], block.shift[o]
        for t in range(frames):
            first, to = y[o, block.pool * t * width :], out[o, t * width :]
            second, place = first[(block.pool - 1) * width :], (o * frames + t) * width
            for f in range(width):
                value = max(mish(scale * first[f] + shift)[0], mish(scale * second[f] + shift)[0])
                to[f] = value * gain if kept(seed, place + f, threshold) else ZERO
    return out


@compiled
def activated_back(block: Block, y: Array, seed: np.uint32, gradient: Array) -> tuple[Array, Array]:
    """Gradients of :func:`activated`: at the scaled ``y``, ``[O, edge + N + edge]``; of scale and shift, ``[2, O]``."""
    width, frames = block.width, whole_frames(block)
    out, totals = np.zeros((len(y), block.columns + 2 * block.edge), Float), np.empty((2, len(y)), Float)
    threshold, gain = np.uint32(block.drop * 2**32), Float(1 / (1 - block.drop))
    for o in range(len(y)):
        scale, shift, of_scale, of_shift = block.scale[o], block.shift[o], ZERO, ZERO
        for t in range(frames):
            at, apart = block.pool * t * width, (block.pool - 1) * width
            first, to_first = y[o, at:], out[o, block.edge + at :]
            second, to_second = first[apart:], to_first[apart:]
            incoming, place = gradient[o, t * width :], (o * frames + t) * width
            for f in range(width):
                value1, slope1 = mish(scale * first[f] + shift)
                value2, slope2 = mish(scale * second[f] + shift)
                g = incoming[f] * gain if kept(seed, place + f, threshold) else ZERO
                g1 = g * slope1 if value1 >= value2 else ZERO
                g2 = g * slope2 if value1 < value2 else ZERO
                to_second[f] = g2
                to_first[f] = g1  # last: without pooling both are one place, and the first counts as the larger
                of_scale += g1 * first[f] + g2 * second[f]
                of_shift += g1 + g2
        totals[0, o], totals[1, o] = of_scale, of_shift
    return out, totals


@compiled
def normalised_back(block: Block, y: Array, rates: Array, totals: Array, out: Array) -> None:
    """Turn ``out``, the gradient at the scaled ``y``, into the one at the convolution's output."""
    size = len(y) // block.groups
    count = Float(size * block.columns)
    for o in range(len(y)):
        group = slice(o // size * size, o // size * size + size)
        along_y = (block.scale[group] * totals[0, group]).sum() / count
        mean = (block.scale[group] * totals[1, group]).sum() / count
        scale, rate, to, own = block.scale[o], rates[o // size], out[o, block.edge :], y[o]
        for i in range(block.columns):
            to[i] = rate * (scale * to[i] - mean - along_y * own[i])


@compiled
def forward(windows: Array, seeds: Array, blocks: tuple[Block, ...]) -> Array:
    """Windows ``[B, T * F]`` through all blocks, ``[B, O, T' * F]``; ``seeds [B, blocks]`` of dropout, uint32."""
    last = blocks[-1]
    out = np.empty((len(windows), len(last.bias), whole_frames(last) * last.width), Float)
    for b in range(len(windows)):
        x = windows[b].reshape(1, -1)
        for k in range(len(blocks)):
            x = activated(blocks[k], normalised(blocks[k], x)[0], seeds[b, k])
        out[b] = x
    return out


@compiled
def backward(
    windows: Array,
    seeds: Array,
    blocks: tuple[Block, ...],
    gradient: Array,
    weights: tuple[Array, ...],
    vectors: tuple[Array, ...],
) -> None:
    """Add to ``weights`` and ``vectors`` (bias, scale, shift) of each block their gradients.

    ``gradient [B, O, T' * F]`` is the one at the output of :func:`forward`.
    """
    for b in range(len(windows)):
        x = windows[b].reshape(1, -1)
        inputs, maps, rates = [x], [x], [x[0]]  # one entry ahead, for the compiler to know the types
        for k in range(len(blocks)):
            y, rate = normalised(blocks[k], inputs[k])
            maps.append(y)
            rates.append(rate)
            inputs.append(activated(blocks[k], y, seeds[b, k]))
        incoming = gradient[b]
        for k in range(len(blocks) - 1, -1, -1):
            block, x = blocks[k], inputs[k]
            out, totals = activated_back(block, maps[k + 1], seeds[b, k], incoming)
            normalised_back(block, maps[k + 1], rates[k + 1], totals, out)
            dot_rows(x.ravel(), block.rows, out, block.edge, weights[k])
            for o in range(len(out)):
                vectors[k][0, o] += out[o].sum()
            vectors[k][1:] += totals
            if k > 0:
                incoming = np.zeros(x.shape, Float)
                sum_rows(out.ravel(), block.back_rows, block.back_weight, incoming)
