"""How a measured number is shown: in checks, reports, summaries and MLflow alike."""

from __future__ import annotations

DIGITS = 3
"""Digits after the point."""
MISSING = "\N{EN DASH}"
"""What is shown of a number without a value."""


def number(value: float | None, digits: int = DIGITS, missing: str = MISSING) -> str:
    """Return a number with three digits; less than 1 is never shown as 1, because 0.9996 is not a perfect score.

    An integer is a count, and has no digits after the point.
    """
    if value is None:
        return missing
    if isinstance(value, int):
        return str(value)
    text = f"{value:.{digits}f}"
    if abs(value) < 1 <= abs(float(text)) and digits:
        return f"{'-' if value < 0 else ''}0.{'9' * digits}"
    return text


def percent(share: float) -> str:
    """Return a share as a whole percentage; less than everything is never shown as 100 %, nor some as none."""
    if 0 < share < 1:
        return f"{min(max(round(100 * share), 1), 99)} %"
    return f"{100 * share:.0f} %"
