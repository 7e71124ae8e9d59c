"""Training one network: resumable, deterministic by seed, the best epoch kept.

Every epoch ends by writing the whole state to one file under a temporary name and renaming it. All
randomness of an epoch follows from (seed, epoch), so a training killed at any moment and started again
ends with the weights it would have had, bit for bit on the same machine and device.
"""

from __future__ import annotations

import json
import logging
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from spira.config import Config
from spira.data.corpus import Corpus
from spira.errors import SpiraError
from spira.features.batches import Batch, training_batches, validation_batches
from spira.models import checkpoint
from spira.training.device import autocast, choose_device

log = logging.getLogger(__name__)

EXPLODED = 1e4
"""A mean training loss above this is no longer learning (chance is 0.69)."""


class TrainingError(SpiraError):
    """The optimisation failed; the message says when and what to change."""


@dataclass
class TrainingState:
    """Where a training stands after a whole number of epochs."""

    network: nn.Module
    optimizer: torch.optim.Adam
    history: list[dict[str, float]] = field(default_factory=list)
    """An entry an epoch: epoch, train_loss, eval_loss, eval_accuracy, learning_rate, seconds."""
    best: dict[str, Tensor] = field(default_factory=dict)
    """The weights of the epoch with the lowest validation loss."""
    step: int = 0
    """Optimiser steps done."""

    @property
    def best_epoch(self) -> dict[str, float]:
        return min(self.history, key=lambda entry: entry["eval_loss"])


def train(
    corpus: Corpus,
    config: Config,
    seed: int,
    out: Path,
    *,
    state_dir: Path | None = None,
    device: str = "auto",
    require_gpu: bool = False,
) -> checkpoint.Checkpoint:
    """Train one seed and write its checkpoint folder.

    Args:
        out: the checkpoint folder; one that is complete for the same corpus, configuration and seed is returned as is.
        state_dir: where the state of an unfinished training is kept and looked for; ``out`` if not given.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        require_gpu: refuse to train on a CPU (on a cluster a silent fall-back costs days).

    Raises:
        TrainingError: the loss is not finite or has exploded.
        SpiraError: the folder belongs to another training, or the device is not there.
    """
    chosen = choose_device(device, require_gpu)
    config = resolve(config, corpus)
    identity = checkpoint.identity(config, seed, corpus.digest)
    finished = checkpoint.finished(out, identity)
    if finished:
        log.info("seed %d: %s is complete, nothing to train", seed, out.name)
        return finished
    state_file = (state_dir or out) / "state.safetensors"
    state = start(config, seed, chosen)
    if state_file.exists():
        resume(state, state_file, identity)
        log.info("seed %d: resumes after epoch %d", seed, len(state.history))
    while not is_done(state, config):
        run_epoch(state, corpus, config, seed, chosen)
        save_state(state, state_file, identity)
        log.info("seed %d: %s", seed, describe(state, config))
    info = checkpoint.CheckpointInfo(**identity, **summary(state, corpus, chosen))
    result = checkpoint.save(out, state.best, state.history, config, info)
    state_file.unlink(missing_ok=True)
    return result


def resolve(config: Config, corpus: Corpus) -> Config:
    """The configuration with what only the data can tell: the length of a whole-file window."""
    if config.windows.mode != "whole":
        return config
    longest_seconds = float(corpus.split("train").table["seconds"].max())
    windows = config.windows.model_copy(update={"window_seconds": math.ceil(longest_seconds * 100) / 100})
    return config.model_copy(update={"windows": windows})


def start(config: Config, seed: int, device: torch.device) -> TrainingState:
    """A network with the seed's initial weights, and its optimiser."""
    torch.manual_seed(seed)
    network = checkpoint.build_network(config).to(device)
    rates = config.training
    optimizer = torch.optim.Adam(network.parameters(), lr=rates.learning_rate, weight_decay=rates.weight_decay)
    return TrainingState(network, optimizer)


def is_done(state: TrainingState, config: Config) -> bool:
    """All epochs done, or too long without a lower validation loss."""
    if not state.history:
        return False
    epoch = len(state.history)
    waited = epoch - state.best_epoch["epoch"]
    return epoch >= config.training.max_epochs or waited >= config.training.patience_epochs


def run_epoch(state: TrainingState, corpus: Corpus, config: Config, seed: int, device: torch.device) -> None:
    """One pass over the training split and one over the validation split; the best weights kept."""
    began = time.monotonic()
    epoch = len(state.history) + 1
    torch.manual_seed(int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0]))  # dropout
    batches = training_batches(corpus.split("train"), corpus.noises, config, seed, epoch, device)
    losses = [train_step(state, batch, config, epoch) for batch in batches]
    eval_loss, eval_accuracy = validate(state.network, corpus, config, device)
    if not math.isfinite(eval_loss):
        raise TrainingError(
            f"the validation loss is {eval_loss} after epoch {epoch}, step {state.step}: the training has "
            "diverged; lower training.learning_rate or raise training.warmup_steps"
        )
    lowest = min((entry["eval_loss"] for entry in state.history), default=math.inf)
    state.history.append(
        {
            "epoch": epoch,
            "train_loss": float(np.mean(losses)),
            "eval_loss": eval_loss,
            "eval_accuracy": eval_accuracy,
            "learning_rate": state.optimizer.param_groups[0]["lr"],
            "seconds": time.monotonic() - began,
        }
    )
    if eval_loss < lowest:
        state.best = {name: value.detach().cpu().clone() for name, value in state.network.state_dict().items()}


def train_step(state: TrainingState, batch: Batch, config: Config, epoch: int) -> float:
    """One step of Adam on the mean cross-entropy of all windows of the batch; gives the loss."""
    state.network.train()
    state.step += 1
    for group in state.optimizer.param_groups:
        group["lr"] = noam(state.step, config.training.learning_rate, config.training.warmup_steps)
    state.optimizer.zero_grad(set_to_none=True)
    with autocast(batch.features.device, config.training.precision):
        logits = state.network(batch.features)  # [W]
    loss = F.binary_cross_entropy_with_logits(logits.float(), batch.labels)
    value = loss.item()
    if not math.isfinite(value) or value > EXPLODED:
        raise TrainingError(
            f"the loss is {value} in epoch {epoch}, step {state.step}: the training has diverged; lower "
            "training.learning_rate or raise training.warmup_steps"
        )
    loss.backward()
    state.optimizer.step()
    return value


def noam(step: int, peak: float, warmup_steps: int) -> float:
    """Learning rate at a step counted from 1: linear rise to ``peak``, then 1/sqrt (Vaswani and others, 2017)."""
    return peak * min(step / warmup_steps, math.sqrt(warmup_steps / step))


@torch.inference_mode()
def validate(network: nn.Module, corpus: Corpus, config: Config, device: torch.device) -> tuple[float, float]:
    """Loss by window and accuracy by file on the validation split, under the training's noise."""
    network.eval()
    losses, hits, files, windows = 0.0, 0, 0, 0
    for batch in validation_batches(corpus.split("eval"), corpus.noises, config, device):
        logits = network(batch.features)  # [W]
        losses += F.binary_cross_entropy_with_logits(logits, batch.labels, reduction="sum").item()
        mean, label = by_file(logits.sigmoid(), batch), by_file(batch.labels, batch)
        hits += int(((mean >= config.evaluation.threshold) == (label > 0.5)).sum())
        files, windows = files + len(mean), windows + len(logits)
    return losses / windows, hits / files


def by_file(values: Tensor, batch: Batch) -> Tensor:
    """Mean over each file's windows, ``[W] -> [files]``."""
    files = int(batch.files[-1]) + 1
    sums = torch.zeros(files, device=values.device).index_add_(0, batch.files, values.float())
    return sums / torch.bincount(batch.files, minlength=files)


def describe(state: TrainingState, config: Config) -> str:
    """The last epoch in a line, with the time left at most."""
    last, best = state.history[-1], state.best_epoch
    epochs_left = min(
        config.training.max_epochs - last["epoch"],
        config.training.patience_epochs - (last["epoch"] - best["epoch"]),
    )
    seconds_left = epochs_left * float(np.mean([entry["seconds"] for entry in state.history[-5:]]))
    return (
        f"epoch {last['epoch']:3.0f}/{config.training.max_epochs}  train {last['train_loss']:.3f}  "
        f"eval {last['eval_loss']:.3f} (best {best['eval_loss']:.3f} at {best['epoch']:.0f})  "
        f"accuracy {last['eval_accuracy']:.2f}  {last['seconds']:.1f} s, {seconds_left:.0f} s to go if nothing improves"
    )


def save_state(state: TrainingState, path: Path, identity: dict[str, Any]) -> None:
    """The whole state as one safetensors file, replaced atomically."""
    tensors = {f"network.{name}": value for name, value in state.network.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in state.best.items()}
    for number, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{number}.{name}": value for name, value in moments.items()}
    told = {"identity": identity, "history": state.history, "step": state.step}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".writing")
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, temporary, {"told": json.dumps(told)})
    temporary.replace(path)


def resume(state: TrainingState, path: Path, identity: dict[str, Any]) -> None:
    """Put a saved state back.

    Raises:
        SpiraError: it is damaged, or was saved by a training of other data, configuration or seed.
    """
    try:
        with safe_open(path, framework="pt") as file:
            told = json.loads((file.metadata() or {})["told"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise SpiraError(f"{path} is no state of a training: delete it to start again ({error})") from error
    if told["identity"] != identity:
        raise SpiraError(
            f"{path} was left by another training (data, configuration or seed differ): delete it or choose "
            "another folder"
        )
    state.history, state.step = told["history"], told["step"]
    state.best = _under("best.", tensors)
    state.network.load_state_dict(_under("network.", tensors))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in _under("adam.", tensors).items():
        number, _, moment = name.partition(".")
        moments.setdefault(int(number), {})[moment] = value
    groups = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": moments, "param_groups": groups})


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def summary(state: TrainingState, corpus: Corpus, device: torch.device) -> dict[str, Any]:
    """What the checkpoint tells of its training beside its identity."""
    table = corpus.split("train").table
    speakers = sorted(table["speaker"].astype(str).unique()) if "speaker" in table else None
    return {
        "best_epoch": int(state.best_epoch["epoch"]),
        "best_eval_loss": state.best_epoch["eval_loss"],
        "epochs": len(state.history),
        "seconds": sum(entry["seconds"] for entry in state.history),
        "device": str(device),
        "train_files": sorted(table["sha256"]),
        "train_speakers": speakers,
    }
