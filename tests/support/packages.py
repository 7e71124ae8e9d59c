"""Checkpoints and packages for the tests: random weights, but norms that have seen signals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch

from spira.config import Config, from_dict
from spira.evaluation import gate
from spira.features.mfcc import file_mfcc
from spira.models import checkpoint
from spira.packaging import golden, verify
from spira.packaging.build import package

ARCHITECTURES = ("conv1d", "spira_v1", "spira_v2")
VERDICT = {"approved": True, "reasons": [], "gate": gate.load().model_dump(mode="json")}
LINEAGE = {"data_fingerprint": "d" * 64, "git_commit": "abc123"}


def config_of(architecture: str, **windows: object) -> Config:
    return from_dict({"model": {"architecture": architecture, "channels": 16}, "windows": windows})


def signal(seconds: float, seed: int = 0) -> np.ndarray:
    """A voice-like signal, float32 [samples] at 16 kHz."""
    return golden.voice(seconds, 16_000, np.random.default_rng(seed)).astype(np.float32)


def make_checkpoint(folder: Path, config: Config, seed: int = 0) -> Path:
    """A checkpoint as training leaves it; its logits lie near 0, where a probability tells the most."""
    torch.manual_seed(seed)
    network = checkpoint.build_network(config)
    for parameter in network.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    with torch.no_grad():
        for number in range(5):
            features = file_mfcc(torch.from_numpy(signal(12, number)), config.windows, config.features)
            network.train()(features if len(features) > 1 else features.repeat(2, 1, 1))
    identity = checkpoint.identity(config, seed, "c" * 64)
    checkpoint.save(folder, network.state_dict(), [], config, identity, {"best_epoch": 1})
    return folder


def make_package(folder: Path, architecture: str = "conv1d", seed: int = 0) -> Path:
    """A whole package, made of such a checkpoint."""
    trained = make_checkpoint(folder / "checkpoint", config_of(architecture), seed)
    return package(trained, None, VERDICT, folder / "package", LINEAGE)


def wrong(package: Path, folder: Path) -> Path:
    """A package whose files are in order, but not its probabilities."""
    changed = Path(shutil.copytree(package, folder))
    with np.load(changed / "data" / "weights.npz") as file:
        arrays = dict(file)
    np.savez(changed / "data" / "weights.npz", **(arrays | {"head.bias": arrays["head.bias"] + 1}))
    described = json.loads((changed / "package.json").read_text()) | {"files": verify.digests(changed)}
    (changed / "package.json").write_text(json.dumps(described))
    return changed
