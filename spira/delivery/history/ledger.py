"""The ledger: an append-only record of observations, runs, verdicts and releases, in a folder or a bucket.

    records/000001.json     one record; written once, never changed
    axes/code-DIGEST.json   the parts of an axis, by its digest
    axes/data-DIGEST.json   the recordings by pseudonym, or what changed in them since another observation
    damaged/000001.json     the content that a repair from a backup replaced

Concurrent writers
    A record is appended by creating the file with the next number, which only one writer can do. Writers that lose
    the race read again and decide again. A writer has therefore seen every earlier record: a run is claimed only
    once, and a process that was suspended cannot act on outdated records.

Damage
    Each record has a checksum of itself, and a digest over all records before it. A record that was changed or
    removed after it was written is ``damaged``: nothing is appended and nothing is decided until it is repaired or
    accepted, because a wrong record could bring a wrong version into service. See
    :mod:`spira.delivery.history.ledger_check`.

Torn records
    A record whose write was interrupted, as at a power cut, is incomplete, and is the last one or lies under the
    digest of the next. It is reported and set aside. An action is recorded before it is carried out, so the action of
    a torn record has not happened.

Records of older programs have neither checksum nor digest. The first new record has a digest over them.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from spira.config import explain
from spira.data.pseudonyms import Pseudonyms, from_environment
from spira.data.storage import MissingError, StorageError, Store
from spira.delivery.history.events import DamageAccepted, Damaged, Event, Torn, read_event
from spira.delivery.observation.data_axes import DataAxes
from spira.delivery.observation.fingerprints import Axes, Axis, AxisName, Fingerprint, axis_of, with_pseudonyms
from spira.errors import SpiraError
from spira.files import CHECKSUM, has_checksum, with_checksum

RECORD = re.compile(r"records/(\d{6,})\.json")
MAX_CONCURRENT_READS = 16
"""Records read at the same time: on a bucket each read is a round trip."""
OLD_CACHE = "cache/data.json"
"""File in which older programs kept the hashes of recordings by name; the work folder has it now."""
NO_NAMES = b"{}"
"""Content of that file once no file has names."""
BEFORE = "before"
"""Key of the digest over all earlier records."""
NO_RECORDS = ""
"""Digest over no records."""


class OvertakenError(SpiraError):
    """Another writer has appended a record: read the ledger again."""


class DamagedLedgerError(SpiraError):
    """A record was changed or removed after it was written."""


@dataclass(frozen=True)
class Record:
    """One entry of the ledger."""

    number: int
    """Counted from 1."""
    at: datetime
    """Time by the writer's clock."""
    event: Event
    by: str = ""
    """Name of the writer."""

    @property
    def kind(self) -> str:
        """Name of the kind of the event."""
        return self.event.kind


@dataclass(frozen=True)
class StoredRecord:
    """A record as its file holds it, before it is compared with the others."""

    record: Record
    content: bytes
    """Empty if the file is missing."""
    before: str | None = None
    """Digest over all earlier records; None for a record of an older program, and for one that cannot be read."""

    @property
    def is_readable(self) -> bool:
        """Whether the record is neither torn nor damaged by itself."""
        return not isinstance(self.record.event, (Torn, Damaged))


class Ledger:
    """The records in a store; safe for any number of writers.

    Args:
        writer: name that is stored with every record.
        pseudonyms: in place of the names of recordings; those of the environment's key by default.
    """

    def __init__(self, store: Store, writer: str = "", pseudonyms: Pseudonyms | None = None) -> None:
        self.store, self.writer = store, writer
        self.pseudonyms = pseudonyms or from_environment()
        self._cache: dict[int, StoredRecord] = {}

    def read(self) -> list[Record]:
        """Return all records by number; a torn or damaged one has an event of that kind.

        Raises:
            StorageError: the store is unreachable.
        """
        return check(self.stored()).records

    def append(self, after: int, event: Event, at: datetime) -> Record:
        """Write record number ``after + 1``.

        Args:
            after: number of the last record that was read; 0 if the ledger is empty.

        Raises:
            OvertakenError: a record with this number exists.
            DamagedLedgerError: an earlier record is damaged, and the event does not accept that.
            StorageError: the store is unreachable.
        """
        earlier = [self._cache[number] for number in range(1, after + 1) if number in self._cache]
        if len(earlier) < after:
            earlier = self.stored()[:after]
        checked = check(earlier)
        if not isinstance(event, DamageAccepted):
            _refuse_damage(checked.records)
        number, record_id = after + 1, uuid.uuid4().hex
        header = {"kind": event.kind, "at": at.isoformat(), "by": self.writer, "id": record_id, BEFORE: checked.digest}
        content = json.dumps(with_checksum({**event.to_json(), **header}), indent=1).encode()
        path = path_of(number)
        # A bucket's client repeats a request whose response was lost, and then finds its own record.
        if not self.store.create(path, content) and self.store.read(path) != content:
            raise OvertakenError(f"record {number} was written by another process: run again")
        record = Record(number, at, event, self.writer)
        self._cache[number] = StoredRecord(record, content, header[BEFORE])
        return record

    def save_axes(self, axes: Axes, since: Fingerprint | None = None) -> None:
        """Store the parts of each axis under its digest, those of the data without names of recordings.

        Args:
            since: an earlier observation; of the data, only what changed since then is stored.
        """
        self._data_axes.save(with_pseudonyms(axes.data, self.pseudonyms), since.data if since else "")
        for name, axis in (("model", axes.model), ("code", axes.code)):
            content = json.dumps(dict(sorted(axis.parts.items())), indent=0)
            self.store.write(f"axes/{name}-{axis.digest}.json", content.encode())

    def remove_names(self) -> None:
        """Replace the names of recordings in the files that older programs wrote, apart from the records.

        Raises:
            StorageError: the store is unreachable.
        """
        try:
            if self.store.read(OLD_CACHE) == NO_NAMES:
                return
        except MissingError:
            return
        self._data_axes.remove_names(self._paths())
        self.store.write(OLD_CACHE, NO_NAMES)

    @property
    def _data_axes(self) -> DataAxes:
        return DataAxes(self.store, self.pseudonyms)

    def load_axis(self, name: AxisName, digest: str) -> Axis:
        """Return an axis of an earlier observation.

        Raises:
            StorageError: it is missing or damaged.
        """
        if name == "data":
            return self._data_axes.load(digest)
        path = f"axes/{name}-{digest}.json"
        content = self.store.read(path)
        try:
            axis = Axis(digest, json.loads(content))
            is_intact = axis.digest == axis_of(axis.parts).digest
        except (ValueError, TypeError, AttributeError) as error:
            raise StorageError(f"{self.store.uri}/{path} is damaged: {error}") from error
        if not is_intact:
            raise StorageError(f"{self.store.uri}/{path} is damaged: its content has another digest than its name")
        return axis

    def stored(self) -> list[StoredRecord]:
        """Return all records by number, each as its file holds it; see :func:`check`.

        Raises:
            StorageError: the store is unreachable.
        """
        last = max((int(match[1]) for path in self._paths() if (match := RECORD.fullmatch(path))), default=0)
        new = sorted(set(range(1, last + 1)) - self._cache.keys())
        with ThreadPoolExecutor(MAX_CONCURRENT_READS) as pool:
            loaded = dict(zip(new, pool.map(self._load, new), strict=True))
        # A record that cannot be read is not cached: a later read may succeed.
        self._cache |= {number: stored for number, stored in loaded.items() if stored.is_readable}
        return [self._cache.get(number) or loaded[number] for number in range(1, last + 1)]

    def _load(self, number: int) -> StoredRecord:
        try:
            return read_stored(number, self.store.read(path_of(number)))
        except MissingError:
            return StoredRecord(_without_time(number, Damaged(problem="the file is missing")), b"")

    def _paths(self) -> list[str]:
        try:
            return [entry.path for entry in self.store.list()]
        except MissingError:  # nothing has been written yet
            return []


def read_stored(number: int, content: bytes) -> StoredRecord:
    """Return the record that a file holds; a torn or damaged one has an event of that kind."""
    try:
        fields: dict[str, Any] = json.loads(content)
        if CHECKSUM in fields and not has_checksum(fields):
            return StoredRecord(_without_time(number, Damaged(problem="it differs from its checksum")), content)
        at = datetime.fromisoformat(fields["at"])
        if at.tzinfo is None:
            raise ValueError("its time has no time zone")
        record = Record(number, at, read_event(str(fields["kind"]), fields), str(fields.get("by", "")))
        return StoredRecord(record, content, fields[BEFORE] if CHECKSUM in fields else None)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        problem = explain(error) if isinstance(error, ValidationError) else f"{type(error).__name__}: {error}"
        event = Damaged(problem=problem) if _is_complete(content) else Torn(problem="it is incomplete")
        return StoredRecord(_without_time(number, event), content)


def _is_complete(content: bytes) -> bool:
    """Return whether the end of a record's file was written: an interrupted write leaves no end, or zeros."""
    return content.rstrip().endswith(b"}")


@dataclass(frozen=True)
class CheckedRecords:
    """Records after a comparison with each other."""

    records: list[Record]
    """With the damage that only the digests of later records show. Accepted damage is torn: it has no effect."""
    digest: str
    """Digest over all of them, for the next record."""


def check(stored_records: Sequence[StoredRecord]) -> CheckedRecords:
    """Compare each record with the digests of the later ones."""
    records = [stored.record for stored in stored_records]
    value, is_chained, blamed_before = NO_RECORDS, False, False
    for index, stored in enumerate(stored_records):
        is_blamed = False
        if stored.before is not None:
            if stored.before != value:
                if blamed_before:  # the record that blamed its predecessor is the changed one
                    records[index - 2] = stored_records[index - 2].record
                changed = max(index - 1, 0)
                records[changed] = _changed(records[changed], stored.record.number, is_chained)
                is_blamed = index > 0
            # An intact record has the digest of the records as they were written.
            value, is_chained = stored.before, True
        elif is_chained and stored.is_readable:
            records[index] = _damaged(records[index], "it has no checksum, unlike an earlier record")
        value, blamed_before = _extended(value, stored.content), is_blamed
    accepted = {
        number for record in records if isinstance(record.event, DamageAccepted) for number in record.event.records
    }
    return CheckedRecords([_set_aside(record) if record.number in accepted else record for record in records], value)


def _extended(value: str, content: bytes) -> str:
    """Return the digest over the records of a digest and one more."""
    return hashlib.sha256(value.encode() + hashlib.sha256(content).digest()).hexdigest()


def _changed(record: Record, later: int, is_chained: bool) -> Record:
    """Return a record as damaged because the digest in a later record does not fit."""
    if isinstance(record.event, Damaged):  # its own problem says more
        return record
    what = "it" if is_chained else f"a record from 1 to {record.number}"
    return _damaged(record, f"{what} was changed after record {later} was written")


def _damaged(record: Record, problem: str) -> Record:
    return replace(record, event=Damaged(problem=problem))


def _set_aside(record: Record) -> Record:
    if not isinstance(record.event, Damaged):
        return record
    return replace(record, event=Torn(problem=f"{record.event.problem}; an operator has accepted this"))


def _refuse_damage(records: Iterable[Record]) -> None:
    if message := describe_damage(records):
        raise DamagedLedgerError(message)


def describe_damage(records: Iterable[Record]) -> str:
    """Return which records are damaged, and what to do; empty if none is."""
    damaged = [f"{record.number} ({record.event.problem})" for record in records if isinstance(record.event, Damaged)]
    if not damaged:
        return ""
    return (
        f"ledger: damaged record {', '.join(damaged)}. Nothing is trained or promoted, and what serves stays: "
        "run spira deliver check-ledger"
    )


def _without_time(number: int, event: Event) -> Record:
    return Record(number, datetime.min.replace(tzinfo=UTC), event)


def path_of(number: int) -> str:
    """Return the path of a record in the store."""
    return f"records/{number:06d}.json"
