"""Training of SpiraConv's four blocks on a CPU, one window at a time, so that maps stay in the processor's cache.

As separate operations on a whole batch, the blocks move maps of hundreds of megabytes through memory about thirty
times per step; the arithmetic is a tenth of the time. Blocks with GroupNorm do not depend on other windows of the
batch, so here each window passes all blocks by itself. The gradients need a second forward pass and a backward pass,
in a few megabytes that are computed again rather than stored. On other devices the same layers run as eager torch.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from spira.models import spiraconv_kernels
from spira.models.spiraconv_kernels import ROWS, Block

Result = TypeVar("Result")

CHUNK = 8
"""Windows per task. Gradients are summed by task, so that they do not depend on the number of threads."""


def apply_blocks(conv: nn.Sequential, features: Tensor) -> Tensor:
    """Return ``conv(features[:, None])`` with gradients, ``[B, T, F] -> [B, 4, T', F]``.

    Torch's random generator seeds the dropout.
    """
    count = sum(isinstance(layer, nn.Conv2d) for layer in conv)
    seeds = torch.randint(2**32, (len(features), count))  # one per window and block
    return _BlocksFunction.apply(features, seeds, conv, *conv.parameters())


class _BlocksFunction(torch.autograd.Function):
    """The blocks as one operation, which saves only the features and the seeds of dropout for the backward pass."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, seeds: Tensor, conv: nn.Sequential, *parameters: Tensor) -> Tensor:
        windows, seeds32 = features.flatten(1).numpy(), seeds.numpy().astype(np.uint32)
        blocks = read_blocks(conv, *features.shape[1:])

        def task(chunk: slice) -> np.ndarray:
            return spiraconv_kernels.forward(windows[chunk], seeds32[chunk], blocks)  # [CHUNK, 4, T' * F]

        out = np.concatenate(_map_chunks(task, len(windows)))
        ctx.saved = windows, seeds32, blocks, [parameter.shape for parameter in parameters]
        return torch.from_numpy(out).unflatten(2, (-1, features.shape[2]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        windows, seeds, blocks, shapes = ctx.saved
        output_gradient = gradients[0].flatten(2).contiguous().numpy()

        def task(chunk: slice) -> list[np.ndarray]:
            weights = tuple(np.zeros_like(block.weight) for block in blocks)
            vectors = tuple(np.zeros((3, len(block.bias)), np.float32) for block in blocks)
            spiraconv_kernels.backward(windows[chunk], seeds[chunk], blocks, output_gradient[chunk], weights, vectors)
            return [gradient for weight, rows in zip(weights, vectors, strict=True) for gradient in (weight, *rows)]

        by_parameter = zip(*_map_chunks(task, len(windows)), strict=True)
        totals = [torch.from_numpy(np.sum(chunks, axis=0)) for chunks in by_parameter]
        return None, None, None, *(_unpadded(total, shape) for total, shape in zip(totals, shapes, strict=True))


def _map_chunks(task: Callable[[slice], Result], count: int) -> list[Result]:
    """Return the task's results for chunks of windows, in order, computed on as many threads as torch may use."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return list(pool.map(task, (slice(start, start + CHUNK) for start in range(0, count, CHUNK))))


def _unpadded(total: Tensor, shape: torch.Size) -> Tensor:
    """Return a gradient in the shape of its parameter, without the columns that padded its rows."""
    return total[..., : shape[1:].numel()].reshape(shape) if len(shape) > 1 else total


def read_blocks(conv: nn.Sequential, frames: int, width: int) -> tuple[Block, ...]:
    """Return the kernels' form of SpiraConv's ``conv`` for features ``[B, frames, width]``, with copied weights."""
    layers: list[Any] = list(conv)
    blocks: list[Block] = []
    for index, layer in enumerate(layers):
        if isinstance(layer, nn.Conv2d):
            norm, has_pool = layers[index + 1], isinstance(layers[index + 3], nn.MaxPool2d)
            dropout = layers[index + 3 + has_pool].p
            blocks.append(_block(layer, norm, 2 if has_pool else 1, dropout, frames * width, width))
            frames = spiraconv_kernels.pooled_frames(blocks[-1])
    return tuple(blocks)


def _block(conv: Any, norm: nn.GroupNorm, pool: int, dropout: float, columns: int, width: int) -> Block:
    taps, tap_distance = conv.kernel_size[0], conv.dilation[0] * width
    edge = (taps - 1) * tap_distance
    tap_offsets = torch.arange(taps) * tap_distance
    inputs, outputs = torch.arange(conv.in_channels)[:, None], torch.arange(conv.out_channels)[:, None]
    weight = conv.weight.detach()[..., 0]  # [O, C, taps]
    return Block(
        weight=_padded_rows(weight),
        rows=_padded_rows(inputs * columns + tap_offsets),
        back_weight=_padded_rows(weight.transpose(0, 1)),
        back_rows=_padded_rows(outputs * (columns + edge) + edge - tap_offsets),
        bias=conv.bias.detach().numpy().copy(),
        scale=norm.weight.detach().numpy().copy(),
        shift=norm.bias.detach().numpy().copy(),
        groups=norm.num_groups,
        epsilon=norm.eps,
        columns=columns - edge,
        edge=edge,
        width=width,
        pool=pool,
        dropout=dropout,
    )


def _padded_rows(values: Tensor) -> np.ndarray:
    """Return ``[..., channels, taps]`` as rows ``[..., R]``, zero-padded to a multiple of ROWS."""
    rows = values.flatten(-2)
    return F.pad(rows, (0, -rows.shape[-1] % ROWS)).contiguous().numpy().copy()
