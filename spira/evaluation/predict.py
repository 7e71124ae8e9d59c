"""A network's probability that a recording is a patient's: the mean over its windows, as in the paper."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

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
    return np.array([_of_windows(network, config, waveform, device).mean().item() for waveform in waveforms])


@torch.inference_mode()
def predict_windows(network: nn.Module, config: Config, waveform: np.ndarray) -> np.ndarray:
    """Return the probability of each window of a recording, ``[windows]`` float64; their mean is the recording's.

    Args:
        network: in evaluation mode.
        config: configuration of the network's training.
        waveform: ``[samples]`` float32, 16 kHz.
    """
    probabilities: np.ndarray = _of_windows(network, config, waveform, next(network.parameters()).device).cpu().numpy()
    return probabilities


def _of_windows(network: nn.Module, config: Config, waveform: np.ndarray, device: torch.device) -> Tensor:
    """Return the probability of each window, ``[windows]`` float64."""
    windows = file_mfcc(torch.tensor(waveform, device=device), config.windows, config.features)  # [W, T, F]
    probabilities: Tensor = network(windows).sigmoid().double()
    return probabilities.flatten()
