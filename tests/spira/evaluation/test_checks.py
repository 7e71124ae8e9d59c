"""Every check of the gate can fail, and gives its reason."""

from __future__ import annotations

import pytest

from spira.evaluation import checks, gate
from spira.evaluation.numbers import number
from spira.evaluation.verdict import CheckKind, Condition, Estimate, Slice
from tests.support.verdicts import condition

GATE = gate.load()
COUNTS = {"control": {"files": 30, "speakers": 4}, "patient": {"files": 30, "speakers": 4}}


def good_conditions() -> dict[str, Condition]:
    metrics = {"accuracy": 0.95, "sensitivity": 0.95, "specificity": 0.95, "auroc": 0.98}
    metrics |= {"brier": 0.05, "ece": 0.05, "coverage": 0.9}
    return {
        "noisy": condition(**metrics),
        "clean": condition(**metrics),
        "background": condition(spread=0.1, balanced_accuracy=0.5),
    }


def failed(conditions: dict[str, Condition]) -> list[str]:
    """Return the names of the failed checks."""
    return [check.name for check in checks.performance_checks(GATE, conditions, COUNTS) if not check.passed]


def test_a_good_model_passes_every_check() -> None:
    """No check fails by itself, which the tests below build on."""
    assert failed(good_conditions()) == []


@pytest.mark.parametrize(
    ("condition", "metric", "values", "expected"),
    [
        ("noisy", "accuracy", {"value": 0.79, "low": 0.75, "high": 0.9}, ["noisy.accuracy", "noise_drop"]),
        ("noisy", "accuracy", {"value": 0.9, "low": 0.69, "high": 0.9}, ["noisy.accuracy_low"]),
        ("noisy", "sensitivity", {"value": 0.74, "low": 0.7, "high": 0.9}, ["noisy.sensitivity"]),
        ("noisy", "specificity", {"value": 0.69, "low": 0.6, "high": 0.9}, ["noisy.specificity"]),
        ("noisy", "auroc", {"value": 0.84, "low": 0.7, "high": 0.9}, ["noisy.auroc"]),
        ("noisy", "auroc", {"value": 0.9, "low": 0.59, "high": 0.95}, ["better_than_chance"]),
        ("clean", "auroc", {"value": 0.3, "low": 0.2, "high": 0.4}, ["labels_not_swapped"]),
        ("noisy", "brier", {"value": 0.21, "low": 0.1, "high": 0.3}, ["calibration.brier"]),
        ("noisy", "ece", {"value": 0.21, "low": 0.1, "high": 0.3}, ["calibration.ece"]),
        ("noisy", "coverage", {"value": 0.69, "low": 0.6, "high": 0.8}, ["coverage"]),
        ("clean", "accuracy", {"value": 0.79, "low": 0.7, "high": 0.9}, ["clean.accuracy"]),
        ("background", "balanced_accuracy", {"value": 0.71, "low": 0.6, "high": 0.8}, ["background"]),
    ],
)
def test_each_limit_fails_its_own_check(condition: str, metric: str, values: dict, expected: list[str]) -> None:
    """With one number beyond its limit, exactly the checks of that limit fail."""
    conditions = good_conditions()
    conditions[condition].by_file[metric] = Estimate(**values)
    assert failed(conditions) == expected


@pytest.mark.parametrize(
    "patients", [{"files": 2, "speakers": 2}, {"files": 2}, {"files": 40, "speakers": 2}, {"files": 3, "speakers": 3}]
)
def test_swapped_labels_are_not_inferred_from_a_few_patients(patients: dict[str, int]) -> None:
    """Two patients rank below the controls by chance, and the message says that their order was not judged."""
    conditions = good_conditions()
    conditions["clean"].by_file["auroc"] = Estimate(value=0.0, low=0.0, high=0.0)
    judged = checks.performance_checks(GATE, conditions, COUNTS | {"patient": patients})
    (order,) = (check for check in judged if check.name == "labels_not_swapped")
    assert (order.passed, "not judged" in order.message) == (True, True)


@pytest.mark.parametrize("metric", ["accuracy", "auroc", "brier", "ece", "coverage"])
def test_a_metric_without_a_value_never_passes(metric: str) -> None:
    """NaN fails minimum and maximum limits alike."""
    nan = float("nan")
    conditions = good_conditions()
    conditions["noisy"].by_file[metric] = Estimate(value=nan, low=nan, high=nan)
    assert failed(conditions)


def test_a_metric_without_a_value_is_named() -> None:
    """The message does not show NaN."""
    check = checks.at_least("coverage", "Coverage", Estimate(value=float("nan")), 0.7, "too low")
    assert (check.passed, check.value) == (False, None)
    assert check.message == "too low: not defined, at least 0.700 is required"


def test_constant_output_is_named() -> None:
    """All recordings get the same probability."""
    conditions = good_conditions()
    conditions["clean"] = conditions["clean"].model_copy(update={"spread": 0.0})
    assert failed(conditions) == ["answers_differ"]


def test_too_little_data_is_a_failure_with_its_count() -> None:
    """Nine patients' files from three speakers are not enough; the message gives the required number."""
    counts = {"control": {"files": 30, "speakers": 11}, "patient": {"files": 9, "speakers": 3}}
    failures = [check for check in checks.data_checks(GATE, counts) if not check.passed]
    assert [check.message for check in failures] == [
        "too little data to judge by: 9 test files of patients, at least 11 are required",
        "too little data to judge by: 3 test speakers of patients, at least 11 are required",
    ]
    assert {check.kind for check in failures} == {CheckKind.DATA}
    assert [(number(check.value), check.limit) for check in failures] == [("9", 11), ("3", 11)]


def test_small_slices_are_not_checked() -> None:
    """A slice of 11 files cannot reject a model, one of 12 can."""
    accuracy = Estimate(value=0.3, low=0.1, high=0.5)
    small, large = (Slice(column="sex", value="f", files=files, metrics={"accuracy": accuracy}) for files in (11, 12))
    assert checks.slice_checks(GATE, [small]) == []
    (check,) = checks.slice_checks(GATE, [large])
    assert not check.passed
    assert "sex f" in check.message


@pytest.mark.parametrize(("low", "passed"), [(-0.149, True), (-0.151, False)])
def test_non_inferiority_depends_on_the_lower_end(low: float, passed: bool) -> None:
    """As good on average is not enough if the model may be worse than the margin."""
    assert checks.champion_check(GATE, Estimate(value=0.0, low=low, high=0.1)).passed is passed


def test_every_check_has_a_title_of_its_own() -> None:
    """A reader of the report can distinguish the checks by their titles."""
    titles = [check.title for check in checks.performance_checks(GATE, good_conditions(), COUNTS)]
    assert len(titles) == len(set(titles))
    assert {"Noisy test: accuracy", "Noisy test: AUROC", "Noisy test: Brier score"} <= set(titles)
