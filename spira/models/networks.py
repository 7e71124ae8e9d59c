"""The networks: the paper's SpiraConv (V1, V2), and a smaller convolutional network over time, which is the default.

All map the MFCC of windows, ``[B, T, coefficients]``, to one logit per window, ``[B]``. Their twins in numpy are in
:mod:`spira.inference.networks`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spira.config import Model
from spira.errors import SpiraError

BLOCKS = ((32, 7, 2), (16, 5, 2), (8, 3, 2), (4, 2, 1))
"""SpiraConv's blocks: output channels, kernel and dilation in time (Casanova and others, 2021)."""

KERNEL, DEPTH, GROUPS = 5, 5, 8
"""Conv1dNet: taps of a convolution, number of blocks, and groups of its normalisation."""

HIDDEN = 100
"""Width of SpiraConv's first linear layer."""


class SpiraConv(nn.Module):
    """The paper's network, with the parameter names of the paper's checkpoints."""

    def __init__(self, frames: int, coefficients: int, dropout: float, group_norm: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for index, (width, kernel, dilation) in enumerate(BLOCKS):
            layers += [
                nn.Conv2d(channels, width, (kernel, 1), dilation=(dilation, 1)),
                nn.GroupNorm(width // 2, width) if group_norm else nn.BatchNorm2d(width),
                nn.Mish(),
            ]
            is_last = index == len(BLOCKS) - 1
            layers += [nn.Dropout(dropout)] if is_last else [nn.MaxPool2d((2, 1)), nn.Dropout(dropout)]
            channels = width
        self.conv = nn.Sequential(*layers)
        self.fc1 = nn.Linear(conv_frames(frames) * channels * coefficients, HIDDEN)
        self.mish = nn.Mish()
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(HIDDEN, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits, ``[B, T, F] -> [B]``; the paper's output is their sigmoid."""
        if can_use_cpu_kernels(self.conv, features):
            from spira.models import spiraconv_cpu  # here: its compiler takes half a second to import

            maps = spiraconv_cpu.apply_blocks(self.conv, features)  # [B, 4, T', F]
        else:
            maps = self.conv(features[:, None])
        flat = maps.transpose(1, 2).flatten(1)  # [B, T' * 4 * F]
        return self.fc2(self.dropout(self.mish(self.fc1(flat)))).squeeze(1)


def can_use_cpu_kernels(conv: nn.Sequential, features: Tensor) -> bool:
    """Return whether :mod:`.spiraconv_cpu` applies: training on a CPU, in float32, without BatchNorm."""
    training = conv.training and torch.is_grad_enabled() and not features.requires_grad
    plain = features.device.type == "cpu" and features.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return training and plain and isinstance(conv[1], nn.GroupNorm)


def conv_frames(frames: int) -> int:
    """Return how many of ``frames`` frames are left after SpiraConv's four blocks."""
    for index, (_, kernel, dilation) in enumerate(BLOCKS):
        frames -= dilation * (kernel - 1)
        if index < len(BLOCKS) - 1:
            frames //= 2
    if frames < 1:
        raise SpiraError("a window is too short for SpiraConv: no frame is left; use longer windows")
    return frames


class Conv1dNet(nn.Module):
    """Convolutions over time that halve it five times (1.3 s of context), pooled to a fixed size; the default.

    Breath groups and pauses are seconds long. The paper's network covers them by its large linear layer, this one by
    its depth, with a twentieth of the arithmetic.
    """

    def __init__(self, coefficients: int, channels: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(coefficients, affine=False)  # scales the coefficients, c0 to c39
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(inputs, channels, KERNEL, padding=KERNEL // 2),
                nn.GroupNorm(GROUPS, channels),
                nn.ReLU(),
                nn.MaxPool1d(2),
                nn.Dropout(dropout),
            )
            for inputs in (coefficients, *[channels] * (DEPTH - 1))
        )
        self.head = nn.Linear(2 * channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits, ``[B, T, F] -> [B]``."""
        maps = self.norm(features.transpose(1, 2))  # [B, F, T]
        for block in self.blocks:
            maps = block(maps)  # [B, channels, T // 2]
        pooled = torch.cat([maps.mean(dim=2), maps.amax(dim=2)], dim=1)  # [B, 2 * channels]
        return self.head(pooled).squeeze(1)


def build(model: Model, frames: int, coefficients: int) -> nn.Module:
    """Return the configured network for windows of ``frames`` frames; torch's seed determines the weights."""
    if model.architecture == "conv1d":
        if frames < 2**DEPTH:
            raise SpiraError(
                f"a window of {frames} frames is too short for conv1d: it needs {2**DEPTH}; use longer windows"
            )
        return Conv1dNet(coefficients, model.channels, model.dropout)
    return SpiraConv(frames, coefficients, model.dropout, group_norm=model.architecture == "spira_v2")
