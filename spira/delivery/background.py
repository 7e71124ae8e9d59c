"""Work beside the ticks of a process, which neither delays nor fails them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from spira.errors import SpiraError

log = logging.getLogger(__name__)

Work = Callable[[], tuple[str, ...]]
"""Returns its problems, one line each."""


class BackgroundWork:
    """Does one piece of work at a time in a thread; of those that wait, only the last one.

    Args:
        subject: begins the line about work that failed.
        max_seconds: how long :meth:`finish` waits for one piece of work.
    """

    def __init__(self, subject: str, max_seconds: float) -> None:
        self.subject, self.max_seconds = subject, max_seconds
        self.problems: tuple[str, ...] = ()
        """Problems of the last work."""
        self._thread: threading.Thread | None = None
        self._next: Work | None = None

    def start(self, work: Work) -> None:
        """Begin the work beside the caller; while earlier work goes on, it has to wait for a later call."""
        if self._thread and self._thread.is_alive():
            self._next = work
            return
        self._next = None
        # A daemon: the process may end meanwhile, so the work must be such that the next process can do it again.
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def finish(self) -> tuple[str, ...]:
        """Wait for the work a limited time, and return its problems."""
        self._join()
        if self._next:
            self.start(self._next)
            self._join()
        return self.problems

    def _join(self) -> None:
        if self._thread:
            self._thread.join(self.max_seconds)

    def _run(self, work: Work) -> None:
        try:
            self.problems = work()
        except SpiraError as error:
            self.problems = (f"{self.subject}: {error}",)
        except Exception as error:  # whatever it is: the delivery goes on
            log.debug("%s failed", self.subject, exc_info=True)
            self.problems = (f"{self.subject}: internal error: {type(error).__name__}",)
