"""A notice in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from spira.delivery.explain import Explanation
from spira.delivery.links import Links
from spira.delivery.notices.notice import Kind, Notice
from spira.delivery.notices.service import Tone
from spira.delivery.wording import axis_title, describe_axis, headline_metrics, shorten, without_paths
from spira.language import Translator

MAX_CAUSES = 8
MAX_CAUSE_CHARACTERS = 300
"""Receivers limit the length of a message: SMS gateways aside, 2,000 characters reach all of them."""

TONES: dict[Kind, Tone] = {
    "approved": "success",
    "deployed": "success",
    "solved": "success",
    "rejected": "failure",
    "given_up": "failure",
    "refused": "failure",
    "problem": "failure",
    "waiting": "warning",
    "cancelled": "warning",
    "rolled_back": "warning",
    "repaired": "warning",
    "pinned": "info",
    "unpinned": "info",
}
"""Importance of each kind, which receivers show as a colour or an icon."""


@dataclass(frozen=True)
class Message:
    """A notice as it is sent."""

    title: str
    body: str
    tone: Tone


def compose(notice: Notice, explanation: Explanation | None, links: Links, words: Translator) -> Message:
    """Return a notice in words, without the names of recordings and without paths.

    Args:
        explanation: what caused the run of the notice; None if it has no run, or the ledger cannot be read.
    """
    body = "\n".join(_lines(notice, explanation, links, words))
    return Message(f"SPIRA: {title(notice, words)}", body, TONES[notice.kind])


def title(notice: Notice, words: Translator) -> str:
    """Return a notice in one phrase, which begins with a small letter."""
    version, before, target = notice.version, notice.before, notice.target
    match notice.kind:
        case "approved" if before:
            return words.gettext(
                "version %(version)s is approved and waits, because version %(before)s is pinned",
                version=version,
                before=before,
            )
        case "approved":
            return words.gettext("version %(version)s is approved", version=version)
        case "waiting":
            return words.gettext(
                "version %(version)s is approved by its gate and waits for your approval", version=version
            )
        case "rejected":
            return words.gettext("a new model was rejected")
        case "given_up":
            return words.gettext("a training was given up")
        case "cancelled":
            return words.gettext("a training was cancelled")
        case "deployed" if before and before != version:
            return words.gettext(
                "version %(version)s serves, in place of version %(before)s", version=version, before=before
            )
        case "deployed":
            return words.gettext("version %(version)s serves", version=version)
        case "refused":
            return words.gettext("version %(version)s was not deployed", version=version)
        case "rolled_back":
            return words.gettext(
                "rolled back from version %(before)s to version %(version)s", before=before, version=version
            )
        case "pinned":
            return words.gettext("version %(version)s is pinned", version=version)
        case "unpinned":
            return words.gettext("version %(version)s is no longer pinned", version=version)
        case "repaired" if target == "champion":
            return words.gettext("repaired: the champion is version %(version)s again", version=version)
        case "repaired":
            return words.gettext(
                "repaired: %(target)s serves version %(version)s again", target=target, version=version
            )
        case "problem":
            return words.gettext("a problem lasts since %(since)s", since=words.time(notice.at))
        case "solved":
            return words.gettext("a problem is solved")


def causes(notice: Notice, words: Translator) -> list[str]:
    """Return the causes of a notice without paths; what an operator wrote stays as it is."""
    shown = [without_paths(cause) for cause in notice.causes]
    return shown if notice.kind in ("pinned", "rolled_back") else [words.message(cause) for cause in shown]


def _lines(notice: Notice, explanation: Explanation | None, links: Links, words: Translator) -> Iterator[str]:
    shown = [shorten(cause, MAX_CAUSE_CHARACTERS) for cause in causes(notice, words)]
    bullet = "- " if len(shown) > 1 else ""
    yield from (f"{bullet}{cause}" for cause in shown[:MAX_CAUSES])
    if len(shown) > MAX_CAUSES:
        yield words.gettext("and %(count)s more", count=len(shown) - MAX_CAUSES)
    if notice.who:
        yield words.gettext("By: %(who)s", who=notice.who)
    if notice.kind == "repaired" and notice.before != notice.version:
        yield words.gettext("Before: %(before)s", before=_version(notice.before, words))
    if explanation:
        yield _why(explanation, words)
    if numbers := headline_metrics(notice.metrics, words):
        yield ", ".join(f"{name} {value}" for name, value in numbers)
    if advice := _advice(notice, words):
        yield advice
    if report := links.report(notice.page, notice.version):
        yield words.gettext("Report: %(address)s", address=report)
    if links.page:
        yield words.gettext("Status: %(address)s", address=links.page)
    yield _origin(notice, words)


def _version(number: str, words: Translator) -> str:
    return words.gettext("version %(number)s", number=number) if number else words.gettext("no version")


def _why(explanation: Explanation, words: Translator) -> str:
    if not explanation.since:
        return words.gettext("Why: no version served before.")
    since = _version(explanation.since_version, words)
    if not explanation.changes:
        return words.gettext("Why: nothing changed since %(since)s.", since=since)
    parts = []
    for axis in explanation.axes:
        changes = [change for change in explanation.changes if change.axis == axis]
        parts.append(f"{axis_title(axis, words)} ({describe_axis(axis, changes, words)})")
    return words.gettext("Why: since %(since)s, changed: %(changes)s", since=since, changes="; ".join(parts))


def _advice(notice: Notice, words: Translator) -> str:
    match notice.kind:
        case "waiting":
            return words.gettext("To let it serve: %(command)s", command=f"spira deliver approve {notice.version}")
        case "given_up" | "cancelled":
            command = "spira deliver tick --retry"
            return words.gettext("It is trained again after a change, or by: %(command)s", command=command)
        case "problem":
            return words.gettext("To see all of it: %(command)s", command="spira deliver status")
        case _:
            return ""


def _origin(notice: Notice, words: Translator) -> str:
    if notice.record:
        return words.gettext("Ledger record %(number)s, %(at)s", number=notice.record, at=words.time(notice.at))
    return words.gettext("Notice %(id)s", id=notice.id)
