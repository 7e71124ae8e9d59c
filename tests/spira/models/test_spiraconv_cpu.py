"""The CPU kernels of SpiraConv give the same numbers as the same layers in eager torch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spira.config import Model
from spira.models import spiraconv_cpu, spiraconv_kernels
from spira.models.networks import SpiraConv, build, can_use_cpu_kernels


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Restore torch's number of threads after a test."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def network(frames: int, coefficients: int, dropout: float, architecture: str = "spira_v2") -> SpiraConv:
    """Return SpiraConv in training mode with every parameter away from its initial value."""
    torch.manual_seed(1)
    network = build(Model(architecture=architecture, dropout=dropout), frames, coefficients).train()
    assert isinstance(network, SpiraConv)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network


def mfcc_like(windows: int, frames: int, coefficients: int) -> Tensor:
    return 20 * torch.randn(windows, frames, coefficients, generator=torch.Generator().manual_seed(0))


def gradients(net: SpiraConv, maps: Tensor) -> dict[str, Tensor]:
    """Return the gradients of the convolutional layers for a gradient at the maps that is different everywhere."""
    net.zero_grad()
    weights = torch.linspace(-1, 1, maps.numel()).view(maps.shape)
    (maps * weights).sum().backward()
    return {name: parameter.grad.clone() for name, parameter in net.conv.named_parameters()}


def assert_equal(net: SpiraConv, actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=2e-5)
    expected_gradients, actual_gradients = gradients(net, expected), gradients(net, actual)
    for name, gradient in expected_gradients.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(actual_gradients[name], gradient, rtol=0, atol=2e-5 * scale, msg=name)


@pytest.mark.parametrize(("windows", "frames", "coefficients"), [(1, 401, 40), (3, 301, 40), (19, 64, 13), (9, 67, 7)])
def test_maps_and_gradients_equal_those_of_the_eager_layers(windows: int, frames: int, coefficients: int) -> None:
    """Without dropout, for batches of several tasks, odd numbers of frames, and rows that do not fill a register."""
    net, features = network(frames, coefficients, dropout=0.0), mfcc_like(windows, frames, coefficients)
    assert_equal(net, spiraconv_cpu.apply_blocks(net.conv, features), net.conv(features[:, None]))


def keep_mask(seed: int, shape: tuple[int, ...], dropout: float) -> Tensor:
    """Return the positions that dropout keeps: those whose hash, MurmurHash3's finaliser, is at least p * 2^32."""
    h = (np.arange(np.prod(shape)) + seed).astype(np.uint32)
    h = (h ^ (h >> 16)) * np.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * np.uint32(0xC2B2AE35)
    return torch.from_numpy((h ^ (h >> 16)) >= np.uint32(dropout * 2**32)).view(shape)


class MaskedDropout(nn.Module):
    """Dropout with the masks of given seeds."""

    def __init__(self, seeds: Tensor, dropout: float) -> None:
        super().__init__()
        self.seeds, self.dropout = seeds, dropout

    def forward(self, maps: Tensor) -> Tensor:
        masks = [keep_mask(int(seed), tuple(maps.shape[1:]), self.dropout) for seed in self.seeds]
        return maps * torch.stack(masks) / (1 - self.dropout)


@pytest.mark.parametrize("dropout", [0.3, 0.7])
def test_dropout_has_the_same_mask_forward_and_backward(dropout: float) -> None:
    """With the masks that follow from torch's seed, the eager layers give the same maps and gradients."""
    net, features = network(101, 40, dropout), mfcc_like(5, 101, 40)
    torch.manual_seed(3)
    actual = spiraconv_cpu.apply_blocks(net.conv, features)
    torch.manual_seed(3)
    seeds = torch.randint(2**32, (5, 4))
    layers, block = [], 0
    for layer in net.conv:
        is_dropout = isinstance(layer, nn.Dropout)
        layers.append(MaskedDropout(seeds[:, block], dropout) if is_dropout else layer)
        block += is_dropout
    assert_equal(net, actual, nn.Sequential(*layers)(features[:, None]))


@pytest.mark.parametrize("dropout", [0.05, 0.5, 0.7])
def test_dropout_keeps_its_share_independently_of_neighbours(dropout: float) -> None:
    """The share holds over positions, windows and neighbours in time and coefficient, within four standard errors."""
    net, features = network(401, 40, dropout), mfcc_like(40, 401, 40)
    is_kept = (spiraconv_cpu.apply_blocks(net.conv, features).detach() != 0).double()  # [B, 4, T', F]
    p = 1 - dropout
    spread = (p * dropout) ** 0.5
    assert abs(is_kept.mean() - p) < 4 * spread / is_kept.numel() ** 0.5
    by_window = is_kept.mean(dim=(1, 2, 3))  # [B]
    assert abs(by_window.std() / (spread / is_kept[0].numel() ** 0.5) - 1) < 0.5
    centred = (is_kept - p) / spread
    for a, b in (
        (centred[:, :, 1:], centred[:, :, :-1]),
        (centred[..., 1:], centred[..., :-1]),
        (centred[:, 1:], centred[:, :-1]),
        (centred[1:], centred[:-1]),
    ):
        assert abs((a * b).mean()) < 4 / a.numel() ** 0.5


def test_the_same_seed_gives_the_same_bits_on_any_number_of_threads() -> None:
    """Maps and gradients are a function of weights, features and torch's seed; another seed gives others."""
    net, features = network(101, 40, 0.7), mfcc_like(20, 101, 40)

    def run(seed: int, threads: int) -> list[Tensor]:
        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        maps = spiraconv_cpu.apply_blocks(net.conv, features)
        return [maps.detach(), *gradients(net, maps).values()]

    first = run(5, threads=1)
    assert all(torch.equal(a, b) for a, b in zip(first, run(5, threads=1), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first, run(5, threads=3), strict=True))
    assert not torch.equal(first[0], run(6, threads=1)[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_are_propagated(bad: float) -> None:
    """They make the logits NaN, so that training can stop."""
    net, features = network(64, 13, 0.0), mfcc_like(2, 64, 13)
    features[1, 30, 5] = bad
    logits = net(features)
    assert not logits[0].isnan()
    assert logits[1].isnan()


def test_kernels_are_used_only_for_training_on_a_cpu_in_float32_with_groupnorm() -> None:
    """Evaluation, no gradients, V1, bfloat16 and gradients of the input use eager torch."""
    net, features = network(64, 13, 0.3), mfcc_like(2, 64, 13)
    assert can_use_cpu_kernels(net.conv, features)
    assert not can_use_cpu_kernels(net.conv, features.double())
    assert not can_use_cpu_kernels(net.conv, features.to("meta"))
    assert not can_use_cpu_kernels(net.conv, features.clone().requires_grad_())
    assert not can_use_cpu_kernels(network(64, 13, 0.3, "spira_v1").conv, features)
    with torch.no_grad():
        assert not can_use_cpu_kernels(net.conv, features)
    with torch.autocast("cpu", torch.bfloat16):
        assert not can_use_cpu_kernels(net.conv, features)
    assert not can_use_cpu_kernels(net.eval().conv, features)


def test_the_exponential_is_exact_to_float32() -> None:
    """Within 5e-7 of e^z in the range that Mish needs."""
    for z in np.linspace(-87, 20, 2001, dtype=np.float32):
        assert spiraconv_kernels.exponential(z) == pytest.approx(np.exp(np.float64(z)), rel=5e-7, abs=0), z
