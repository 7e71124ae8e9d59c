"""The status page as one HTML file: no scripts, no requests, and everything from the ledger escaped."""

from __future__ import annotations

from datetime import datetime
from functools import cache, partial
from importlib import resources

from jinja2 import Template
from markupsafe import Markup

from spira.delivery.explain import describe_change
from spira.delivery.notices.message import causes, title
from spira.delivery.notices.notice import Notice
from spira.delivery.page.build import StatusPage
from spira.delivery.wording import axis_title, describe_axis, headline_metrics, without_paths
from spira.language import Language, Translator, page_environment, translator

TEMPLATE = "page.html"
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
"""What a browser may load for the page: nothing."""
REFRESH_SECONDS = 60
"""Interval at which a served page loads itself again."""


def render(page: StatusPage, refresh_seconds: int = 0, language: Language = Language.ENGLISH) -> str:
    """Return the page as HTML.

    Args:
        refresh_seconds: interval at which a browser loads the page again; 0 for a page in a file.
    """
    return _template(language).render(
        page=page, policy=POLICY, refresh_seconds=refresh_seconds, language=language.value
    )


@cache
def _template(language: Language) -> Template:
    words = translator(language)
    environment = page_environment(words)
    environment.globals.update(
        axis_title=partial(axis_title, words=words),
        describe_axis=partial(describe_axis, words=words),
        describe_change=partial(describe_change, words=words),
        headline_metrics=partial(headline_metrics, words=words),
    )
    environment.filters.update(
        time=lambda at: _time(at, words),
        safe_text=without_paths,
        t=lambda text: words.message(without_paths(text)),
        causes=partial(causes, words=words),
        event_title=lambda notice: _event_title(notice, words),
    )
    text = resources.files(__package__).joinpath(TEMPLATE).read_text("utf-8")
    return environment.from_string(text)


def _event_title(notice: Notice, words: Translator) -> str:
    phrase = title(notice, words)
    return phrase[0].upper() + phrase[1:]


def _time(at: datetime, words: Translator) -> Markup:
    """Return a time as an element that programs can read."""
    return Markup('<time datetime="{}">{}</time>').format(at.isoformat(timespec="seconds"), words.time(at))
