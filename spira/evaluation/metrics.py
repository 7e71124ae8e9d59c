"""Metrics of probabilities against classes, each with a confidence interval over speakers.

A metric is a function of one weight per row. Weights of one give the metric itself; the multiplicities of a
resample give a bootstrap replicate. Speakers (files where speakers are not known) are resampled within their
class, because recordings of one voice are not independent and a replicate needs both classes.
:mod:`spira.evaluation.intervals` has the methods of the intervals; one of them reads the resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spira.evaluation import intervals
from spira.evaluation.intervals import Interval, Method, Shares
from spira.evaluation.verdict import (
    CALIBRATION_BINS,
    Answers,
    Calibration,
    Estimate,
    OperatingPoint,
    PredictiveValues,
)

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Thresholds of the table of operating points."""

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
    """``[rows]``: the speaker, or the file where speakers are not known: what is independent of the others."""
    threshold: float = 0.5
    """Smallest probability that is called patient."""
    band: tuple[float, float] = (0.5, 0.5)
    """Abstention band: strictly between its ends a prediction is 'inconclusive'."""

    @property
    def called(self) -> Booleans:
        """``[rows]``: True where the probability is called patient."""
        return self.probabilities >= self.threshold


def right(scores: Scores) -> Booleans:
    """Return ``[rows]``: True where the class is right."""
    return np.asarray(scores.called == (scores.labels == 1))


def everyone(scores: Scores) -> Booleans:
    """Return ``[rows]``: True."""
    return np.ones(len(scores.labels), dtype=bool)


def patients(scores: Scores) -> Booleans:
    """Return ``[rows]``: True where the row is a patient's."""
    return np.asarray(scores.labels == 1)


def controls(scores: Scores) -> Booleans:
    """Return ``[rows]``: True where the row is a control's."""
    return np.asarray(scores.labels == 0)


def found(scores: Scores) -> Booleans:
    """Return ``[rows]``: True where a patient is called patient."""
    return np.asarray(scores.called & (scores.labels == 1))


def conclusive(scores: Scores) -> Booleans:
    """Return ``[rows]``: True where the probability is outside the abstention band."""
    low, high = scores.band
    return (scores.probabilities <= low) | (scores.probabilities >= high)


def balanced_accuracy(scores: Scores, weights: Floats) -> Floats:
    """Return the mean of sensitivity and specificity: 0.5 if the classes are not separated."""
    return (_share(scores.called, weights * patients(scores)) + _share(~scores.called, weights * controls(scores))) / 2


def auroc(scores: Scores, weights: Floats) -> Floats:
    """Return the chance that a patient's probability is above a control's; ties count half (Mann and Whitney)."""
    order, inverse = np.unique(scores.probabilities, return_inverse=True)
    sums = np.zeros((2, len(weights), len(order)))
    for row, chosen in enumerate((controls(scores), patients(scores))):
        np.add.at(sums[row].T, inverse[chosen], weights[:, chosen].T)
    of_controls, of_patients = sums  # [B, distinct]
    below = np.cumsum(of_controls, axis=1) - of_controls / 2
    with np.errstate(invalid="ignore"):
        pairs = of_patients.sum(axis=1) * of_controls.sum(axis=1)
        areas: Floats = (of_patients * below).sum(axis=1) / pairs
    return areas


def squared_error(scores: Scores) -> Floats:
    """Return ``[rows]``: squared difference between probability and class."""
    return np.asarray((scores.probabilities - scores.labels) ** 2, dtype=np.float64)


def ece(scores: Scores, weights: Floats) -> Floats:
    """Return the expected calibration error: mean gap between predicted and observed share over ten equal bins."""
    errors: Floats = np.abs(calibration_gaps(scores, weights)).sum(axis=1)
    return errors


def calibration_gaps(scores: Scores, weights: Floats) -> Floats:
    """Return the predicted minus the observed share, times the share of rows, of each bin, ``[B, bins]``."""
    bins = calibration_bins(scores.probabilities)
    member = (bins[:, None] == np.arange(CALIBRATION_BINS)).astype(float)  # [rows, bins]
    gaps: Floats = (weights * (scores.probabilities - scores.labels)) @ member / weights.sum(axis=1, keepdims=True)
    return gaps


def f1(scores: Scores, weights: Floats) -> Floats:
    """Return the harmonic mean of sensitivity and precision, at the test's share of patients."""
    both = _share(found(scores), weights * (patients(scores) | scores.called))
    return 2 * both / (1 + both)


def positive_ratio(scores: Scores, weights: Floats) -> Floats:
    """Return the share of patients called patient, divided by that of controls; infinite if no control is."""
    return _ratio(scores, scores.called, weights)


def negative_ratio(scores: Scores, weights: Floats) -> Floats:
    """Return the share of patients called control, divided by that of controls."""
    return _ratio(scores, ~scores.called, weights)


@dataclass(frozen=True)
class Metric:
    """A metric, with the words for it in the report."""

    compute: Callable[[Scores, Floats], Floats]
    """(scores, weights ``[B, rows]``) -> values ``[B]``."""
    name: str
    """Name within a sentence."""
    meaning: str
    interval: Callable[[Scores, Floats, float], Interval]
    """(scores, weights, confidence) -> interval; the weights are read by the bootstrap alone."""
    method: Method
    """How the interval is computed."""

    @property
    def heading(self) -> str:
        """Return the name with a capital."""
        return self.name[0].upper() + self.name[1:]

    def value(self, scores: Scores) -> float:
        """Return the metric itself; NaN where it is not defined (a class is missing)."""
        return float(self.compute(scores, np.ones((1, len(scores.labels))))[0])


def proportion(
    holds: Callable[[Scores], Booleans | Floats],
    among: Callable[[Scores], Booleans],
    name: str,
    meaning: str,
    method: Method = intervals.EXACT,
) -> Metric:
    """Return the metric that is the mean of ``holds``, ``[rows]`` in [0, 1], among some rows."""

    def compute(scores: Scores, weights: Floats) -> Floats:
        return _share(holds(scores), weights * among(scores))

    def interval(scores: Scores, _weights: Floats, confidence: float) -> Interval:
        return intervals.exact(shares(scores, holds(scores), among(scores)), confidence)

    return Metric(compute, name, meaning, interval, method)


def shares(scores: Scores, holds: Booleans | Floats, among: Booleans) -> Shares:
    """Return the mean of ``holds [rows]`` by speaker, over the rows that ``among [rows]`` selects."""
    return Shares.of(holds[among], scores.clusters[among])


def _balanced_interval(scores: Scores, _weights: Floats, confidence: float) -> Interval:
    sensitivity = shares(scores, scores.called, patients(scores))
    specificity = shares(scores, ~scores.called, controls(scores))
    return intervals.mean_of_two(sensitivity, specificity, confidence)


def _auroc_interval(scores: Scores, _weights: Floats, confidence: float) -> Interval:
    value = METRICS["auroc"].value(scores)
    return intervals.area(scores.probabilities, scores.labels, scores.clusters, value, confidence)


def _ece_interval(scores: Scores, weights: Floats, confidence: float) -> Interval:
    (gaps,) = calibration_gaps(scores, np.ones((1, len(scores.labels))))
    speakers = shares(scores, right(scores), everyone(scores)).equal_speakers
    return intervals.sum_of_gaps(gaps, calibration_gaps(scores, weights), speakers, confidence)


def _f1_interval(scores: Scores, _weights: Floats, confidence: float) -> Interval:
    both = shares(scores, found(scores), patients(scores) | scores.called)
    return intervals.transformed(intervals.exact(both, confidence), lambda share: 2 * share / (1 + share))


def _ratio_interval(called_patient: bool) -> Callable[[Scores, Floats, float], Interval]:
    def interval(scores: Scores, _weights: Floats, confidence: float) -> Interval:
        called = scores.called == called_patient
        of_patients, of_controls = (shares(scores, called, among(scores)) for among in (patients, controls))
        return intervals.ratio_of_two(of_patients, of_controls, confidence)

    return interval


METRICS: dict[str, Metric] = {
    "accuracy": proportion(right, everyone, "accuracy", "share of recordings with the right class"),
    "sensitivity": proportion(right, patients, "sensitivity", "share of patients called patient"),
    "specificity": proportion(right, controls, "specificity", "share of controls called control"),
    "balanced_accuracy": Metric(
        balanced_accuracy,
        "balanced accuracy",
        "mean of sensitivity and specificity",
        _balanced_interval,
        intervals.HYBRID_SCORE,
    ),
    "auroc": Metric(
        auroc, "AUROC", "chance that a patient ranks above a control", _auroc_interval, intervals.AREA_SCORE
    ),
    "f1": Metric(
        f1,
        "F1 score",
        "harmonic mean of sensitivity and precision, at the test's share of patients",
        _f1_interval,
        intervals.EXACT,
    ),
    "positive_likelihood_ratio": Metric(
        positive_ratio,
        "positive likelihood ratio",
        "how much more often patients are called patient than controls are",
        _ratio_interval(called_patient=True),
        intervals.RATIO_SCORE,
    ),
    "negative_likelihood_ratio": Metric(
        negative_ratio,
        "negative likelihood ratio",
        "how often patients are called control, relative to controls; 0 is best",
        _ratio_interval(called_patient=False),
        intervals.RATIO_SCORE,
    ),
    "brier": proportion(squared_error, everyone, "Brier score", "mean squared error, 0 is best", intervals.BOUNDED),
    "ece": Metric(
        ece, "calibration error", "predicted against observed share, 0 is best", _ece_interval, intervals.BOOTSTRAP
    ),
    "coverage": proportion(conclusive, everyone, "coverage", "share of predictions outside the abstention band"),
    "conclusive_accuracy": proportion(
        right, conclusive, "accuracy where conclusive", "accuracy outside the abstention band"
    ),
}


def calibration_bins(probabilities: Floats) -> Integers:
    """Return the equal-width bin of each probability, ``[rows]`` int; 1.0 is in the last bin."""
    bins: Integers = np.minimum((probabilities * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    return bins


def calibration(scores: Scores, confidence: float) -> Calibration:
    """Return predicted and observed share of patients, with its interval over speakers, by non-empty bin."""
    bins = calibration_bins(scores.probabilities)
    members = [bins == number for number in np.unique(bins)]
    by_speaker = [shares(scores, patients(scores), member) for member in members]
    ends = [intervals.exact(of_bin, confidence) for of_bin in by_speaker]
    return Calibration(
        predicted=tuple(float(scores.probabilities[member].mean()) for member in members),
        observed=tuple(of_bin.value for of_bin in by_speaker),
        count=tuple(int(member.sum()) for member in members),
        low=tuple(interval.low for interval in ends),
        high=tuple(interval.high for interval in ends),
        speakers=tuple(len(of_bin.means) for of_bin in by_speaker),
        method=intervals.EXACT.name,
        source=intervals.EXACT.source,
    )


def answers(scores: Scores) -> Answers:
    """Return the number of predictions with each answer, by class."""
    columns = (conclusive(scores) & ~scores.called, ~conclusive(scores), conclusive(scores) & scores.called)
    of_controls, of_patients = (
        tuple(int(np.sum(column & among(scores))) for column in columns) for among in (controls, patients)
    )
    return Answers(controls=of_controls, patients=of_patients)


def predictive_values(scores: Scores, confidence: float, prevalence: float) -> PredictiveValues:
    """Return the predictive values at a share of patients, from the likelihood ratios and their intervals."""
    odds = prevalence / (1 - prevalence)

    def after(ratio: float) -> float:
        """Return the chance of being a patient after a result with this likelihood ratio."""
        return 1.0 if math.isinf(ratio) else odds * ratio / (1 + odds * ratio)

    weights = np.ones((1, len(scores.labels)))
    positive, negative = (METRICS[name] for name in ("positive_likelihood_ratio", "negative_likelihood_ratio"))
    patient = intervals.transformed(positive.interval(scores, weights, confidence), after)
    control = intervals.transformed(negative.interval(scores, weights, confidence), after)
    return PredictiveValues(
        prevalence=prevalence,
        positive=as_estimate(after(positive.value(scores)), patient, positive.method),
        negative=as_estimate(
            1 - after(negative.value(scores)), Interval(1 - control.high, 1 - control.low), negative.method
        ),
    )


def operating_points(scores: Scores, confidence: float) -> tuple[OperatingPoint, ...]:
    """Return sensitivity and specificity at :data:`THRESHOLDS` and at the threshold in use."""
    points = []
    for threshold in sorted({*THRESHOLDS, scores.threshold}):
        moved = replace(scores, threshold=threshold)
        estimates = with_intervals(moved, np.ones((1, len(scores.labels))), confidence, ("sensitivity", "specificity"))
        points.append(OperatingPoint(threshold=threshold, **estimates))
    return tuple(points)


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
    """Return each metric with its interval; ``weights`` are those of :func:`resamples`."""
    return {name: estimate(scores, METRICS[name], weights, confidence) for name in names}


def estimate(scores: Scores, metric: Metric, weights: Floats, confidence: float) -> Estimate:
    """Return one metric with its interval; None where it is not defined (a class is missing)."""
    return as_estimate(metric.value(scores), metric.interval(scores, weights, confidence), metric.method)


def as_estimate(value: float, interval: Interval, method: Method) -> Estimate:
    """Return a value with its interval, and the method of the interval."""
    return Estimate(value=value, low=interval.low, high=interval.high, method=method.name, source=method.source)


def difference(candidate: Scores, champion: Scores, confidence: float) -> Estimate:
    """Return the accuracy of the candidate minus that of the champion on the same rows, with its paired interval."""
    is_right, other_is_right = right(candidate), right(champion)
    rows = everyone(candidate)
    better = shares(candidate, is_right & ~other_is_right, rows)
    worse = shares(candidate, other_is_right & ~is_right, rows)
    interval = intervals.paired_difference(better, worse, confidence)
    return as_estimate(better.value - worse.value, interval, intervals.PAIRED_SCORE)


def _share(holds: Booleans | Floats, weights: Floats) -> Floats:
    """Return the weighted mean of ``holds [rows]`` under each of ``weights [B, rows]``."""
    with np.errstate(invalid="ignore"):
        shares: Floats = weights @ holds.astype(float) / weights.sum(axis=1)
    return shares


def _ratio(scores: Scores, called: Booleans, weights: Floats) -> Floats:
    """Return the share of ``called [rows]`` among patients, divided by that among controls."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios: Floats = _share(called, weights * patients(scores)) / _share(called, weights * controls(scores))
    return ratios
