"""Metrics of probabilities against classes, each with a bootstrap interval over speakers.

A metric is computed from weights, one a row: all ones give the metric itself, the multiplicities of a
resample give a bootstrap replicate. Speakers (files where no speaker is known) are resampled within their
class, because recordings of one voice are not independent and a replicate needs both classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Metric = Callable[["Scores", np.ndarray], np.ndarray]
"""(scores, weights ``[B, rows]``) -> values ``[B]``."""

CALIBRATION_BINS = 10


@dataclass(frozen=True)
class Scores:
    """Probabilities with what they are judged by."""

    labels: np.ndarray
    """``[rows]`` 0 control, 1 patient."""
    probabilities: np.ndarray
    """``[rows]`` of being a patient."""
    clusters: np.ndarray
    """``[rows]`` the speaker, or the file where none is known: what is resampled together."""
    threshold: float = 0.5
    """At least this is called patient."""
    band: tuple[float, float] = (0.5, 0.5)
    """Strictly between these the answer is 'inconclusive'."""

    @property
    def called(self) -> np.ndarray:
        """``[rows]`` True where called patient."""
        return self.probabilities >= self.threshold


def accuracy(scores: Scores, weights: np.ndarray) -> np.ndarray:
    """Share of right calls."""
    return _share(scores.called == scores.labels, weights)


def sensitivity(scores: Scores, weights: np.ndarray) -> np.ndarray:
    """Share of patients called patients."""
    return _share(scores.called, weights * (scores.labels == 1))


def specificity(scores: Scores, weights: np.ndarray) -> np.ndarray:
    """Share of controls called controls."""
    return _share(~scores.called, weights * (scores.labels == 0))


def balanced_accuracy(scores: Scores, weights: np.ndarray) -> np.ndarray:
    """Mean of sensitivity and specificity: 0.5 where the classes are not told apart."""
    return (sensitivity(scores, weights) + specificity(scores, weights)) / 2


def auroc(scores: Scores, weights: np.ndarray) -> np.ndarray:
    """Chance that a patient's probability is above a control's, ties counting half (Mann and Whitney)."""
    patient = scores.labels == 1
    order, inverse = np.unique(scores.probabilities, return_inverse=True)
    sums = np.zeros((2, len(weights), len(order)))
    for row, chosen in enumerate((~patient, patient)):
        np.add.at(sums[row].T, inverse[chosen], weights[:, chosen].T)
    controls, patients = sums  # [B, distinct]
    below = np.cumsum(controls, axis=1) - controls / 2
    with np.errstate(invalid="ignore"):
        return (patients * below).sum(axis=1) / (patients.sum(axis=1) * controls.sum(axis=1))


def brier(scores: Scores, weights: np.ndarray) -> np.ndarray:
    """Mean squared distance of the probability from the class."""
    return _share((scores.probabilities - scores.labels) ** 2, weights)


def ece(scores: Scores, weights: np.ndarray) -> np.ndarray:
    """Expected calibration error: mean gap of predicted and observed share over ten equal bins."""
    bins = calibration_bins(scores.probabilities)
    member = (bins[:, None] == np.arange(CALIBRATION_BINS)).astype(float)  # [rows, bins]
    gaps = np.abs((weights * (scores.probabilities - scores.labels)) @ member)  # [B, bins]
    return gaps.sum(axis=1) / weights.sum(axis=1)


def coverage(scores: Scores, weights: np.ndarray) -> np.ndarray:
    """Share of rows outside the abstention band."""
    return _share(conclusive(scores), weights)


def conclusive_accuracy(scores: Scores, weights: np.ndarray) -> np.ndarray:
    """Share of right calls among the rows outside the abstention band."""
    return _share(scores.called == scores.labels, weights * conclusive(scores))


METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "sensitivity": sensitivity,
    "specificity": specificity,
    "balanced_accuracy": balanced_accuracy,
    "auroc": auroc,
    "brier": brier,
    "ece": ece,
    "coverage": coverage,
    "conclusive_accuracy": conclusive_accuracy,
}


def conclusive(scores: Scores) -> np.ndarray:
    """``[rows]`` True where the probability is not inside the abstention band."""
    low, high = scores.band
    return (scores.probabilities <= low) | (scores.probabilities >= high)


def calibration_bins(probabilities: np.ndarray) -> np.ndarray:
    """The equal-width bin of each probability, ``[rows]`` int; 1.0 belongs to the last."""
    return np.minimum((probabilities * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)


def calibration(scores: Scores) -> dict[str, list[float]]:
    """Mean predicted and observed share of patients and the number of rows, by non-empty bin."""
    bins = calibration_bins(scores.probabilities)
    filled = np.unique(bins)
    return {
        "predicted": [float(scores.probabilities[bins == b].mean()) for b in filled],
        "observed": [float(scores.labels[bins == b].mean()) for b in filled],
        "count": [int((bins == b).sum()) for b in filled],
    }


def resamples(scores: Scores, samples: int, seed: int) -> np.ndarray:
    """Bootstrap weights ``[samples, rows]``: clusters drawn with replacement within their class."""
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
    scores: Scores, weights: np.ndarray, confidence: float, names: tuple[str, ...] = tuple(METRICS)
) -> dict[str, dict[str, float]]:
    """Each metric's value with the percentile interval of its bootstrap replicates."""
    return {name: interval(scores, METRICS[name], weights, confidence) for name in names}


def interval(scores: Scores, metric: Metric, weights: np.ndarray, confidence: float) -> dict[str, float]:
    """``value``, ``low`` and ``high`` of one metric; NaN where it is not defined (a class is missing)."""
    value = metric(scores, np.ones((1, len(scores.labels))))[0]
    return {"value": float(value)} | bounds(metric(scores, weights), confidence)


def bounds(replicates: np.ndarray, confidence: float) -> dict[str, float]:
    """The percentile interval of bootstrap replicates ``[B]``, undefined ones left out."""
    defined = replicates[np.isfinite(replicates)]
    if not len(defined):
        return {"low": float("nan"), "high": float("nan")}
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return {"low": float(low), "high": float(high)}


def _share(holds: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean of ``holds [rows]`` under each of ``weights [B, rows]``."""
    with np.errstate(invalid="ignore"):
        return weights @ holds.astype(float) / weights.sum(axis=1)
