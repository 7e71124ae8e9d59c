"""SpiraConv's four blocks trained a window at a time, so that their maps never leave the processor's cache.

As separate operations on a whole batch they move maps of hundreds of megabytes through memory some thirty times
a step; the arithmetic is a tenth of the time. No block with GroupNorm ties one window to another, so here each
window goes through all of them by itself: forward, and for the gradients forward again and backward, in a few
megabytes made anew rather than kept. For training on a CPU; elsewhere the same layers run as eager torch.
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
"""Windows a task: gradients are summed by task, so that they don't depend on the number of threads."""


def blocks(conv: nn.Sequential, features: Tensor) -> Tensor:
    """``conv(features[:, None])`` and its gradients, ``[B, T, F] -> [B, 4, T', F]``; dropout from torch's generator."""
    count = sum(isinstance(layer, nn.Conv2d) for layer in conv)
    seeds = torch.randint(2**32, (len(features), count))  # one a window and block
    return _Blocks.apply(features, seeds, conv, *conv.parameters())


class _Blocks(torch.autograd.Function):
    """The blocks as one operation; it keeps the features and the seeds of dropout, nothing else."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, seeds: Tensor, conv: nn.Sequential, *parameters: Tensor) -> Tensor:
        windows, seeds32 = features.flatten(1).numpy(), seeds.numpy().astype(np.uint32)
        layers = read_blocks(conv, *features.shape[1:])

        def task(chunk: slice) -> np.ndarray:
            return spiraconv_kernels.forward(windows[chunk], seeds32[chunk], layers)  # [CHUNK, 4, T' * F]

        out = np.concatenate(_in_chunks(task, len(windows)))
        ctx.saved = windows, seeds32, layers, [parameter.shape for parameter in parameters]
        return torch.from_numpy(out).unflatten(2, (-1, features.shape[2]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        windows, seeds, layers, shapes = ctx.saved
        incoming = gradients[0].flatten(2).contiguous().numpy()

        def task(chunk: slice) -> list[np.ndarray]:
            weights = tuple(np.zeros_like(block.weight) for block in layers)
            vectors = tuple(np.zeros((3, len(block.bias)), np.float32) for block in layers)
            spiraconv_kernels.backward(windows[chunk], seeds[chunk], layers, incoming[chunk], weights, vectors)
            return [part for weight, rows in zip(weights, vectors, strict=True) for part in (weight, *rows)]

        parts = zip(*_in_chunks(task, len(windows)), strict=True)
        totals = [torch.from_numpy(np.sum(part, axis=0)) for part in parts]
        return None, None, None, *(_fit(total, shape) for total, shape in zip(totals, shapes, strict=True))


def _in_chunks(task: Callable[[slice], Result], count: int) -> list[Result]:
    """The results over chunks of windows in order, worked out on as many threads as torch may use."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return list(pool.map(task, (slice(start, start + CHUNK) for start in range(0, count, CHUNK))))


def _fit(total: Tensor, shape: torch.Size) -> Tensor:
    """Without the columns that only filled up rows, in the parameter's own shape."""
    return total[..., : shape[1:].numel()].reshape(shape) if len(shape) > 1 else total


def read_blocks(conv: nn.Sequential, frames: int, width: int) -> tuple[Block, ...]:
    """SpiraConv's ``conv`` for features ``[B, frames, width]``, its weights copied, as the kernels read it."""
    layers: list[Any] = list(conv)
    found: list[Block] = []
    for place, layer in enumerate(layers):
        if isinstance(layer, nn.Conv2d):
            norm, pools = layers[place + 1], isinstance(layers[place + 3], nn.MaxPool2d)
            found.append(_block(layer, norm, 2 if pools else 1, layers[place + 3 + pools].p, frames * width, width))
            frames = spiraconv_kernels.whole_frames(found[-1])
    return tuple(found)


def _block(conv: Any, norm: nn.GroupNorm, pool: int, drop: float, columns: int, width: int) -> Block:
    taps, reach = conv.kernel_size[0], conv.dilation[0] * width
    edge = (taps - 1) * reach
    read_at = torch.arange(taps) * reach
    inputs, outputs = torch.arange(conv.in_channels)[:, None], torch.arange(conv.out_channels)[:, None]
    weight = conv.weight.detach()[..., 0]  # [O, C, taps]
    return Block(
        weight=_filled(weight),
        rows=_filled(inputs * columns + read_at),
        back_weight=_filled(weight.transpose(0, 1)),
        back_rows=_filled(outputs * (columns + edge) + edge - read_at),
        bias=conv.bias.detach().numpy().copy(),
        scale=norm.weight.detach().numpy().copy(),
        shift=norm.bias.detach().numpy().copy(),
        groups=norm.num_groups,
        epsilon=norm.eps,
        columns=columns - edge,
        edge=edge,
        width=width,
        pool=pool,
        drop=drop,
    )


def _filled(values: Tensor) -> np.ndarray:
    """``[..., channels, taps]`` as rows ``[..., R]``, with zeros up to a multiple of ROWS."""
    rows = values.flatten(-2)
    return F.pad(rows, (0, -rows.shape[-1] % ROWS)).contiguous().numpy().copy()
