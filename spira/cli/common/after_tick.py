"""What follows a tick, beside it: its status is stored and shown, and notices are sent. None of it can fail a tick."""

from __future__ import annotations

from datetime import UTC, datetime

from spira.cli.common.compose import ledger, notice_sender
from spira.cli.common.status_page import StatusShower
from spira.delivery.background import BackgroundWork
from spira.delivery.notices.send import MAX_SECONDS, Sender
from spira.delivery.page import last_status
from spira.delivery.reconcile import Report
from spira.delivery.settings import Settings
from spira.delivery.status import delivery_status


class AfterTick:
    """The work after each tick of a process.

    Args:
        shower: page that is made again; None if this process shows none.
    """

    def __init__(self, shower: StatusShower | None = None) -> None:
        self.shower = shower
        self._notices = BackgroundWork("notices", MAX_SECONDS)
        self._status = BackgroundWork("status page", MAX_SECONDS)

    def start(self, settings: Settings, report: Report) -> None:
        """Begin with it; the caller goes on."""
        sender, at = notice_sender(settings), datetime.now(UTC)
        self._notices.start(lambda: _send(sender, report))
        self._status.start(lambda: self._keep_status(settings, report, at))

    def _keep_status(self, settings: Settings, report: Report, at: datetime) -> tuple[str, ...]:
        last_status.save(ledger(settings).store, delivery_status(report), at)
        if self.shower:
            self.shower.show(settings, report, at)
        return ()

    @property
    def problems(self) -> tuple[str, ...]:
        """What could not be stored or shown, as far as it is known; the report of a tick has the notices' problems."""
        return self._status.problems

    def finish(self) -> tuple[str, ...]:
        """Wait for the end of it, a limited time; return its problems, one line each."""
        return (*self._status.finish(), *self._notices.finish())


def _send(sender: Sender, report: Report) -> tuple[str, ...]:
    try:
        return sender.send(report)
    finally:
        sender.services.close()
