"""Checkpoints and packages for the tests: random weights, but normalisation layers that have processed signals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch

from spira.config import Config, from_dict
from spira.features.mfcc import file_mfcc
from spira.models import checkpoint
from spira.packaging import golden, verify
from spira.packaging.build import package
from tests.support.verdicts import make_verdict

ARCHITECTURES = ("conv1d", "spira_v1", "spira_v2")
VERDICT = make_verdict()
BAND = VERDICT.gate.abstention.band
LINEAGE = {"data_fingerprint": "d" * 64, "git_commit": "abc123"}


def config_of(architecture: str, **windows: object) -> Config:
    """Return the configuration of a small network."""
    return from_dict({"model": {"architecture": architecture, "channels": 16}, "windows": windows})


def signal(seconds: float, seed: int = 0) -> np.ndarray:
    """Return a voice-like signal, float32 [samples] at 16 kHz."""
    return golden.voice(seconds, 16_000, np.random.default_rng(seed)).astype(np.float32)


def make_checkpoint(folder: Path, config: Config, seed: int = 0) -> Path:
    """Write a checkpoint like that of a training; its logits are near 0, where probabilities are most sensitive."""
    torch.manual_seed(seed)
    network = checkpoint.build_network(config)
    for parameter in network.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    with torch.no_grad():
        for number in range(5):
            features = file_mfcc(torch.from_numpy(signal(12, number)), config.windows, config.features)
            network.train()(features if len(features) > 1 else features.repeat(2, 1, 1))
    info = checkpoint.CheckpointInfo(
        **checkpoint.TrainingIdentity.of(config, seed, "c" * 64).model_dump(), best_epoch=1
    )
    checkpoint.save(folder, network.state_dict(), [], config, info)
    return folder


def make_package(folder: Path, architecture: str = "conv1d", seed: int = 0) -> Path:
    """Build a complete package from such a checkpoint."""
    trained = make_checkpoint(folder / "checkpoint", config_of(architecture), seed)
    return package(trained, None, BAND, folder / "package", LINEAGE)


def wrong(package: Path, folder: Path) -> Path:
    """Copy a package so that its files are listed correctly, but its probabilities are not torch's."""
    changed = Path(shutil.copytree(package, folder))
    with np.load(changed / "data" / "weights.npz") as file:
        arrays = dict(file)
    np.savez(changed / "data" / "weights.npz", **(arrays | {"head.bias": arrays["head.bias"] + 1}))
    description = json.loads((changed / "package.json").read_text()) | {"files": verify.digests(changed)}
    (changed / "package.json").write_text(json.dumps(description))
    return changed
