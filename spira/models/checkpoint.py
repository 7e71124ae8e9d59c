"""A trained network on disk: its weights as safetensors, and in JSON everything needed to use and evaluate it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from pydantic import ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from spira import digests, files
from spira.config import Config, FrozenModel, explain, from_dict
from spira.digests import DamagedError
from spira.errors import SpiraError
from spira.features.mfcc import frame_count
from spira.features.windows import window_samples
from spira.models import networks

WEIGHTS, CONFIG, HISTORY, INFO = "weights.safetensors", "config.json", "history.json", "checkpoint.json"
FILES = (WEIGHTS, CONFIG, HISTORY, INFO)
REMEDY = "delete the folder and train again, or copy it again"
"""End of the message about a damaged file."""

Content = TypeVar("Content")


class TrainingIdentity(FrozenModel):
    """What two runs of one training share: equal identities give equal weights under one code version."""

    config_digest: str
    seed: int
    corpus_digest: str

    @classmethod
    def of(cls, config: Config, seed: int, corpus_digest: str) -> TrainingIdentity:
        """Return the identity of a training with a resolved configuration."""
        return cls(config_digest=config.digest(), seed=seed, corpus_digest=corpus_digest)


class CheckpointInfo(FrozenModel):
    """Content of ``checkpoint.json``: the origin of a network. Keys of other versions are ignored."""

    model_config = ConfigDict(extra="ignore")

    config_digest: str = ""
    """Digest of the resolved configuration; without it a change of the configuration cannot be excluded."""
    seed: int
    corpus_digest: str = ""
    best_epoch: int = 0
    """Epoch of the weights, counted from 1; 0 for an imported network."""
    best_eval_loss: float | None = None
    """Validation loss of that epoch; None for an imported network."""
    epochs: int = 0
    """Length of the training."""
    seconds: float | None = None
    """Duration of the training."""
    ended_at: datetime | None = None
    """End of the training; None for an imported network, and for one of an earlier version."""
    device: str = ""
    train_files: tuple[str, ...] = ()
    """SHA-256 of each training recording."""
    train_speakers: tuple[str, ...] | None = None
    """Training speakers; None where speakers are not known."""
    imported_from: str | None = None
    """Name of the paper's checkpoint file."""
    imported_sha256: str | None = None
    step: int | None = None
    """Optimiser steps that an imported checkpoint records."""

    @property
    def identity(self) -> TrainingIdentity:
        """Identity of the training that this checkpoint ended."""
        return TrainingIdentity(config_digest=self.config_digest, seed=self.seed, corpus_digest=self.corpus_digest)


@dataclass(frozen=True)
class Checkpoint:
    """A network with the configuration and the history of its training."""

    network: nn.Module
    """In evaluation mode, on the CPU."""
    config: Config
    """As resolved for the training."""
    info: CheckpointInfo
    history: list[dict[str, float]]
    """Metrics of each epoch."""


def save(
    out: Path, weights: dict[str, Tensor], history: list[dict[str, float]], config: Config, info: CheckpointInfo
) -> Checkpoint:
    """Write a checkpoint folder. ``checkpoint.json`` comes after what it describes: a folder with it is complete.

    The digests of all files come last (:mod:`spira.digests`).
    """
    out.mkdir(parents=True, exist_ok=True)
    digests.remove(out)
    save_file({name: value.contiguous() for name, value in weights.items()}, out / WEIGHTS)
    files.write_json(out / CONFIG, config.model_dump(mode="json"))
    files.write_json(out / HISTORY, history)
    files.write_json(out / INFO, info.model_dump(mode="json", exclude_unset=True))
    digests.record(out, FILES)
    return load(out)


def load(path: Path) -> Checkpoint:
    """Read a checkpoint folder; nothing in it is executed.

    Raises:
        SpiraError: a file is missing or damaged, or the weights do not fit the network.
    """
    info, history = _read(path / INFO, _read_info), _read(path / HISTORY, files.read_json)
    config = _read(path / CONFIG, lambda file: from_dict(files.read_json(file)))
    weights = _read(path / WEIGHTS, load_file)
    network = build_network(config)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise SpiraError(f"{path / WEIGHTS} does not fit {config.model.architecture}: {error}") from error
    return Checkpoint(network.eval(), config, info, history)


def read_info(path: Path) -> CheckpointInfo:
    """Read only the ``checkpoint.json`` of a checkpoint folder.

    Raises:
        SpiraError: it is missing or damaged.
    """
    return _read(path / INFO, _read_info)


def build_network(config: Config) -> nn.Module:
    """Return the network of a resolved configuration, with fresh weights."""
    frames = frame_count(window_samples(config.windows), config.features)
    return networks.build(config.model, frames, config.features.n_mfcc)


def finished(out: Path, identity: TrainingIdentity) -> Checkpoint | None:
    """Return the checkpoint in ``out`` if it is complete and of the same training.

    Raises:
        SpiraError: it is complete and of another training.
    """
    if not (out / INFO).exists():
        return None
    result = load(out)
    if result.info.identity != identity:
        raise SpiraError(f"{out} holds a checkpoint of another training: choose another folder or delete it")
    return result


def _read(file: Path, read: Callable[[Path], Content]) -> Content:
    try:
        digests.check(file.parent, [file.name], REMEDY)
        return read(file)
    except (OSError, ValueError, SafetensorError, DamagedError) as error:
        raise SpiraError(f"{file.parent} is not a complete checkpoint: {file.name}: {error}") from error


def _read_info(file: Path) -> CheckpointInfo:
    try:
        return CheckpointInfo.model_validate(json.loads(file.read_text("utf-8")))
    except ValidationError as error:
        raise ValueError(explain(error)) from None
