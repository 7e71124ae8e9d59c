"""Intervals have width at the edge, contain what they estimate, and treat both classes alike."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from spira.evaluation import intervals, metrics
from spira.evaluation.intervals import Interval, Shares
from spira.evaluation.metrics import METRICS, Scores

CONFIDENCE = 0.95
RATES = [name for name in METRICS if not name.endswith("ratio")]
"""Metrics between 0 and 1."""


def binary(right: int, speakers: int, recordings: int = 1) -> Shares:
    """Return speakers of whom the first are right in all of their recordings, and the others in none."""
    return Shares((np.arange(speakers) < right).astype(float), np.full(speakers, float(recordings)))


@st.composite
def some_shares(draw: st.DrawFn) -> Shares:
    """Return 6 to 30 speakers with 1 to 6 recordings each, of which any number is right."""
    rows = np.array(draw(st.lists(st.integers(1, 6), min_size=6, max_size=30)))
    right = [draw(st.integers(0, int(number))) for number in rows]
    return Shares(np.array(right) / rows, rows.astype(float))


@st.composite
def some_scores(draw: st.DrawFn) -> Scores:
    """Return 3 to 12 speakers of each class with 1 to 3 recordings, with probabilities that may be at the edge."""
    rows = [draw(st.integers(1, 3)) for _ in range(2 * draw(st.integers(3, 12)))]
    clusters = np.repeat(np.arange(len(rows)), rows)
    levels = st.sampled_from([0.0, 0.03, 0.3, 0.45, 0.5, 0.58, 0.8, 0.9997, 1.0])
    probabilities = np.array([draw(levels) for _ in clusters])
    return Scores(clusters % 2, probabilities, clusters, 0.5, (0.4, 0.6))


def estimates(scores: Scores) -> dict[str, metrics.Estimate]:
    return metrics.with_intervals(scores, metrics.resamples(scores, 400, 0), CONFIDENCE)


@pytest.mark.parametrize(("right", "expected"), [(24, (0.86, 1.0)), (12, (0.74, 1.0))])
def test_a_perfect_sample_has_width(right: int, expected: tuple[float, float]) -> None:
    """All of 24 speakers right is 0.86 to 1.00, all of 12 is 0.74 to 1.00."""
    assert intervals.exact(binary(right, right), CONFIDENCE) == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("right", [0, 1, 3, 8, 22, 23, 24])
def test_one_recording_a_speaker_gives_the_textbook_intervals(right: int) -> None:
    """With as many recordings as speakers, they are those of SciPy, of Clopper and Pearson and of Wilson."""
    test = binomtest(right, 24)
    exact, wilson = (test.proportion_ci(CONFIDENCE, method=method) for method in ("exact", "wilson"))
    assert intervals.exact(binary(right, 24), CONFIDENCE) == pytest.approx((exact.low, exact.high))
    assert intervals.wilson(binary(right, 24), CONFIDENCE) == pytest.approx((wilson.low, wilson.high))


@pytest.mark.parametrize("interval", [intervals.exact, intervals.wilson])
def test_copies_of_a_recording_are_no_evidence(interval: object) -> None:
    """Five recordings of each voice that are right or wrong together count as one."""
    one, five = binary(20, 24), binary(20, 24, recordings=5)
    assert interval(five, CONFIDENCE) == pytest.approx(interval(one, CONFIDENCE))


def test_unequal_numbers_of_recordings_count_as_fewer_speakers() -> None:
    """Ten speakers, one with 30 recordings and the others with one, are worth less than two equal speakers."""
    rows = np.array([30.0] + [1.0] * 9)
    shares = Shares(np.ones(10), rows)
    assert shares.equal_speakers == pytest.approx(39**2 / 909)
    assert intervals.exact(shares, CONFIDENCE).low < intervals.exact(binary(2, 2), CONFIDENCE).low


@given(shares=some_shares())
@settings(max_examples=150)
def test_proportions_contain_their_estimate_and_have_width(shares: Shares) -> None:
    """Whatever the shares, 0 <= low <= value <= high <= 1 and low < high, by both methods."""
    for interval in (intervals.exact(shares, CONFIDENCE), intervals.wilson(shares, CONFIDENCE)):
        assert 0 <= interval.low <= shares.value <= interval.high <= 1
        assert interval.high - interval.low > 1e-3


@given(shares=some_shares())
@settings(max_examples=100)
def test_proportions_are_symmetric(shares: Shares) -> None:
    """The interval of what is wrong is that of what is right, mirrored."""
    mirrored = Shares(1 - shares.means, shares.rows)
    for method in (intervals.exact, intervals.wilson):
        low, high = method(shares, CONFIDENCE)
        assert method(mirrored, CONFIDENCE) == pytest.approx((1 - high, 1 - low), abs=1e-9)


@given(shares=some_shares())
@settings(max_examples=100)
def test_more_speakers_narrow_the_interval(shares: Shares) -> None:
    """Twice the sample has the same value and a narrower interval."""
    twice = Shares(np.tile(shares.means, 2), np.tile(shares.rows, 2))
    for method in (intervals.exact, intervals.wilson):
        (low, high), (narrow_low, narrow_high) = method(shares, CONFIDENCE), method(twice, CONFIDENCE)
        assert narrow_high - narrow_low < high - low


@given(
    right=st.lists(st.integers(0, 4), min_size=6, max_size=30), speaker=st.integers(0, 29), recordings=st.integers(4, 6)
)
@example(right=[0, 3, 3, 3, 3, 3], speaker=0, recordings=4)
@settings(max_examples=150)
def test_one_more_right_recording_hardly_lowers_an_end(right: list[int], speaker: int, recordings: int) -> None:
    """An end falls by less than 0.015 if a speaker unlike the others becomes more like them.

    One more right recording raises the estimate, and here it also lowers the variance. The example is the worst of all
    samples of 6 to 8 speakers with 4 to 6 recordings: the upper end falls by 0.0133.
    """
    rows = np.full(len(right), float(recordings))
    better = np.array(right)
    better[speaker % len(right)] = min(better[speaker % len(right)] + 1, recordings)
    before, after = (intervals.exact(Shares(np.array(r) / rows, rows), CONFIDENCE) for r in (right, better))
    assert after.low > before.low - 0.015
    assert after.high > before.high - 0.015


@pytest.mark.parametrize("recordings", [1, 3, 10])
def test_a_perfect_sample_has_the_highest_lower_end(recordings: int) -> None:
    """One wrong recording less never lowers the end that the gate checks, whatever the recordings of a speaker."""
    lows = []
    for wrong in range(8 * recordings + 1):
        right = np.full(8, recordings) - np.bincount(np.arange(wrong) % 8, minlength=8)
        lows.append(intervals.exact(Shares(right / recordings, np.full(8, float(recordings))), CONFIDENCE).low)
    assert lows == sorted(lows, reverse=True)


@given(scores=some_scores())
@settings(max_examples=60)
def test_every_metric_contains_its_value_and_has_width(scores: Scores) -> None:
    """Every rate lies in its interval within [0, 1], which has width; its method and source are named."""
    for name, estimate in estimates(scores).items():
        assert estimate.method, name
        assert estimate.source, name
        if name in RATES and estimate.value is not None:
            assert -1e-9 <= estimate.low <= estimate.value + 1e-9, name
            assert estimate.value <= estimate.high + 1e-9 <= 1 + 2e-9, name
            assert estimate.high - estimate.low > 1e-3, name


@given(scores=some_scores())
@settings(max_examples=40)
def test_swapping_the_classes_swaps_the_metrics(scores: Scores) -> None:
    """If patients are controls and probabilities are mirrored, sensitivity and specificity change places."""
    if np.any(scores.probabilities == 0.5):  # at the threshold, only patients are called
        return
    swapped = Scores(1 - scores.labels, 1 - scores.probabilities, scores.clusters, 0.5, scores.band)
    first, second = estimates(scores), estimates(swapped)
    for name, other in {
        "accuracy": "accuracy",
        "sensitivity": "specificity",
        "balanced_accuracy": "balanced_accuracy",
        "auroc": "auroc",
        "brier": "brier",
    }.items():
        values = [(estimate.value, estimate.low, estimate.high) for estimate in (first[name], second[other])]
        assert values[0] == pytest.approx(values[1], abs=1e-6), name


def test_a_perfect_ranking_has_width() -> None:
    """Twelve patients above twelve controls: the interval of the AUROC starts well below 1 and above chance."""
    labels = np.repeat([0, 1], 12)
    low, high = intervals.area(labels * 0.8 + 0.1, labels, np.arange(24), 1.0, CONFIDENCE)
    assert (0.80 < low < 0.86, high) == (True, 1.0)
    reverse = intervals.area(0.9 - labels * 0.8, labels, np.arange(24), 0.0, CONFIDENCE)
    assert reverse == pytest.approx((0.0, 1 - low), abs=1e-9)


def test_the_clustered_variance_of_an_auroc_is_delongs_for_one_recording_a_speaker() -> None:
    """Obuchowski's variance against DeLong's definition, pair by pair; ties count half."""
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1], (15, 9))
    probabilities = np.round(rng.uniform(size=24) * 0.6 + labels * 0.3, 1)
    controls, patients = probabilities[labels == 0], probabilities[labels == 1]
    wins = (patients[:, None] > controls) + 0.5 * (patients[:, None] == controls)
    parts = (np.var(wins.mean(axis=axis)) / wins.shape[1 - axis] for axis in (0, 1))
    variance = intervals.clustered_area_variance(probabilities, labels, np.arange(24), wins.mean())
    assert variance == pytest.approx(sum(parts) * 24 / 23)


def test_repeated_recordings_widen_the_interval_of_an_auroc() -> None:
    """Ten copies of each recording are no evidence for a ranking either."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 15)
    probabilities = rng.uniform(size=30) + 0.5 * labels
    value = METRICS["auroc"].value(Scores(labels, probabilities, np.arange(30)))
    once = intervals.area(probabilities, labels, np.arange(30), value, CONFIDENCE)
    copies = [np.repeat(values, 10) for values in (probabilities, labels, np.arange(30))]
    assert intervals.area(*copies, value, CONFIDENCE) == pytest.approx(once, abs=1e-6)


def test_the_paired_difference_is_tangos() -> None:
    """1 and 7 of 21 are discordant (Bentur and others 2009; Fagerland, Lydersen and Laake 2017, table 8.7)."""
    better, worse = np.arange(21) < 1, np.arange(21) >= 14
    pairs = [Shares.of(holds, np.arange(21)) for holds in (better, worse)]
    assert intervals.paired_difference(*pairs, CONFIDENCE) == pytest.approx((-0.517, -0.026), abs=0.001)


@given(scores=some_scores(), shift=st.floats(-0.5, 0.5))
@settings(max_examples=60)
def test_the_difference_to_the_champion_contains_its_value_and_has_width(scores: Scores, shift: float) -> None:
    """The interval lies in [-1, 1], has width, and is mirrored if candidate and champion change places."""
    other = Scores(scores.labels, np.clip(scores.probabilities + shift, 0, 1), scores.clusters)
    forth, back = metrics.difference(scores, other, CONFIDENCE), metrics.difference(other, scores, CONFIDENCE)
    assert -1 <= forth.low <= forth.value <= forth.high <= 1
    assert forth.high - forth.low > 0.01
    assert (back.low, back.high) == pytest.approx((-forth.high, -forth.low), abs=1e-6)


def test_two_perfect_networks_are_not_shown_to_be_equal_by_a_few_speakers() -> None:
    """Without one difference in 24 speakers, a difference of 0.14 is still possible."""
    scores = Scores(np.repeat([0, 1], 12), np.repeat([0.1, 0.9], 12), np.arange(24))
    difference = metrics.difference(scores, scores, CONFIDENCE)
    assert (difference.low, difference.value, difference.high) == pytest.approx((-0.138, 0.0, 0.138), abs=0.001)


def test_a_likelihood_ratio_without_false_patients_has_a_lower_end() -> None:
    """All of 12 patients and no control called patient: the ratio has no value, but it is at least 4."""
    scores = Scores(np.repeat([0, 1], 12), np.repeat([0.1, 0.9], 12), np.arange(24))
    ratio = estimates(scores)["positive_likelihood_ratio"]
    assert (ratio.value, ratio.high) == (None, None)
    assert ratio.low == pytest.approx(4.0, abs=0.01)


@given(shares=some_shares(), other=some_shares())
@settings(max_examples=60)
def test_the_ratio_of_two_proportions_contains_its_value(shares: Shares, other: Shares) -> None:
    """The interval contains the ratio; its upper end is open if the divisor may be 0."""
    low, high = intervals.ratio_of_two(shares, other, CONFIDENCE)
    assert 0 <= low < high
    if other.value:
        assert low <= shares.value / other.value + 1e-9
        assert high >= shares.value / other.value - 1e-9


def test_without_a_sample_there_is_no_interval() -> None:
    """No speaker gives NaN, which a verdict writes as null."""
    nothing = Shares.of(np.empty(0), np.empty(0))
    undefined = [
        intervals.exact(nothing, CONFIDENCE),
        intervals.wilson(nothing, CONFIDENCE),
        intervals.mean_of_two(nothing, binary(2, 3), CONFIDENCE),
        intervals.ratio_of_two(binary(2, 3), nothing, CONFIDENCE),
        intervals.paired_difference(nothing, nothing, CONFIDENCE),
        intervals.sum_of_gaps(np.full(10, math.nan), np.zeros((3, 10)), 3, CONFIDENCE),
    ]
    assert all(math.isnan(end) for interval in undefined for end in Interval(*interval))
