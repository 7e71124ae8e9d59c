"""The paper's network in a literal form, as reference for parity tests."""

from __future__ import annotations

import torch
from torch import Tensor, nn

NAMES = [
    f"{layer}.{kind}"
    for layer in ("conv.0", "conv.1", "conv.5", "conv.6", "conv.10", "conv.11", "conv.15", "conv.16", "fc1", "fc2")
    for kind in ("weight", "bias")
]
"""Names of its parameters."""


class Mish(nn.Module):
    """The function x tanh(ln(1 + exp(x)))."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.tanh(nn.functional.softplus(x))


class PaperNetwork(nn.Module):
    """Network ``[B, T, 40] -> [B, 1]`` with probabilities; V1 has batch normalisation, V2 group normalisation."""

    def __init__(self, frames: int = 401, group_norm: bool = True) -> None:
        super().__init__()

        def norm(groups: int, channels: int) -> nn.Module:
            return nn.GroupNorm(groups, channels) if group_norm else nn.BatchNorm2d(channels)

        self.conv = nn.Sequential(
            nn.Conv2d(1, 32, kernel_size=(7, 1), dilation=(2, 1)),
            norm(16, 32), Mish(), nn.MaxPool2d(kernel_size=(2, 1)), nn.Dropout(0.7),
            nn.Conv2d(32, 16, kernel_size=(5, 1), dilation=(2, 1)),
            norm(8, 16), Mish(), nn.MaxPool2d(kernel_size=(2, 1)), nn.Dropout(0.7),
            nn.Conv2d(16, 8, kernel_size=(3, 1), dilation=(2, 1)),
            norm(4, 8), Mish(), nn.MaxPool2d(kernel_size=(2, 1)), nn.Dropout(0.7),
            nn.Conv2d(8, 4, kernel_size=(2, 1)),
            norm(2, 4), Mish(), nn.Dropout(0.7),
        )  # fmt: skip
        _, channels, frames_left, coefficients = self.conv(torch.zeros(1, 1, frames, 40)).shape
        self.fc1 = nn.Linear(channels * frames_left * coefficients, 100)
        self.mish = Mish()
        self.fc2 = nn.Linear(100, 1)
        self.dropout = nn.Dropout(0.7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x.unsqueeze(1))  # [B, 4, T', 40]
        x = x.transpose(1, 2).contiguous()  # [B, T', 4, 40]
        x = x.view(x.size(0), -1)  # [B, T' * 4 * 40]
        x = self.dropout(self.mish(self.fc1(x)))  # [B, 100]
        return torch.sigmoid(self.fc2(x))


def trained_looking(frames: int = 401, group_norm: bool = True, seed: int = 0) -> PaperNetwork:
    """Return a network in evaluation mode with every parameter and statistic away from its initial value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = PaperNetwork(frames, group_norm).eval()
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=generator)
            value += 0.3 * noise.abs() if name.endswith("running_var") else 0.05 * noise
    return network
