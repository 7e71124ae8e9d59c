"""The train stage: from a corpus to the checkpoint of one seed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from spira import lineage
from spira.config import Config
from spira.files import link_files, lock
from spira.stage_logging import stage
from spira.stages.inputs import cache_key

log = logging.getLogger(__name__)


@stage
def train(
    corpus: Path, config: Config, seed: int, out: Path, *, device: str, require_gpu: bool, state: Path | None
) -> dict[str, Any]:
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
        link_files(folder, checkpoint.FILES, out)
    best = trained.info.best_epoch
    log.info("train: seed %d is best at epoch %d of %d", seed, best, len(trained.history))
    return {"seed": seed} | {name: getattr(trained.info, name) for name in ("epochs", "best_epoch", "best_eval_loss")}
