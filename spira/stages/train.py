"""The train stage: from a corpus to the checkpoint of one seed."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from spira import digests, lineage, progress
from spira.config import Config
from spira.files import link_files, lock
from spira.stage_logging import StageResult, stage
from spira.stages.inputs import cache_key

if TYPE_CHECKING:
    from spira.models.checkpoint import Checkpoint

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainResult(StageResult):
    """A trained network."""

    seed: int
    epochs: int
    best_epoch: int
    best_eval_loss: float | None
    architecture: str
    framework: str
    """Library and version that trained, such as ``torch 2.9.0``."""
    data_digest: str
    config_digest: str
    code_digest: str

    def metrics(self) -> dict[str, str | float]:
        """Return the numbers that a dashboard shows."""
        return {
            "display_name": f"train: seed {self.seed}",
            "seed": self.seed,
            "epochs": self.epochs,
            "best_epoch": self.best_epoch,
            **({} if self.best_eval_loss is None else {"best_eval_loss": self.best_eval_loss}),
            "seconds": self.seconds,
        }

    def metadata(self) -> dict[str, str | float]:
        """Return what a dashboard shows of the checkpoint."""
        names = ("seed", "architecture", "framework", "data_digest", "config_digest", "code_digest")
        return {"display_name": f"checkpoint: seed {self.seed}"} | {name: getattr(self, name) for name in names}


@stage
def train(
    corpus: Path, config: Config, seed: int, out: Path, *, device: str, require_gpu: bool, state: Path | None
) -> TrainResult:
    """Train one seed.

    Args:
        out: the checkpoint folder to write.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        require_gpu: refuse to train on a CPU.
        state: folder that outlives the process; unfinished and finished trainings are cached in it.

    Raises:
        SpiraError: the training diverges, or a GPU is required and absent.
    """
    from spira.data.corpus import Corpus
    from spira.models import checkpoint
    from spira.training import train as training

    opened = Corpus.open(corpus)
    key = cache_key(opened.digest, config.digest(), lineage.code_digest())
    folder = state / f"{key}-{seed}" if state else out
    log.info("train: seed %d, %s", seed, config.model.architecture)
    with lock(folder.with_name(f".{folder.name}.lock")):
        trained = training.train(opened, config, seed, folder, device=device, require_gpu=require_gpu)
        link_files(folder, checkpoint.FILES, out, optional=[digests.FILE])  # an earlier version wrote none
    info = trained.info
    progress.emit(finished_record(trained))
    log.info("train: seed %d is best at epoch %d of %d", seed, info.best_epoch, len(trained.history))
    return TrainResult(
        seed=seed,
        epochs=info.epochs,
        best_epoch=info.best_epoch,
        best_eval_loss=info.best_eval_loss,
        architecture=config.model.architecture,
        framework=f"torch {metadata.version('torch')}",
        data_digest=opened.digest,
        config_digest=config.digest(),
        code_digest=lineage.code_digest(),
    )


def finished_record(trained: Checkpoint) -> progress.Training:
    """Return the end of a training for a display, with the loss and accuracy of the best epoch."""
    info = trained.info
    best = next((entry for entry in trained.history if entry["epoch"] == info.best_epoch), {})
    return progress.Training(
        seed=info.seed,
        epochs=len(trained.history),
        max_epochs=trained.config.training.max_epochs,
        eval_loss=best.get("eval_loss"),
        eval_accuracy=best.get("eval_accuracy"),
        best_epoch=info.best_epoch,
        is_done=True,
    )
