"""The first page of a dossier: what a reader from outside the team needs, and a way to every file."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING

from jinja2 import Environment, StrictUndefined

from spira.evaluation import numbers
from spira.evaluation.metrics import METRICS
from spira.evaluation.report.verdict_text import SHOWN_METRICS
from spira.evaluation.verdict import CONDITIONS, PROBES, Estimate

if TYPE_CHECKING:
    from spira.delivery.dossier.contents import Dossier

MAX_METRIC_CHANGES = 12
"""Numbers shown of those that differ from the version before; all are in ``dossier.json``."""


def render(dossier: Dossier, listed: Sequence[str]) -> str:
    """Return the page, HTML without scripts and requests.

    Args:
        listed: names of the other files of the dossier.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = number
    environment.filters["estimate"] = estimate
    template = (resources.files("spira.delivery.dossier") / "page.html").read_text("utf-8")
    tests = {
        CONDITIONS[name]: condition
        for name, condition in dossier.verdict.conditions.items()
        if name in CONDITIONS and name not in PROBES
    }
    return environment.from_string(template).render(
        dossier=dossier,
        verdict=dossier.verdict,
        listed=frozenset(listed),
        tests=tests,
        metrics={name: METRICS[name].heading for name in SHOWN_METRICS},
        shown_changes=MAX_METRIC_CHANGES,
    )


def number(value: float | str | None) -> str:
    """Return a number or text as the page shows it; a dash for None."""
    return value if isinstance(value, str) else numbers.number(value)


def estimate(measured: Estimate | None) -> str:
    """Return a metric with its interval; a dash without a value."""
    if measured is None or measured.value is None:
        return "\N{EN DASH}"
    if measured.low is None or measured.high is None:
        return number(measured.value)
    return f"{number(measured.value)} ({number(measured.low)} to {number(measured.high)})"
