"""Numbers have three digits, and less than 1 is never shown as 1."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spira.evaluation.numbers import number, percent


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.9996, "0.999"),
        (0.99999999, "0.999"),
        (-0.9996, "-0.999"),
        (1.0, "1.000"),
        (0.12345, "0.123"),
        (12.34567, "12.346"),
        (-0.05, "-0.050"),
        (None, "\N{EN DASH}"),
    ],
)
def test_three_digits(value: float | None, shown: str) -> None:
    """0.9996 is not a perfect score."""
    assert number(value) == shown


@given(value=st.floats(-0.999999999, 0.999999999), digits=st.integers(1, 4))
def test_less_than_one_is_never_shown_as_one(value: float, digits: int) -> None:
    """Whatever the digits, only 1 reads as 1; the text differs from the value by one last digit at most."""
    text = number(value, digits)
    assert abs(float(text)) < 1
    assert abs(float(text) - value) <= 10**-digits


@pytest.mark.parametrize(
    ("share", "shown"), [(0.0, "0 %"), (0.001, "1 %"), (0.5, "50 %"), (0.998, "99 %"), (1.0, "100 %")]
)
def test_a_percentage_is_neither_all_nor_none_unless_it_is(share: float, shown: str) -> None:
    """119 of 120 right is not 100 %."""
    assert percent(share) == shown
