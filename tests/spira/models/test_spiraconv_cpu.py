"""SpiraConv trained in the cache: the same numbers as the same layers in eager torch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spira.config import Model
from spira.models import spiraconv_cpu, spiraconv_kernels
from spira.models.networks import SpiraConv, build, trains_in_cache


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Tests may change torch's number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def network(frames: int, coefficients: int, dropout: float, architecture: str = "spira_v2") -> SpiraConv:
    """SpiraConv in training with every parameter away from its initial value."""
    torch.manual_seed(1)
    made = build(Model(architecture=architecture, dropout=dropout), frames, coefficients).train()
    assert isinstance(made, SpiraConv)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return made


def mfcc_like(windows: int, frames: int, coefficients: int) -> Tensor:
    return 20 * torch.randn(windows, frames, coefficients, generator=torch.Generator().manual_seed(0))


def gradients(net: SpiraConv, maps: Tensor) -> dict[str, Tensor]:
    """Of the convolutional layers, for a gradient at the maps that is different everywhere."""
    net.zero_grad()
    weights = torch.linspace(-1, 1, maps.numel()).view(maps.shape)
    (maps * weights).sum().backward()
    return {name: parameter.grad.clone() for name, parameter in net.conv.named_parameters()}


def assert_same(net: SpiraConv, actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=2e-5)
    wanted, got = gradients(net, expected), gradients(net, actual)
    for name, gradient in wanted.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(got[name], gradient, rtol=0, atol=2e-5 * scale, msg=name)


@pytest.mark.parametrize(("windows", "frames", "coefficients"), [(1, 401, 40), (3, 301, 40), (19, 64, 13), (9, 67, 7)])
def test_maps_and_gradients_are_the_eager_layers(windows: int, frames: int, coefficients: int) -> None:
    """Without dropout, for batches over several tasks, odd numbers of frames and rows that fill no register."""
    net, features = network(frames, coefficients, dropout=0.0), mfcc_like(windows, frames, coefficients)
    assert_same(net, spiraconv_cpu.blocks(net.conv, features), net.conv(features[:, None]))


def kept(seed: int, shape: tuple[int, ...], dropout: float) -> Tensor:
    """The places of a window's map that dropout keeps: MurmurHash3's finaliser of seed + place, over p * 2^32."""
    h = (np.arange(np.prod(shape)) + seed).astype(np.uint32)
    h = (h ^ (h >> 16)) * np.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * np.uint32(0xC2B2AE35)
    return torch.from_numpy((h ^ (h >> 16)) >= np.uint32(dropout * 2**32)).view(shape)


class Masked(nn.Module):
    """Dropout by given masks."""

    def __init__(self, seeds: Tensor, dropout: float) -> None:
        super().__init__()
        self.seeds, self.dropout = seeds, dropout

    def forward(self, maps: Tensor) -> Tensor:
        masks = [kept(int(seed), tuple(maps.shape[1:]), self.dropout) for seed in self.seeds]
        return maps * torch.stack(masks) / (1 - self.dropout)


@pytest.mark.parametrize("dropout", [0.3, 0.7])
def test_dropout_goes_forward_and_back_through_the_same_places(dropout: float) -> None:
    """With the masks that follow from torch's seed, the eager layers give the same maps and gradients."""
    net, features = network(101, 40, dropout), mfcc_like(5, 101, 40)
    torch.manual_seed(3)
    actual = spiraconv_cpu.blocks(net.conv, features)
    torch.manual_seed(3)
    seeds = torch.randint(2**32, (5, 4))
    layers, block = [], 0
    for layer in net.conv:
        is_dropout = isinstance(layer, nn.Dropout)
        layers.append(Masked(seeds[:, block], dropout) if is_dropout else layer)
        block += is_dropout
    assert_same(net, actual, nn.Sequential(*layers)(features[:, None]))


@pytest.mark.parametrize("dropout", [0.05, 0.5, 0.7])
def test_dropout_keeps_its_share_and_neighbours_are_independent(dropout: float) -> None:
    """Over places, windows and neighbours in time and coefficient, within four standard errors."""
    net, features = network(401, 40, dropout), mfcc_like(40, 401, 40)
    kept_places = (spiraconv_cpu.blocks(net.conv, features).detach() != 0).double()  # [B, 4, T', F]
    p = 1 - dropout
    spread = (p * dropout) ** 0.5
    assert abs(kept_places.mean() - p) < 4 * spread / kept_places.numel() ** 0.5
    by_window = kept_places.mean(dim=(1, 2, 3))  # [B]
    assert abs(by_window.std() / (spread / kept_places[0].numel() ** 0.5) - 1) < 0.5
    centred = (kept_places - p) / spread
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
        maps = spiraconv_cpu.blocks(net.conv, features)
        return [maps.detach(), *gradients(net, maps).values()]

    first = run(5, threads=1)
    assert all(torch.equal(a, b) for a, b in zip(first, run(5, threads=1), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first, run(5, threads=3), strict=True))
    assert not torch.equal(first[0], run(6, threads=1)[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_number_that_is_none_is_not_hidden(bad: float) -> None:
    """NaN or infinity in the features makes the logits NaN, so that training can stop."""
    net, features = network(64, 13, 0.0), mfcc_like(2, 64, 13)
    features[1, 30, 5] = bad
    logits = net(features)
    assert not logits[0].isnan()
    assert logits[1].isnan()


def test_only_training_on_a_cpu_in_float32_with_groups_goes_this_way() -> None:
    """Evaluation, no gradients, V1, bfloat16 and gradients for the input are left to eager torch."""
    net, features = network(64, 13, 0.3), mfcc_like(2, 64, 13)
    assert trains_in_cache(net.conv, features)
    assert not trains_in_cache(net.conv, features.double())
    assert not trains_in_cache(net.conv, features.to("meta"))
    assert not trains_in_cache(net.conv, features.clone().requires_grad_())
    assert not trains_in_cache(network(64, 13, 0.3, "spira_v1").conv, features)
    with torch.no_grad():
        assert not trains_in_cache(net.conv, features)
    with torch.autocast("cpu", torch.bfloat16):
        assert not trains_in_cache(net.conv, features)
    assert not trains_in_cache(net.eval().conv, features)


def test_the_exponential_is_float32s() -> None:
    """Within 5e-7 of e^z where Mish takes it."""
    for z in np.linspace(-87, 20, 2001, dtype=np.float32):
        assert spiraconv_kernels.exponential(z) == pytest.approx(np.exp(np.float64(z)), rel=5e-7, abs=0), z
