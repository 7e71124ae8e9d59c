"""The status page of a settings file: after a tick, in a folder, or from what the last tick has stored."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType

from spira import files
from spira.cli.common.compose import ledger, reconciler
from spira.delivery import settings as settings_file
from spira.delivery import webhooks
from spira.delivery.page import last_status
from spira.delivery.page.build import PageBuilder, StatusPage
from spira.delivery.page.render import REFRESH_SECONDS, render
from spira.delivery.reconcile import Report
from spira.delivery.settings import Settings
from spira.delivery.status import delivery_status
from spira.delivery.webhooks import PageSlot
from spira.errors import SpiraError
from spira.language import Language

FILE = "index.html"
MAX_AGE = timedelta(minutes=15)
"""Age of a status after which no tick may be running: a CronJob ticks every five minutes."""
MAX_MISSED_TICKS = 3
"""The same where the interval between two ticks is longer."""
READ_SECONDS = 30.0
"""Interval at which a server of the page reads what the last tick has stored."""


class StatusShower:
    """The page that a server shows, made again and again.

    Args:
        language: of the page; that of the project file if it is None.
    """

    def __init__(self, language: Language | None = None) -> None:
        self.page, self._builder, self._language = PageSlot(), PageBuilder(), language

    def show(self, settings: Settings, report: Report, at: datetime) -> None:
        """Show the status after a tick."""
        page = self._builder.build(
            delivery_status(report),
            at,
            report.snapshot.records,
            ledger(settings),
            settings.policy,
            settings.addresses,
        )
        self._replace(page, settings)

    def show_stored(self, settings: Settings) -> None:
        """Show what the last tick of another process has stored.

        Raises:
            SpiraError: no tick has stored its status yet.
            StorageError: the ledger's store is unreachable.
        """
        stored = ledger(settings)
        status = last_status.load(stored.store)
        if status is None:
            raise SpiraError("no tick has stored its status yet: run spira deliver tick")
        longest = max(MAX_AGE, MAX_MISSED_TICKS * timedelta(seconds=settings.every_seconds))
        page = self._builder.build(
            status.status,
            status.at,
            stored.read(),
            stored,
            settings.policy,
            settings.addresses,
            is_old=datetime.now(UTC) - status.at > longest,
        )
        self._replace(page, settings)

    def _replace(self, page: StatusPage, settings: Settings) -> None:
        self.page.replace(render(page, REFRESH_SECONDS, self._language or settings.language))


def serve(settings_path: Path, listen: str, say: Callable[[str], None], language: Language | None = None) -> None:
    """Serve the page of the last tick until the process is ended; another process ticks.

    It needs only the ledger, and the right to read it. The settings are read again each time.

    Args:
        listen: ``HOST:PORT``.
        say: receives a line for each problem that is new.
        language: of the page; that of the project file if it is None.

    Raises:
        SpiraError: the address is invalid or in use.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit)
    shower, last_problem = StatusShower(language), ""
    host, port = webhooks.serve(listen, page=shower.page).server_address[:2]
    say(f"the status page is at http://{host!s}:{port}/")
    while True:
        problem = ""
        try:
            shower.show_stored(settings_file.load(settings_path))
        except SpiraError as error:  # the next time may succeed; the page keeps its time
            problem = str(error)
        if problem and problem != last_problem:
            say(f"trouble: {problem}")
        last_problem = problem
        time.sleep(READ_SECONDS)


def _exit(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


def write(settings: Settings, folder: Path, language: Language | None = None) -> Path:
    """Write the page of the present status into a folder; no action is carried out.

    Args:
        language: of the page; that of the project file if it is None.

    Raises:
        SpiraError: the folder cannot be written.
    """
    report = reconciler(settings).dry_run()
    page = PageBuilder().build(
        delivery_status(report),
        datetime.now(UTC),
        report.snapshot.records,
        ledger(settings),
        settings.policy,
        settings.addresses,
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.write_text(folder / FILE, render(page, language=language or settings.language))
    except OSError as error:
        raise SpiraError(f"--out {folder}: cannot be written ({error.strerror}); name another folder") from error
    return folder / FILE
