"""The ledger: an append-only record of observations, runs, verdicts and releases, in a folder or a bucket.

    records/000001.json     one record; written once, never changed
    axes/data-DIGEST.json   the parts of an axis, by its digest

Concurrent writers
    A record is appended by creating the file with the next number, which only one writer can do. Writers that lose
    the race read again and decide again. A writer has therefore seen every earlier record: a run is claimed only
    once, and a process that was suspended cannot act on outdated records.

Torn records
    A record that cannot be read, such as one that was half-written at a power cut, is skipped. An action is recorded
    before it is carried out, so the action of a torn record has not happened.
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
from spira.delivery.fingerprints import Axes, Axis, AxisName
from spira.errors import SpiraError

RECORD = re.compile(r"records/(\d{6,})\.json")
MAX_CONCURRENT_READS = 16
"""Records read at the same time: on a bucket each read is a round trip."""
DAMAGED = "damaged"
"""Kind of a record that cannot be read."""


class OvertakenError(SpiraError):
    """Another writer has appended a record: read the ledger again."""


@dataclass(frozen=True)
class Record:
    """One entry of the ledger."""

    number: int
    """Counted from 1."""
    kind: str
    at: datetime
    """Time by the writer's clock."""
    body: dict[str, Any] = field(default_factory=dict)


class Ledger:
    """The records in a store; safe for any number of writers.

    Args:
        writer: name that is stored with every record.
    """

    def __init__(self, store: Store, writer: str = "") -> None:
        self.store, self.writer = store, writer
        self._cache: dict[int, Record] = {}

    def read(self) -> list[Record]:
        """Return all records by number; a torn or missing one has the kind ``damaged``.

        Raises:
            StorageError: the store is unreachable.
        """
        last = max((int(match[1]) for path in self._paths() if (match := RECORD.fullmatch(path))), default=0)
        new = sorted(set(range(1, last + 1)) - self._cache.keys())
        with ThreadPoolExecutor(MAX_CONCURRENT_READS) as pool:
            loaded = dict(zip(new, pool.map(self._load, new), strict=True))
        # A damaged record is not cached: a later read may succeed.
        self._cache |= {number: record for number, record in loaded.items() if record.kind != DAMAGED}
        return [self._cache.get(number) or loaded[number] for number in range(1, last + 1)]

    def append(self, after: int, kind: str, at: datetime, body: dict[str, Any] | None = None) -> Record:
        """Write record number ``after + 1``.

        Args:
            after: number of the last record that was read; 0 if the ledger is empty.

        Raises:
            OvertakenError: a record with this number exists.
            StorageError: the store is unreachable.
        """
        number, record_id = after + 1, uuid.uuid4().hex
        content = {"kind": kind, "at": at.isoformat(), "by": self.writer, "id": record_id, **(body or {})}
        path = _path(number)
        is_created = self.store.create(path, json.dumps(content, indent=1).encode())
        # A bucket's client repeats a request whose response was lost, and then finds its own record.
        if not is_created and self._id(path) != record_id:
            raise OvertakenError(f"record {number} was written by another process: run again")
        return Record(number, kind, at, body or {})

    def save_axes(self, axes: Axes) -> None:
        """Store the parts of each axis under its digest."""
        for name, axis in axes.by_name.items():
            content = json.dumps(dict(sorted(axis.parts.items())), indent=0)
            self.store.write(f"axes/{name}-{axis.digest}.json", content.encode())

    def load_axis(self, name: AxisName, digest: str) -> Axis:
        """Return an axis of an earlier observation.

        Raises:
            StorageError: it is missing or damaged.
        """
        path = f"axes/{name}-{digest}.json"
        content = self.store.read(path)
        try:
            return Axis(digest, json.loads(content))
        except ValueError as error:
            raise StorageError(f"{self.store.uri}/{path} is damaged: {error}") from error

    def _paths(self) -> list[str]:
        try:
            return [entry.path for entry in self.store.list()]
        except MissingError:  # nothing has been written yet
            return []

    def _load(self, number: int) -> Record:
        try:
            content = self.store.read(_path(number))
        except MissingError:
            return _damaged(number, "the file is missing")
        try:
            body = json.loads(content)
            kind, at = str(body.pop("kind")), datetime.fromisoformat(body.pop("at"))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return _damaged(number, f"{type(error).__name__}: {error}")
        return Record(number, kind, at, body)

    def _id(self, path: str) -> str | None:
        """Return the id of the stored record, or None if it is torn."""
        try:
            return str(json.loads(self.store.read(path))["id"])
        except StorageError:
            raise
        except (ValueError, KeyError, TypeError):
            return None


def _damaged(number: int, problem: str) -> Record:
    return Record(number, DAMAGED, datetime.min.replace(tzinfo=UTC), {"problem": problem})


def _path(number: int) -> str:
    return f"records/{number:06d}.json"
