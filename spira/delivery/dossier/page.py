"""The first page of a dossier: what a reader from outside the team needs, and a way to every file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from importlib import resources
from typing import TYPE_CHECKING

from spira.evaluation import numbers
from spira.evaluation.metrics import METRICS
from spira.evaluation.report.page import LIMIT_SIGNS
from spira.evaluation.report.verdict_text import SHOWN_METRICS
from spira.evaluation.verdict import CONDITIONS, PROBES, Estimate
from spira.language import Language, Translator, page_environment, translator

if TYPE_CHECKING:
    from spira.delivery.dossier.contents import Dossier

MAX_METRIC_CHANGES = 12
"""Numbers shown of those that differ from the version before; all are in ``dossier.json``."""


def render(
    dossier: Dossier,
    listed: Sequence[str],
    language: Language = Language.ENGLISH,
    languages: Mapping[str, Language] | None = None,
) -> str:
    """Return the page, HTML without scripts and requests.

    Args:
        listed: names of the other files of the dossier.
        languages: language of each file for people; one that differs from the page's is named beside the file.
    """
    words = translator(language)
    environment = page_environment(words)
    environment.filters.update(
        number=partial(number, words=words),
        estimate=partial(estimate, words=words),
        figure=lambda value: words.number(str(value)),
        t=words.message,
        time=words.time,
    )
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
        limit_signs=LIMIT_SIGNS,
        metrics={name: METRICS[name].name for name in SHOWN_METRICS},
        shown_changes=MAX_METRIC_CHANGES,
        language=language.value,
        other_languages={name: other.value for name, other in (languages or {}).items() if other != language},
    )


def number(value: float | str | None, words: Translator) -> str:
    """Return a number or text as the page shows it; a dash for None."""
    return value if isinstance(value, str) else words.number(numbers.number(value))


def estimate(measured: Estimate | None, words: Translator) -> str:
    """Return a metric with its interval; a dash without a value."""
    if measured is None or measured.value is None:
        return "\N{EN DASH}"
    if measured.low is None or measured.high is None:
        return number(measured.value, words)
    low, high = number(measured.low, words), number(measured.high, words)
    return f"{number(measured.value, words)} ({words.gettext('%(low)s to %(high)s', low=low, high=high)})"
