"""The ledger with many writers, torn and missing records, and outages of its store."""

from __future__ import annotations

import json
import multiprocessing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from spira.data.storage import StorageError, open_store
from spira.delivery.fingerprints import Axes, axis_of
from spira.delivery.ledger import Ledger, OvertakenError
from spira.delivery.state import state_of
from tests.support.in_memory_world import Effects, MemoryStore

NOW = datetime(2026, 11, 24, 6, tzinfo=UTC)
FORK = multiprocessing.get_context("fork")


def ledger_in(folder: Path, writer: str = "me") -> Ledger:
    return Ledger(open_store(folder), writer)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """A ledger of three records."""
    ledger = ledger_in(tmp_path)
    for number, version in enumerate("123"):
        ledger.append(number, "approved", NOW, {"version": version})
    return ledger


def test_an_empty_ledger_has_no_records(tmp_path: Path) -> None:
    """The folder need not exist before the first record."""
    assert ledger_in(tmp_path / "nowhere").read() == []


def test_records_are_read_in_order_with_writer_and_time(ledger: Ledger, tmp_path: Path) -> None:
    records = ledger_in(tmp_path).read()
    assert [(record.number, record.kind, record.body["version"]) for record in records] == [
        (1, "approved", "1"),
        (2, "approved", "2"),
        (3, "approved", "3"),
    ]
    assert (records[0].at, records[0].body["by"]) == (NOW, "me")


def test_a_writer_that_has_not_read_the_last_record_is_refused(ledger: Ledger) -> None:
    with pytest.raises(OvertakenError, match="record 3"):
        ledger.append(2, "pinned", NOW, {"version": "2", "reason": ""})
    assert ledger.read()[2].kind == "approved"


def test_each_number_has_one_writer(tmp_path: Path) -> None:
    """Several processes append at the same time, and each knows which numbers it has written."""
    with FORK.Pool(4) as pool:
        numbers_by_writer = pool.starmap(append_all, [(tmp_path, str(writer), 25) for writer in range(4)])
    records = ledger_in(tmp_path).read()
    assert len(records) == 25
    assert sorted(number for numbers in numbers_by_writer for number in numbers) == list(range(1, 26))
    for writer, numbers in enumerate(numbers_by_writer):
        assert all(records[number - 1].body["by"] == str(writer) for number in numbers)


def append_all(folder: Path, writer: str, count: int) -> list[int]:
    """Append until the ledger has ``count`` records; return the numbers that this writer has written."""
    ledger, numbers = ledger_in(folder, writer), []
    while (last := len(ledger.read())) < count:
        try:
            numbers.append(ledger.append(last, "claimed-in-test", NOW).number)
        except OvertakenError:
            continue
    return numbers


class LosingStore(MemoryStore):
    """A bucket whose client repeats a request after a lost response, and returns False although it has written."""

    def create(self, path: str, data: bytes) -> bool:
        super().create(path, data)
        return super().create(path, data)


def test_a_record_whose_response_was_lost_is_recognised() -> None:
    """The stored record has the id of this writer."""
    ledger = Ledger(LosingStore(Effects()))
    assert ledger.append(0, "approved", NOW, {"version": "1"}).number == 1
    with pytest.raises(OvertakenError):
        ledger.append(0, "approved", NOW, {"version": "1"})


@pytest.mark.parametrize("content", [b"", b"{", b'{"kind": "approved"', b"[]", b'{"kind": "pinned"}', b"\xff\xfe"])
def test_a_torn_record_is_reported_and_skipped(ledger: Ledger, tmp_path: Path, content: bytes) -> None:
    """It is damaged, the other records count, and the next number is free."""
    (tmp_path / "records" / "000003.json").write_bytes(content)
    reopened = ledger_in(tmp_path)
    assert [record.kind for record in reopened.read()] == ["approved", "approved", "damaged"]
    assert state_of(reopened.read()).damaged == (3,)
    assert reopened.append(3, "approved", NOW, {"version": "4"}).number == 4
    assert state_of(reopened.read()).manual_approvals == {"1", "2", "4"}


def test_a_missing_record_is_damaged(ledger: Ledger, tmp_path: Path) -> None:
    """The gap is reported and never filled, because later records depend on what was read before."""
    (tmp_path / "records" / "000002.json").unlink()
    reopened = ledger_in(tmp_path)
    assert [record.kind for record in reopened.read()] == ["approved", "damaged", "approved"]
    assert reopened.append(3, "approved", NOW, {"version": "4"}).number == 4


def test_an_unreachable_store_is_not_an_empty_ledger() -> None:
    """Otherwise everything would be trained again."""
    store = MemoryStore(Effects())
    ledger = Ledger(store)
    ledger.append(0, "approved", NOW, {"version": "1"})
    store.reachable = False
    with pytest.raises(StorageError):
        ledger.read()
    with pytest.raises(StorageError):
        Ledger(store).read()


def test_a_record_of_a_newer_program_changes_nothing(ledger: Ledger) -> None:
    before = state_of(ledger.read())
    ledger.append(3, "something-new", NOW, {"x": 1})
    assert state_of(ledger.read()).manual_approvals == before.manual_approvals


def test_the_parts_of_an_axis_are_stored_by_digest(ledger: Ledger, tmp_path: Path) -> None:
    """A damaged file is refused, and repaired by the next observation."""
    observed = Axes(*(axis_of({name: "1"}) for name in ("a.wav", "training.seeds", "spira/features/noise.py")))
    ledger.save_axes(observed)
    ledger.save_axes(observed)
    assert ledger.load_axis("data", observed.data.digest) == observed.data
    (tmp_path / "axes" / f"code-{observed.code.digest}.json").write_text("{")
    with pytest.raises(StorageError, match="damaged"):
        ledger.load_axis("code", observed.code.digest)
    ledger.save_axes(observed)
    assert ledger.load_axis("code", observed.code.digest) == observed.code


def test_a_record_is_a_json_file(ledger: Ledger, tmp_path: Path) -> None:
    """People and other programs can read it."""
    body = json.loads((tmp_path / "records" / "000001.json").read_text())
    assert (body["kind"], body["at"], body["version"]) == ("approved", NOW.isoformat(), "1")


def test_a_bucket_accepts_one_writer_for_each_number(bucket: str) -> None:
    """On emulators of Google Cloud Storage and of S3, whose conditional writes decide which writer was first."""
    first, second = Ledger(open_store(bucket), "first"), Ledger(open_store(bucket), "second")
    first.append(0, "approved", NOW, {"version": "1"})
    with pytest.raises(OvertakenError):
        second.append(0, "approved", NOW, {"version": "2"})
    assert second.append(len(second.read()), "approved", NOW, {"version": "2"}).number == 2
    assert state_of(first.read()).manual_approvals == {"1", "2"}
