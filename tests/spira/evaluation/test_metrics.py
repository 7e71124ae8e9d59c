"""Metrics against scikit-learn, and their intervals against the properties of resampling."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics as reference

from spira.evaluation import intervals, metrics
from spira.evaluation.metrics import METRICS, Scores


def random_scores(seed: int, rows: int = 60, clusters: int = 12, ties: bool = False) -> Scores:
    rng = np.random.default_rng(seed)
    cluster = np.arange(rows) % clusters
    labels = (cluster % 2).astype(int)  # a speaker has one class
    probabilities = rng.uniform(size=rows)
    return Scores(labels, np.round(probabilities, 1) if ties else probabilities, cluster, 0.5, (0.4, 0.6))


def value(name: str, scores: Scores) -> float:
    return METRICS[name].value(scores)


@given(seed=st.integers(0, 10_000), ties=st.booleans())
@settings(max_examples=60)
def test_values_equal_those_of_scikit_learn(seed: int, ties: bool) -> None:
    """With all weights one, each metric has its usual definition."""
    scores = random_scores(seed, ties=ties)
    labels, probabilities, called = scores.labels, scores.probabilities, scores.called
    expected = {
        "accuracy": reference.accuracy_score(labels, called),
        "sensitivity": reference.recall_score(labels, called),
        "specificity": reference.recall_score(1 - labels, ~called),
        "balanced_accuracy": reference.balanced_accuracy_score(labels, called),
        "auroc": reference.roc_auc_score(labels, probabilities),
        "f1": reference.f1_score(labels, called),
        "positive_likelihood_ratio": reference.class_likelihood_ratios(labels, called)[0],
        "negative_likelihood_ratio": reference.class_likelihood_ratios(labels, called)[1],
        "brier": reference.brier_score_loss(labels, probabilities),
    }
    assert {name: value(name, scores) for name in expected} == pytest.approx(expected)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30)
def test_a_weight_of_two_is_the_row_twice(seed: int) -> None:
    """A bootstrap weight means repetition, for every metric."""
    scores = random_scores(seed, rows=24)
    weights = np.random.default_rng(seed).integers(1, 4, size=24)
    repeated = Scores(
        np.repeat(scores.labels, weights),
        np.repeat(scores.probabilities, weights),
        np.repeat(scores.clusters, weights),
        scores.threshold,
        scores.band,
    )
    for name, metric in METRICS.items():
        assert metric.compute(scores, weights[None].astype(float))[0] == pytest.approx(value(name, repeated)), name


def test_calibration_error_is_zero_when_predictions_are_the_observed_share() -> None:
    """Ten recordings at 0.3, three of them patients, are calibrated; at 0.9 the error is 0.6."""
    labels = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 0])
    clusters = np.arange(10)
    assert value("ece", Scores(labels, np.full(10, 0.3), clusters)) == pytest.approx(0.0)
    assert value("ece", Scores(labels, np.full(10, 0.9), clusters)) == pytest.approx(0.6)


def test_calibration_has_the_exact_interval_of_speakers_by_bin() -> None:
    """Twelve speakers with two recordings in one bin give Clopper and Pearson's interval of twelve, not of 24."""
    labels = np.array([0] * 18 + [1] * 6 + [1, 1])
    clusters = np.array([*np.arange(24) // 2, 12, 12])
    scores = Scores(labels, np.array([0.25] * 24 + [1.0] * 2), clusters)
    low, high = metrics.calibration(scores, 0.95).bins
    assert (low.low, low.high, low.count, low.speakers, low.has_few_speakers) == (0.2, 0.3, 24, 12, False)
    assert low.observed.value == pytest.approx(0.25)
    expected = binomtest(3, 12).proportion_ci(0.95, "exact")
    assert (low.observed.low, low.observed.high) == pytest.approx((expected.low, expected.high))
    assert low.observed.method == intervals.EXACT.name
    assert (high.low, high.high, high.count, high.speakers, high.has_few_speakers) == (0.9, 1.0, 2, 1, True)


def test_so_few_speakers_leave_more_than_half_of_the_scale() -> None:
    """Of fewer than six speakers of one class, the exact 95 % interval is wider than 0.5; of six it is not."""
    for speakers in range(1, 9):
        rows = np.ones(speakers, dtype=int)
        (only,) = metrics.calibration(Scores(rows, rows.astype(float), np.arange(speakers)), 0.95).bins
        assert only.observed.low is not None
        assert only.has_few_speakers is (1 - only.observed.low > 0.5)


def test_the_abstention_band_is_open() -> None:
    """A prediction is inconclusive only strictly between the ends of the band."""
    scores = Scores(np.array([0, 0, 1, 1]), np.array([0.4, 0.41, 0.59, 0.6]), np.arange(4), 0.5, (0.4, 0.6))
    assert value("coverage", scores) == 0.5
    assert value("conclusive_accuracy", scores) == 1.0


def test_abstentions_are_a_column_of_the_confusion_matrix() -> None:
    """Negative, inconclusive and positive answers of controls and of patients; the ends of the band are answers."""
    probabilities = np.array([0.1, 0.4, 0.45, 0.9, 0.2, 0.5, 0.59, 0.6])
    scores = Scores(np.repeat([0, 1], 4), probabilities, np.arange(8), 0.5, (0.4, 0.6))
    answers = metrics.answers(scores)
    assert (answers.controls, answers.patients) == ((2, 1, 1), (1, 2, 1))


@given(seed=st.integers(0, 10_000), prevalence=st.floats(0.001, 0.999))
@settings(max_examples=40)
def test_predictive_values_are_bayes_theorem(seed: int, prevalence: float) -> None:
    """A share of patients with sensitivity and specificity gives the chance that a call is right."""
    scores = random_scores(seed)
    sensitivity, specificity = value("sensitivity", scores), value("specificity", scores)
    values = metrics.predictive_values(scores, 0.95, prevalence)
    true, false = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    assert values.positive.value == pytest.approx(true / (true + false))
    true, false = specificity * (1 - prevalence), (1 - sensitivity) * prevalence
    assert values.negative.value == pytest.approx(true / (true + false))
    for estimate in (values.positive, values.negative):
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


def test_a_positive_call_is_certain_only_without_false_patients() -> None:
    """With specificity 1 the predictive value is 1, and its interval is wide all the same."""
    scores = Scores(np.repeat([0, 1], 12), np.repeat([0.1, 0.9], 12), np.arange(24))
    values = metrics.predictive_values(scores, 0.95, 0.1)
    assert (values.positive.value, values.positive.high) == (1.0, 1.0)
    assert values.positive.low == pytest.approx(0.31, abs=0.01)


def test_operating_points_have_the_threshold_in_use_and_fall_in_sensitivity() -> None:
    """A higher threshold calls fewer people patient."""
    scores = random_scores(1)
    points = metrics.operating_points(replace(scores, threshold=0.37), 0.95)
    thresholds = [point.threshold for point in points]
    assert 0.37 in thresholds
    assert thresholds == sorted(thresholds)
    for metric, order in (("sensitivity", -1), ("specificity", 1)):
        values = [getattr(point, metric).value for point in points]
        assert values == sorted(values, reverse=order < 0)


def test_resampling_draws_whole_speakers_within_their_class() -> None:
    """All rows of a speaker have the same weight, and each class keeps its number of speakers."""
    scores = random_scores(0)
    weights = metrics.resamples(scores, samples=50, seed=1)
    for cluster in np.unique(scores.clusters):
        rows = weights[:, scores.clusters == cluster]
        assert (rows == rows[:, :1]).all()
    assert (weights.sum(axis=1) == len(scores.labels)).all()  # every speaker has the same number of rows here


def test_intervals_by_speaker_are_wider_than_by_file_when_voices_repeat() -> None:
    """Ten copies of each speaker's only prediction are no new evidence."""
    rng = np.random.default_rng(0)
    labels, right = np.repeat([0, 1], 20), rng.uniform(size=40) < 0.8
    probabilities = np.where(right, labels, 1 - labels) * 0.8 + 0.1
    tenfold = [np.repeat(values, 10) for values in (labels, probabilities, np.arange(40))]
    by_speaker = Scores(*tenfold)
    by_file = Scores(tenfold[0], tenfold[1], np.arange(400))

    def width(scores: Scores) -> float:
        estimate = metrics.estimate(scores, METRICS["accuracy"], metrics.resamples(scores, 1000, 0), 0.95)
        return estimate.high - estimate.low

    assert width(by_speaker) > 2 * width(by_file)


@pytest.mark.integration
def test_the_interval_covers_the_truth_about_as_often_as_its_level() -> None:
    """Of 200 samples with a true accuracy of 0.8, about 90 % have a 90 % interval that contains it."""
    hits = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        labels = np.arange(80) % 2
        right = rng.uniform(size=80) < 0.8
        scores = Scores(labels, np.where(right, labels, 1 - labels).astype(float), np.arange(80))
        estimate = metrics.estimate(scores, METRICS["accuracy"], metrics.resamples(scores, 300, seed), 0.9)
        hits += estimate.low <= 0.8 <= estimate.high
    assert 165 <= hits <= 195


def test_a_metric_is_not_defined_without_its_class() -> None:
    """A test without patients has no sensitivity, and this is not an error."""
    scores = Scores(np.zeros(5, dtype=int), np.linspace(0, 1, 5), np.arange(5))
    estimates = metrics.with_intervals(scores, metrics.resamples(scores, 200, 0), 0.95)
    assert np.isnan(METRICS["sensitivity"].value(scores))
    assert estimates["sensitivity"].value is None
    assert estimates["auroc"].low is None
    assert estimates["specificity"].value == pytest.approx(2 / 5)
