"""A network's probability that a recording is a patient's: the mean over its windows, as in the paper."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import nn

from spira.config import Config
from spira.features.mfcc import file_mfcc


@torch.inference_mode()
def predict_waveforms(
    network: nn.Module, config: Config, waveforms: Iterable[np.ndarray], device: torch.device | None = None
) -> np.ndarray:
    """Return the probabilities of recordings, ``[recordings]`` float64; NaN where the network gives NaN.

    Args:
        network: in evaluation mode, on the device.
        config: configuration of the network's training.
        waveforms: ``[samples]`` float32 each, 16 kHz; read one by one.
        device: of the network, by default that of its weights.
    """
    device = device or next(network.parameters()).device
    means = []
    for waveform in waveforms:
        windows = file_mfcc(torch.tensor(waveform, device=device), config.windows, config.features)  # [W, T, F]
        means.append(network(windows).sigmoid().double().mean().item())
    return np.array(means)
