"""Import of the paper's checkpoints: same weights, same output (Casanova and others, 2021).

The paper's programs save ``{'model': state_dict, 'optimizer', 'step', 'config_str'}`` with ``torch.save``. Only
tensors and plain values are read; a file that holds other objects is refused before any code in it can run. The
weights determine the network: V1 has batch statistics, and the size of ``fc1`` gives the window length.
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
from spira.models.checkpoint import Checkpoint, CheckpointInfo

log = logging.getLogger(__name__)

MAP_CHANNELS = networks.BLOCKS[-1][0]
"""Channels that SpiraConv flattens together with frames and coefficients before ``fc1``."""

MIN_WINDOW_SECONDS, MAX_WINDOW_SECONDS = 1, 120
"""Range of lengths that are tried for windows and whole files."""

FEATURE_NAMES = {
    "n_fft": "n_fft",
    "win_length": "win_length",
    "hop_length": "hop_length",
    "num_mels": "n_mels",
    "num_mfcc": "n_mfcc",
}
"""The paper's name of a setting of the features -> its name in :class:`spira.config.Features`."""


def convert(path: Path, out: Path, settings: Sequence[str] = ()) -> Checkpoint:
    """Write the checkpoint folder ``out`` for one of the paper's checkpoint files.

    Args:
        path: the ``.pt`` file.
        settings: ``section.key=value``, which override the file's own configuration and the paper's best experiment.

    Raises:
        SpiraError: the file holds code or is not a checkpoint of the paper; a parameter is missing, unknown or of
            another size (by name); or ``out`` exists.
    """
    if out.exists():
        raise SpiraError(f"{out} exists: choose another folder or delete it")
    content = read_file(path)
    printed = parse_config(content.get("config_str"))
    config = configuration(path, content["model"], printed, settings)
    weights = check_weights(path, content["model"], checkpoint.build_network(config).state_dict())
    seed = integer(printed, "seed") or config.training.seeds[0]
    log.info("%s: %s, windows of %g s", path.name, config.model.architecture, config.windows.window_seconds)
    info = CheckpointInfo(
        config_digest=config.digest(),
        seed=seed,
        corpus_digest="imported",
        best_epoch=0,
        best_eval_loss=None,
        epochs=0,
        seconds=0.0,
        device="imported",
        train_files=(),
        train_speakers=None,
        imported_from=path.name,
        imported_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        step=integer(content, "step"),
    )
    return checkpoint.save(out, weights, [], config, info)


def read_file(path: Path) -> dict[str, Any]:
    """Return the file's content, which may hold only tensors and plain values."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise SpiraError(f"{path} cannot be read: {error}") from error
    except Exception as error:  # torch.load fails in many ways on a foreign file; no code in it has run
        raise SpiraError(
            f"{path} is refused: it is damaged, or holds pickled objects other than tensors and plain values, "
            "which could run code; save only {'model': state_dict, ...}"
        ) from error
    weights = content.get("model") if isinstance(content, dict) else None
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise SpiraError(f"{path} is not a checkpoint of the paper: it has no 'model' with the network's parameters")
    return content


def parse_config(config_str: object) -> dict[str, Any]:
    """Return the configuration that the paper's program printed into the file; empty if it is not a dictionary."""
    try:
        printed = ast.literal_eval(config_str) if isinstance(config_str, str) else {}
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return {}
    return printed if isinstance(printed, dict) else {}


def section(printed: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a section of the printed configuration, empty if it is absent."""
    return printed[name] if isinstance(printed.get(name), dict) else {}


def integer(values: dict[str, Any], name: str) -> int:
    """Return an integer of the file, 0 if it is absent."""
    return values[name] if isinstance(values.get(name), int) else 0


def configuration(
    path: Path, weights: Mapping[str, Tensor], printed: dict[str, Any], settings: Sequence[str]
) -> Config:
    """Return the paper's configuration, overridden by the weights, the printed configuration and ``settings``."""
    audio, dataset = section(printed, "audio"), section(printed, "dataset")
    if audio.get("feature", "mfcc") != "mfcc":
        raise SpiraError(f"{path} was trained on {audio['feature']}: only mfcc can be imported")
    has_statistics = any(name.endswith("running_mean") for name in weights)
    values: dict[str, Any] = {
        "model": PAPER_MODEL | {"architecture": "spira_v1" if has_statistics else "spira_v2"},
        "training": PAPER_TRAINING,
        "features": {
            name: audio[paper_name] for paper_name, name in FEATURE_NAMES.items() if integer(audio, paper_name)
        },
    }
    seconds = window_seconds(path, weights, from_dict(values, settings).features, dataset)
    values["windows"] = {
        "mode": "whole" if dataset.get("padding_with_max_lenght") else "windows",  # the spelling of the paper's program
        "window_seconds": seconds,
        "step_seconds": integer(dataset, "step") or Windows().step_seconds,
    }
    return from_dict(values, settings)


def window_seconds(path: Path, weights: Mapping[str, Tensor], features: Features, dataset: dict[str, Any]) -> float:
    """Return the window length from the size of ``fc1``, which pooling leaves uncertain by 8 frames (80 ms).

    Of the lengths that fit, the file's own is preferred (seconds, or frames of whole files), then whole seconds, then
    the shortest.
    """
    weight = weights.get("fc1.weight", torch.empty(0))
    if weight.ndim != 2:
        return Windows().window_seconds  # check_weights reports the missing or wrong parameter with all others
    inputs, per_frame = weight.shape[1], MAP_CHANNELS * features.n_mfcc
    frame_rate = SAMPLE_RATE_HZ / features.hop_length  # frames per second
    candidates = range(int(MIN_WINDOW_SECONDS * frame_rate) + 1, int(MAX_WINDOW_SECONDS * frame_rate) + 1)
    fits = [frames for frames in candidates if networks.conv_frames(frames) * per_frame == inputs]
    if not fits:
        raise SpiraError(
            f"{path}: fc1.weight takes {inputs} numbers, which no window of {features.n_mfcc} coefficients and "
            f"{MIN_WINDOW_SECONDS} to {MAX_WINDOW_SECONDS} s gives"
        )
    printed = (int(integer(dataset, "window_len") * frame_rate) + 1, integer(dataset, "max_seq_len"))
    frames = [*(n for n in printed if n in fits), *(n for n in fits if (n - 1) % frame_rate == 0), *fits][0]
    return (frames - 1) / frame_rate


def check_weights(path: Path, weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights if they have the names and sizes of the network's parameters."""
    problems = [f"{name} is missing" for name in expected if name not in weights]
    problems += [f"{name} is unknown" for name in weights if name not in expected]
    problems += [
        f"{name} is {list(value.shape)} and must be {list(expected[name].shape)}"
        for name, value in weights.items()
        if name in expected and value.shape != expected[name].shape
    ]
    if problems:
        raise SpiraError(f"{path} is not a checkpoint of SpiraConv: {'; '.join(problems)}")
    return {name: weights[name].to(value.dtype) for name, value in expected.items()}
