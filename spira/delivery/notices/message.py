"""A notice in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from gettext import gettext as _

from spira.delivery.explain import Explanation
from spira.delivery.links import Links
from spira.delivery.notices.notice import Kind, Notice
from spira.delivery.notices.service import Tone
from spira.delivery.wording import axis_title, describe_axis, headline_metrics, shorten, utc, without_paths

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


def compose(notice: Notice, explanation: Explanation | None, links: Links) -> Message:
    """Return a notice in words, without the names of recordings and without paths.

    Args:
        explanation: what caused the run of the notice; None if it has no run, or the ledger cannot be read.
    """
    return Message(f"SPIRA: {title(notice)}", "\n".join(_lines(notice, explanation, links)), TONES[notice.kind])


def title(notice: Notice) -> str:
    """Return a notice in one phrase, which begins with a small letter."""
    version, before, run, target = notice.version, notice.before, notice.run, notice.target
    match notice.kind:
        case "approved" if before:
            phrase = _("version {version} is approved and waits, because version {before} is pinned")
        case "approved":
            phrase = _("version {version} is approved")
        case "waiting":
            phrase = _("version {version} is approved by its gate and waits for your approval")
        case "rejected":
            phrase = _("a new model was rejected")
        case "given_up":
            phrase = _("a training was given up")
        case "cancelled":
            phrase = _("a training was cancelled")
        case "deployed" if before and before != version:
            phrase = _("version {version} serves, in place of version {before}")
        case "deployed":
            phrase = _("version {version} serves")
        case "refused":
            phrase = _("version {version} was not deployed")
        case "rolled_back":
            phrase = _("rolled back from version {before} to version {version}")
        case "pinned":
            phrase = _("version {version} is pinned")
        case "unpinned":
            phrase = _("version {version} is no longer pinned")
        case "repaired" if target == "champion":
            phrase = _("repaired: the champion is version {version} again")
        case "repaired":
            phrase = _("repaired: {target} serves version {version} again")
        case "problem":
            phrase = _("a problem lasts since {since}")
        case "solved":
            phrase = _("a problem is solved")
    return phrase.format(version=version, before=before, run=run, target=target, since=utc(notice.at))


def _lines(notice: Notice, explanation: Explanation | None, links: Links) -> Iterator[str]:
    causes = [shorten(without_paths(cause), MAX_CAUSE_CHARACTERS) for cause in notice.causes]
    bullet = "- " if len(causes) > 1 else ""
    yield from (f"{bullet}{cause}" for cause in causes[:MAX_CAUSES])
    if len(causes) > MAX_CAUSES:
        yield _("and {n} more").format(n=len(causes) - MAX_CAUSES)
    if notice.who:
        yield _("By: {who}").format(who=notice.who)
    if notice.kind == "repaired" and notice.before != notice.version:
        yield _("Before: {before}").format(before=_version(notice.before))
    if explanation:
        yield _why(explanation)
    if numbers := headline_metrics(notice.metrics):
        yield ", ".join(f"{name} {value}" for name, value in numbers)
    if advice := _advice(notice):
        yield advice
    if report := links.report(notice.page, notice.version):
        yield _("Report: {address}").format(address=report)
    if links.page:
        yield _("Status: {address}").format(address=links.page)
    yield _origin(notice)


def _version(version: str) -> str:
    return _("version {version}").format(version=version) if version else _("no version")


def _why(explanation: Explanation) -> str:
    if not explanation.since:
        return _("Why: no version served before.")
    if not explanation.changes:
        return _("Why: nothing changed since {since}.").format(since=explanation.since)
    parts = [
        f"{axis_title(axis)} ({describe_axis(axis, [one for one in explanation.changes if one.axis == axis])})"
        for axis in explanation.axes
    ]
    return _("Why: since {since}, changed: {changes}").format(since=explanation.since, changes="; ".join(parts))


def _advice(notice: Notice) -> str:
    match notice.kind:
        case "waiting":
            return _("To let it serve: spira deliver approve {version}").format(version=notice.version)
        case "given_up" | "cancelled":
            return _("It is trained again after a change, or by: spira deliver tick --retry")
        case "problem":
            return _("To see all of it: spira deliver status")
        case _:
            return ""


def _origin(notice: Notice) -> str:
    at = utc(notice.at)
    if notice.record:
        return _("Ledger record {number}, {at}").format(number=notice.record, at=at)
    return _("Notice {id}").format(id=notice.id)
