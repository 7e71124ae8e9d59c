"""Words that notices and the status page share: numbers, and what changed, without names of recordings.

The ledger has pseudonyms instead of names of recordings, and a message from a library may hold a path. Neither helps a
reader of a notice, so recordings are counted and paths are left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from spira.delivery.explain import describe_change
from spira.delivery.observation.fingerprints import AxisName, Change
from spira.evaluation.numbers import number
from spira.language import Translator

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


def headline_metrics(metrics: Mapping[str, float], words: Translator) -> list[tuple[str, str]]:
    """Return name and value of the most important numbers that a verdict has."""
    names = {
        "accuracy": words.gettext("accuracy"),
        "auroc": words.gettext("AUROC"),
        "sensitivity": words.gettext("sensitivity"),
        "specificity": words.gettext("specificity"),
        "balanced_accuracy": words.gettext("balanced accuracy"),
    }
    present = [name for name in METRICS if name in metrics]
    return [(names[name], words.number(number(metrics[name]))) for name in present[:MAX_METRICS]]


def axis_title(axis: AxisName, words: Translator) -> str:
    """Return the word for an axis that people use."""
    titles = {"data": words.gettext("data"), "model": words.gettext("configuration"), "code": words.gettext("code")}
    return titles[axis]


def describe_axis(axis: AxisName, changes: Sequence[Change], words: Translator) -> str:
    """Return what changed in one axis: recordings and sources are counted, settings have their values."""
    if axis == "model":
        return _describe_settings(changes, words)
    counts = Counter(change.what for change in changes)
    if axis == "data":
        phrases = {
            "added": words.ngettext("%(num)s file added", "%(num)s files added", counts["added"]),
            "removed": words.ngettext("%(num)s file removed", "%(num)s files removed", counts["removed"]),
            "changed": words.ngettext("%(num)s file changed", "%(num)s files changed", counts["changed"]),
            "renamed": words.ngettext("%(num)s file renamed", "%(num)s files renamed", counts["renamed"]),
        }
        return ", ".join(phrases[what] for what in sorted(counts))
    return words.ngettext("%(num)s source changed", "%(num)s sources changed", len(changes))


def _describe_settings(changes: Sequence[Change], words: Translator) -> str:
    shown = [_describe_setting(change, words) for change in changes[:MAX_SETTINGS_SHOWN]]
    if more := len(changes) - len(shown):
        shown.append(words.gettext("%(count)s more", count=more))
    return ", ".join(shown)


def _describe_setting(change: Change, words: Translator) -> str:
    if change.what in ("added", "removed"):
        return describe_change(change, words)
    before, after = (shorten(without_paths(value), MAX_VALUE_CHARACTERS) for value in (change.before, change.after))
    return f"{change.name} {before} → {after}"


def shorten(text: str, characters: int) -> str:
    """Return the text in one line, cut to a number of characters."""
    line = " ".join(text.split())
    return line if len(line) <= characters else f"{line[: characters - 1]}…"
