"""The verdict: the gate's decision on a candidate, with every number and check behind it.

A verdict is stored as ``verdict.json`` in the verdict folder and in MLflow. A metric without a value (a class is
missing, for example) is None here and null in JSON, never NaN.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, StrictBool, ValidationError, model_validator

from spira import digests, files
from spira.config import Config, FrozenModel, JsonObject, explain
from spira.errors import SpiraError
from spira.evaluation.gate import Abstention, ChampionRules, Gate, Slices

VERDICT, PREDICTIONS, HISTORIES = "verdict.json", "predictions.parquet", "histories.json"
"""File names in the verdict folder."""
REMEDY = "evaluate the checkpoint again"
"""End of the message about a damaged file of a verdict folder."""

CONDITIONS = {"noisy": "Noisy test", "clean": "Clean test", "background": "Background probe"}
"""Title of each condition under which the test recordings are measured."""

PROBES = ("background",)
"""Conditions in which a sound model cannot separate the classes: its AUROC is near 0.5."""


CALIBRATION_BINS = 10
"""Bins of equal width in which predicted and observed share are compared."""
MIN_BIN_SPEAKERS = 6
"""Fewest speakers of a bin whose interval says something: of fewer, the exact 95 % interval covers over half of all
shares even if all are of one class."""


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_finite_or_none)]
"""A measured number; None where it is not defined."""
CountOrNumber = Annotated[int | float | None, BeforeValidator(_finite_or_none)]
"""A count, such as of recordings, or a measured number."""


class Record(FrozenModel):
    """Base of the parts of a verdict. Keys that other versions wrote are ignored."""

    model_config = ConfigDict(extra="ignore")


class Estimate(Record):
    """A metric with its confidence interval."""

    value: Number
    low: Number = None
    """Lower end of the interval; None where there is no interval."""
    high: Number = None
    """Upper end of the interval; None if it has no end."""
    method: str | None = Field(None, exclude_if=lambda method: method is None)
    """Name of the interval's method (:mod:`spira.evaluation.intervals`); None in verdicts of earlier versions, whose
    intervals are percentiles of a bootstrap."""
    source: str | None = Field(None, exclude_if=lambda source: source is None)
    """Publications that the method comes from."""


class CheckKind(StrEnum):
    """Rule of a check."""

    FACT = "fact"
    """A fact holds; there is no number."""
    DATA = "data"
    """There is enough data for a decision."""
    AT_LEAST = "at_least"
    """The value is not below the limit."""
    LOW_AT_LEAST = "low_at_least"
    """The lower end of the interval is not below the limit."""
    AT_MOST = "at_most"
    """The value is not above the limit."""


class CheckGroup(StrEnum):
    """Subject of a check, in the order of the report."""

    DATA = "data"
    """The test is large enough and unseen, and the network is what was trained."""
    PERFORMANCE = "performance"
    """Figures of the noisy and the clean test."""
    NOISE = "noise"
    """Noise, the room or other properties do not take the place of the voice."""
    SLICES = "slices"
    """No group of people is failed."""
    CHAMPION = "champion"
    """The candidate is no worse than the champion."""


CONFOUNDER_CHECK = "better_than_confounders"
"""Name of the check whose finding is shown first."""

GROUPS = {
    "test_files_unseen": CheckGroup.DATA,
    "test_speakers_unseen": CheckGroup.DATA,
    "training_data_known": CheckGroup.DATA,
    "weights_finite": CheckGroup.DATA,
    "configuration_intact": CheckGroup.DATA,
    "noise_drop": CheckGroup.NOISE,
    "background": CheckGroup.NOISE,
    CONFOUNDER_CHECK: CheckGroup.NOISE,
    "champion": CheckGroup.CHAMPION,
}
"""Name of a check -> its group; every other name is of a figure, a slice or an amount of data."""


class Check(Record):
    """One rule of the gate, applied to a candidate."""

    name: str
    """Identifier such as ``noisy.accuracy``."""
    title: str
    """Meaning of the check, for a reader of the report."""
    kind: CheckKind
    passed: StrictBool
    value: CountOrNumber = None
    low: Number = None
    high: Number = None
    limit: CountOrNumber = None
    method: str | None = Field(None, exclude_if=lambda method: method is None)
    """Name of the interval's method."""
    message: str = ""
    """The numbers and the rule, after the reason if the check failed."""
    is_warning: StrictBool = Field(False, exclude_if=lambda is_warning: not is_warning)
    """Whether the check only passes because the gate does not require what it could not establish."""

    @property
    def group(self) -> CheckGroup:
        """Return the group in which a page shows the check."""
        if self.kind == CheckKind.DATA:
            return CheckGroup.DATA
        if self.name.startswith("slice."):
            return CheckGroup.SLICES
        return GROUPS.get(self.name, CheckGroup.PERFORMANCE)

    @model_validator(mode="before")
    @classmethod
    def _add_title_and_kind(cls, values: Any) -> Any:
        """Complete a check that was written before checks had a title and a kind."""
        if not isinstance(values, dict) or "name" not in values or "kind" in values:
            return values
        return {"title": values["name"], "kind": _implied_kind(values)} | values


def _implied_kind(check: Mapping[str, Any]) -> CheckKind:
    if check["name"].startswith("data."):
        return CheckKind.DATA
    if check.get("limit") is None:
        return CheckKind.FACT
    if "its lower end must reach" in check["message"]:
        return CheckKind.LOW_AT_LEAST
    return CheckKind.AT_MOST if check["message"].endswith("is allowed") else CheckKind.AT_LEAST


class RecordedGate(FrozenModel):
    """The gate that was applied, with its digest; keys that only a check reads are kept as they are."""

    model_config = ConfigDict(extra="allow")

    digest: str
    abstention: Abstention
    slices: Slices
    champion: ChampionRules
    # as in the gate: left out where no prevalence is named
    prevalences: tuple[float, ...] = Field((), exclude_if=lambda shares: not shares)

    @classmethod
    def of(cls, gate: Gate) -> RecordedGate:
        """Return the record of a gate."""
        return cls.model_validate(gate.model_dump(mode="json") | {"digest": gate.digest()})


class Candidate(Record):
    """The network that the gate decides on."""

    seed: int
    best_eval_loss: Number


class SeedTraining(Record):
    """Length and result of the training of one seed."""

    epochs: int
    best_epoch: int
    best_eval_loss: Number


class TestData(Record):
    """Size of the test split."""

    __test__ = False  # pytest would collect it by its name

    files: int
    classes: dict[str, dict[str, int]]
    """Class name -> number of ``files``, and of ``speakers`` where they are known."""
    digest: str = Field("", exclude_if=lambda digest: not digest)
    """SHA-256 of the recordings with their classes, by which evaluations of one test set are counted."""


class RocCurve(Record):
    """ROC curve, one entry per threshold."""

    fpr: tuple[Number, ...]
    """False positive rate: share of controls called patient. None if there are no controls."""
    tpr: tuple[Number, ...]
    """True positive rate: share of patients called patient. None if there are no patients."""
    thresholds: tuple[float, ...]


@dataclass(frozen=True)
class CalibrationBin:
    """One bin of probabilities of equal width."""

    low: float
    high: float
    predicted: float
    """Mean probability."""
    observed: Estimate
    """Share of patients; without an interval in verdicts of earlier versions."""
    count: int
    """Number of predictions."""
    speakers: int | None
    """Number of speakers, or of files where speakers are not known; None in verdicts of earlier versions."""

    @property
    def has_few_speakers(self) -> bool:
        """Whether the interval of so few speakers says little."""
        return self.speakers is not None and self.speakers < MIN_BIN_SPEAKERS


class Calibration(Record):
    """Reliability of the probabilities, one entry per non-empty bin."""

    predicted: tuple[float, ...]
    """Mean probability in the bin."""
    observed: tuple[float, ...]
    """Share of patients in the bin."""
    count: tuple[int, ...]
    """Number of predictions in the bin."""
    low: tuple[float, ...] = Field((), exclude_if=lambda ends: not ends)
    """Lower end of the interval of the share of patients; empty in verdicts of earlier versions, as with the next
    four."""
    high: tuple[float, ...] = Field((), exclude_if=lambda ends: not ends)
    """Upper end of the interval."""
    speakers: tuple[int, ...] = Field((), exclude_if=lambda numbers: not numbers)
    """Number of speakers in the bin, or of files where speakers are not known."""
    method: str | None = Field(None, exclude_if=lambda method: method is None)
    """Name of the intervals' method (:mod:`spira.evaluation.intervals`)."""
    source: str | None = Field(None, exclude_if=lambda source: source is None)
    """Publications that the method comes from."""

    @property
    def bins(self) -> tuple[CalibrationBin, ...]:
        """Return the bins that have predictions, by probability."""
        return tuple(self._bin(position) for position in range(len(self.predicted)))

    def _bin(self, position: int) -> CalibrationBin:
        number = calibration_bin(self.predicted[position])
        ends = {"low": self.low[position], "high": self.high[position]} if self.low else {}
        return CalibrationBin(
            low=number / CALIBRATION_BINS,
            high=(number + 1) / CALIBRATION_BINS,
            predicted=self.predicted[position],
            observed=Estimate(value=self.observed[position], method=self.method, source=self.source, **ends),
            count=self.count[position],
            speakers=self.speakers[position] if self.speakers else None,
        )


def calibration_bin(probability: float) -> int:
    """Return the bin of a probability; 1.0 is in the last one."""
    return min(int(probability * CALIBRATION_BINS), CALIBRATION_BINS - 1)


class PredictiveValues(Record):
    """What a call means where a given share of the people examined are patients."""

    prevalence: float
    """Share of patients."""
    positive: Estimate
    """Chance that a person who is called patient is one."""
    negative: Estimate
    """Chance that a person who is called control is one."""


class OperatingPoint(Record):
    """Sensitivity and specificity at one threshold."""

    threshold: float
    sensitivity: Estimate
    specificity: Estimate


class Answers(Record):
    """Numbers of predictions with each answer: negative, inconclusive, positive."""

    controls: tuple[int, int, int]
    patients: tuple[int, int, int]


class Condition(Record):
    """Measurements under one condition."""

    draws: int
    """Independent draws of noise."""
    by_file: dict[str, Estimate]
    """Metric -> its estimate over recordings."""
    by_speaker: dict[str, Estimate] | None
    """Metric -> its estimate over speakers; None where speakers are not known."""
    confusion: tuple[tuple[int, int], tuple[int, int]]
    """``[[true controls, false patients], [missed patients, true patients]]``, whether conclusive or not."""
    answers: Answers | None = Field(None, exclude_if=lambda answers: answers is None)
    """Confusion matrix with the abstentions; None in verdicts of earlier versions, as with the next two."""
    predictive_values: tuple[PredictiveValues, ...] = Field((), exclude_if=lambda values: not values)
    """At the gate's prevalences, over recordings."""
    operating_points: tuple[OperatingPoint, ...] = Field((), exclude_if=lambda points: not points)
    """By threshold, over recordings; the threshold in use is one of them."""
    roc: RocCurve
    calibration: Calibration
    spread: Number
    """Standard deviation of the probabilities; near 0 the output is constant."""


class Slice(Record):
    """Accuracy, sensitivity and specificity of the recordings that share a value of an optional column."""

    column: str
    value: str
    files: int
    metrics: dict[str, Estimate]


class Mistake(Record):
    """A recording with the wrong class."""

    file_path: str
    label: int
    probability: float
    """Mean over the draws of noise."""
    split: str = "test"


class SeedSpread(Record):
    """A metric over all seeds."""

    mean: Number
    std: Number


class ChampionComparison(Record):
    """Comparison with the champion on the same noisy test."""

    name: str
    by_file: dict[str, Estimate]
    """Metric -> the champion's estimate over recordings."""
    difference: Estimate
    """Accuracy of the candidate minus that of the champion, paired."""


class ConfounderTest(Record):
    """The baseline of confounders under one condition, and the candidate's advantage over it."""

    condition: str
    by_file: dict[str, Estimate]
    """``auroc`` and ``accuracy`` -> the baseline's estimate over recordings."""
    difference: dict[str, Estimate]
    """``auroc`` and ``accuracy`` -> candidate minus baseline, paired."""


class Confounder(Record):
    """A property that is no voice and may tell the classes apart."""

    name: str
    auroc: Number = None
    """AUROC of a baseline of this property alone in the noisy test; None where it was left out."""
    left_out: str = ""
    """Reason for leaving it out, or empty."""


class ConfounderBaseline(Record):
    """How well the classes are told apart without the voice; see :mod:`spira.evaluation.confounders`."""

    # Tuples and no mapping: MLflow gets a metric for each number of a mapping.
    tests: tuple[ConfounderTest, ...]
    confounders: tuple[Confounder, ...]
    train_files: int
    """Training recordings that the baseline was fitted on."""

    @property
    def used(self) -> tuple[str, ...]:
        """Names of the properties that the baseline has."""
        return tuple(confounder.name for confounder in self.confounders if not confounder.left_out)


class ExternalTest(Record):
    """The candidate on an external test set. Neither its choice nor its approval depends on it."""

    name: str
    """``north`` of ``metadata_test_north.csv``."""
    data: TestData
    conditions: dict[str, Condition]
    """Condition -> measurements; empty if the set has recordings or speakers of the training."""
    problem: str = ""
    """Reason for not measuring it, or empty."""


class FlowRow(Record):
    """Recordings of one class in one split: given, refused and used."""

    split: str
    label: str
    """Name of the class; empty for noise, or if a corpus of an earlier version does not record it."""
    refused: dict[str, int]
    """Reason -> number of recordings."""
    used: int
    speakers: int | None = None
    """Speakers of the recordings that are used; None where they are not known."""

    @property
    def given(self) -> int:
        """Number of recordings that the tables name."""
        return self.used + sum(self.refused.values())


class DiagnosisRule(Record):
    """How a probability becomes an answer, as chosen on the validation split."""

    threshold: float
    """Smallest probability that is called patient."""
    band: tuple[float, float]
    """Abstention band."""
    temperature: float = 1.0
    """Divisor of the logit of each probability; 1 changes nothing."""
    chosen_by: str
    """The gate's rule, in words."""
    recordings: int
    """Recordings of the validation split."""
    validation: dict[str, Estimate]
    """Sensitivity and specificity of the rule on the validation split, with the test's noise."""


class Verdict(Record):
    """The decision on a candidate, and everything that led to it."""

    candidate: Candidate
    chosen_by: Literal["lowest validation loss"] = "lowest validation loss"
    gate: RecordedGate
    diagnosis: DiagnosisRule | None = Field(None, exclude_if=lambda rule: rule is None)
    """Threshold and calibration; None if the gate has no rule for them, or nothing was measured."""
    config: Config
    """Configuration of the candidate."""
    training: dict[str, SeedTraining]
    """Seed -> its training."""
    data: TestData
    conditions: dict[str, Condition]
    """Condition -> measurements of the candidate; empty if an integrity check failed."""
    slices: tuple[Slice, ...]
    mistakes: tuple[Mistake, ...]
    """The worst mistakes in the noisy test, farthest from the truth first."""
    seeds: dict[str, dict[str, dict[str, Number]]]
    """Seed -> condition -> metric -> value by file."""
    spread: dict[str, dict[str, SeedSpread]]
    """Condition -> metric -> mean and standard deviation over seeds."""
    champion: ChampionComparison | None
    approved: StrictBool
    reasons: tuple[str, ...]
    """Messages of the failed checks."""
    warnings: tuple[str, ...] = Field((), exclude_if=lambda warnings: not warnings)
    """Messages of the checks that could not be made and do not reject."""
    checks: tuple[Check, ...]
    confounders: ConfounderBaseline | None = Field(None, exclude_if=lambda baseline: baseline is None)
    """Baseline without the voice; None if the candidate was not measured."""
    external: tuple[ExternalTest, ...] = Field((), exclude_if=lambda tests: not tests)
    flow: tuple[FlowRow, ...] = Field((), exclude_if=lambda rows: not rows)
    """Recordings that were given, refused and used, by split and class."""
    test_evaluations: int | None = Field(None, exclude_if=lambda count: count is None)
    """How often this test set was evaluated so far, this evaluation included; None if that is not known."""

    @property
    def finding(self) -> str:
        """Return the message that the network is not shown to be better than the confounders alone, or ""."""
        return next((check.message for check in self.checks if check.name == CONFOUNDER_CHECK and check.is_warning), "")

    @property
    def threshold(self) -> float:
        """Return the smallest probability that is called patient."""
        return self.diagnosis.threshold if self.diagnosis else self.config.evaluation.threshold

    @property
    def band(self) -> tuple[float, float]:
        """Return the abstention band."""
        return self.diagnosis.band if self.diagnosis else self.gate.abstention.band

    def to_json(self) -> JsonObject:
        """Return the content of ``verdict.json``."""
        return self.model_dump(mode="json")


def read(path: Path) -> Verdict:
    """Read a ``verdict.json`` of this version or an earlier one.

    Raises:
        SpiraError: the file cannot be read, is damaged, or holds no verdict.
    """
    digests.check(path.parent, [path.name], REMEDY)
    try:
        return parse(path.read_text("utf-8"), str(path))
    except OSError as error:
        raise SpiraError(f"{path} cannot be read: {error}") from error


def parse(text: str, source: str) -> Verdict:
    """Return the verdict that a JSON text holds; ``source`` names the text in an error message.

    Raises:
        SpiraError: the text holds no verdict.
    """
    try:
        return Verdict.model_validate(json.loads(text))
    except json.JSONDecodeError as error:
        raise SpiraError(f"{source} is not JSON: {error}; {REMEDY}") from error
    except ValidationError as error:
        raise SpiraError(f"{source} is not a verdict: {explain(error)}; {REMEDY}") from error


def write(path: Path, verdict: Verdict) -> None:
    """Write ``verdict.json`` in one step."""
    files.write_text(path, json.dumps(verdict.to_json(), indent=1, allow_nan=False))
