"""The served networks and their operations against torch's."""

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
from spira.inference import networks as served
from spira.inference.mfcc import Mfcc
from spira.inference.windows import cut
from spira.models import checkpoint
from tests.support.packages import ARCHITECTURES, config_of, make_checkpoint, signal


def arrays(trained: checkpoint.Checkpoint) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in trained.network.state_dict().items()}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> checkpoint.Checkpoint:
    folder = tmp_path_factory.mktemp("trained")
    return checkpoint.load(make_checkpoint(folder, config_of(request.param)))


def test_logits_are_torchs(trained: checkpoint.Checkpoint) -> None:
    """Each architecture's logit of each window, from the same features, within float32 rounding."""
    config = trained.config
    features = file_mfcc(torch.from_numpy(signal(9.3)), config.windows, config.features)
    with torch.inference_mode():
        expected = trained.network(features).numpy()
    logit = served.build(config.model.architecture, arrays(trained))
    actual = np.array([logit(window) for window in features.numpy()])
    assert len(actual) == 6
    assert np.abs(actual - expected).max() < 1e-5
    assert expected.std() > 1e-4, "the windows must differ, or the comparison says little"


def test_missing_array_is_named(trained: checkpoint.Checkpoint) -> None:
    """Weights of another network are refused by the name that is missing."""
    weights = arrays(trained)
    lost = next(name for name in weights if name.endswith("1.weight"))
    del weights[lost]
    with pytest.raises(ValueError, match=lost):
        served.build(trained.config.model.architecture, weights)


def test_unknown_architecture_is_refused() -> None:
    """A package of a later version says so rather than answering wrongly."""
    with pytest.raises(ValueError, match="conv1d, spira_v1, spira_v2"):
        served.build("transformer", {})


def test_eight_seconds_take_less_than_50_ms(trained: checkpoint.Checkpoint) -> None:
    """Features and network of an 8 s recording, in a core's own time: how busy the machine is doesn't count."""
    config = trained.config
    mfcc, logit = Mfcc(config.features.model_dump()), served.build(config.model.architecture, arrays(trained))
    waveform, plan = signal(8.0), config.windows.model_dump()
    seconds = []
    with threadpool_limits(1):
        for _ in range(5):
            began = time.thread_time()
            for window in cut(waveform, plan):
                logit(mfcc(window))
            seconds.append(time.thread_time() - began)
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
@settings(max_examples=50, deadline=None)
def test_conv_is_torchs(
    inputs: int, outputs: int, taps: int, dilation: int, padding: int, columns: tuple[int, ...]
) -> None:
    """Along time, for any kernel, dilation and padding, with and without columns."""
    rng = np.random.default_rng(inputs)
    maps = rng.standard_normal((inputs, 20, *columns)).astype(np.float32)
    kernel = rng.standard_normal((outputs, inputs, taps)).astype(np.float32)
    bias = rng.standard_normal(outputs).astype(np.float32)
    actual = served.conv(maps, kernel, bias, dilation, padding)
    expected = F.conv2d(
        torch.from_numpy(maps.reshape(inputs, 20, -1)),
        torch.from_numpy(kernel)[..., None],
        torch.from_numpy(bias),
        dilation=(dilation, 1),
        padding=(padding, 0),
    ).numpy()
    assert np.abs(actual - expected.reshape(actual.shape)).max() < 1e-4


@given(groups=st.integers(1, 4), width=st.integers(1, 4), frames=st.integers(2, 30), level=st.floats(-50, 50))
@settings(max_examples=50, deadline=None)
def test_group_norm_is_torchs(groups: int, width: int, frames: int, level: float) -> None:
    """For any division into groups, and far from zero."""
    rng = np.random.default_rng(groups)
    maps = (rng.standard_normal((groups * width, frames, 3)) + level).astype(np.float32)
    scale, shift = rng.standard_normal((2, groups * width)).astype(np.float32)
    expected = F.group_norm(
        torch.from_numpy(maps)[None], groups, torch.from_numpy(scale), torch.from_numpy(shift)
    ).numpy()[0]
    assert np.abs(served.group_norm(maps, groups, scale, shift) - expected).max() < 1e-4


@given(st.floats(-1e4, 1e4, width=32))
def test_mish_is_torchs(value: float) -> None:
    """At any value, without overflow."""
    x = np.array([value], np.float32)
    assert np.allclose(served.mish(x), F.mish(torch.from_numpy(x)).numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("frames", [2, 7, 8])
def test_max_pool_is_torchs(frames: int) -> None:
    """An odd frame at the end is dropped."""
    maps = np.random.default_rng(0).standard_normal((3, frames, 2)).astype(np.float32)
    expected = F.max_pool2d(torch.from_numpy(maps), (2, 1)).numpy()
    assert np.array_equal(served.max_pool(maps), expected)


def test_operations_leave_their_input_as_it_was(tmp_path: Path) -> None:
    """Threads share the weights, and a block's input may be used again."""
    maps = np.random.default_rng(0).standard_normal((4, 10, 3)).astype(np.float32)
    before = maps.copy()
    served.group_norm(maps, 2, np.ones(4, np.float32), np.ones(4, np.float32))
    served.mish(maps)
    served.conv(maps, np.ones((1, 4, 3), np.float32), np.ones(1, np.float32))
    assert np.array_equal(maps, before)
