"""The networks: SpiraConv equals a literal form of the paper's network; properties of all networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from spira.config import Model
from spira.errors import SpiraError
from spira.models.networks import build, conv_frames
from tests.support.paper_network import NAMES, trained_looking

ARCHITECTURES = ("conv1d", "spira_v1", "spira_v2")


def mfcc_like(windows: int, frames: int = 401) -> torch.Tensor:
    """Return random numbers of the magnitude of MFCC, ``[windows, frames, 40]``."""
    return 30 * torch.randn(windows, frames, 40, generator=torch.Generator().manual_seed(0))


@pytest.mark.integration
@pytest.mark.parametrize(("architecture", "group_norm"), [("spira_v1", False), ("spira_v2", True)])
@pytest.mark.parametrize("frames", [301, 401, 1201])
def test_spiraconv_is_the_papers_network(architecture: str, group_norm: bool, frames: int) -> None:
    """With the paper's weights, windows of 3 s, 4 s and 12 s give the paper's probabilities within 1e-6."""
    paper = trained_looking(frames, group_norm)
    network = build(Model(architecture=architecture, dropout=0.7), frames, 40).eval()
    network.load_state_dict(paper.state_dict())
    features = mfcc_like(8, frames)
    with torch.inference_mode():
        expected, actual = paper(features).squeeze(1), network(features).sigmoid()
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)
    assert expected.std() > 1e-3  # the outputs depend on the input


@pytest.mark.parametrize("architecture", ["spira_v1", "spira_v2"])
def test_spiraconv_has_the_papers_parameter_names(architecture: str) -> None:
    """Checkpoints of the paper are loaded by name."""
    network = build(Model(architecture=architecture), 401, 40)
    assert [name for name, _ in network.named_parameters()] == NAMES


@pytest.mark.integration
def test_spiraconv_trains_like_the_papers_network() -> None:
    """Gradients are compared without dropout, which is random."""
    paper = trained_looking().train()
    for module in paper.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    network = build(Model(architecture="spira_v2", dropout=0.0), 401, 40).train()
    network.load_state_dict(paper.state_dict())
    features, labels = mfcc_like(6), torch.tensor([0.0, 1, 0, 1, 0, 1])
    nn.functional.binary_cross_entropy(paper(features).squeeze(1), labels).backward()
    nn.functional.binary_cross_entropy_with_logits(network(features), labels).backward()
    parameters = dict(network.named_parameters())
    for name, parameter in paper.named_parameters():
        scale = float(parameter.grad.abs().max())
        torch.testing.assert_close(parameters[name].grad, parameter.grad, rtol=0, atol=1e-4 * scale, msg=name)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("windows", [1, 2, 7])
def test_a_window_has_one_logit(architecture: str, windows: int) -> None:
    """The shape is ``[B, T, 40] -> [B]`` in training and evaluation, for a batch of one too."""
    network = build(Model(architecture=architecture, channels=8), 401, 40)
    for training in (True, False):
        assert network.train(training)(mfcc_like(windows)).shape == (windows,)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_windows_logit_is_independent_of_the_batch_in_evaluation(architecture: str) -> None:
    """It does not depend on the other windows, and is not random."""
    torch.manual_seed(0)
    network = build(Model(architecture=architecture, channels=8), 401, 40).eval()
    features = mfcc_like(5)
    with torch.inference_mode():
        together, alone = network(features), torch.cat([network(window[None]) for window in features])
        assert torch.equal(together, network(features))
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_initial_weights_follow_torchs_seed(architecture: str) -> None:
    """Equal seeds give equal networks, other seeds other networks."""
    weights = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        network = build(Model(architecture=architecture, channels=8), 401, 40)
        weights.append(nn.utils.parameters_to_vector(network.parameters()))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_dropout_follows_the_configuration(architecture: str) -> None:
    """Without dropout training is deterministic; with it, two passes differ."""
    for dropout, is_deterministic in ((0.0, True), (0.5, False)):
        torch.manual_seed(0)
        network = build(Model(architecture=architecture, channels=8, dropout=dropout), 401, 40).train()
        features = mfcc_like(4)
        assert torch.equal(network(features), network(features)) is is_deterministic


def test_a_window_of_4_seconds_leaves_43_frames_for_the_linear_layer() -> None:
    """The import of a checkpoint derives the window length from this size."""
    assert conv_frames(401) == 43
    assert build(Model(architecture="spira_v2"), 401, 40).fc1.in_features == 43 * 4 * 40


@pytest.mark.parametrize(("architecture", "frames"), [("conv1d", 31), ("spira_v1", 40), ("spira_v2", 40)])
def test_a_window_too_short_for_the_network_is_refused(architecture: str, frames: int) -> None:
    """When the network is built, not at the first batch."""
    with pytest.raises(SpiraError, match=r"too short.*longer windows"):
        build(Model(architecture=architecture), frames, 40)


def test_the_shortest_window_of_conv1d_works() -> None:
    """32 frames, halved five times, leave one."""
    network = build(Model(channels=8), 32, 40).eval()
    assert network(mfcc_like(2, 32)).shape == (2,)
