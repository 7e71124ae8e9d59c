"""Metrics of probabilities against classes, each with a bootstrap interval over speakers.

A metric is a function of one weight per row. Weights of one give the metric itself; the multiplicities of a
resample give a bootstrap replicate. Speakers (files where speakers are not known) are resampled within their
class, because recordings of one voice are not independent and a replicate needs both classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spira.evaluation.verdict import Calibration, Estimate

CALIBRATION_BINS = 10

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


@dataclass(frozen=True)
class Scores:
    """Probabilities and labels, with the settings that metrics depend on."""

    labels: Integers
    """``[rows]``: 0 control, 1 patient."""
    probabilities: Floats
    """``[rows]``: probability of the class patient."""
    clusters: np.ndarray
    """``[rows]``: the unit of resampling, which is the speaker, or the file where speakers are not known."""
    threshold: float = 0.5
    """Smallest probability that is called patient."""
    band: tuple[float, float] = (0.5, 0.5)
    """Abstention band: strictly between its ends a prediction is 'inconclusive'."""

    @property
    def called(self) -> Booleans:
        """``[rows]``: True where the probability is called patient."""
        return self.probabilities >= self.threshold


def accuracy(scores: Scores, weights: Floats) -> Floats:
    """Return the share of rows with the right class."""
    return _share(scores.called == scores.labels, weights)


def sensitivity(scores: Scores, weights: Floats) -> Floats:
    """Return the share of patients that are called patient."""
    return _share(scores.called, weights * (scores.labels == 1))


def specificity(scores: Scores, weights: Floats) -> Floats:
    """Return the share of controls that are called control."""
    return _share(~scores.called, weights * (scores.labels == 0))


def balanced_accuracy(scores: Scores, weights: Floats) -> Floats:
    """Return the mean of sensitivity and specificity: 0.5 if the classes are not separated."""
    return (sensitivity(scores, weights) + specificity(scores, weights)) / 2


def auroc(scores: Scores, weights: Floats) -> Floats:
    """Return the chance that a patient's probability is above a control's; ties count half (Mann and Whitney)."""
    patient = scores.labels == 1
    order, inverse = np.unique(scores.probabilities, return_inverse=True)
    sums = np.zeros((2, len(weights), len(order)))
    for row, chosen in enumerate((~patient, patient)):
        np.add.at(sums[row].T, inverse[chosen], weights[:, chosen].T)
    controls, patients = sums  # [B, distinct]
    below = np.cumsum(controls, axis=1) - controls / 2
    with np.errstate(invalid="ignore"):
        areas: Floats = (patients * below).sum(axis=1) / (patients.sum(axis=1) * controls.sum(axis=1))
    return areas


def brier(scores: Scores, weights: Floats) -> Floats:
    """Return the mean squared difference between probability and class."""
    return _share((scores.probabilities - scores.labels) ** 2, weights)


def ece(scores: Scores, weights: Floats) -> Floats:
    """Return the expected calibration error: mean gap between predicted and observed share over ten equal bins."""
    bins = calibration_bins(scores.probabilities)
    member = (bins[:, None] == np.arange(CALIBRATION_BINS)).astype(float)  # [rows, bins]
    gaps = np.abs((weights * (scores.probabilities - scores.labels)) @ member)  # [B, bins]
    errors: Floats = gaps.sum(axis=1) / weights.sum(axis=1)
    return errors


def coverage(scores: Scores, weights: Floats) -> Floats:
    """Return the share of rows outside the abstention band."""
    return _share(conclusive(scores), weights)


def conclusive_accuracy(scores: Scores, weights: Floats) -> Floats:
    """Return the share of rows with the right class among those outside the abstention band."""
    return _share(scores.called == scores.labels, weights * conclusive(scores))


@dataclass(frozen=True)
class Metric:
    """A metric, with the words for it in the report."""

    compute: Callable[[Scores, Floats], Floats]
    """(scores, weights ``[B, rows]``) -> values ``[B]``."""
    name: str
    """Name within a sentence."""
    meaning: str

    @property
    def heading(self) -> str:
        """Return the name with a capital."""
        return self.name[0].upper() + self.name[1:]

    def value(self, scores: Scores) -> float:
        """Return the metric itself; NaN where it is not defined (a class is missing)."""
        return float(self.compute(scores, np.ones((1, len(scores.labels))))[0])


METRICS: dict[str, Metric] = {
    "accuracy": Metric(accuracy, "accuracy", "share of recordings with the right class"),
    "sensitivity": Metric(sensitivity, "sensitivity", "share of patients called patient"),
    "specificity": Metric(specificity, "specificity", "share of controls called control"),
    "balanced_accuracy": Metric(balanced_accuracy, "balanced accuracy", "mean of sensitivity and specificity"),
    "auroc": Metric(auroc, "AUROC", "chance that a patient ranks above a control"),
    "brier": Metric(brier, "Brier score", "mean squared error, 0 is best"),
    "ece": Metric(ece, "calibration error", "predicted against observed share, 0 is best"),
    "coverage": Metric(coverage, "coverage", "share of predictions outside the abstention band"),
    "conclusive_accuracy": Metric(
        conclusive_accuracy, "accuracy where conclusive", "accuracy outside the abstention band"
    ),
}


def conclusive(scores: Scores) -> Booleans:
    """Return ``[rows]``: True where the probability is outside the abstention band."""
    low, high = scores.band
    return (scores.probabilities <= low) | (scores.probabilities >= high)


def calibration_bins(probabilities: Floats) -> Integers:
    """Return the equal-width bin of each probability, ``[rows]`` int; 1.0 is in the last bin."""
    bins: Integers = np.minimum((probabilities * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    return bins


def calibration(scores: Scores) -> Calibration:
    """Return predicted and observed share of patients, and the number of rows, by non-empty bin."""
    bins = calibration_bins(scores.probabilities)
    filled = np.unique(bins)
    return Calibration(
        predicted=tuple(float(scores.probabilities[bins == b].mean()) for b in filled),
        observed=tuple(float(scores.labels[bins == b].mean()) for b in filled),
        count=tuple(int((bins == b).sum()) for b in filled),
    )


def resamples(scores: Scores, samples: int, seed: int) -> Floats:
    """Return bootstrap weights ``[samples, rows]``: clusters drawn with replacement within their class."""
    rng = np.random.default_rng(seed)
    weights = np.zeros((samples, len(scores.labels)))
    for label in (0, 1):
        rows = np.flatnonzero(scores.labels == label)
        names, cluster = np.unique(scores.clusters[rows].astype(str), return_inverse=True)
        if len(names):
            drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=samples)
            weights[:, rows] = drawn[:, cluster]  # [samples, rows of the class]
    return weights


def with_intervals(
    scores: Scores, weights: Floats, confidence: float, names: tuple[str, ...] = tuple(METRICS)
) -> dict[str, Estimate]:
    """Return each metric with the percentile interval of its bootstrap replicates."""
    return {name: estimate(scores, METRICS[name], weights, confidence) for name in names}


def estimate(scores: Scores, metric: Metric, weights: Floats, confidence: float) -> Estimate:
    """Return one metric with its interval; None where it is not defined (a class is missing)."""
    low, high = bounds(metric.compute(scores, weights), confidence)
    return Estimate(value=metric.value(scores), low=low, high=high)


def bounds(replicates: Floats, confidence: float) -> tuple[float, float]:
    """Return the percentile interval of bootstrap replicates ``[B]``, without those that are not defined."""
    defined = replicates[np.isfinite(replicates)]
    if not len(defined):
        return float("nan"), float("nan")
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def _share(holds: Booleans | Floats, weights: Floats) -> Floats:
    """Return the weighted mean of ``holds [rows]`` under each of ``weights [B, rows]``."""
    with np.errstate(invalid="ignore"):
        shares: Floats = weights @ holds.astype(float) / weights.sum(axis=1)
    return shares
