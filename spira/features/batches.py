"""Recordings into batches of window features: noise, windows and MFCC composed, nothing kept.

All randomness is a function of (seed, epoch, recording), so a batch is the same whoever asks for it and
whenever, and a resumed training sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from spira.config import Config
from spira.features import noise, windows
from spira.features.mfcc import files_mfcc


class Labelled(Protocol):
    """What training needs of a split of the corpus."""

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
    """``[W]`` long, each window's recording: its place in the batch."""


def noisy_waveform(
    recordings: Labelled,
    index: int,
    noises: Sequence[np.ndarray],
    counts: tuple[int, int],
    config: Config,
    key: list[int],
) -> np.ndarray:
    """The recording with the noises of its class added, ``[samples]``; ``counts`` are (controls, patients)."""
    number = noise.class_count(int(recordings.labels[index]), *counts)
    rng = np.random.default_rng([*key, index])
    return noise.insert(recordings.waveform(index), noises, number, config.noise, rng)


def noisy_batch(
    recordings: Labelled,
    noises: Sequence[np.ndarray],
    chosen: Sequence[int],
    config: Config,
    key: list[int],
    device: torch.device,
) -> Batch:
    """Some recordings under the training's noise."""
    counts = (config.noise.train_controls, config.noise.train_patients)
    waveforms = [noisy_waveform(recordings, index, noises, counts, config, key) for index in chosen]
    return compose(waveforms, recordings.labels[list(chosen)], config, device)


def compose(waveforms: Sequence[np.ndarray], labels: np.ndarray, config: Config, device: torch.device) -> Batch:
    """The windows' features of some waveforms as one batch on the device."""
    counts = torch.tensor([windows.count(len(waveform), config.windows) for waveform in waveforms])
    files = torch.repeat_interleave(torch.arange(len(waveforms)), counts)  # [W]
    targets = torch.from_numpy(labels.astype(np.float32))[files]  # [W]
    on_device = [torch.from_numpy(waveform).to(device) for waveform in waveforms]
    return Batch(files_mfcc(on_device, config.windows, config.features), targets.to(device), files.to(device))


def training_batches(
    recordings: Labelled, noises: Sequence[np.ndarray], config: Config, seed: int, epoch: int, device: torch.device
) -> Iterator[Batch]:
    """One epoch: every recording at most once, in its own order, with fresh noise; the last part batch dropped."""
    order = np.random.default_rng([seed, epoch]).permutation(len(recordings)).tolist()
    size = min(config.training.batch_files, len(recordings))
    for start in range(0, len(order) - size + 1, size):
        yield noisy_batch(recordings, noises, order[start : start + size], config, [seed, epoch], device)


def validation_batches(
    recordings: Labelled, noises: Sequence[np.ndarray], config: Config, device: torch.device
) -> Iterator[Batch]:
    """The validation split under the training's noise, the same draw in every epoch and for every seed."""
    places, size = list(range(len(recordings))), config.training.batch_files
    for start in range(0, len(places), size):
        yield noisy_batch(recordings, noises, places[start : start + size], config, [VALIDATION_KEY], device)


VALIDATION_KEY = 0x5E1EC7
"""Keeps the validation's draws of noise apart from every training seed's."""
