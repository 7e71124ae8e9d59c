"""The content of the status page: the status of a tick and the records of the ledger, as a person reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from spira.delivery.decide import Policy
from spira.delivery.explain import fingerprints, served_before
from spira.delivery.history.events import Promoted, Repaired
from spira.delivery.history.ledger import Ledger, Record
from spira.delivery.links import Links
from spira.delivery.notices.notice import Notice
from spira.delivery.observation.fingerprints import AXIS_NAMES, Axis, AxisName, Change, Fingerprint, changes
from spira.delivery.page.timeline import ObservedChange, Period, Timeline, timeline
from spira.delivery.status import DeliveryStatus, TargetStatus
from spira.errors import SpiraError

MAX_CHANGES = 60
"""Changes on the page, newest first; spira deliver history has all records."""
MAX_EVENTS = 60
MAX_PERIODS = 20
MAX_DETAILS = 20
"""Parts of one axis that are listed."""

Health = Literal["good", "problem", "empty"]
TargetState = Literal["as_wanted", "other_version", "other_package", "not_ready", "drifted", "nothing", "unreachable"]


@dataclass(frozen=True)
class TargetRow:
    """One target."""

    name: str
    state: TargetState
    version: str = ""
    since: datetime | None = None
    """Time at which the ledger says that the target began to serve the version; None if it does not say."""
    message: str = ""


@dataclass(frozen=True)
class AxisChange:
    """What changed in one axis."""

    axis: AxisName
    changes: tuple[Change, ...]

    @property
    def listed(self) -> tuple[Change, ...]:
        """The first changes."""
        return self.changes[:MAX_DETAILS]

    @property
    def more(self) -> int:
        """Number of changes that are not listed."""
        return max(0, len(self.changes) - MAX_DETAILS)


@dataclass(frozen=True)
class Why:
    """The difference between the input of a change and that of the version that served."""

    since: str = ""
    """Version that served when the change was trained; empty if none did."""
    axes: tuple[AxisChange, ...] = ()
    is_known: bool = True
    """False if the ledger cannot be read far enough."""


@dataclass(frozen=True)
class ChangeRow:
    """One change."""

    change: ObservedChange
    why: Why | None
    """None if the input cannot be trained on."""
    report: str = ""
    """Address of the report; empty if there is none."""


Row = ChangeRow | Notice
"""One entry of the timeline: a change, or an event."""


@dataclass(frozen=True)
class StatusPage:
    """Everything that the page shows."""

    at: datetime
    """Time of the status."""
    status: DeliveryStatus
    targets: tuple[TargetRow, ...]
    rows: tuple[Row, ...]
    """Changes and events, newest first."""
    periods: tuple[Period, ...]
    """Which version should have served when, newest first."""
    left_out: int
    """Older changes and events that are not shown."""
    links: Links
    is_old: bool = False
    """Whether no tick has stored a status for so long that none may be running."""

    @property
    def problems(self) -> tuple[str, ...]:
        """Everything that failed or was unreachable."""
        return (*self.status.troubles, *self.status.notice_problems)

    @property
    def health(self) -> Health:
        """Whether everything is as it should be; empty before the first delivery."""
        is_invalid = bool(self.status.observed and self.status.observed.problem)
        if (
            self.is_old
            or self.status.has_problem
            or is_invalid
            or any(row.state != "as_wanted" for row in self.targets if row.version)
        ):
            return "problem"
        return "good" if self.status.wanted else "empty"


class PageBuilder:
    """Builds the page again and again; differences between observations never change, so each is read once."""

    def __init__(self) -> None:
        self._differences: dict[tuple[str, str], tuple[AxisChange, ...]] = {}

    def build(
        self,
        status: DeliveryStatus,
        at: datetime,
        records: Sequence[Record],
        ledger: Ledger,
        policy: Policy,
        links: Links,
        is_old: bool = False,
    ) -> StatusPage:
        """Return the content of the page.

        Args:
            at: time of the status.
            is_old: see :attr:`StatusPage.is_old`.
            ledger: of the records; it has the parts of each observation.
        """
        whole = timeline(records, policy)
        return StatusPage(
            at=at,
            status=status,
            targets=tuple(_target(name, target, status, records) for name, target in status.serving.items()),
            rows=self._rows(whole, records, ledger, links),
            periods=whole.periods[:MAX_PERIODS],
            left_out=max(0, len(whole.changes) - MAX_CHANGES) + max(0, len(whole.events) - MAX_EVENTS),
            links=links,
            is_old=is_old,
        )

    def _rows(self, whole: Timeline, records: Sequence[Record], ledger: Ledger, links: Links) -> tuple[Row, ...]:
        known = fingerprints(records)
        changes: list[tuple[int, Row]] = []
        for change in whole.changes[:MAX_CHANGES]:
            last = change.last
            report = links.report(last.page, last.version.number if last.version else "") if last else ""
            why = self._why(change.fingerprint, known, records, ledger) if change.fingerprint else None
            changes.append((change.record, ChangeRow(change, why, report)))
        events: list[tuple[int, Row]] = [(notice.record, notice) for notice in whole.events[:MAX_EVENTS]]
        return tuple(row for _, row in sorted([*changes, *events], key=lambda pair: pair[0], reverse=True))

    def _why(self, fingerprint: str, known: dict[str, Fingerprint], records: Sequence[Record], ledger: Ledger) -> Why:
        served = served_before(records, fingerprint)
        if served is None:
            return Why()
        version, before = served
        key = (before, fingerprint)
        try:
            if key not in self._differences:
                self._differences[key] = _difference(known[before], known[fingerprint], ledger)
        except (SpiraError, KeyError):  # a part of the ledger is damaged, which spira deliver status reports
            return Why(version, is_known=False)
        return Why(version, self._differences[key])


def _difference(before: Fingerprint, after: Fingerprint, ledger: Ledger) -> tuple[AxisChange, ...]:
    """Return what changed between two observations; only axes that differ are read."""
    digests: dict[AxisName, tuple[str, str]] = {
        "data": (before.data, after.data),
        "model": (before.model, after.model),
        "code": (before.code, after.code),
    }
    result = []
    for axis in AXIS_NAMES:
        old, new = digests[axis]
        if old != new:
            both = (ledger.load_axis(axis, old), ledger.load_axis(axis, new))
            first, second = ({name: Axis("", {}) for name in AXIS_NAMES} | {axis: one} for one in both)
            result.append(AxisChange(axis, tuple(changes(first, second))))
    return tuple(result)


def _target(name: str, target: TargetStatus | None, status: DeliveryStatus, records: Sequence[Record]) -> TargetRow:
    if target is None:
        return TargetRow(name, "unreachable")
    if target.version is None:
        return TargetRow(name, "nothing", message=target.message)
    since = _serving_since(name, target.version, records)
    return TargetRow(name, _target_state(target, status), target.version, since, target.message)


def _target_state(target: TargetStatus, status: DeliveryStatus) -> TargetState:
    wanted = status.wanted_id
    if not target.ready:
        return "not_ready"
    if target.drifted:
        return "drifted"
    if wanted is None or target.is_as_wanted(wanted):
        return "as_wanted"
    return "other_package" if target.version == wanted.number else "other_version"


def _serving_since(name: str, version: str, records: Sequence[Record]) -> datetime | None:
    """Return when a target began to serve a version: by a promotion, or by a repair that replaced another version."""
    serving: str | None = None
    since: datetime | None = None
    for record in records:
        match record.event:
            case Promoted() as event:
                began: str | None = event.version
            case Repaired() as event if event.what == name:
                began = event.version
            case _:
                continue
        if began != serving:
            serving, since = began, record.at
    return since if serving == version else None
