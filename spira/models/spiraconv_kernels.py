"""Compiled kernels of :mod:`spira.models.spiraconv_cpu`: forward and backward pass of one window through the blocks.

A map is ``[channels, time * coefficients]`` float32. A tap of a (k, 1) convolution is then the same row at an offset,
so a convolution, and its gradient too, is a weighted sum of rows. All maps of a window are a few MB and stay in the
processor's cache. Loops are plain, so that the compiler vectorises them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from spira.jit import jit

Array = np.ndarray
Float = np.float32

ROWS = 4
"""Rows summed together: as many as the registers hold."""
TILE = 2048
"""Columns computed together: as many as the first-level cache holds."""
ZERO, ONE, TWO, FOUR = Float(0), Float(1), Float(2), Float(4)
LOWEST, HIGHEST = Float(-87), Float(20)
"""Range in which Mish needs its exponential: in float32 it is 0 below and the identity above."""


class Block(NamedTuple):
    """Weights and sizes of a block with C input channels, O output channels and N columns after the convolution."""

    weight: np.ndarray  # [O, R], R = C * taps, zero-padded to a multiple of ROWS
    rows: np.ndarray  # [R], offset of each row in the flattened input
    back_weight: np.ndarray  # [C, R'], R' = O * taps, padded likewise: the transposed convolution
    back_rows: np.ndarray  # [R'], offset of each row in the flattened gradient [O, edge + N + edge]
    bias: np.ndarray  # [O]
    scale: np.ndarray  # [O], of GroupNorm
    shift: np.ndarray  # [O], of GroupNorm
    groups: int  # of GroupNorm
    epsilon: float  # of GroupNorm
    columns: int  # N = time * coefficients
    edge: int  # columns that the convolution removes
    width: int  # columns of a frame: its coefficients
    pool: int  # frames pooled: 2, or 1 for none
    dropout: float  # probability


@jit
def sum_rows(x: Array, rows: Array, weight: Array, y: Array) -> None:
    """Add to each ``y[o] [N]`` the sum over r of ``weight[o, r] * x[rows[r] : rows[r] + N]``; ``x`` flat."""
    for start in range(0, y.shape[1], TILE):
        n = min(TILE, y.shape[1] - start)
        for r in range(0, len(rows), ROWS):
            offsets = rows[r : r + ROWS] + start
            x0, x1, x2, x3 = x[offsets[0] :], x[offsets[1] :], x[offsets[2] :], x[offsets[3] :]
            for o in range(len(y)):
                out, w = y[o, start:], weight[o, r:]
                w0, w1, w2, w3 = w[0], w[1], w[2], w[3]
                for i in range(n):
                    out[i] += w0 * x0[i] + w1 * x1[i] + w2 * x2[i] + w3 * x3[i]


@jit
def dot_rows(x: Array, rows: Array, y: Array, edge: int, weight: Array) -> None:
    """Add to ``weight[o, r]`` the product of ``y[o, edge : -edge]`` with row r: the gradient of :func:`sum_rows`."""
    columns = y.shape[1] - 2 * edge
    for start in range(0, columns, TILE):
        n = min(TILE, columns - start)
        for r in range(0, len(rows), ROWS):
            offsets = rows[r : r + ROWS] + start
            x0, x1, x2, x3 = x[offsets[0] :], x[offsets[1] :], x[offsets[2] :], x[offsets[3] :]
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


@jit
def pooled_frames(block: Block) -> int:
    """Return the number of frames after pooling; an odd last frame is dropped."""
    return block.columns // block.width // block.pool


@jit
def exponential(z: Float) -> Float:
    """Return e^z for z in [-87, 88], to a part in two million: 2^k from its bits, the rest from its series."""
    k = np.floor(z * Float(1.4426950408889634) + Float(0.5))
    f = z - k * Float(0.6931471805599453)
    series = Float(1 / 720)
    for factor in (1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0):
        series = series * f + Float(factor)
    return series * np.int32((np.int32(k) + np.int32(127)) << np.int32(23)).view(Float)


@jit
def mish(z: Float) -> tuple[Float, Float]:
    """Return ``z * tanh(log(1 + e^z))`` and its derivative."""
    e = exponential(min(max(z, LOWEST), HIGHEST))
    n = e * (e + TWO)
    inverse = ONE / (n + TWO)
    gate = n * inverse
    return z * gate, gate + z * FOUR * e * (e + ONE) * inverse * inverse


@jit
def is_kept(seed: np.uint32, position: int, threshold: np.uint32) -> np.bool_:
    """Return whether dropout keeps a position: its hash (MurmurHash3's finaliser) reaches the threshold."""
    h = np.uint32(seed + np.uint32(position))
    h = np.uint32((h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B))
    h = np.uint32((h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35))
    return np.uint32(h ^ (h >> np.uint32(16))) >= threshold


@jit
def convolve_and_normalise(block: Block, x: Array) -> tuple[Array, Array]:
    """Return the convolution of ``x [C, *]``, each group with mean 0 and variance 1, ``[O, N]``; and the factors."""
    y = np.empty((len(block.bias), block.columns), Float)
    for o in range(len(y)):
        y[o] = block.bias[o]
    sum_rows(x.ravel(), block.rows, block.weight, y)
    groups = y.reshape(block.groups, -1)
    factors = np.empty(block.groups, Float)  # 1 / standard deviation
    for g in range(block.groups):
        group = groups[g]
        group -= Float(group.sum() / Float(len(group)))
        variance = (group * group).sum() / Float(len(group))
        factors[g] = ONE / np.sqrt(variance + Float(block.epsilon))
        group *= factors[g]
    return y, factors


@jit
def activate(block: Block, y: Array, seed: np.uint32) -> Array:
    """Return ``y`` after scale and shift, Mish, pooling and dropout: ``[O, N] -> [O, N // pool]`` in whole frames."""
    width, frames = block.width, pooled_frames(block)
    out = np.empty((len(y), frames * width), Float)
    threshold, gain = np.uint32(block.dropout * 2**32), Float(1 / (1 - block.dropout))
    for o in range(len(y)):
        scale, shift = block.scale[o], block.shift[o]
        for t in range(frames):
            first, to = y[o, block.pool * t * width :], out[o, t * width :]
            second, position = first[(block.pool - 1) * width :], (o * frames + t) * width
            for f in range(width):
                value = max(mish(scale * first[f] + shift)[0], mish(scale * second[f] + shift)[0])
                to[f] = value * gain if is_kept(seed, position + f, threshold) else ZERO
    return out


@jit
def activate_backward(block: Block, y: Array, seed: np.uint32, gradient: Array) -> tuple[Array, Array]:
    """Return the gradients of :func:`activate`: at the scaled ``y``, ``[O, edge + N + edge]``; at scale and shift."""
    width, frames = block.width, pooled_frames(block)
    out, totals = np.zeros((len(y), block.columns + 2 * block.edge), Float), np.empty((2, len(y)), Float)
    threshold, gain = np.uint32(block.dropout * 2**32), Float(1 / (1 - block.dropout))
    for o in range(len(y)):
        scale, shift, scale_gradient, shift_gradient = block.scale[o], block.shift[o], ZERO, ZERO
        for t in range(frames):
            start, distance = block.pool * t * width, (block.pool - 1) * width
            first, to_first = y[o, start:], out[o, block.edge + start :]
            second, to_second = first[distance:], to_first[distance:]
            incoming, position = gradient[o, t * width :], (o * frames + t) * width
            for f in range(width):
                value1, slope1 = mish(scale * first[f] + shift)
                value2, slope2 = mish(scale * second[f] + shift)
                g = incoming[f] * gain if is_kept(seed, position + f, threshold) else ZERO
                g1 = g * slope1 if value1 >= value2 else ZERO
                g2 = g * slope2 if value1 < value2 else ZERO
                to_second[f] = g2
                to_first[f] = g1  # last: without pooling both are one frame, and the first is the larger
                scale_gradient += g1 * first[f] + g2 * second[f]
                shift_gradient += g1 + g2
        totals[0, o], totals[1, o] = scale_gradient, shift_gradient
    return out, totals


@jit
def normalise_backward(block: Block, y: Array, factors: Array, totals: Array, out: Array) -> None:
    """Replace ``out``, the gradient at the scaled ``y``, by the gradient at the convolution's output."""
    size = len(y) // block.groups
    count = Float(size * block.columns)
    for o in range(len(y)):
        group = slice(o // size * size, o // size * size + size)
        along_y = (block.scale[group] * totals[0, group]).sum() / count
        mean = (block.scale[group] * totals[1, group]).sum() / count
        scale, factor, to, values = block.scale[o], factors[o // size], out[o, block.edge :], y[o]
        for i in range(block.columns):
            to[i] = factor * (scale * to[i] - mean - along_y * values[i])


@jit
def forward(windows: Array, seeds: Array, blocks: tuple[Block, ...]) -> Array:
    """Return the output of all blocks, ``[B, T * F] -> [B, O, T' * F]``; ``seeds [B, blocks]`` of dropout, uint32."""
    last = blocks[-1]
    out = np.empty((len(windows), len(last.bias), pooled_frames(last) * last.width), Float)
    for b in range(len(windows)):
        x = windows[b].reshape(1, -1)
        for k in range(len(blocks)):
            x = activate(blocks[k], convolve_and_normalise(blocks[k], x)[0], seeds[b, k])
        out[b] = x
    return out


@jit
def backward(
    windows: Array,
    seeds: Array,
    blocks: tuple[Block, ...],
    gradient: Array,
    weights: tuple[Array, ...],
    vectors: tuple[Array, ...],
) -> None:
    """Add the gradients of each block to ``weights`` and ``vectors`` (bias, scale, shift).

    ``gradient [B, O, T' * F]`` is the gradient at the output of :func:`forward`.
    """
    for b in range(len(windows)):
        x = windows[b].reshape(1, -1)
        inputs, maps, factors = [x], [x], [x[0]]  # the first entry of maps and factors gives the compiler the types
        for k in range(len(blocks)):
            y, block_factors = convolve_and_normalise(blocks[k], inputs[k])
            maps.append(y)
            factors.append(block_factors)
            inputs.append(activate(blocks[k], y, seeds[b, k]))
        incoming = gradient[b]
        for k in range(len(blocks) - 1, -1, -1):
            block, x = blocks[k], inputs[k]
            out, totals = activate_backward(block, maps[k + 1], seeds[b, k], incoming)
            normalise_backward(block, maps[k + 1], factors[k + 1], totals, out)
            dot_rows(x.ravel(), block.rows, out, block.edge, weights[k])
            for o in range(len(out)):
                vectors[k][0, o] += out[o].sum()
            vectors[k][1:] += totals
            if k > 0:
                incoming = np.zeros(x.shape, Float)
                sum_rows(out.ravel(), block.back_rows, block.back_weight, incoming)
