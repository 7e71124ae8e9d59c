"""Words that notices and the status page share: numbers, and what changed, without names of recordings.

The ledger has pseudonyms instead of names of recordings, and a message from a library may hold a path. Neither helps a
reader of a notice, so recordings are counted and paths are left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from gettext import gettext as _
from gettext import ngettext

from spira.delivery.observation.fingerprints import AxisName, Change
from spira.evaluation.numbers import number

MAX_SETTINGS_SHOWN = 4
MAX_VALUE_CHARACTERS = 40
"""Length of a setting's value."""
METRICS = ("accuracy", "auroc", "sensitivity", "specificity", "balanced_accuracy")
"""Headline numbers, as verdicts name them."""
MAX_METRICS = 4
PATH = re.compile(
    r"""(?<![a-z0-9+.-])[a-z][a-z0-9+.-]*://[^\s"'<>]+      # an address
      | (?<![^\s"'(\[=:])(?:~|\.{1,2})?/[^\s"'<>:,;]+   # a path from the root, the home or here
      | (?<![^\s"'<>:,;=])[^\s"'<>:,;=]+\.(?:wav|flac|ogg|oga|opus|mp3|m4a|mp4|webm|aiff?|amr|3gp)\b   # a recording
    """,
    re.VERBOSE | re.IGNORECASE,
)


def without_paths(text: str) -> str:
    """Return a message without addresses, paths and names of recordings, which can name a person."""
    return PATH.sub("…", text)


def headline_metrics(metrics: Mapping[str, float]) -> list[tuple[str, str]]:
    """Return name and value of the most important numbers that a verdict has."""
    names = {
        "accuracy": _("accuracy"),
        "auroc": _("AUROC"),
        "sensitivity": _("sensitivity"),
        "specificity": _("specificity"),
        "balanced_accuracy": _("balanced accuracy"),
    }
    present = [name for name in METRICS if name in metrics]
    return [(names[name], number(metrics[name])) for name in present[:MAX_METRICS]]


def axis_title(axis: AxisName) -> str:
    """Return the word for an axis that people use."""
    return {"data": _("data"), "model": _("configuration"), "code": _("code")}[axis]


def describe_axis(axis: AxisName, changes: Sequence[Change]) -> str:
    """Return what changed in one axis: recordings and sources are counted, settings have their values."""
    if axis == "model":
        return _describe_settings(changes)
    counts = Counter(change.what for change in changes)
    if axis == "data":
        words = {
            "added": ngettext("{n} file added", "{n} files added", counts["added"]),
            "removed": ngettext("{n} file removed", "{n} files removed", counts["removed"]),
            "changed": ngettext("{n} file changed", "{n} files changed", counts["changed"]),
            "renamed": ngettext("{n} file renamed", "{n} files renamed", counts["renamed"]),
        }
        return ", ".join(words[what].format(n=count) for what, count in sorted(counts.items()))
    total = len(changes)
    return ngettext("{n} source changed", "{n} sources changed", total).format(n=total)


def _describe_settings(changes: Sequence[Change]) -> str:
    shown = [_describe_setting(change) for change in changes[:MAX_SETTINGS_SHOWN]]
    if more := len(changes) - len(shown):
        shown.append(ngettext("{n} more", "{n} more", more).format(n=more))
    return ", ".join(shown)


def _describe_setting(change: Change) -> str:
    if change.what == "added":
        return _("{name} added").format(name=change.name)
    if change.what == "removed":
        return _("{name} removed").format(name=change.name)
    before, after = (shorten(without_paths(value), MAX_VALUE_CHARACTERS) for value in (change.before, change.after))
    return f"{change.name} {before} → {after}"


def shorten(text: str, characters: int) -> str:
    """Return the text in one line, cut to a number of characters."""
    line = " ".join(text.split())
    return line if len(line) <= characters else f"{line[: characters - 1]}…"


def utc(at: datetime) -> str:
    """Return a time to the minute."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
