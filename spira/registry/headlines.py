"""The numbers of a run in MLflow: some 25 that a person compares. All others are in its ``verdict.json``.

    noisy/accuracy, noisy/accuracy_low, clean/accuracy, ...     on the run
    train/loss, validation/loss, ...                            by epoch, on a child run for each seed

Earlier versions logged every number of the verdict, with dots: ``noisy.by_file.accuracy``. These names are still read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from spira.evaluation.metrics import METRICS
from spira.evaluation.verdict import Estimate, Verdict

ACCURACY = "noisy/accuracy"
CLEAN_ACCURACY = "clean/accuracy"
NOISE_DROP = "noisy/accuracy_drop"
"""Accuracy that the inserted noise costs."""
LOWEST_SLICE = "slices/lowest_accuracy"
"""Lowest accuracy among the slices that are large enough to be judged."""

OLDER_NAMES = {
    ACCURACY: "noisy.by_file.accuracy",
    "noisy/accuracy_low": "noisy.by_file.accuracy.low",
    "noisy/accuracy_high": "noisy.by_file.accuracy.high",
    "noisy/accuracy_by_speaker": "noisy.by_speaker.accuracy",
    "noisy/sensitivity": "noisy.by_file.sensitivity",
    "noisy/specificity": "noisy.by_file.specificity",
    "noisy/balanced_accuracy": "noisy.by_file.balanced_accuracy",
    "noisy/auroc": "noisy.by_file.auroc",
    "noisy/auroc_low": "noisy.by_file.auroc.low",
    "noisy/brier": "noisy.by_file.brier",
    "noisy/ece": "noisy.by_file.ece",
    "noisy/coverage": "noisy.by_file.coverage",
    "noisy/conclusive_accuracy": "noisy.by_file.conclusive_accuracy",
    CLEAN_ACCURACY: "clean.by_file.accuracy",
    "clean/sensitivity": "clean.by_file.sensitivity",
    "clean/specificity": "clean.by_file.specificity",
    "clean/auroc": "clean.by_file.auroc",
    "background/balanced_accuracy": "background.by_file.balanced_accuracy",
    "background/auroc": "background.by_file.auroc",
    "champion/difference": "champion.difference",
    "champion/difference_low": "champion.difference.low",
    "seeds/noisy_accuracy_mean": "spread.noisy.accuracy.mean",
    "seeds/noisy_accuracy_std": "spread.noisy.accuracy.std",
    "validation/best_loss": "candidate.best_eval_loss",
}
"""Name of a number -> its name in runs of earlier versions, which is its place in the verdict too."""

EPOCH_NAMES = {
    "train_loss": "train/loss",
    "eval_loss": "validation/loss",
    "eval_accuracy": "validation/accuracy",
    "learning_rate": "train/learning_rate",
    "seconds": "train/seconds",
}
"""Key of an epoch in a history -> name of its curve."""

EVALUATIONS = "test/evaluations"
"""How often the test set was evaluated so far."""

OF_EXTERNAL = ("accuracy", "sensitivity", "specificity", "auroc")
"""Numbers of each external test set."""

OF_SEEDS = (ACCURACY, "noisy/auroc", CLEAN_ACCURACY)
"""Numbers of the test that every seed's run has."""


def of_verdict(verdict: Verdict) -> dict[str, float]:
    """Return the numbers of a run; those without a value are left out."""
    places = {
        name.removeprefix("conditions.").removesuffix(".value"): value
        for name, value in flat(verdict.model_dump(mode="json", exclude={"gate", "config"}))
    }
    numbers = _picked(places)
    minimum = verdict.gate.slices.minimum_files
    judged = [part.metrics["accuracy"].value for part in verdict.slices if part.files >= minimum]
    if verdict.test_evaluations is not None:
        numbers[EVALUATIONS] = float(verdict.test_evaluations)
    for test in verdict.external:
        if "noisy" in test.conditions:
            numbers |= _named(f"external/{test.name}", test.conditions["noisy"].by_file, OF_EXTERNAL)
    for baseline in verdict.confounders.tests if verdict.confounders else ():
        if baseline.condition == "noisy":
            numbers |= _named("confounders", baseline.by_file, ("auroc",))
            numbers |= _named("confounders/difference", baseline.difference, ("auroc",))
    if measured := [value for value in judged if value is not None]:
        numbers[LOWEST_SLICE] = min(measured)
    return numbers


def of_seed(verdict: Verdict, seed: int) -> dict[str, float]:
    """Return the numbers of the test for one seed; those without a value are left out."""
    measured = verdict.seeds.get(str(seed), {})
    values = {name: measured.get(name.split("/")[0], {}).get(name.split("/")[1]) for name in OF_SEEDS}
    return {name: value for name, value in values.items() if value is not None}


def comparable(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of a run under today's names; of a run of an earlier version only those that have one."""
    return _picked(metrics) if is_older(metrics) else dict(metrics)


def readable(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of a run as they were logged, and under today's names too."""
    return {**metrics, **comparable(metrics)}


def of_noisy_test(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of the noisy test by name, without bounds of intervals."""
    named = comparable(metrics)
    return {name: named[f"noisy/{name}"] for name in METRICS if f"noisy/{name}" in named}


def is_older(metrics: Mapping[str, float]) -> bool:
    """Return whether an earlier version logged these metrics."""
    return any(name in metrics for name in (*OLDER_NAMES.values(), "approved"))


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings by dotted name; characters that MLflow refuses in a name become ``_``."""
    for key, value in values.items():
        name = prefix + re.sub(r"[^\w\-. :/]", "_", str(key))
        if isinstance(value, Mapping):
            yield from flat(value, f"{name}.")
        else:
            yield name, value


def _named(prefix: str, estimates: Mapping[str, Estimate], metrics: Iterable[str]) -> dict[str, float]:
    values = {metric: estimates[metric].value for metric in metrics if metric in estimates}
    return {f"{prefix}/{metric}": value for metric, value in values.items() if value is not None}


def _picked(places: Mapping[str, Any]) -> dict[str, float]:
    picked = {name: float(places[older]) for name, older in OLDER_NAMES.items() if places.get(older) is not None}
    if ACCURACY in picked and CLEAN_ACCURACY in picked:
        picked[NOISE_DROP] = picked[CLEAN_ACCURACY] - picked[ACCURACY]
    return picked
