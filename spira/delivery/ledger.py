"""The ledger: an append-only record of all that was observed, claimed, decided and done, in a folder or a bucket.

    records/000001.json     one thing that happened; written once, never changed
    axes/data-DIGEST.json   what a digest stands for: the parts of an axis as it was observed

A record is appended by creating the file of the next number, which only one of many writers can do; the others read
again and think again. So whoever appends has seen all that was there: a claim is never given twice, and one who
slept through what happened since can't act on it.

A record that can't be read (half-written when its machine died) is passed over: a thing is recorded before it is
done, so what a torn record stood for has not been done.
"""

from __future__ import annotations

import json
import re
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from spira.data.storage import MissingError, StorageError, Store
from spira.delivery.fingerprints import Axes, Axis, Name
from spira.errors import SpiraError

RECORD = re.compile(r"records/(\d{6,})\.json")
READERS = 16
"""Records read at once: on a bucket each takes a journey."""
DAMAGED = "damaged"


class OvertakenError(SpiraError):
    """Somebody else has appended meanwhile: read the ledger again."""


@dataclass(frozen=True)
class Record:
    """One thing that happened."""

    number: int
    kind: str
    at: datetime
    """By the clock of who wrote it."""
    body: dict[str, Any] = field(default_factory=dict)


class Ledger:
    """The records in a store; safe for any number of writers."""

    def __init__(self, store: Store, who: str = "") -> None:
        """``who`` is told with every record."""
        self.store, self.who = store, who
        self._read: dict[int, Record] = {}

    def read(self) -> list[Record]:
        """All records in order; one that is torn or lost is of the kind ``damaged``.

        Raises:
            StorageError: the store can't be reached.
        """
        numbers = {int(match[1]) for entry in self._list() if (match := RECORD.fullmatch(entry))}
        new = sorted(set(range(1, max(numbers, default=0) + 1)) - self._read.keys())
        with ThreadPoolExecutor(READERS) as pool:
            found = dict(zip(new, pool.map(self._load, new), strict=True))
        self._read |= {number: record for number, record in found.items() if record.kind != DAMAGED}
        return [self._read.get(number) or found[number] for number in range(1, max(numbers, default=0) + 1)]

    def append(self, after: int, kind: str, at: datetime, body: dict[str, Any] | None = None) -> Record:
        """Record a thing as number ``after + 1``.

        Args:
            after: number of the last record that was read; 0 of an empty ledger.

        Raises:
            OvertakenError: there is such a record already.
            StorageError: the store can't be reached.
        """
        number, own = after + 1, uuid.uuid4().hex
        told = {"kind": kind, "at": at.isoformat(), "by": self.who, "id": own, **(body or {})}
        path = _path(number)
        if not self.store.create(path, json.dumps(told, indent=1).encode()) and self._id(path) != own:
            raise OvertakenError(f"record {number} was written by somebody else meanwhile: run again")
        return Record(number, kind, at, body or {})

    def keep(self, observed: Axes) -> None:
        """Keep what the digests of an observation stand for."""
        for name, axis in observed.axes.items():
            content = json.dumps(dict(sorted(axis.parts.items())), indent=0)
            self.store.write(f"axes/{name}-{axis.digest}.json", content.encode())

    def axis(self, name: Name, digest: str) -> Axis:
        """An axis as it was observed.

        Raises:
            StorageError: it isn't kept, or damaged.
        """
        path = f"axes/{name}-{digest}.json"
        content = self.store.read(path)
        try:
            return Axis(digest, json.loads(content))
        except ValueError as error:
            raise StorageError(f"{self.store.uri}/{path} is damaged: {error}") from error

    def _list(self) -> list[str]:
        try:
            return [entry.path for entry in self.store.list()]
        except MissingError:  # nothing was ever written
            return []

    def _load(self, number: int) -> Record:
        try:
            content = self.store.read(_path(number))
        except MissingError:
            return _damaged(number, "it is lost")
        try:
            told = json.loads(content)
            kind, at = str(told.pop("kind")), datetime.fromisoformat(told.pop("at"))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return _damaged(number, f"{type(error).__name__}: {error}")
        return Record(number, kind, at, told)

    def _id(self, path: str) -> str | None:
        """Of the record that is there: a bucket's client repeats a request whose answer was lost."""
        try:
            return json.loads(self.store.read(path))["id"]
        except StorageError:
            raise
        except (ValueError, KeyError, TypeError):
            return None  # torn, so it is nobody's


def _damaged(number: int, problem: str) -> Record:
    return Record(number, DAMAGED, datetime.min.replace(tzinfo=UTC), {"problem": problem})


def _path(number: int) -> str:
    return f"records/{number:06d}.json"
