"""Cross-validation on this machine: train and measure in speaker-disjoint folds. Nothing is registered or decided.

It is no part of the pipeline. Corpus and trainings are kept where a run keeps them, so an interrupted cross-validation
goes on where it stopped, and uses the corpus of a run.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spira import lineage
from spira.config import Config
from spira.files import lock
from spira.stage_logging import StageResult, progress_log, stage
from spira.stages.inputs import cache_key
from spira.stages.preprocess import cached_corpus

if TYPE_CHECKING:
    from spira.evaluation.folds import FoldsResult

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CrossValidationResult(StageResult):
    """Metrics by fold."""

    result: FoldsResult


@stage
def cross_validate(
    data: str, config: Config, folds: int, work: Path, *, skip_bad: bool, device: str, require_gpu: bool
) -> CrossValidationResult:
    """Train every seed in every fold, measure each fold's candidate, and write ``folds.csv`` and ``folds.json``.

    Args:
        data: folder, ``gs://`` or ``s3://`` prefix of the data set.
        folds: number of folds of the recordings of train and eval; those of test take no part.
        work: folder of the result and, in ``state``, of the corpus and the trainings.
        skip_bad: leave bad recordings out instead of refusing the data set.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        require_gpu: refuse to train on a CPU.

    Raises:
        SpiraError: the data set breaks a rule, cannot be split into the folds, or a training diverges.
    """
    from spira.data.corpus import Corpus
    from spira.evaluation import folds as cross_validation
    from spira.evaluation import gate
    from spira.training import train as training

    for name in (cross_validation.CSV, cross_validation.JSON):  # an earlier result must never look like this one
        (work / name).unlink(missing_ok=True)
    state = work / "state"
    log.info("folds: reads %s", data)
    with cached_corpus(data, config.preprocess, skip_bad, state, progress_log("folds", "recordings")) as folder:
        corpus = Corpus.open(folder)
    for warning in corpus.quality.warnings:
        log.warning("%s", warning)
    rounds = cross_validation.split(corpus, folds, config.preprocess.split_seed)
    rules, results = gate.load(), []
    for number, part in enumerate(rounds, start=1):
        counts = {name: len(part.split(name)) for name in ("train", "eval", "test")}
        log.info(
            "folds: fold %d of %d: trains on %d recordings, chooses on %d, measures %d",
            number,
            folds,
            *counts.values(),
        )
        trained = []
        for seed in config.training.seeds:
            key = cache_key(part.digest, config.digest(), lineage.code_digest())
            checkpoint = state / f"{key}-{seed}"
            with lock(checkpoint.with_name(f".{checkpoint.name}.lock")):
                trained.append(training.train(part, config, seed, checkpoint, device=device, require_gpu=require_gpu))
        results.append(cross_validation.measure(number, part, trained, rules))
    result = cross_validation.combine(corpus.digest, config.digest(), results)
    cross_validation.write(work, result)
    return CrossValidationResult(result=result)
