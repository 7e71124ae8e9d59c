"""A trained network on disk: weights as safetensors, and in JSON everything needed to use and judge it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from spira import files
from spira.config import Config, from_dict
from spira.errors import SpiraError
from spira.features.mfcc import frame_count
from spira.features.windows import window_samples
from spira.models import networks

WEIGHTS, CONFIG, HISTORY, INFO = "weights.safetensors", "config.json", "history.json", "checkpoint.json"
FILES = (WEIGHTS, CONFIG, HISTORY, INFO)

Read = TypeVar("Read")


@dataclass(frozen=True)
class Checkpoint:
    """A network with the settings it was trained by."""

    network: nn.Module
    """In evaluation mode, on the CPU."""
    config: Config
    """As resolved for the training."""
    info: dict[str, Any]
    """seed, corpus_digest, config_digest, best_epoch, best_eval_loss, epochs, device, train_files, ..."""
    history: list[dict[str, float]]
    """An entry an epoch."""


def identity(config: Config, seed: int, corpus_digest: str) -> dict[str, Any]:
    """What makes two trainings the same one."""
    return {"config_digest": config.digest(), "seed": seed, "corpus_digest": corpus_digest}


def save(
    out: Path,
    weights: dict[str, Tensor],
    history: list[dict[str, float]],
    config: Config,
    identity: dict[str, Any],
    info: dict[str, Any],
) -> Checkpoint:
    """Write the folder; ``checkpoint.json`` comes last, so a folder that has it is complete."""
    out.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in weights.items()}, out / WEIGHTS)
    files.write_text(out / CONFIG, json.dumps(config.model_dump(mode="json"), indent=1))
    files.write_text(out / HISTORY, json.dumps(history, indent=1))
    files.write_text(out / INFO, json.dumps(identity | info, indent=1))
    return load(out)


def load(path: Path) -> Checkpoint:
    """Read a checkpoint folder; nothing in it is executed.

    Raises:
        SpiraError: a file is missing or damaged, or the weights are not those of the network.
    """
    info, history = _read(path / INFO, _json), _read(path / HISTORY, _json)
    config = _read(path / CONFIG, lambda file: from_dict(_json(file)))
    weights = _read(path / WEIGHTS, load_file)
    network = build_network(config)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise SpiraError(f"{path / WEIGHTS} does not fit {config.model.architecture}: {error}") from error
    return Checkpoint(network.eval(), config, info, history)


def build_network(config: Config) -> nn.Module:
    """The network of a resolved configuration, with fresh weights."""
    frames = frame_count(window_samples(config.windows), config.features)
    return networks.build(config.model, frames, config.features.n_mfcc)


def finished(out: Path, identity: dict[str, Any]) -> Checkpoint | None:
    """The checkpoint in ``out`` if it is complete and of this very training.

    Raises:
        SpiraError: it is complete and of another training.
    """
    if not (out / INFO).exists():
        return None
    result = load(out)
    if {key: result.info.get(key) for key in identity} != identity:
        raise SpiraError(f"{out} holds a checkpoint of another training: choose another folder or delete it")
    return result


def _read(file: Path, how: Callable[[Path], Read]) -> Read:
    try:
        return how(file)
    except (OSError, ValueError, SafetensorError) as error:
        raise SpiraError(f"{file.parent} is not a complete checkpoint: {file.name}: {error}") from error


def _json(file: Path) -> Any:
    return json.loads(file.read_text())
