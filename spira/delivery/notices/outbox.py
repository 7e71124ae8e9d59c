"""What each address has got, and which problems last: a small file beside the ledger.

The file can be deleted: notices of the last day are then sent again.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from spira.config import FrozenModel
from spira.data.storage import Store
from spira.delivery.history import beside_ledger
from spira.delivery.history.ledger import Record

PATH = "notices.json"
"""Path of the file in the ledger's store."""
FIRST_NOTICES = timedelta(days=1)
"""Age of the oldest notice that a new address gets."""
BACKOFF = timedelta(minutes=1)
"""Wait after the first failure; each further wait is four times as long."""
BACKOFF_FACTOR = 4
MAX_BACKOFF = timedelta(hours=1)
FORGOTTEN = timedelta(days=1)
"""Age of the last attempt after which an address that is no longer configured is no problem."""
MAX_SUBJECT_CHARACTERS = 60


class Problem(FrozenModel):
    """A problem that ticks report."""

    id: str
    text: str
    """As the last tick reports it."""
    since: datetime
    """Time of the first tick that reports it."""


class ChannelState(FrozenModel):
    """What one address has got."""

    id: str
    """See :meth:`spira.delivery.notices.channels.Channel.id`."""
    name: str
    """See :attr:`spira.delivery.notices.channels.Channel.name`."""
    sent: int
    """Number of the last ledger record whose notice was accepted, and those of all records before it."""
    problems: tuple[Problem, ...] = ()
    """Problems that it was told of, and not yet of their end."""
    failures: int = 0
    """Failed attempts since the last success."""
    failing_since: datetime | None = None
    next_attempt: datetime | None = None
    cause: str = ""
    """Cause of the last failure."""

    def is_due(self, now: datetime) -> bool:
        """Return whether the address may be tried now."""
        return self.next_attempt is None or now >= self.next_attempt

    def after_success(self, **changed: int | tuple[Problem, ...]) -> ChannelState:
        """Return the state after a notice was accepted."""
        ended = {"failures": 0, "failing_since": None, "next_attempt": None, "cause": ""}
        return self.model_copy(update={**ended, **changed})

    def after_failure(self, cause: str, now: datetime) -> ChannelState:
        """Return the state after a notice was not accepted."""
        wait = min(BACKOFF * BACKOFF_FACTOR ** min(self.failures, 8), MAX_BACKOFF)
        return self.model_copy(
            update={
                "failures": self.failures + 1,
                "failing_since": self.failing_since or now,
                "next_attempt": now + wait,
                "cause": cause,
            }
        )

    def describe(self) -> str:
        """Return the failure in one line."""
        since = f"{self.failing_since:%Y-%m-%d %H:%M}" if self.failing_since else ""
        due = f"{self.next_attempt:%H:%M:%S}" if self.next_attempt else ""
        return f"notices: {self.name} accepts none since {since}; next attempt at {due}: {self.cause}"


class Outbox(FrozenModel):
    """Content of the file."""

    salt: str
    """Makes the names of addresses in this file differ from those in any other; no secret."""
    channels: tuple[ChannelState, ...] = ()
    problems: tuple[Problem, ...] = ()
    """Problems of the last tick."""
    trouble: str = ""
    """Why no address can be used at all, such as a file of addresses that cannot be read; empty if there are some."""

    def channel(self, channel_id: str) -> ChannelState | None:
        """Return the state of an address."""
        return next((channel for channel in self.channels if channel.id == channel_id), None)

    def with_channel(self, state: ChannelState) -> Outbox:
        """Return the outbox with a new state of one address."""
        others = [channel for channel in self.channels if channel.id != state.id]
        return self.model_copy(update={"channels": (*others, state)})

    def with_channels(self, names: Mapping[str, str], records: Sequence[Record], now: datetime) -> Outbox:
        """Return the outbox with a state for every address.

        A new address gets the notices of the last day. It may also stand for one that failed and is gone, because
        somebody corrected a URL: then it gets everything that the old one did not.

        Args:
            names: name of each address by its id.
        """
        new = {channel_id: name for channel_id, name in names.items() if self.channel(channel_id) is None}
        if not new:
            return self
        replaced = [channel for channel in self.channels if channel.id not in names and channel.failures]
        old = (record.number for record in records if record.at < now - FIRST_NOTICES)
        sent = min([max(old, default=0), *(channel.sent for channel in replaced)])
        told = replaced[0].problems if replaced else ()
        kept = [channel for channel in self.channels if channel not in replaced]
        added = [ChannelState(id=channel_id, name=name, sent=sent, problems=told) for channel_id, name in new.items()]
        return self.model_copy(update={"channels": (*kept, *added)})

    def with_problems(self, problems: Iterable[str], now: datetime) -> Outbox:
        """Return the outbox with the problems of a tick; one that was there before keeps its beginning."""
        known = {problem.id.partition("-")[2]: problem for problem in self.problems}
        current: dict[str, Problem] = {}
        for text in problems:
            subject = _subject(text)
            since = known[subject].since if subject in known else now
            current.setdefault(subject, Problem(id=f"{since:%Y%m%dT%H%M%S}-{subject}", text=text, since=since))
        return self.model_copy(update={"problems": tuple(current.values())})

    def describe_problems(self, now: datetime) -> tuple[str, ...]:
        """Return why notices do not arrive, one line an address."""
        failing = [
            channel.describe()
            for channel in self.channels
            if channel.failures and channel.next_attempt and now - channel.next_attempt < FORGOTTEN
        ]
        return (*([f"notices: {self.trouble}"] if self.trouble else []), *failing)


def _subject(text: str) -> str:
    """Return a name for a problem that stays the same while its wording, such as a count or an address, changes."""
    subject, colon, _ = text.partition(": ")
    subject = subject if colon and len(subject) <= MAX_SUBJECT_CHARACTERS else text
    return hashlib.sha256(subject.encode()).hexdigest()[:8]


def load(store: Store) -> Outbox | None:
    """Return the stored outbox; None if there is none, or it is damaged.

    Raises:
        StorageError: the store is unreachable.
    """
    return beside_ledger.read(store, PATH, Outbox)


def stored_problems(store: Store, now: datetime) -> tuple[str, ...]:
    """Return why notices do not arrive, one line an address, as the last sender has stored it.

    Raises:
        StorageError: the store is unreachable.
    """
    outbox = load(store)
    return outbox.describe_problems(now) if outbox else ()


def new() -> Outbox:
    """Return an outbox of a delivery that has sent nothing."""
    return Outbox(salt=secrets.token_hex(8))


def save(store: Store, outbox: Outbox) -> None:
    """Replace the file in one step.

    Raises:
        StorageError: the store is unreachable.
    """
    stored = load(store)
    if stored == outbox:
        return
    beside_ledger.write(store, PATH, _merged(outbox, stored) if stored else outbox)


def _merged(outbox: Outbox, stored: Outbox) -> Outbox:
    """Return an outbox with what another process has sent meanwhile: only who has sent a notice marks it."""
    for channel in outbox.channels:
        other = stored.channel(channel.id)
        if other and other.sent > channel.sent:
            outbox = outbox.with_channel(channel.model_copy(update={"sent": other.sent}))
    return outbox
