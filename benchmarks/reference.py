"""Reference for the benchmarks: the paper's training, implemented directly from its description.

Each item reads its recording and k complete noise files from disk. Each window creates its own MFCC module. The network
is eager float32. A DataLoader with two worker processes produces the batches. Only the random numbers are those of
spira (the same generator, keyed by seed, epoch and recording), so that both use the same noise and give the same
results.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from spira.config import Config

WORKERS = 2


class ReferenceDataset(Dataset):
    """A data set whose items are the windows of a recording: MFCC ``[W, T, 40]`` and targets ``[W]``."""

    def __init__(self, root: Path, files: list[str], labels: list[int], config: Config, key: list[int]) -> None:
        self.root, self.files, self.labels, self.config, self.key = root, files, labels, config, key
        self.noises = [line for line in (root / "noise.csv").read_text().split() if line != "file_path"]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        waveform, _ = soundfile.read(self.root / self.files[i], dtype="float32")
        rng = np.random.default_rng([*self.key, i])
        noise = self.config.noise
        for _ in range(noise.train_patients if self.labels[i] else noise.train_controls):
            recording, _ = soundfile.read(self.root / self.noises[rng.integers(len(self.noises))], dtype="float32")
            start = rng.integers(len(recording) - len(waveform) + 1)
            piece = recording[start : start + len(waveform)]
            waveform = waveform + piece * np.float32(rng.uniform(noise.min_peak, noise.max_peak) / piece.max())
        windows = features(torch.from_numpy(waveform), self.config)
        return windows, torch.full((len(windows),), float(self.labels[i]))


def features(waveform: Tensor, config: Config) -> Tensor:
    """Compute the MFCC of each window, ``[samples] -> [W, T, 40]``."""
    length, step = round(16_000 * config.windows.window_seconds), round(16_000 * config.windows.step_seconds)
    windows, start = [], 0
    while start + length < len(waveform):
        mfcc = torchaudio.transforms.MFCC(
            sample_rate=16_000,
            n_mfcc=40,
            log_mels=False,
            melkwargs={"n_fft": 1200, "win_length": 400, "hop_length": 160, "n_mels": 40},
        )
        windows.append(mfcc(waveform[None, start : start + length])[0].T)  # [T, 40]
        start += step
    return torch.stack(windows)


class Network(nn.Module):
    """SpiraConv V2: ``[B, T, 40] -> [B]`` logits."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, 32, (7, 1), dilation=(2, 1)),
            nn.GroupNorm(16, 32), nn.Mish(), nn.MaxPool2d((2, 1)), nn.Dropout(dropout),
            nn.Conv2d(32, 16, (5, 1), dilation=(2, 1)),
            nn.GroupNorm(8, 16), nn.Mish(), nn.MaxPool2d((2, 1)), nn.Dropout(dropout),
            nn.Conv2d(16, 8, (3, 1), dilation=(2, 1)),
            nn.GroupNorm(4, 8), nn.Mish(), nn.MaxPool2d((2, 1)), nn.Dropout(dropout),
            nn.Conv2d(8, 4, (2, 1)),
            nn.GroupNorm(2, 4), nn.Mish(), nn.Dropout(dropout),
        )  # fmt: skip
        self.fc1, self.fc2 = nn.Linear(43 * 4 * 40, 100), nn.Linear(100, 1)
        self.mish, self.dropout = nn.Mish(), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, ``[B, T, 40] -> [B]``."""
        x = self.conv(x.unsqueeze(1)).transpose(1, 2).flatten(1)  # [B, 43 * 4 * 40]
        return self.fc2(self.dropout(self.mish(self.fc1(x)))).squeeze(1)


def loader(dataset: ReferenceDataset, order: Sequence[int], batch_files: int) -> DataLoader:
    """Return a loader of batches of complete recordings in a given order, without the incomplete last batch."""

    def collate(items: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        return torch.cat([x for x, _ in items]), torch.cat([y for _, y in items])

    return DataLoader(
        dataset, batch_files, sampler=order, collate_fn=collate, num_workers=WORKERS, drop_last=True
    )  # fmt: skip


def train(network: Network, batches: DataLoader, config: Config) -> None:
    """Train one epoch."""
    rates = config.training
    optimizer = torch.optim.Adam(network.parameters(), lr=rates.learning_rate, weight_decay=rates.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (step + 1) / rates.warmup_steps)
    network.train()
    for x, y in batches:
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(network(x), y).backward()
        optimizer.step()
        schedule.step()
