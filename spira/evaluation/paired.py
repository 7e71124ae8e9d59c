"""A paired test of two models on the same frozen test.

Both models answered the same recordings, so only those count on which one is right and the other is not.

=============== ==================================================================================================
p-value         exact two-sided test of McNemar: the binomial test of those that only A or only B gets right
difference      that of the gate (:func:`spira.evaluation.metrics.difference`): over all draws of noise, with Tango's
                interval on the effective number of speakers, which has a width even where both agree on everything
=============== ==================================================================================================

For the p-value a recording counts once: its probability is the mean over the draws of noise. It takes recordings for
independent, which those of one speaker are not. So speakers are compared too where one has several, by the mean over
their recordings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pandas as pd
from scipy import stats

from spira.errors import SpiraError
from spira.evaluation import metrics
from spira.evaluation.metrics import Scores
from spira.evaluation.verdict import Estimate

TEST, TEST_SOURCE = "McNemar's exact test", "McNemar 1947, Psychometrika 12:153"
SIGNIFICANCE = 0.05
"""p-value below which a difference is called clear."""
Unit = Literal["recordings", "speakers"]
NAMES: dict[Unit, str] = {"recordings": "file_path", "speakers": "speaker"}
"""Unit -> column that names it."""


class NotPairedError(SpiraError):
    """Two models that were not tested on the same recordings; the message gives the reason."""


@dataclass(frozen=True)
class PairedTest:
    """Right and wrong answers of two models, A and B, to the same recordings."""

    unit: Unit
    both: int
    """Number that both models get right."""
    only_a: int
    only_b: int
    neither: int
    p_value: float
    """Probability of a difference as large as this, or larger, if the models are equally good."""
    difference: Estimate
    """Accuracy of B minus that of A, over all draws of noise."""

    @property
    def count(self) -> int:
        """Number of recordings or speakers."""
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def is_clear(self) -> bool:
        """Whether the difference is larger than chance explains."""
        return self.p_value < SIGNIFICANCE


def paired_tests(
    a: pd.DataFrame, b: pd.DataFrame, thresholds: tuple[float, float], confidence: float
) -> list[PairedTest]:
    """Return the test by recording, and by speaker where a speaker has several recordings.

    Args:
        a: predictions of model A under one condition: file_path, label, draw, probability, and speaker if known.
        b: those of model B, with the same recordings in the same order; their names may differ, as pseudonyms do
            under different keys.
        thresholds: probabilities from which A and B call a recording patient.
        confidence: level of the interval, such as 0.95.

    Raises:
        NotPairedError: the rows do not match.
    """
    a, b = a.reset_index(drop=True), b.reset_index(drop=True)
    if len(a) != len(b) or not a["label"].equals(b["label"]) or not a["draw"].equals(b["draw"]):
        raise NotPairedError("their predictions have other recordings, classes or draws of noise")
    has_speakers = "speaker" in a and "speaker" in b
    rows = pd.DataFrame(
        {
            "recordings": a["file_path"],
            "speakers": a["speaker"] if has_speakers else a["file_path"],
            "label": a["label"],
            "draw": a["draw"],
            "a": a["probability"],
            "b": b["probability"],
        }
    )
    units: tuple[Unit, ...] = ("recordings",)
    if rows["speakers"].nunique() < rows["recordings"].nunique():
        units = ("recordings", "speakers")
    return [_paired_test(rows, unit, thresholds, confidence) for unit in units]


def _paired_test(rows: pd.DataFrame, unit: Unit, thresholds: tuple[float, float], confidence: float) -> PairedTest:
    answers = rows if unit == "recordings" else _by_speaker(rows)
    means = answers.groupby([unit, "label"], as_index=False)[["a", "b"]].mean()
    is_patient = means["label"] == 1
    a, b = ((means[model] >= threshold) == is_patient for model, threshold in zip("ab", thresholds, strict=True))
    both, only_a, only_b = int((a & b).sum()), int((a & ~b).sum()), int((~a & b).sum())
    return PairedTest(
        unit=unit,
        both=both,
        only_a=only_a,
        only_b=only_b,
        neither=len(means) - both - only_a - only_b,
        p_value=mcnemar(only_a, only_b),
        difference=_difference(answers, thresholds, confidence),
    )


def _by_speaker(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the mean probabilities of each speaker's recordings, one row per speaker, class and draw."""
    return rows.groupby(["speakers", "label", "draw"], as_index=False)[["a", "b"]].mean()


def _difference(rows: pd.DataFrame, thresholds: tuple[float, float], confidence: float) -> Estimate:
    """Return the accuracy of B minus that of A, as the gate compares a candidate with its champion."""
    labels, speakers = rows["label"].to_numpy(), rows["speakers"].to_numpy()
    a, b = (
        Scores(labels, rows[model].to_numpy(), speakers, threshold)
        for model, threshold in zip("ab", thresholds, strict=True)
    )
    return metrics.difference(b, a, confidence)


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the two-sided p-value of the exact test; 1 if the models differ nowhere."""
    differing = only_a + only_b
    return float(stats.binomtest(only_a, differing).pvalue) if differing else 1.0
