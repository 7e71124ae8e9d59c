"""The paper's checkpoints -> checkpoint folders: same weights, same output (Casanova and others, 2021).

The paper's programs save ``{'model': state_dict, 'optimizer', 'step', 'config_str'}`` with ``torch.save``. Only
tensors and plain values are read from it; a file that holds anything else is refused before it can do anything.
The network is known from the weights: V1 has batch statistics, and the size of ``fc1`` gives the window's length.
"""

from __future__ import annotations

import ast
import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spira.config import PAPER_MODEL, PAPER_TRAINING, SAMPLE_RATE_HZ, Config, Features, Windows, from_dict
from spira.errors import SpiraError
from spira.models import checkpoint, networks
from spira.models.checkpoint import Checkpoint

log = logging.getLogger(__name__)

MAP_CHANNELS = networks.BLOCKS[-1][0]
"""Channels that SpiraConv flattens, with its frames and coefficients, into ``fc1``."""

SHORTEST_SECONDS, LONGEST_SECONDS = 1, 120
"""Windows and whole files that the paper's networks can have been made for."""

AUDIO = {
    "n_fft": "n_fft",
    "win_length": "win_length",
    "hop_length": "hop_length",
    "num_mels": "n_mels",
    "num_mfcc": "n_mfcc",
}
"""The paper's names of the features' settings, and ours."""


def convert(path: Path, out: Path, settings: Sequence[str] = ()) -> Checkpoint:
    """Write the checkpoint folder ``out`` for one of the paper's checkpoint files.

    Args:
        path: the ``.pt`` file.
        settings: ``section.key=value`` over the configuration; what the file tells of itself and the paper's
            best experiment are below them.

    Raises:
        SpiraError: the file holds code or is no checkpoint of the paper, a parameter is missing, unknown or of
            another size (by name), or ``out`` is there already.
    """
    if out.exists():
        raise SpiraError(f"{out} is there already: choose another folder or delete it")
    content = read(path)
    told = tell(content.get("config_str"))
    config = configuration(path, content["model"], told, settings)
    weights = checked(path, content["model"], checkpoint.build_network(config).state_dict())
    seed = number(told, "seed") or config.training.seeds[0]
    info: dict[str, Any] = {
        "imported_from": path.name,
        "imported_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "step": number(content, "step"),
        "best_epoch": 0,
        "best_eval_loss": None,
        "epochs": 0,
        "device": "imported",
        "train_files": [],
        "train_speakers": None,
        "seconds": 0.0,
    }
    log.info("%s: %s, windows of %g s", path.name, config.model.architecture, config.windows.window_seconds)
    identity = checkpoint.identity(config, seed, "imported")
    return checkpoint.save(out, weights, [], config, checkpoint.CheckpointInfo(**identity, **info))


def read(path: Path) -> dict[str, Any]:
    """The file's content, with tensors and plain values alone."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise SpiraError(f"{path} can't be read: {error}") from error
    except Exception as error:  # a foreign file fails in any way; nothing in it has been executed
        raise SpiraError(
            f"{path} is refused: it is damaged, or holds pickled objects other than tensors and plain values, "
            "which could run code; save it as {'model': state_dict, ...} alone"
        ) from error
    weights = content.get("model") if isinstance(content, dict) else None
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise SpiraError(f"{path} is no checkpoint of the paper: it has no 'model' with the network's parameters")
    return content


def tell(config_str: object) -> dict[str, Any]:
    """The configuration that the paper's program printed into the file, as far as it can be read as values."""
    try:
        told = ast.literal_eval(config_str) if isinstance(config_str, str) else {}
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def section(told: dict[str, Any], name: str) -> dict[str, Any]:
    """A section of what the file tells, empty if it tells none."""
    return told[name] if isinstance(told.get(name), dict) else {}


def number(values: dict[str, Any], name: str) -> int:
    """A count that the file tells, 0 if it tells none."""
    return values[name] if isinstance(values.get(name), int) else 0


def configuration(path: Path, weights: Mapping[str, Tensor], told: dict[str, Any], settings: Sequence[str]) -> Config:
    """The paper's settings, with what the weights and the file tell, and ``settings`` over all."""
    audio, dataset = section(told, "audio"), section(told, "dataset")
    if audio.get("feature", "mfcc") != "mfcc":
        raise SpiraError(f"{path} was trained on {audio['feature']}: only mfcc can be imported")
    has_statistics = any(name.endswith("running_mean") for name in weights)
    values: dict[str, Any] = {
        "model": PAPER_MODEL | {"architecture": "spira_v1" if has_statistics else "spira_v2"},
        "training": PAPER_TRAINING,
        "features": {ours: audio[theirs] for theirs, ours in AUDIO.items() if number(audio, theirs)},
    }
    seconds = window_seconds(path, weights, from_dict(values, settings).features, dataset)
    values["windows"] = {
        "mode": "whole" if dataset.get("padding_with_max_lenght") else "windows",  # spelt so by the paper's program
        "window_seconds": seconds,
        "step_seconds": number(dataset, "step") or Windows().step_seconds,
    }
    return from_dict(values, settings)


def window_seconds(path: Path, weights: Mapping[str, Tensor], features: Features, dataset: dict[str, Any]) -> float:
    """The window's length from the size of ``fc1``, which pooling leaves uncertain by 8 frames (80 ms).

    Of the lengths that fit, what the file tells (seconds, or frames of whole files), else whole seconds, else
    the shortest.
    """
    weight = weights.get("fc1.weight", torch.empty(0))
    if weight.ndim != 2:
        return Windows().window_seconds  # and let the missing or wrong parameter be named with all others
    inputs, per_frame = weight.shape[1], MAP_CHANNELS * features.n_mfcc
    second = SAMPLE_RATE_HZ / features.hop_length  # frames
    possible = range(int(SHORTEST_SECONDS * second) + 1, int(LONGEST_SECONDS * second) + 1)
    fits = [frames for frames in possible if networks.conv_frames(frames) * per_frame == inputs]
    if not fits:
        raise SpiraError(
            f"{path}: fc1.weight takes {inputs} numbers, which no window of {features.n_mfcc} coefficients and "
            f"{SHORTEST_SECONDS} to {LONGEST_SECONDS} s gives"
        )
    told = (int(number(dataset, "window_len") * second) + 1, number(dataset, "max_seq_len"))
    frames = [*(n for n in told if n in fits), *(n for n in fits if (n - 1) % second == 0), *fits][0]
    return (frames - 1) / second


def checked(path: Path, weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights, if they have the names and sizes of the network's."""
    problems = [f"{name} is missing" for name in expected if name not in weights]
    problems += [f"{name} is unknown" for name in weights if name not in expected]
    problems += [
        f"{name} is {list(value.shape)} and must be {list(expected[name].shape)}"
        for name, value in weights.items()
        if name in expected and value.shape != expected[name].shape
    ]
    if problems:
        raise SpiraError(f"{path} is no checkpoint of SpiraConv: {'; '.join(problems)}")
    return {name: weights[name].to(value.dtype) for name, value in expected.items()}
