"""The gate file is refused when it is not whole, and every check can fail, saying why."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from spira.config import ConfigError
from spira.evaluation import gate


def changed(tmp_path: Path, **sections: object) -> Path:
    values = gate.load().model_dump(mode="json") | sections
    path = tmp_path / "gate.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def good_conditions() -> dict:
    def measured(**values: float) -> dict:
        return {
            name: {"value": value, "low": value - 0.05, "high": min(1.0, value + 0.05)}
            for name, value in values.items()
        }

    metrics = measured(
        accuracy=0.95, sensitivity=0.95, specificity=0.95, auroc=0.98, brier=0.05, ece=0.05, coverage=0.9
    )
    return {
        "noisy": {"by_file": metrics, "spread": 0.4},
        "clean": {"by_file": metrics, "spread": 0.4},
        "background": {"by_file": measured(balanced_accuracy=0.5), "spread": 0.1},
    }


def failed(conditions: dict) -> list[str]:
    return [check["name"] for check in gate.performance_checks(gate.load(), conditions) if not check["passed"]]


def test_a_good_model_passes_every_check() -> None:
    """The control of the tests below: nothing fails by itself."""
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
def test_each_limit_rejects_by_its_own_name(condition: str, metric: str, values: dict, expected: list[str]) -> None:
    """One number off, its check fails."""
    conditions = good_conditions()
    conditions[condition]["by_file"] = conditions[condition]["by_file"] | {metric: values}
    assert failed(conditions) == expected


@pytest.mark.parametrize("metric", ["accuracy", "auroc", "brier", "ece", "coverage"])
def test_a_number_that_is_not_a_number_never_passes(metric: str) -> None:
    """NaN compares false with every limit, floors and ceilings alike."""
    nan = {"value": float("nan"), "low": float("nan"), "high": float("nan")}
    conditions = good_conditions()
    conditions["noisy"]["by_file"] = conditions["noisy"]["by_file"] | {metric: nan}
    assert failed(conditions)


def test_constant_output_is_named() -> None:
    """The same probability for everyone."""
    conditions = good_conditions()
    conditions["clean"]["spread"] = 0.0
    assert failed(conditions) == ["answers_differ"]


def test_too_little_data_is_a_refusal_with_its_count() -> None:
    """Nine patients' files from three speakers are not enough; the message says how many there must be."""
    checks = gate.data_checks(
        gate.load(), {"control": {"files": 30, "speakers": 10}, "patient": {"files": 9, "speakers": 3}}
    )
    messages = [check["message"] for check in checks if not check["passed"]]
    assert messages == [
        "too little data to judge by: 9 test files of patients, at least 10 are required",
        "too little data to judge by: 3 test speakers of patients, at least 4 are required",
    ]


def test_small_slices_are_shown_not_judged() -> None:
    """A slice of 11 files can't reject, one of 12 can."""
    part = {"column": "sex", "value": "f", "metrics": {"accuracy": {"value": 0.3, "low": 0.1, "high": 0.5}}}
    assert gate.slice_checks(gate.load(), [part | {"files": 11}]) == []
    (check,) = gate.slice_checks(gate.load(), [part | {"files": 12}])
    assert not check["passed"]
    assert "sex f" in check["message"]


@pytest.mark.parametrize(("low", "passed"), [(-0.099, True), (-0.101, False)])
def test_non_inferiority_looks_at_the_lower_end(low: float, passed: bool) -> None:
    """As good on average is not enough if it may be worse than the margin."""
    assert gate.champion_check(gate.load(), {"value": 0.0, "low": low, "high": 0.1})["passed"] is passed


def test_unknown_and_missing_keys_are_refused_by_name(tmp_path: Path) -> None:
    """A gate with a misspelt limit must not judge without it."""
    with pytest.raises(ConfigError, match=r"clean\.acuracy: unknown key"):
        gate.load(changed(tmp_path, clean={"accuracy": 0.8, "acuracy": 0.8}))
    with pytest.raises(ConfigError, match=r"clean\.accuracy: Field required"):
        gate.load(changed(tmp_path, clean={}))


def test_the_digest_follows_the_limits_only(tmp_path: Path) -> None:
    """Comments don't count, a limit does."""
    assert gate.load(changed(tmp_path)).digest() == gate.load().digest()
    assert gate.load(changed(tmp_path, noise_drop=0.2)).digest() != gate.load().digest()
