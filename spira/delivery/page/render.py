"""The status page as one HTML file: no scripts, no requests, and everything from the ledger escaped."""

from __future__ import annotations

import gettext
from datetime import datetime
from functools import cache
from importlib import resources

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from spira.delivery.notices.message import title
from spira.delivery.notices.notice import Notice
from spira.delivery.page.build import StatusPage
from spira.delivery.wording import axis_title, describe_axis, headline_metrics, utc, without_paths

TEMPLATE = "page.html"
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
"""What a browser may load for the page: nothing."""
REFRESH_SECONDS = 60
"""Interval at which a served page loads itself again."""


def render(page: StatusPage, refresh_seconds: int = 0) -> str:
    """Return the page as HTML.

    Args:
        refresh_seconds: interval at which a browser loads the page again; 0 for a page in a file.
    """
    return _template().render(page=page, policy=POLICY, refresh_seconds=refresh_seconds)


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    environment.install_gettext_callables(  # type: ignore[attr-defined]  # added by the extension
        gettext.gettext, gettext.ngettext, newstyle=True
    )
    environment.globals.update(axis_title=axis_title, describe_axis=describe_axis, headline_metrics=headline_metrics)
    environment.filters.update(time=_time, safe_text=without_paths, event_title=_event_title)
    text = resources.files(__package__).joinpath(TEMPLATE).read_text("utf-8")
    return environment.from_string(text)


def _event_title(notice: Notice) -> str:
    words = title(notice)
    return words[0].upper() + words[1:]


def _time(at: datetime) -> Markup:
    """Return a time as an element that programs can read."""
    return Markup('<time datetime="{}">{}</time>').format(at.isoformat(timespec="seconds"), utc(at))
