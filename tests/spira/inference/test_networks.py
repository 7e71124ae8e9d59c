"""Tests of the networks of a package and their operations against torch."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from spira.features.mfcc import file_mfcc
from spira.inference import networks
from spira.inference.mfcc import Mfcc
from spira.inference.windows import cut
from spira.models import checkpoint
from tests.support.packages import ARCHITECTURES, config_of, make_checkpoint, signal


def arrays(trained: checkpoint.Checkpoint) -> dict[str, np.ndarray]:
    """Return the weights of a checkpoint as numpy arrays."""
    return {name: value.numpy() for name, value in trained.network.state_dict().items()}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> checkpoint.Checkpoint:
    folder = tmp_path_factory.mktemp("trained")
    return checkpoint.load(make_checkpoint(folder, config_of(request.param)))


def test_logits_equal_those_of_torch(trained: checkpoint.Checkpoint) -> None:
    """From the same features, each window has the same logit within float32 rounding."""
    config = trained.config
    features = file_mfcc(torch.from_numpy(signal(9.3)), config.windows, config.features)
    with torch.inference_mode():
        expected = trained.network(features).numpy()
    logit = networks.build(config.model.architecture, arrays(trained))
    actual = np.array([logit(window) for window in features.numpy()])
    assert len(actual) == 6
    assert np.abs(actual - expected).max() < 1e-5
    assert expected.std() > 1e-4, "the windows are too similar for a meaningful comparison"


def test_a_missing_array_is_named(trained: checkpoint.Checkpoint) -> None:
    """The error for weights of another network names the missing array."""
    weights = arrays(trained)
    missing = next(name for name in weights if name.endswith("1.weight"))
    del weights[missing]
    with pytest.raises(ValueError, match=missing):
        networks.build(trained.config.model.architecture, weights)


def test_an_unknown_architecture_is_refused() -> None:
    """The error lists the supported architectures."""
    with pytest.raises(ValueError, match="conv1d, spira_v1, spira_v2"):
        networks.build("transformer", {})


def test_eight_seconds_take_less_than_50_ms(trained: checkpoint.Checkpoint) -> None:
    """Features and network of an 8 s recording, in CPU time, so that other processes do not matter."""
    config = trained.config
    mfcc, logit = Mfcc(config.features.model_dump()), networks.build(config.model.architecture, arrays(trained))
    waveform, windows = signal(8.0), config.windows.model_dump()
    seconds = []
    with threadpool_limits(1):
        for _ in range(5):
            start = time.thread_time()
            for window in cut(waveform, windows):
                logit(mfcc(window))
            seconds.append(time.thread_time() - start)
    assert min(seconds) < 0.05


sizes = st.integers(1, 5)


@given(
    inputs=sizes,
    outputs=sizes,
    taps=sizes,
    dilation=st.integers(1, 3),
    padding=st.integers(0, 3),
    columns=st.sampled_from([(), (3,)]),
)
@settings(max_examples=50)
def test_conv_equals_torch(
    inputs: int, outputs: int, taps: int, dilation: int, padding: int, columns: tuple[int, ...]
) -> None:
    """It does so for any kernel, dilation and padding, with and without coefficients."""
    rng = np.random.default_rng(inputs)
    maps = rng.standard_normal((inputs, 20, *columns)).astype(np.float32)
    kernel = rng.standard_normal((outputs, inputs, taps)).astype(np.float32)
    bias = rng.standard_normal(outputs).astype(np.float32)
    actual = networks.conv(maps, kernel, bias, dilation, padding)
    expected = F.conv2d(
        torch.from_numpy(maps.reshape(inputs, 20, -1)),
        torch.from_numpy(kernel)[..., None],
        torch.from_numpy(bias),
        dilation=(dilation, 1),
        padding=(padding, 0),
    ).numpy()
    assert np.abs(actual - expected.reshape(actual.shape)).max() < 1e-4


@given(groups=st.integers(1, 4), width=st.integers(1, 4), frames=st.integers(2, 30), level=st.floats(-50, 50))
@settings(max_examples=50)
def test_group_norm_equals_torch(groups: int, width: int, frames: int, level: float) -> None:
    """The test draws any number of groups, also far from zero."""
    rng = np.random.default_rng(groups)
    maps = (rng.standard_normal((groups * width, frames, 3)) + level).astype(np.float32)
    scale, shift = rng.standard_normal((2, groups * width)).astype(np.float32)
    expected = F.group_norm(
        torch.from_numpy(maps)[None], groups, torch.from_numpy(scale), torch.from_numpy(shift)
    ).numpy()[0]
    assert np.abs(networks.group_norm(maps, groups, scale, shift) - expected).max() < 1e-4


@given(st.floats(-1e4, 1e4, width=32))
def test_mish_equals_torch(value: float) -> None:
    """The test draws any value; none overflows."""
    x = np.array([value], np.float32)
    assert np.allclose(networks.mish(x), F.mish(torch.from_numpy(x)).numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("frames", [2, 7, 8])
def test_max_pool_equals_torch(frames: int) -> None:
    """An odd last frame is dropped."""
    maps = np.random.default_rng(0).standard_normal((3, frames, 2)).astype(np.float32)
    expected = F.max_pool2d(torch.from_numpy(maps), (2, 1)).numpy()
    assert np.array_equal(networks.max_pool(maps), expected)


def test_operations_do_not_change_their_input(tmp_path: Path) -> None:
    """Threads share the weights, and the input of a block may be used again."""
    maps = np.random.default_rng(0).standard_normal((4, 10, 3)).astype(np.float32)
    before = maps.copy()
    networks.group_norm(maps, 2, np.ones(4, np.float32), np.ones(4, np.float32))
    networks.mish(maps)
    networks.conv(maps, np.ones((1, 4, 3), np.float32), np.ones(1, np.float32))
    assert np.array_equal(maps, before)
