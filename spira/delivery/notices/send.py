"""Sends the notices that are due, after a tick and beside it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from spira.data.storage import StorageError
from spira.delivery import explain
from spira.delivery.decide import Policy
from spira.delivery.explain import Explanation
from spira.delivery.history.ledger import Ledger, Record
from spira.delivery.links import Links
from spira.delivery.notices import outbox as outboxes
from spira.delivery.notices.channels import Channel, ChannelError, ServiceProcess
from spira.delivery.notices.message import compose
from spira.delivery.notices.notice import Notice, derive
from spira.delivery.notices.outbox import ChannelState, Outbox, Problem
from spira.delivery.observation.fingerprints import describe_problem
from spira.delivery.reconcile import Report
from spira.errors import SpiraError

log = logging.getLogger(__name__)

MAX_SECONDS = 60.0
"""Time for all notices of one tick; the next tick sends the others."""


@dataclass(frozen=True)
class Sender:
    """Everything that sending needs."""

    ledger: Ledger
    find_channels: Callable[[], list[Channel]]
    """Returns the addresses; raises ChannelError if they cannot be read."""
    policy: Policy
    links: Links
    lasting: timedelta
    """Time after which a problem is worth a notice."""
    clock: Callable[[], datetime]
    services: ServiceProcess

    def send(self, report: Report) -> tuple[str, ...]:
        """Send what is due after a tick; return why notices do not arrive, one line an address.

        Raises:
            StorageError: the ledger's store is unreachable; the next tick sends.
        """
        store, now = self.ledger.store, self.clock()
        stored = outboxes.load(store)
        try:
            channels = self.find_channels()
        except ChannelError as error:
            outbox = (stored or outboxes.new()).model_copy(update={"trouble": str(error)})
            outboxes.save(store, outbox)
            return outbox.describe_problems(now)
        if not channels:
            return ()  # a person's shell may have no addresses: those of the watching process stay as they are
        outbox = (stored or outboxes.new()).model_copy(update={"trouble": ""})
        by_id = {channel.id(outbox.salt): channel for channel in channels}
        outbox = outbox.with_channels({key: channel.name for key, channel in by_id.items()}, report.snapshot.records, now)
        outbox = outbox.with_problems(_problems(report), now)
        outboxes.save(store, outbox)
        deadline = time.monotonic() + MAX_SECONDS
        for channel_id, channel in by_id.items():
            outbox = self._send_to(channel, channel_id, outbox, report.snapshot.records, deadline)
        return outbox.describe_problems(self.clock())

    def _send_to(
        self, channel: Channel, channel_id: str, outbox: Outbox, records: Sequence[Record], deadline: float
    ) -> Outbox:
        """Send everything that is due to one address, until one is not accepted."""
        state = outbox.channel(channel_id)
        assert state is not None
        if not state.is_due(self.clock()):
            return outbox
        for notice, after in self._due(state, outbox, records):
            if time.monotonic() > deadline:
                break
            try:
                self.services.send(channel, compose(notice, self._explain(notice), self.links))
            except ChannelError as error:
                state = state.after_failure(str(error), self.clock())
            else:
                state = after(state)
            outbox = outbox.with_channel(state)
            outboxes.save(self.ledger.store, outbox)
            if state.failures:
                break
        return outbox

    def _due(
        self, state: ChannelState, outbox: Outbox, records: Sequence[Record]
    ) -> Iterator[tuple[Notice, Callable[[ChannelState], ChannelState]]]:
        """Yield each notice that an address has not got, with the change of its state once it was accepted."""
        for notice in derive(records, self.policy):
            if notice.record > state.sent:
                yield notice, lambda state, notice=notice: state.after_success(sent=notice.record)
        told = {problem.id for problem in state.problems}
        now, current = self.clock(), {problem.id for problem in outbox.problems}
        for problem in outbox.problems:
            if problem.id not in told and now - problem.since >= self.lasting:
                yield (
                    _problem_notice(problem),
                    lambda state, problem=problem: state.after_success(problems=(*state.problems, problem)),
                )
        for problem in state.problems:
            if problem.id not in current:
                yield (
                    Notice(f"{problem.id}-solved", "solved", now, causes=(problem.text,)),
                    lambda state, problem=problem: state.after_success(
                        problems=tuple(one for one in state.problems if one.id != problem.id)
                    ),
                )

    def _explain(self, notice: Notice) -> Explanation | None:
        """Return what caused the run of a notice; None if there is none, or the ledger has not what it needs."""
        if not notice.run:
            return None
        try:
            return explain.why(self.ledger, notice.run)
        except SpiraError:
            return None


def _problem_notice(problem: Problem) -> Notice:
    return Notice(problem.id, "problem", problem.since, causes=(problem.text,))


def _problems(report: Report) -> list[str]:
    """Return the problems of a tick, and input that cannot be trained on."""
    last = report.snapshot.state.last_observation
    return [*report.troubles, *([describe_problem(last.problem)] if last and last.problem else [])]


class NoticeThread:
    """Sends notices beside the ticks of a process, at most one tick's at a time."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._next: tuple[Sender, Report] | None = None
        """The last tick that came while the notices of an earlier one were being sent."""
        self._problems: tuple[str, ...] = ()

    def start(self, sender: Sender, report: Report) -> None:
        """Begin to send, beside the caller. While an earlier tick's notices are being sent, they have to wait."""
        if self._thread and self._thread.is_alive():
            self._next = (sender, report)
            return
        self._next = None
        # A daemon: the process may end meanwhile, and the next one sends what was not marked as sent.
        self._thread = threading.Thread(target=self._run, args=(sender, report), daemon=True)
        self._thread.start()

    def finish(self) -> tuple[str, ...]:
        """Wait for the end of sending, a limited time; return why notices do not arrive, one line an address."""
        self._join()
        if self._next:
            self.start(*self._next)
            self._join()
        return self._problems

    def _join(self) -> None:
        if self._thread:
            self._thread.join(MAX_SECONDS)

    def _run(self, sender: Sender, report: Report) -> None:
        try:
            self._problems = sender.send(report)
        except Exception as error:  # whatever it is: a notice never fails a delivery
            log.debug("notices were not sent", exc_info=True)
            kind = "" if isinstance(error, StorageError) else f" ({type(error).__name__})"
            self._problems = (f"notices: they were not sent; the next tick tries again{kind}",)
        finally:
            sender.services.close()
