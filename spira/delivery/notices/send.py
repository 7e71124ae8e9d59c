"""Sends the notices that are due, after a tick and beside it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from spira.delivery import explain
from spira.delivery.decide import Policy
from spira.delivery.explain import Explanation
from spira.delivery.history.ledger import Ledger, Record
from spira.delivery.links import Links
from spira.delivery.notices import outbox as outboxes
from spira.delivery.notices.channels import Channel, ChannelError, ServiceProcess
from spira.delivery.notices.message import compose
from spira.delivery.notices.notice import Notice, derive
from spira.delivery.notices.outbox import ChannelState, Outbox
from spira.delivery.observation.fingerprints import describe_problem
from spira.delivery.reconcile import Report
from spira.errors import SpiraError
from spira.language import Language, translator

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
    language: Language = Language.ENGLISH

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
        outbox = outbox.with_channels(
            {key: channel.name for key, channel in by_id.items()}, report.snapshot.records, now
        )
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
        while (due := self._next(state, outbox, records)) and time.monotonic() < deadline:
            notice, after = due
            try:
                message = compose(notice, self._explain(notice), self.links, translator(self.language))
                self.services.send(channel, message)
            except ChannelError as error:
                after = state.after_failure(str(error), self.clock())
            state, outbox = after, outbox.with_channel(after)
            outboxes.save(self.ledger.store, outbox)
            if state.failures:
                break
        return outbox

    def _next(
        self, state: ChannelState, outbox: Outbox, records: Sequence[Record]
    ) -> tuple[Notice, ChannelState] | None:
        """Return the first notice that an address has not got, with the state of the address once it was accepted."""
        for notice in derive(records, self.policy):
            if notice.record > state.sent:
                return notice, state.after_success(sent=notice.record)
        now, current = self.clock(), {problem.id for problem in outbox.problems}
        told = {problem.id for problem in state.problems}
        for problem in outbox.problems:
            if problem.id not in told and now - problem.since >= self.lasting:
                notice = Notice(problem.id, "problem", problem.since, causes=(problem.text,))
                return notice, state.after_success(problems=(*state.problems, problem))
        for problem in state.problems:
            if problem.id not in current:
                notice = Notice(f"{problem.id}-solved", "solved", now, causes=(problem.text,))
                others = tuple(one for one in state.problems if one.id != problem.id)
                return notice, state.after_success(problems=others)
        return None

    def _explain(self, notice: Notice) -> Explanation | None:
        """Return what caused the run of a notice; None if there is none, or the ledger has not what it needs."""
        if not notice.run:
            return None
        try:
            return explain.why(self.ledger, notice.run)
        except SpiraError:
            return None


def _problems(report: Report) -> list[str]:
    """Return the problems of a tick, and input that cannot be trained on."""
    last = report.snapshot.state.last_observation
    return [*report.troubles, *([describe_problem(last.problem)] if last and last.problem else [])]
