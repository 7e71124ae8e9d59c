"""The numbers of a run: which are logged, and how those of earlier versions are read."""

from __future__ import annotations

import pytest

from spira.evaluation.verdict import ChampionComparison, Slice
from spira.registry import headlines
from tests.support.verdicts import condition, estimate, make_verdict

FULL = make_verdict().model_copy(
    update={
        "conditions": {
            "noisy": condition(accuracy=0.8, auroc=0.9, sensitivity=0.7),
            "clean": condition(accuracy=0.9),
            "background": condition(balanced_accuracy=0.5),
        },
        "champion": ChampionComparison(name="version 1", by_file={}, difference=estimate(0.02)),
        "slices": (
            Slice(column="sex", value="F", files=500, metrics={"accuracy": estimate(0.75)}),
            Slice(column="sex", value="M", files=1, metrics={"accuracy": estimate(0.1)}),
        ),
    }
)


def older(verdict) -> dict[str, float]:
    """Return the metrics of a verdict as earlier versions logged them."""
    parts = verdict.model_dump(mode="json", exclude={"gate"})
    names = {name.removeprefix("conditions.").removesuffix(".value"): value for name, value in headlines.flat(parts)}
    return {name: float(value) for name, value in names.items() if isinstance(value, int | float)}


def test_a_run_has_its_headline_numbers() -> None:
    """Slices that are too small to be judged do not count."""
    numbers = headlines.of_verdict(FULL)
    assert numbers["noisy/accuracy"] == 0.8
    assert numbers["noisy/accuracy_low"] == pytest.approx(0.75)
    assert numbers["noisy/accuracy_drop"] == pytest.approx(0.1)
    assert numbers["background/balanced_accuracy"] == 0.5
    assert numbers["champion/difference"] == 0.02
    assert numbers["slices/lowest_accuracy"] == 0.75
    assert numbers["validation/best_loss"] == 0.5
    assert len(headlines.OLDER_NAMES) + 2 < 30
    assert not [name for name in numbers if "config" in name or "." in name]


def test_a_number_without_a_value_is_left_out() -> None:
    assert (
        headlines.of_verdict(make_verdict(accuracy=float("nan"))).keys() & {"noisy/accuracy", "clean/accuracy"} == set()
    )


def test_numbers_of_an_earlier_version_are_read_under_todays_names() -> None:
    """Their own names stay, and comparisons of an older and a newer run see the same names."""
    logged = older(FULL)
    assert len(logged) > 60
    read = headlines.readable(logged)
    assert read["noisy.by_file.accuracy"] == read["noisy/accuracy"] == 0.8
    expected = headlines.of_verdict(FULL)
    del expected["slices/lowest_accuracy"]  # was not logged
    assert headlines.comparable(logged) == expected
    assert headlines.of_noisy_test(logged) == {"accuracy": 0.8, "sensitivity": 0.7, "auroc": 0.9}


def test_numbers_of_this_version_are_read_as_they_are() -> None:
    """Numbers that a later version adds stay."""
    numbers = headlines.of_verdict(FULL) | {"noisy/later": 0.8}
    assert headlines.readable(numbers) == headlines.comparable(numbers) == numbers
    assert headlines.of_noisy_test(numbers) == {"accuracy": 0.8, "sensitivity": 0.7, "auroc": 0.9}
