"""How often the intervals contain the truth: 8 to 200 speakers, clustered and not, shares from 0.5 to 1.

Without clusters the coverage of a proportion is a sum over all results, so that it has no error of simulation.
"""

from __future__ import annotations

import os
from functools import partial

import numpy as np
import pytest
from scipy.stats import binom, norm, rankdata

from spira.evaluation import intervals, metrics
from spira.evaluation.intervals import Interval, Shares
from spira.evaluation.metrics import Scores

pytestmark = pytest.mark.slow

CONFIDENCE = 0.95
SAMPLES = int(os.environ.get("SPIRA_SIMULATED_SAMPLES", "500"))
"""Samples for each setting; more than the default makes the test slower and its error smaller."""
ERROR = 3 * np.sqrt(0.95 * 0.05 / SAMPLES)
"""Three standard deviations of a simulated coverage of 95 %."""
METHODS = (intervals.exact, intervals.wilson)
SHARES = np.linspace(0.5, 1.0, 51)
SPEAKERS = (8, 12, 20, 24, 50, 108, 200)
CLUSTERED = [(10, 2), (10, 5), (10, None), (25, 3), (100, 2)]
"""Speakers of a class, and recordings of each; None for 1 to 8."""
CORRELATIONS = (0.0, 0.2, 0.5, 0.9)
"""Intraclass correlation of the recordings of a speaker."""


def coverage_without_clusters(method: object, speakers: int) -> np.ndarray:
    """Return the coverage at each of :data:`SHARES` of speakers with one recording each."""
    rows = np.ones(speakers)
    ends = [method(Shares((np.arange(speakers) < right) * 1.0, rows), CONFIDENCE) for right in range(speakers + 1)]
    low, high = np.array(ends).T
    results = np.arange(speakers + 1)
    return np.array(
        [binom.pmf(results, speakers, share) @ ((low <= share + 1e-9) & (share - 1e-9 <= high)) for share in SHARES]
    )


def numbers_of_rows(rng: np.random.Generator, speakers: int, recordings: int | None) -> np.ndarray:
    return rng.integers(1, 9, speakers) if recordings is None else np.full(speakers, recordings)


def simulated_shares(
    rng: np.random.Generator, share: float, speakers: int, recordings: int | None, correlation: float
) -> Shares:
    """Return speakers whose chances of being right differ as the intraclass correlation says (beta-binomial)."""
    rows = numbers_of_rows(rng, speakers, recordings)
    chances = np.full(speakers, share)
    if correlation and share < 1:
        size = (1 - correlation) / correlation
        chances = rng.beta(share * size, (1 - share) * size, speakers)
    return Shares(rng.binomial(rows, chances) / rows, rows.astype(float))


def covered(truth: float, interval: Interval) -> bool:
    return interval.low - 1e-9 <= truth <= interval.high + 1e-9


@pytest.mark.parametrize("speakers", SPEAKERS)
def test_the_exact_interval_never_covers_less_than_its_level(speakers: int) -> None:
    """Whatever the share, at least 95 % of all samples have an interval that contains it."""
    assert coverage_without_clusters(intervals.exact, speakers).min() >= CONFIDENCE - 1e-9


def test_wilsons_interval_covers_its_level_on_average() -> None:
    """The mean over the shares is 94 to 97 %; close to 1 it falls, and never under 83 %."""
    for speakers in SPEAKERS:
        coverage = coverage_without_clusters(intervals.wilson, speakers)
        assert 0.94 <= coverage.mean() <= 0.97, speakers
        assert coverage.min() >= 0.83, speakers


@pytest.mark.parametrize("correlation", CORRELATIONS)
@pytest.mark.parametrize(("speakers", "recordings"), CLUSTERED)
def test_proportions_of_clustered_recordings_are_covered(
    speakers: int, recordings: int | None, correlation: float
) -> None:
    """From ten speakers on, exact intervals cover at least 95 % and Wilson's at least 90 %, up to simulation error."""
    rng = np.random.default_rng(speakers)
    for share in (0.5, 0.7, 0.8, 0.9, 0.95, 0.98):
        samples = [simulated_shares(rng, share, speakers, recordings, correlation) for _ in range(SAMPLES)]
        hits = [np.mean([covered(share, method(s, CONFIDENCE)) for s in samples]) for method in METHODS]
        assert hits[0] >= 0.95 - ERROR, (share, hits)
        assert hits[1] >= 0.90 - ERROR, (share, hits)


@pytest.mark.parametrize("correlation", CORRELATIONS)
@pytest.mark.parametrize(("speakers", "recordings"), CLUSTERED)
def test_balanced_accuracy_and_accuracy_of_clustered_recordings_are_covered(
    speakers: int, recordings: int | None, correlation: float
) -> None:
    """From ten speakers of each class on, at least 92 % of the samples."""
    rng = np.random.default_rng(speakers)
    for sensitivity, specificity in ((0.5, 0.5), (0.8, 0.9), (0.95, 0.7), (0.98, 0.98), (1.0, 0.95)):
        hits = np.zeros((SAMPLES, 2))
        for sample in range(SAMPLES):
            parts = [
                simulated_shares(rng, share, speakers, recordings, correlation) for share in (sensitivity, specificity)
            ]
            both = Shares(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("means", "rows")))
            truth = (sensitivity + specificity) / 2
            hits[sample] = (
                covered(truth, intervals.mean_of_two(*parts, CONFIDENCE)),
                covered(truth, intervals.exact(both, CONFIDENCE)),
            )
        assert hits.mean(axis=0).min() >= 0.92 - ERROR, (sensitivity, specificity, hits.mean(axis=0))


def simulated_scores(
    rng: np.random.Generator, distance: float, speakers: int, recordings: int | None, correlation: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return scores, labels and speakers, with normal scores of both classes that lie ``distance`` apart."""
    rows = numbers_of_rows(rng, 2 * speakers, recordings)
    cluster = np.repeat(np.arange(2 * speakers), rows)
    labels = (cluster >= speakers).astype(int)
    own, common = rng.normal(size=len(cluster)), rng.normal(size=2 * speakers)[cluster]
    return np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own + distance * labels, labels, cluster


@pytest.mark.parametrize("correlation", CORRELATIONS)
@pytest.mark.parametrize(("speakers", "recordings"), [(10, 1), *CLUSTERED])
def test_an_auroc_is_covered(speakers: int, recordings: int | None, correlation: float) -> None:
    """From ten speakers of each class on, at least 92 % of the samples."""
    rng = np.random.default_rng(speakers)
    for area in (0.5, 0.7, 0.85, 0.95, 0.99):
        distance, hits = norm.ppf(area) * np.sqrt(2), 0
        for _ in range(SAMPLES // 2):
            scores, labels, cluster = simulated_scores(rng, distance, speakers, recordings, correlation)
            patients = int(labels.sum())
            ranks = rankdata(scores)[labels == 1].sum()
            value = (ranks - patients * (patients + 1) / 2) / (patients * (len(labels) - patients))
            hits += covered(area, intervals.area(scores, labels, cluster, value, CONFIDENCE))
        assert hits / (SAMPLES // 2) >= 0.92 - ERROR, (area, hits)


@pytest.mark.parametrize("speakers", SPEAKERS)
def test_a_paired_difference_is_covered(speakers: int) -> None:
    """On average over the settings 94 to 99.5 %, and at least 92 %; with one recording or two a speaker."""
    rng = np.random.default_rng(speakers)
    coverage = []
    for better, worse in ((0.0, 0.02), (0.05, 0.05), (0.1, 0.02), (0.02, 0.2), (0.2, 0.2)):
        for recordings, copied in ((1, 1.0), (2, 0.5)):
            hits = 0
            for _ in range(SAMPLES // 2):
                common, own = rng.uniform(size=(speakers, 1)), rng.uniform(size=(speakers, recordings))
                draws = np.where(rng.uniform(size=own.shape) < copied, common, own)
                rows = np.full(speakers, float(recordings))
                ahead, behind = (draws < better).mean(axis=1), (draws > 1 - worse).mean(axis=1)
                interval = intervals.paired_difference(Shares(ahead, rows), Shares(behind, rows), CONFIDENCE)
                hits += covered(better - worse, interval)
            coverage.append(hits / (SAMPLES // 2))
    assert min(coverage) >= 0.92 - ERROR * np.sqrt(2), coverage
    assert 0.94 - ERROR <= np.mean(coverage) <= 0.995, coverage


def brier_truth(rng: np.random.Generator, sharpness: float, slope: float, rows: int) -> tuple[Scores, float]:
    """Return recordings whose true chances are ``slope`` times as far from 0.5 as the probabilities."""
    logits = rng.normal(size=rows) * sharpness
    probabilities = 1 / (1 + np.exp(-logits))
    chances = 0.5 + slope * (probabilities - 0.5)
    labels = (rng.uniform(size=rows) < chances).astype(int)
    return Scores(labels, probabilities, np.arange(rows)), float(np.mean(chances))


@pytest.mark.parametrize("speakers", [24, 50, 108])
def test_calibration_errors_are_covered(speakers: int) -> None:
    """Brier score and calibration error of networks that are calibrated, too sure, or sharp: at least 92 %."""
    for sharpness, slope in ((1.0, 1.0), (3.0, 1.0), (3.0, 0.6), (1.5, 0.8)):
        sample = partial(brier_truth, sharpness=sharpness, slope=slope)
        large, _ = sample(np.random.default_rng(0), rows=400_000)
        truth = {name: metrics.METRICS[name].value(large) for name in ("brier", "ece")}
        rng, hits = np.random.default_rng(speakers), {"brier": 0, "ece": 0}
        for _ in range(SAMPLES // 4):
            scores, _ = sample(rng, rows=speakers)
            estimates = metrics.with_intervals(scores, metrics.resamples(scores, 300, 0), CONFIDENCE, tuple(hits))
            for name, estimate in estimates.items():
                hits[name] += covered(truth[name], Interval(estimate.low, estimate.high))
        assert min(hits.values()) / (SAMPLES // 4) >= 0.92 - 2 * ERROR, (sharpness, slope, hits)
