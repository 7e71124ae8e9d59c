"""Batches of window features: noise, windows and MFCC of some recordings, computed when they are needed.

All randomness is a function of (seed, epoch, recording). A batch is the same whenever it is computed, and a resumed
training gets the batches that an uninterrupted one would have had.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from spira.config import Config
from spira.features import noise
from spira.features.mfcc import files_mfcc
from spira.features.windows import window_count

VALIDATION_KEY = 0x5E1EC7
"""First key of the validation's noise: it differs from every training seed's."""


class LabelledRecordings(Protocol):
    """The part of a corpus split that batches are made from."""

    @property
    def labels(self) -> np.ndarray: ...

    def waveform(self, index: int) -> np.ndarray: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Batch:
    """The windows of a few recordings."""

    features: Tensor
    """``[W, T, n_mfcc]`` of all windows."""
    labels: Tensor
    """``[W]`` float, the class of each window's recording."""
    files: Tensor
    """``[W]`` long, the index in the batch of each window's recording."""


def noisy_waveform(
    recordings: LabelledRecordings,
    index: int,
    noises: Sequence[np.ndarray],
    counts: tuple[int, int],
    config: Config,
    key: list[int],
) -> np.ndarray:
    """Return a recording with the noises of its class added, ``[samples]``; ``counts`` are (controls, patients)."""
    count = noise.noise_count(int(recordings.labels[index]), *counts)
    rng = np.random.default_rng([*key, index])
    return noise.insert(recordings.waveform(index), noises, count, config.noise, rng)


def noisy_batch(
    recordings: LabelledRecordings,
    noises: Sequence[np.ndarray],
    indices: Sequence[int],
    config: Config,
    key: list[int],
    device: torch.device,
) -> Batch:
    """Return the batch of some recordings with the training's noise."""
    counts = (config.noise.train_controls, config.noise.train_patients)
    waveforms = [noisy_waveform(recordings, index, noises, counts, config, key) for index in indices]
    return make_batch(waveforms, recordings.labels[list(indices)], config, device)


def make_batch(waveforms: Sequence[np.ndarray], labels: np.ndarray, config: Config, device: torch.device) -> Batch:
    """Return the windows' features of some waveforms as one batch on the device."""
    counts = torch.tensor([window_count(len(waveform), config.windows) for waveform in waveforms])
    files = torch.repeat_interleave(torch.arange(len(waveforms)), counts)  # [W]
    targets = torch.from_numpy(labels.astype(np.float32))[files]  # [W]
    on_device = [torch.from_numpy(waveform).to(device) for waveform in waveforms]
    return Batch(files_mfcc(on_device, config.windows, config.features), targets.to(device), files.to(device))


def training_batches(
    recordings: LabelledRecordings,
    noises: Sequence[np.ndarray],
    config: Config,
    seed: int,
    epoch: int,
    device: torch.device,
) -> Iterator[Batch]:
    """Yield one epoch: each recording at most once, in the epoch's order, with new noise. An incomplete last batch is
    dropped."""
    order = np.random.default_rng([seed, epoch]).permutation(len(recordings)).tolist()
    size = min(config.training.batch_files, len(recordings))
    for start in range(0, len(order) - size + 1, size):
        yield noisy_batch(recordings, noises, order[start : start + size], config, [seed, epoch], device)


def validation_batches(
    recordings: LabelledRecordings, noises: Sequence[np.ndarray], config: Config, device: torch.device
) -> Iterator[Batch]:
    """Yield the validation split with the training's noise: the same draw in every epoch and for every seed."""
    indices, size = list(range(len(recordings))), config.training.batch_files
    for start in range(0, len(indices), size):
        yield noisy_batch(recordings, noises, indices[start : start + size], config, [VALIDATION_KEY], device)
