"""The ledger with many writers, torn and missing records, and outages of its store."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spira.data.storage import StorageError, open_store
from spira.delivery.history.events import Approved, Damaged, Pinned, Refused, RolledBack, Unpinned
from spira.delivery.history.ledger import (
    DamagedLedgerError,
    Ledger,
    OvertakenError,
    Record,
    check,
    describe_damage,
    path_of,
)
from spira.delivery.history.state import DeliveryState, state_of
from spira.delivery.observation.fingerprints import with_pseudonyms
from spira.files import with_checksum
from tests.support.in_memory_world import Effects, MemoryStore
from tests.support.ledger_builder import FIRST, LedgerBuilder

NOW = datetime(2026, 11, 24, 6, tzinfo=UTC)
SIX_EVENTS = (
    Approved(version="1"),
    Pinned(version="1", reason="für die Studie"),
    Unpinned(version="1"),
    Refused(version="2", message="golden recording 3 differs"),
    RolledBack(bad="1", to="2", reason="false alarms"),
    Approved(version="2"),
)
FORK = multiprocessing.get_context("fork")


def numbers(state: DeliveryState) -> set[str]:
    """Return the numbers of the versions that an operator approved."""
    return {version.number for version in state.manual_approvals}


def ledger_in(folder: Path, writer: str = "me") -> Ledger:
    return Ledger(open_store(folder), writer)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """A ledger of three records."""
    ledger = ledger_in(tmp_path)
    for number, version in enumerate("123"):
        ledger.append(number, Approved(version=version), NOW)
    return ledger


def test_an_empty_ledger_has_no_records(tmp_path: Path) -> None:
    """The folder need not exist before the first record."""
    assert ledger_in(tmp_path / "nowhere").read() == []


def test_records_are_read_in_order_with_writer_and_time(ledger: Ledger, tmp_path: Path) -> None:
    records = ledger_in(tmp_path).read()
    assert records == [Record(number, NOW, Approved(version=str(number)), "me") for number in (1, 2, 3)]


def test_a_writer_that_has_not_read_the_last_record_is_refused(ledger: Ledger) -> None:
    with pytest.raises(OvertakenError, match="record 3"):
        ledger.append(2, Pinned(version="2", reason=""), NOW)
    assert ledger.read()[2].kind == "approved"


def test_each_number_has_one_writer(tmp_path: Path) -> None:
    """Several processes append at the same time, and each knows which numbers it has written."""
    with FORK.Pool(4) as pool:
        numbers_by_writer = pool.starmap(append_all, [(tmp_path, str(writer), 25) for writer in range(4)])
    records = ledger_in(tmp_path).read()
    assert len(records) == 25
    assert sorted(number for numbers in numbers_by_writer for number in numbers) == list(range(1, 26))
    for writer, numbers in enumerate(numbers_by_writer):
        assert all(records[number - 1].by == str(writer) for number in numbers)


def append_all(folder: Path, writer: str, count: int) -> list[int]:
    """Append until the ledger has ``count`` records; return the numbers that this writer has written."""
    ledger, numbers = ledger_in(folder, writer), []
    while (last := len(ledger.read())) < count:
        try:
            numbers.append(ledger.append(last, Unpinned(), NOW).number)
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
    assert ledger.append(0, Approved(version="1"), NOW).number == 1
    with pytest.raises(OvertakenError):
        ledger.append(0, Approved(version="1"), NOW)


@pytest.mark.parametrize("cut", [0, 1, 40, -1])
def test_a_torn_record_is_reported_and_set_aside(ledger: Ledger, tmp_path: Path, cut: int) -> None:
    """The other records count, and the next number is free."""
    path = tmp_path / "records" / "000003.json"
    path.write_bytes(path.read_bytes()[:cut])
    reopened = ledger_in(tmp_path)
    assert [record.kind for record in reopened.read()] == ["approved", "approved", "torn"]
    assert reopened.append(3, Approved(version="4"), NOW).number == 4
    state = state_of(ledger_in(tmp_path).read())
    assert (state.torn, state.damaged, numbers(state)) == ((3,), (), {"1", "2", "4"})


def test_zeros_after_a_power_cut_are_a_torn_record(ledger: Ledger, tmp_path: Path) -> None:
    """A file system may keep the length of a file and lose its content."""
    path = tmp_path / "records" / "000003.json"
    path.write_bytes(bytes(len(path.read_bytes())))
    assert ledger_in(tmp_path).read()[2].kind == "torn"


def test_a_record_that_is_torn_after_others_were_written_is_damaged(ledger: Ledger, tmp_path: Path) -> None:
    path = tmp_path / "records" / "000002.json"
    path.write_bytes(path.read_bytes()[:40])
    assert [record.kind for record in ledger_in(tmp_path).read()] == ["approved", "damaged", "approved"]


def test_a_missing_record_is_damaged(ledger: Ledger, tmp_path: Path) -> None:
    """The gap is never filled, because later records depend on what was read before."""
    (tmp_path / "records" / "000002.json").unlink()
    reopened = ledger_in(tmp_path)
    assert [record.kind for record in reopened.read()] == ["approved", "damaged", "approved"]
    with pytest.raises(DamagedLedgerError, match=r"damaged record 2 \(the file is missing\).* check-ledger"):
        reopened.append(3, Approved(version="4"), NOW)


@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), number=st.integers(1, 6))
def test_no_flipped_bit_changes_the_state_silently(position: float, bit: int, number: int) -> None:
    """A flipped bit is found, or it leaves the meaning of the record as it was, such as in white space."""
    store = MemoryStore(Effects())
    ledger = Ledger(store)
    for last, event in enumerate(SIX_EVENTS):
        ledger.append(last, event, NOW)
    before = state_of(ledger.read())
    content = bytearray(store.files[path_of(number)])
    content[int(position * len(content))] ^= 1 << bit
    store.files[path_of(number)] = bytes(content)
    after = state_of(Ledger(store).read())
    assert after == before or number in (*after.damaged, *after.torn)
    if number < len(SIX_EVENTS):  # a later record has the digest of this one
        assert after.damaged == (number,)


@given(number=st.integers(1, 6), version=st.text(max_size=3))
def test_a_record_that_was_written_again_with_a_right_checksum_is_damaged(number: int, version: str) -> None:
    """Of the last two, one is named: which of them was written again cannot be known."""
    store = MemoryStore(Effects())
    ledger = Ledger(store)
    for last, event in enumerate(SIX_EVENTS):
        ledger.append(last, event, NOW)
    other = Ledger(MemoryStore(Effects()))
    for last, event in enumerate((*SIX_EVENTS[: number - 1], Refused(version=version, message=""))):
        other.append(last, event, NOW)
    store.files[path_of(number)] = other.store.read(path_of(number))
    damaged = state_of(Ledger(store).read()).damaged
    assert damaged == ((number,) if number < len(SIX_EVENTS) else (number - 1,))


def old_ledger(folder: Path) -> LedgerBuilder:
    """Return a ledger of three records as version 79862e6 wrote them, and one new record."""
    ledger_builder = LedgerBuilder(folder)
    for version in "123":
        ledger_builder.add_stored("approved", version=version, who="me")
    ledger_builder.add(Approved(version="4"))
    return ledger_builder


def test_records_of_an_older_program_are_covered_by_the_next_new_one(tmp_path: Path) -> None:
    """The message names all of them, because the changed one is not known."""
    ledger = old_ledger(tmp_path).ledger
    assert numbers(state_of(ledger_in(tmp_path).read())) == {"1", "2", "3", "4"}
    path = tmp_path / "records" / "000001.json"
    path.write_bytes(path.read_bytes().replace(b'"1"', b'"9"'))
    assert describe_damage(ledger_in(tmp_path).read()).startswith(
        "ledger: damaged record 3 (a record from 1 to 3 was changed after record 4 was written)"
    )
    assert describe_damage(ledger.read()) == ""  # this process has read the records before they were changed


def test_an_old_record_among_new_ones_is_damaged(tmp_path: Path) -> None:
    """An attacker could remove the checksum from a record otherwise."""
    ledger_builder = old_ledger(tmp_path)
    ledger_builder.add_stored("approved", version="5")
    last = ledger_in(tmp_path).read()[-1]
    assert last.event == Damaged(problem="it has no checksum, unlike an earlier record")


@pytest.mark.parametrize("content", [b"[]", b'{"kind": "pinned"}', b'{"kind": "pinned", "at": "2026-11-24"}', b"\xff}"])
def test_a_complete_record_that_cannot_be_read_is_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "000001.json").write_bytes(content)
    assert ledger_in(tmp_path).read()[0].kind == ("torn" if content == b"[]" else "damaged")


def test_an_unreachable_store_is_not_an_empty_ledger() -> None:
    """An empty ledger would have everything trained again."""
    store = MemoryStore(Effects())
    ledger = Ledger(store)
    ledger.append(0, Approved(version="1"), NOW)
    store.reachable = False
    with pytest.raises(StorageError):
        ledger.read()
    with pytest.raises(StorageError):
        Ledger(store).read()


def test_a_record_of_a_newer_program_changes_nothing(ledger: Ledger, tmp_path: Path) -> None:
    """It has a checksum and an unknown kind."""
    before = state_of(ledger.read())
    fields = {"kind": "something-new", "at": NOW.isoformat(), "x": 1, "before": check(ledger.stored()).digest}
    ledger.store.write(path_of(4), json.dumps(with_checksum(fields)).encode())
    assert state_of(ledger_in(tmp_path).read()) == replace(before, last=4)


def test_the_parts_of_an_axis_are_stored_by_digest(ledger: Ledger, tmp_path: Path) -> None:
    """A damaged file is refused, and repaired by the next observation."""
    observed = FIRST
    ledger.save_axes(observed)
    ledger.save_axes(observed)
    pseudonymous = with_pseudonyms(observed.data, ledger.pseudonyms)
    assert ledger.load_axis("data", observed.data.digest) == pseudonymous
    code = tmp_path / "axes" / f"code-{observed.code.digest}.json"
    for damage in ("{", "[]", '{"python": "3.11.8"}'):
        code.write_text(damage)
        with pytest.raises(StorageError, match="damaged"):
            ledger.load_axis("code", observed.code.digest)
    data = tmp_path / "axes" / f"data-{observed.data.digest}.json"
    for damage in ('{"a.wav": "1"}', '{"a.wav": 1}'):
        data.write_text(damage)
        with pytest.raises(StorageError, match="damaged"):
            ledger.load_axis("data", observed.data.digest)
    ledger.save_axes(observed)
    assert ledger.load_axis("code", observed.code.digest) == observed.code


def test_a_record_is_a_json_file(ledger: Ledger, tmp_path: Path) -> None:
    """People and other programs can read it."""
    body = json.loads((tmp_path / "records" / "000001.json").read_text())
    assert (body["kind"], body["at"], body["version"]) == ("approved", NOW.isoformat(), "1")


def test_a_bucket_accepts_one_writer_for_each_number(bucket: str) -> None:
    """On emulators of Google Cloud Storage and of S3, whose conditional writes decide which writer was first."""
    first, second = Ledger(open_store(bucket), "first"), Ledger(open_store(bucket), "second")
    first.append(0, Approved(version="1"), NOW)
    with pytest.raises(OvertakenError):
        second.append(0, Approved(version="2"), NOW)
    assert second.append(len(second.read()), Approved(version="2"), NOW).number == 2
    assert numbers(state_of(first.read())) == {"1", "2"}
