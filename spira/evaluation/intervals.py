"""Confidence intervals that have width at the edge, each by a named method with its source.

A percentile bootstrap of a perfect score has no width: 24 of 24 right would be "1.00 to 1.00". The methods here give
0.86 to 1.00, because a network that errs on one speaker in ten is right on 24 speakers by chance in 8 of 100 tests.

Speakers
    Recordings of one voice are not independent, so the sample is one of speakers, not of recordings: speakers with the
    share of their recordings for which something holds (:class:`Shares`). Where speakers are not known, each file
    counts as one.

The effective number of speakers
    Korn and Graubard divide the number of recordings by a design effect that is estimated from the sample. A perfect
    sample has no variance to estimate it from, and a nearly perfect one gives far too large a number. The variance is
    therefore that of the sample with one more speaker who is wrong (for a lower end) or right (for an upper end)
    throughout, as in Gaffke's bound. If each speaker is all right or all wrong, the exact interval is that of Clopper
    and Pearson, and the effective number is the number of speakers. Shares in between raise it, unequal numbers of
    recordings lower it.

Sources
    Clopper and Pearson 1934, Biometrika 26:404. Wilson 1927, JASA 22:209. Korn and Graubard 1998, Survey Methodology
    24:193. Gaffke 2005, and Learned-Miller and Thomas 2019, arXiv:1905.06208. Newcombe 1998, Statistics in Medicine
    17:873 (method 10), and 2006, 25:559 (method 5). Zou and Donner 2008, Statistics in Medicine 27:1693; Donner and
    Zou 2012, Statistical Methods in Medical Research 21:347. Hanley and McNeil 1982, Radiology 143:29. Obuchowski
    1997, Biometrics 53:567. Tango 1998, Statistics in Medicine 17:891. Davison and Hinkley 1997, Bootstrap Methods and
    their Application, section 5.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import beta, norm

Floats = NDArray[np.float64]

TINY = 1e-12
"""Distance from an end of [0, 1] at which an equation for the other root is started."""


class Interval(NamedTuple):
    """Ends of a confidence interval; NaN where there is no sample."""

    low: float
    high: float


UNDEFINED = Interval(math.nan, math.nan)


@dataclass(frozen=True)
class Method:
    """Name of a method, and the publications that it comes from."""

    name: str
    source: str


EXACT = Method(
    "exact (Clopper-Pearson)",
    "Clopper and Pearson 1934; effective number of speakers: Korn and Graubard 1998, Gaffke 2005",
)
BOUNDED = Method("mean of bounded values (Gaffke)", "Gaffke 2005; Learned-Miller and Thomas 2019")
HYBRID_SCORE = Method("hybrid score (Wilson, MOVER)", "Wilson 1927; Newcombe 1998, method 10; Zou and Donner 2008")
RATIO_SCORE = Method("hybrid score of a ratio (Wilson, MOVER-R)", "Wilson 1927; Donner and Zou 2012")
AREA_SCORE = Method("score (Newcombe's method 5)", "Newcombe 2006; design effect of speakers: Obuchowski 1997")
PAIRED_SCORE = Method(
    "paired score (Tango)", "Tango 1998; effective number of speakers: Korn and Graubard 1998, Gaffke 2005"
)
BOOTSTRAP = Method(
    "bootstrap with one more speaker", "Davison and Hinkley 1997, section 5.2; one more speaker: Gaffke 2005"
)


@dataclass(frozen=True)
class Shares:
    """Speakers with the mean of a quantity in [0, 1] over their recordings."""

    means: Floats
    """``[speakers]``: mean over the rows of the speaker; of a property, the share of rows that have it."""
    rows: Floats
    """``[speakers]``: number of rows."""

    @classmethod
    def of(cls, values: NDArray[np.float64] | NDArray[np.bool_], speakers: NDArray[np.generic]) -> Shares:
        """Return the means of ``values [rows]`` over the rows of each of ``speakers [rows]``."""
        _, speaker = np.unique(speakers.astype(str), return_inverse=True)
        rows = np.bincount(speaker).astype(np.float64)
        return cls(np.bincount(speaker, values.astype(np.float64)) / rows, rows)

    @property
    def value(self) -> float:
        """Return the mean over all rows."""
        return float(self.rows @ self.means / self.rows.sum())

    @property
    def equal_speakers(self) -> float:
        """Return Kish's number of speakers: as many with equal numbers of rows would give the same variance."""
        return float(self.rows.sum() ** 2 / (self.rows @ self.rows))

    def with_one_more(self, mean: float) -> tuple[float, float]:
        """Return mean and variance under resampling weights, if one more speaker of usual size had ``mean``.

        The weights of the speakers are those of the Bayesian bootstrap (Dirichlet). If every mean is 0 or 1, and the
        numbers of rows are equal, the distribution is the beta distribution of Clopper and Pearson.
        """
        means = np.append(self.means, mean)
        rows = np.append(self.rows, self.rows @ self.rows / self.rows.sum())
        centre = float(rows @ means / rows.sum())
        speakers = self.equal_speakers + 1
        variance = float(np.sum((rows * (means - centre)) ** 2) / rows.sum() ** 2 * speakers / (speakers + 1))
        return centre, variance

    def effective_speakers(self) -> float:
        """Return the number of independent yes-or-no trials with as much information; infinite without variance."""
        numbers = []
        for mean in (0.0, 1.0):
            centre, variance = self.with_one_more(mean)
            numbers.append(centre * (1 - centre) / variance - 2 if variance > 0 else math.inf)
        return min(numbers)


def exact(shares: Shares, confidence: float) -> Interval:
    """Return the exact interval of a mean of values in [0, 1], on the effective number of speakers."""
    if not len(shares.means):
        return UNDEFINED
    tail = (1 - confidence) / 2
    ends = []
    for mean, quantile in ((0.0, tail), (1.0, 1 - tail)):
        centre, variance = shares.with_one_more(mean)
        total = centre * (1 - centre) / variance - 1 if variance > 0 else math.inf
        is_inside = 0 < centre < 1 and math.isfinite(total)
        ends.append(float(beta.ppf(quantile, centre * total, (1 - centre) * total)) if is_inside else mean)
    return Interval(min(ends[0], shares.value), max(ends[1], shares.value))


def wilson(shares: Shares, confidence: float) -> Interval:
    """Return the score interval of a proportion, on the effective number of speakers."""
    if not len(shares.means):
        return UNDEFINED
    share, number, z = shares.value, shares.effective_speakers(), _normal_quantile(confidence)
    centre = (share + z**2 / (2 * number)) / (1 + z**2 / number)
    half = z * math.sqrt(share * (1 - share) / number + z**2 / (4 * number**2)) / (1 + z**2 / number)
    return Interval(min(max(centre - half, 0.0), share), max(min(centre + half, 1.0), share))


def mean_of_two(first: Shares, second: Shares, confidence: float) -> Interval:
    """Return the interval of the mean of two independent proportions, from the score interval of each (MOVER)."""
    if not len(first.means) or not len(second.means):
        return UNDEFINED
    value = (first.value + second.value) / 2
    parts = [(shares.value, wilson(shares, confidence)) for shares in (first, second)]
    below = math.hypot(*(share - interval.low for share, interval in parts)) / 2
    above = math.hypot(*(interval.high - share for share, interval in parts)) / 2
    return Interval(max(value - below, 0.0), min(value + above, 1.0))


def ratio_of_two(first: Shares, second: Shares, confidence: float) -> Interval:
    """Return the interval of ``first / second``, from the score interval of each (MOVER-R).

    The upper end is infinite if ``second`` may be 0.
    """
    if not len(first.means) or not len(second.means):
        return UNDEFINED
    a, b = first.value, second.value
    (a_low, a_high), (b_low, b_high) = wilson(first, confidence), wilson(second, confidence)
    below = max((a * b) ** 2 - a_low * b_high * (2 * a - a_low) * (2 * b - b_high), 0.0)
    above = max((a * b) ** 2 - a_high * b_low * (2 * a - a_high) * (2 * b - b_low), 0.0)
    low_divisor, high_divisor = b_high * (2 * b - b_high), b_low * (2 * b - b_low)
    low = (a * b - math.sqrt(below)) / low_divisor if low_divisor else 0.0
    high = (a * b + math.sqrt(above)) / high_divisor if high_divisor > 0 else math.inf
    return Interval(max(low, 0.0), high)


def area(
    probabilities: Floats, labels: NDArray[np.int64], speakers: NDArray[np.generic], value: float, confidence: float
) -> Interval:
    """Return the interval of an AUROC: Newcombe's score interval on speakers, widened by their design effect.

    Args:
        probabilities: ``[rows]``.
        labels: ``[rows]``: 0 control, 1 patient.
        speakers: ``[rows]``.
        value: the AUROC.
        confidence: level of the interval.
    """
    numbers = [Shares.of(labels[labels == label], speakers[labels == label]) for label in (0, 1)]
    if not all(len(shares.rows) for shares in numbers):
        return UNDEFINED
    controls, patients = (shares.equal_speakers for shares in numbers)
    expected = area_variance(value, controls, patients)
    observed = clustered_area_variance(probabilities, labels, speakers, value)
    effect = max(1.0, observed / expected) if expected > 0 else 1.0
    factor = _normal_quantile(confidence) ** 2 * effect

    def distance(area: float) -> float:
        return (area - value) ** 2 - factor * area_variance(area, controls, patients)

    low = brentq(distance, 0.0, value - TINY) if value > 2 * TINY else 0.0
    high = brentq(distance, value + TINY, 1.0) if value < 1 - 2 * TINY else 1.0
    return Interval(float(low), float(high))


def area_variance(area: float, controls: float, patients: float) -> float:
    """Return Hanley and McNeil's variance of an AUROC, with Newcombe's symmetric number in its two terms."""
    other = (controls + patients) / 2 - 1
    terms = 1 + other * (1 - area) / (2 - area) + other * area / (1 + area)
    return area * (1 - area) * terms / (controls * patients)


def clustered_area_variance(
    probabilities: Floats, labels: NDArray[np.int64], speakers: NDArray[np.generic], value: float
) -> float:
    """Return Obuchowski's variance of an AUROC, from the sums of DeLong's components over each speaker."""
    is_patient = labels == 1
    components = np.empty(len(labels))
    for of_class, sign in ((is_patient, 1.0), (~is_patient, -1.0)):
        others = np.sort(sign * probabilities[~of_class])
        own = sign * probabilities[of_class]
        placed = (np.searchsorted(others, own, "left") + np.searchsorted(others, own, "right")) / (2 * len(others))
        components[of_class] = (placed - value) / np.sum(of_class)
    _, speaker = np.unique(speakers.astype(str), return_inverse=True)
    sums = np.bincount(speaker, components)
    count = len(sums)
    return float(np.sum(sums**2) * count / max(count - 1, 1))


def paired_difference(better: Shares, worse: Shares, confidence: float) -> Interval:
    """Return Tango's interval of a paired difference of two accuracies, on the effective number of speakers.

    Args:
        better: share of rows that only the first network has right, by speaker.
        worse: share of rows that only the second network has right, by the same speakers.
        confidence: level of the interval.
    """
    if not len(better.means):
        return UNDEFINED
    number = _effective_pairs(better, worse)
    ahead, behind = number * better.value, number * worse.value
    value, z = better.value - worse.value, _normal_quantile(confidence)

    def distance(difference: float) -> float:
        """Return the score statistic's distance to the quantile, times its standard deviation."""
        linear = -ahead - behind + (2 * number - ahead + behind) * difference
        constant = -behind * difference * (1 - difference)
        only_second = (math.sqrt(max(linear**2 - 8 * number * constant, 0.0)) - linear) / (4 * number)
        variance = number * (2 * only_second + difference * (1 - difference))
        return abs(ahead - behind - number * difference) - z * math.sqrt(max(variance, 0.0))

    low = brentq(distance, -1.0, value - TINY) if value > 2 * TINY - 1 else -1.0
    high = brentq(distance, value + TINY, 1.0) if value < 1 - 2 * TINY else 1.0
    return Interval(float(low), float(high))


def _effective_pairs(better: Shares, worse: Shares) -> float:
    """Return the effective number of speakers of a paired difference; see :meth:`Shares.effective_speakers`."""
    scaled = Shares((better.means - worse.means + 1) / 2, better.rows)
    numbers = []
    for mean in (0.0, 1.0):
        ahead, _ = better.with_one_more(mean)
        behind, _ = worse.with_one_more(1 - mean)
        _, variance = scaled.with_one_more(mean)
        if variance > 0:  # of half the difference: a quarter of the variance
            numbers.append((ahead + behind - (ahead - behind) ** 2) / (4 * variance) - 2)
    return min(numbers)


def sum_of_gaps(gaps: Floats, replicates: Floats, speakers: float, confidence: float) -> Interval:
    """Return the interval of a sum of absolute gaps with a value in [0, 1], from bootstrap replicates of the gaps.

    Chance makes gaps larger: the sum of a calibrated network is not 0. It differs from the true sum by the sum of the
    gaps' distances from the true gaps at most, whose quantile the bootstrap gives: this is the lower end. The upper end
    is the percentile of replicates in which one more speaker has the value 1; and one that has 0 lowers the lower end.

    Args:
        gaps: ``[bins]``.
        replicates: ``[B, bins]``: bootstrap replicates of the gaps.
        speakers: number of speakers.
        confidence: level of the interval.
    """
    value = float(np.sum(np.abs(gaps)))
    if not speakers or not math.isfinite(value):
        return UNDEFINED
    sums, distances = np.abs(replicates).sum(axis=1), np.abs(replicates - gaps).sum(axis=1)
    # The weight of one of n + 1 speakers is a beta variable. Its quantiles in the order of the replicates, which is
    # random, are as good as draws, and the same verdict is the same twice.
    levels = (np.arange(len(sums)) + 0.5) / len(sums)
    weight = np.random.default_rng(0).permutation(beta.ppf(levels, 1, speakers))
    tail = (1 - confidence) / 2
    high = max(float(np.quantile(sums * (1 - weight) + weight, 1 - tail)), value)
    low = min(value - float(np.quantile(distances, 1 - tail)), float(np.quantile(value * (1 - weight), tail)))
    return Interval(max(low, 0.0), min(high, 1.0))


def transformed(interval: Interval, function: Callable[[float], float]) -> Interval:
    """Return the interval of an increasing function of what the interval is of."""
    return Interval(function(interval.low), function(interval.high))


def _normal_quantile(confidence: float) -> float:
    return float(norm.ppf((1 + confidence) / 2))
