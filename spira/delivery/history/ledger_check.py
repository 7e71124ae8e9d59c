"""Check and repair of a ledger whose records were changed or removed, such as by a damaged disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spira.data.storage import MissingError, Store
from spira.delivery.history.events import Damaged, Torn
from spira.delivery.history.ledger import Ledger, Record, StoredRecord, path_of, read_stored
from spira.delivery.history.ledger import check as compare
from spira.errors import SpiraError


@dataclass(frozen=True)
class LedgerCheck:
    """Result of a check of all records."""

    records: int
    """Number of all records."""
    torn: tuple[Record, ...]
    """Records that were set aside; they have no effect."""
    damaged: tuple[Record, ...]
    """Records that stop training and promotion."""
    without_checksum: int
    """Number of records of older programs, of which only the next newer record has a digest."""


def check(ledger: Ledger) -> LedgerCheck:
    """Read every record again and compare it with its checksum and with the digests of later records.

    Raises:
        StorageError: the store is unreachable.
    """
    stored = _stored(ledger)
    records = compare(stored).records
    return LedgerCheck(
        records=len(records),
        torn=tuple(record for record in records if isinstance(record.event, Torn)),
        damaged=tuple(record for record in records if isinstance(record.event, Damaged)),
        without_checksum=sum(record.is_readable and record.before is None for record in stored),
    )


def repair(ledger: Ledger, backup: Store) -> tuple[int, ...]:
    """Replace damaged records by those of a backup that fit the digests of the other records.

    The replaced content is kept under ``damaged/``.

    Returns:
        Numbers of the records that were replaced.

    Raises:
        SpiraError: no record is damaged, or the backup has none that fits.
        StorageError: a store is unreachable.
    """
    stored = _stored(ledger)
    damaged = _damaged_numbers(stored)
    if not damaged:
        raise SpiraError("no record of the ledger is damaged")
    repaired, still_damaged = stored, damaged
    while still_damaged:
        candidates = [_from_backup(item, backup) if _may_differ(item, still_damaged) else item for item in repaired]
        if candidates == repaired:
            break
        repaired, still_damaged = candidates, _damaged_numbers(candidates)  # a repair may show damage before it
    if not damaged - still_damaged:
        numbers = ", ".join(map(str, sorted(damaged)))
        raise SpiraError(
            f"{backup.uri} has no record {numbers} that fits this ledger: give another backup, or leave the record out "
            "with --accept-damage"
        )
    replaced = []
    for before, after in zip(stored, repaired, strict=True):
        number = before.record.number
        if before.content == after.content or number in still_damaged:
            continue
        if before.content:
            ledger.store.write(f"damaged/{number:06d}.json", before.content)
        ledger.store.write(path_of(number), after.content)
        replaced.append(number)
    return tuple(replaced)


def _damaged_numbers(stored: Sequence[StoredRecord]) -> set[int]:
    return {record.number for record in compare(stored).records if isinstance(record.event, Damaged)}


def _stored(ledger: Ledger) -> list[StoredRecord]:
    """Return the records as their files hold them now, whatever this process has read before."""
    return Ledger(ledger.store).stored()


def _may_differ(stored: StoredRecord, damaged: set[int]) -> bool:
    """Return whether a record is damaged or, having no checksum, may be the one of several that was changed."""
    return stored.record.number in damaged or stored.before is None


def _from_backup(stored: StoredRecord, backup: Store) -> StoredRecord:
    number = stored.record.number
    try:
        copy = read_stored(number, backup.read(path_of(number)))
    except MissingError:
        return stored
    return copy if copy.is_readable else stored
