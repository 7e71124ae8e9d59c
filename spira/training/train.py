"""Training of one network: resumable and deterministic by seed; the best epoch is saved.

Every epoch ends with the whole state written to one file in one step. All randomness of an epoch follows from (seed,
epoch). A training that is killed at any moment and started again therefore ends with the same weights, bit for bit on
the same machine and device.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from spira import progress
from spira.config import Config
from spira.data.corpus import Corpus
from spira.errors import SpiraError
from spira.features.batches import Batch, training_batches, validation_batches
from spira.files import new_file
from spira.models import checkpoint
from spira.models.checkpoint import CheckpointInfo, TrainingIdentity
from spira.training.device import autocast, choose_device

log = logging.getLogger(__name__)

STATE_FILE = "state.safetensors"
"""State of an unfinished training, in the checkpoint folder."""
STATE_FIELDS = "told"
"""Key of the state file's metadata that holds identity, history, step and digest as JSON."""
MAX_LOSS = 1e4
"""Training loss of a batch above which the training has diverged (chance is 0.69)."""


class TrainingError(SpiraError):
    """The optimisation failed; the message gives the step and the remedy."""


@dataclass
class TrainingState:
    """State of a training after a whole number of epochs."""

    network: nn.Module
    optimizer: torch.optim.Adam
    history: list[dict[str, float]] = field(default_factory=list)
    """One entry per epoch: epoch, train_loss, eval_loss, eval_accuracy, learning_rate, seconds."""
    best: dict[str, Tensor] = field(default_factory=dict)
    """Weights of the epoch with the lowest validation loss."""
    step: int = 0
    """Number of optimiser steps."""

    @property
    def best_epoch(self) -> dict[str, float]:
        """Entry of the epoch with the lowest validation loss."""
        return min(self.history, key=lambda entry: entry["eval_loss"])


def train(
    corpus: Corpus,
    config: Config,
    seed: int,
    out: Path,
    *,
    device: str = "auto",
    require_gpu: bool = False,
) -> checkpoint.Checkpoint:
    """Train one seed and write its checkpoint folder.

    Args:
        out: the checkpoint folder; a complete checkpoint of the same corpus, configuration and seed is returned as it
            is, and an unfinished training is resumed.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        require_gpu: refuse to train on a CPU; on a cluster a silent fall-back costs days.

    Raises:
        TrainingError: the training diverged.
        SpiraError: the folder belongs to another training, or the device is absent.
    """
    chosen = choose_device(device, require_gpu)
    config = resolve(config, corpus)
    identity = TrainingIdentity.of(config, seed, corpus.digest)
    finished = checkpoint.finished(out, identity)
    if finished:
        log.info("seed %d: %s is complete, nothing to train", seed, out.name)
        return finished
    state_file = out / STATE_FILE
    state = start(config, seed, chosen)
    if state_file.exists():
        load_state(state, state_file, identity)
        log.info("seed %d: resumes after epoch %d", seed, len(state.history))
    progress.emit(progress_record(state, config, seed))
    while not is_done(state, config):
        run_epoch(state, corpus, config, seed, chosen)
        save_state(state, state_file, identity)
        log.info("seed %d: %s", seed, progress_line(state, config))
        progress.emit(progress_record(state, config, seed))
    info = training_info(state, identity, corpus, chosen)
    result = checkpoint.save(out, state.best, state.history, config, info)
    state_file.unlink(missing_ok=True)
    return result


def resolve(config: Config, corpus: Corpus) -> Config:
    """Return the configuration with the length of a whole-file window, which depends on the data."""
    if config.windows.mode != "whole":
        return config
    longest_seconds = float(corpus.split("train").table["seconds"].max())
    windows = config.windows.model_copy(update={"window_seconds": math.ceil(longest_seconds * 100) / 100})
    return config.model_copy(update={"windows": windows})


def start(config: Config, seed: int, device: torch.device) -> TrainingState:
    """Return the state before the first epoch: the seed's initial weights and an optimiser."""
    torch.manual_seed(seed)
    network = checkpoint.build_network(config).to(device)
    settings = config.training
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    return TrainingState(network, optimizer)


def is_done(state: TrainingState, config: Config) -> bool:
    """Return whether all epochs are done, or patience is exhausted without a lower validation loss."""
    if not state.history:
        return False
    epoch = len(state.history)
    epochs_since_best = epoch - state.best_epoch["epoch"]
    return epoch >= config.training.max_epochs or epochs_since_best >= config.training.patience_epochs


def run_epoch(state: TrainingState, corpus: Corpus, config: Config, seed: int, device: torch.device) -> None:
    """Train on the training split once, validate, and copy the weights if they are the best."""
    start_time = time.monotonic()
    epoch = len(state.history) + 1
    torch.manual_seed(int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0]))  # dropout
    losses, throttle, total = [], progress.Throttle(), batches_of_epoch(corpus, config)
    for batch in training_batches(corpus.split("train"), corpus.noises, config, seed, epoch, device):
        losses.append(train_step(state, batch, config, epoch))
        if throttle.is_due():
            progress.emit(progress_record(state, config, seed, len(losses) / total))
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
            "seconds": time.monotonic() - start_time,
        }
    )
    if eval_loss < lowest:
        state.best = {name: value.detach().cpu().clone() for name, value in state.network.state_dict().items()}


def train_step(state: TrainingState, batch: Batch, config: Config, epoch: int) -> float:
    """Do one step of Adam on the mean cross-entropy of the batch's windows, and return the loss."""
    state.network.train()
    state.step += 1
    for group in state.optimizer.param_groups:
        group["lr"] = noam(state.step, config.training.learning_rate, config.training.warmup_steps)
    state.optimizer.zero_grad(set_to_none=True)
    with autocast(batch.features.device, config.training.precision):
        logits = state.network(batch.features)  # [W]
    loss = F.binary_cross_entropy_with_logits(logits.float(), batch.labels)
    value = loss.item()
    if not math.isfinite(value) or value > MAX_LOSS:
        raise TrainingError(
            f"the loss is {value} in epoch {epoch}, step {state.step}: the training has diverged; lower "
            "training.learning_rate or raise training.warmup_steps"
        )
    loss.backward()
    state.optimizer.step()
    return value


def noam(step: int, peak: float, warmup_steps: int) -> float:
    """Return the learning rate of a step, from 1: linear rise to ``peak``, then 1/sqrt (Vaswani and others, 2017)."""
    return peak * min(step / warmup_steps, math.sqrt(warmup_steps / step))


@torch.inference_mode()
def validate(network: nn.Module, corpus: Corpus, config: Config, device: torch.device) -> tuple[float, float]:
    """Return loss by window and accuracy by file on the validation split, with the training's noise."""
    network.eval()
    loss_sum, correct, files, windows = 0.0, 0, 0, 0
    for batch in validation_batches(corpus.split("eval"), corpus.noises, config, device):
        logits = network(batch.features)  # [W]
        loss_sum += F.binary_cross_entropy_with_logits(logits, batch.labels, reduction="sum").item()
        probabilities, labels = mean_by_file(logits.sigmoid(), batch), mean_by_file(batch.labels, batch)  # [files]
        correct += int(((probabilities >= config.evaluation.threshold) == (labels > 0.5)).sum())
        files, windows = files + len(probabilities), windows + len(logits)
    return loss_sum / windows, correct / files


def mean_by_file(values: Tensor, batch: Batch) -> Tensor:
    """Return the mean over each file's windows, ``[W] -> [files]``."""
    files = int(batch.files[-1]) + 1
    sums = torch.zeros(files, device=values.device).index_add_(0, batch.files, values.float())
    return sums / torch.bincount(batch.files, minlength=files)


def batches_of_epoch(corpus: Corpus, config: Config) -> int:
    """Return the number of batches of an epoch."""
    files = len(corpus.split("train"))
    return files // min(config.training.batch_files, files)


def seconds_left(state: TrainingState, config: Config) -> float:
    """Return the time until patience runs out or all epochs are done, from the mean of the last epochs."""
    last, best = state.history[-1], state.best_epoch
    epochs_left = min(
        config.training.max_epochs - last["epoch"],
        config.training.patience_epochs - (last["epoch"] - best["epoch"]),
    )
    return epochs_left * float(np.mean([entry["seconds"] for entry in state.history[-5:]]))


def progress_record(state: TrainingState, config: Config, seed: int, share: float = 0.0) -> progress.Training:
    """Return the state of a training for a display; ``share`` is the part of the running epoch that is done."""
    record = progress.Training(seed=seed, epochs=len(state.history), max_epochs=config.training.max_epochs, share=share)
    if not state.history:
        return record
    last = state.history[-1]
    return record.model_copy(
        update={
            "eval_loss": last["eval_loss"],
            "eval_accuracy": last["eval_accuracy"],
            "best_epoch": int(state.best_epoch["epoch"]),
            "seconds_left": seconds_left(state, config),
        }
    )


def progress_line(state: TrainingState, config: Config) -> str:
    """Return the log line of the last epoch, with the time left if patience runs out."""
    last, best = state.history[-1], state.best_epoch
    return (
        f"epoch {last['epoch']:3.0f}/{config.training.max_epochs}  train {last['train_loss']:.3f}  "
        f"eval {last['eval_loss']:.3f} (best {best['eval_loss']:.3f} at {best['epoch']:.0f})  "
        f"accuracy {last['eval_accuracy']:.2f}  {last['seconds']:.1f} s, "
        f"{seconds_left(state, config):.0f} s to go if nothing improves"
    )


def save_state(state: TrainingState, path: Path, identity: TrainingIdentity) -> None:
    """Write the whole state as one safetensors file, in one step, with a digest of all that it holds."""
    tensors = {f"network.{name}": value for name, value in state.network.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in state.best.items()}
    for index, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{name}": value for name, value in moments.items()}
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    fields = {"identity": identity.model_dump(), "history": state.history, "step": state.step}
    fields["digest"] = state_digest(fields, tensors)
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as temporary:
        save_file(tensors, temporary, {STATE_FIELDS: json.dumps(fields)})


def state_digest(fields: Mapping[str, object], tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a saved state: of its fields but the digest, and of names, types and values of tensors."""
    content = {name: value for name, value in fields.items() if name != "digest"}
    result = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        result.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        result.update(value.numpy().tobytes())
    return result.hexdigest()


def load_state(state: TrainingState, path: Path, identity: TrainingIdentity) -> None:
    """Load a saved state into ``state``.

    Raises:
        SpiraError: the file is damaged, or belongs to a training of other data, configuration or seed.
    """
    try:
        with safe_open(path, framework="pt") as file:
            fields = json.loads((file.metadata() or {})[STATE_FIELDS])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
        # an earlier version wrote no digest
        is_intact = "digest" not in fields or fields["digest"] == state_digest(fields, tensors)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise SpiraError(f"{path} is not the state of a training: delete it to start again ({error})") from error
    if not is_intact:
        raise SpiraError(f"{path} is damaged, its digest is another: delete it to start again")
    if fields["identity"] != identity.model_dump():
        raise SpiraError(
            f"{path} was left by another training (data, configuration or seed differ): delete it or choose "
            "another folder"
        )
    state.history, state.step = fields["history"], fields["step"]
    state.best = _with_prefix("best.", tensors)
    state.network.load_state_dict(_with_prefix("network.", tensors))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in _with_prefix("adam.", tensors).items():
        index, _, moment = name.partition(".")
        moments.setdefault(int(index), {})[moment] = value
    groups = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": moments, "param_groups": groups})


def _with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names have the prefix, by the rest of the name."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def training_info(
    state: TrainingState, identity: TrainingIdentity, corpus: Corpus, device: torch.device
) -> CheckpointInfo:
    """Return the content of ``checkpoint.json``."""
    table = corpus.split("train").table
    speakers = sorted(table["speaker"].astype(str).unique()) if "speaker" in table else None
    return CheckpointInfo(
        config_digest=identity.config_digest,
        seed=identity.seed,
        corpus_digest=identity.corpus_digest,
        best_epoch=int(state.best_epoch["epoch"]),
        best_eval_loss=state.best_epoch["eval_loss"],
        epochs=len(state.history),
        seconds=sum(entry["seconds"] for entry in state.history),
        ended_at=datetime.now(UTC),
        device=str(device),
        train_files=tuple(sorted(table["sha256"])),
        train_speakers=None if speakers is None else tuple(speakers),
    )
