"""Cross-validation: speaker-disjoint folds of the training and validation splits. The frozen test takes no part.

In each round one fold is measured, the next one chooses epoch and candidate, and the others train. The measured fold
therefore chooses nothing, as the frozen test in a run.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from spira import files
from spira.config import FrozenModel
from spira.data.corpus import Corpus
from spira.data.metadata import CLASS_NAMES, SPLITS
from spira.data.names import speaker_key
from spira.errors import SpiraError
from spira.evaluation.evaluate import SPREAD_CONDITIONS, TestSetEvaluator, choose_candidate, is_finite
from spira.evaluation.gate import Gate
from spira.evaluation.metrics import METRICS
from spira.evaluation.verdict import Number, SeedSpread
from spira.models.checkpoint import Checkpoint

MIN_FOLDS = 3
"""One fold each to train, to choose and to measure."""
CSV, JSON = "folds.csv", "folds.json"
"""File names of the result in the work folder."""


class FoldResult(FrozenModel):
    """The candidate of one round, measured on a fold that neither trained nor chose it."""

    fold: int
    """From 1."""
    seed: int
    """Of the candidate."""
    files: int
    speakers: int
    metrics: dict[str, dict[str, Number]]
    """Condition -> metric -> value by file; empty if the candidate's weights are not finite."""


class FoldsResult(FrozenModel):
    """All rounds, with mean and standard deviation over the folds."""

    data_digest: str
    config_digest: str
    folds: tuple[FoldResult, ...]
    spread: dict[str, dict[str, SeedSpread]]
    """Condition -> metric -> mean and standard deviation over the folds in which it is defined."""


def split(corpus: Corpus, count: int, seed: int) -> list[Corpus]:
    """Return the corpora of the rounds, with the splits train, eval and test made from train and eval.

    The folds have about the same share of patients (scikit-learn's StratifiedGroupKFold), and no speaker is in two.
    The same recordings, number and seed give the same folds.

    Args:
        count: number of folds.
        seed: of the assignment of speakers to folds.

    Raises:
        SpiraError: there are fewer than :data:`MIN_FOLDS` folds, speakers are not known, or a fold lacks a class.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    if count < MIN_FOLDS:
        raise SpiraError(f"--folds {count}: at least {MIN_FOLDS} are needed, to train, to choose and to measure")
    index = corpus.index[corpus.index["split"].isin(["train", "eval"])].reset_index(drop=True)
    if "speaker" not in index:
        raise SpiraError(
            "--folds needs the column speaker in the tables: split by file, one voice would be in two folds"
        )
    speakers = index["speaker"].astype(str).map(speaker_key)
    for label, name in CLASS_NAMES.items():
        known = speakers[index["label"] == label].nunique()
        if known < count:
            raise SpiraError(f"--folds {count}: train and eval have {known} speakers of {name}s; use fewer folds")
    fold = np.empty(len(index), int)
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    for number, (_, members) in enumerate(splitter.split(index, index["label"], speakers)):
        fold[members] = number
    noise = corpus.index[corpus.index["split"] == "noise"]
    rounds = []
    for measured in range(count):
        splits = np.where(fold == measured, "test", np.where(fold == (measured + 1) % count, "eval", "train"))
        rows = index.assign(split=splits)
        for name in SPLITS:
            if rows.loc[rows["split"] == name, "label"].nunique() < len(CLASS_NAMES):
                raise SpiraError(f"--folds {count}: a fold has recordings of one class alone; use fewer folds")
        text = "\n".join(f"{path} {name}" for path, name in sorted(zip(rows["file_path"], splits, strict=True)))
        # The identity of a training: an unfinished one is resumed only in the same round of the same folds.
        digest = hashlib.sha256(f"{corpus.digest}\n{text}".encode(errors="surrogateescape")).hexdigest()
        rounds.append(
            dataclasses.replace(
                corpus,
                index=pd.concat([rows, noise], ignore_index=True),
                manifest=corpus.manifest.model_copy(update={"digest": digest}),
            )
        )
    return rounds


def measure(number: int, corpus: Corpus, trained: Sequence[Checkpoint], gate: Gate) -> FoldResult:
    """Return the metrics of a round's candidate, which is chosen as in a run: by the lowest validation loss.

    Args:
        number: of the fold, from 1.
        corpus: of the round, from :func:`split`.
        trained: the round's networks, one per seed.
        gate: its abstention band is needed by the metrics; nothing is decided.
    """
    candidate = choose_candidate(trained)
    evaluator = TestSetEvaluator(corpus, candidate.config, gate)
    metrics: Mapping[str, Mapping[str, float]] = {}
    if is_finite(candidate):
        metrics = evaluator.seed_metrics(evaluator.predictions(candidate, SPREAD_CONDITIONS))
    table = evaluator.test.table
    return FoldResult(
        fold=number,
        seed=candidate.info.seed,
        files=len(table),
        speakers=table["speaker"].nunique(),
        metrics={condition: dict(values) for condition, values in metrics.items()},
    )


def combine(data_digest: str, config_digest: str, results: Sequence[FoldResult]) -> FoldsResult:
    """Return all rounds with mean and standard deviation."""
    spread: dict[str, dict[str, SeedSpread]] = {}
    for condition in SPREAD_CONDITIONS:
        for metric in METRICS:
            values = [result.metrics.get(condition, {}).get(metric) for result in results]
            defined = [value for value in values if value is not None]
            spread.setdefault(condition, {})[metric] = SeedSpread(
                mean=float(np.mean(defined)) if defined else None,
                std=float(np.std(defined, ddof=1)) if len(defined) > 1 else None,
            )
    return FoldsResult(data_digest=data_digest, config_digest=config_digest, folds=tuple(results), spread=spread)


def write(folder: Path, result: FoldsResult) -> None:
    """Write ``folds.csv`` and ``folds.json``, each in one step."""
    names = [(condition, metric) for condition in SPREAD_CONDITIONS for metric in METRICS]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["fold", "seed", "files", "speakers", *(f"{condition}_{metric}" for condition, metric in names)])
    for fold in result.folds:
        values = (fold.metrics.get(condition, {}).get(metric) for condition, metric in names)
        table.writerow([fold.fold, fold.seed, fold.files, fold.speakers, *values])
    for name in ("mean", "std"):
        spread = (getattr(result.spread[condition][metric], name) for condition, metric in names)
        table.writerow([name, "", "", "", *spread])
    files.write_text(folder / CSV, text.getvalue())
    files.write_json(folder / JSON, result.model_dump(mode="json"))
