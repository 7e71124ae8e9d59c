"""The ledger: written once, by one of many; read whole whatever became of a record."""

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


def ledger_in(folder: Path, who: str = "me") -> Ledger:
    return Ledger(open_store(folder), who)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """A ledger of three records."""
    made = ledger_in(tmp_path)
    for number, version in enumerate("123"):
        made.append(number, "approved", NOW, {"version": version})
    return made


def test_an_empty_ledger_reads_as_nothing(tmp_path: Path) -> None:
    """Before anything was written there need not even be a folder."""
    assert ledger_in(tmp_path / "nowhere").read() == []


def test_what_is_appended_is_read(ledger: Ledger, tmp_path: Path) -> None:
    """In order, by whoever opens it, with the writer and the time."""
    records = ledger_in(tmp_path).read()
    assert [(record.number, record.kind, record.body["version"]) for record in records] == [
        (1, "approved", "1"),
        (2, "approved", "2"),
        (3, "approved", "3"),
    ]
    assert (records[0].at, records[0].body["by"]) == (NOW, "me")


def test_a_number_is_given_once(ledger: Ledger) -> None:
    """Who has not read the last record can't append."""
    with pytest.raises(OvertakenError, match="record 3"):
        ledger.append(2, "pinned", NOW, {"version": "2", "reason": ""})
    assert ledger.read()[2].kind == "approved"


def test_of_many_writers_one_gets_the_number(tmp_path: Path) -> None:
    """Real processes, all at once, again and again: each number has one writer, who knows it."""
    with FORK.Pool(4) as pool:
        won = pool.starmap(claim_all, [(tmp_path, str(who), 25) for who in range(4)])
    records = ledger_in(tmp_path).read()
    assert len(records) == 25
    assert sorted(number for numbers in won for number in numbers) == list(range(1, 26))
    for who, numbers in enumerate(won):
        assert all(records[number - 1].body["by"] == str(who) for number in numbers)


def claim_all(folder: Path, who: str, count: int) -> list[int]:
    """The numbers that this writer got of all there are to get."""
    mine, got = ledger_in(folder, who), []
    while (last := len(mine.read())) < count:
        try:
            got.append(mine.append(last, "claimed-in-test", NOW).number)
        except OvertakenError:
            continue
    return got


class LosingStore(MemoryStore):
    """A bucket whose client repeats a request after its answer was lost, and says False of its own write."""

    def create(self, path: str, data: bytes) -> bool:
        super().create(path, data)
        return super().create(path, data)


def test_a_lost_answer_is_no_lost_record() -> None:
    """The record that is there is looked at: it is one's own."""
    ledger = Ledger(LosingStore(Effects()))
    assert ledger.append(0, "approved", NOW, {"version": "1"}).number == 1
    with pytest.raises(OvertakenError):
        ledger.append(0, "approved", NOW, {"version": "1"})


@pytest.mark.parametrize("content", [b"", b"{", b'{"kind": "approved"', b"[]", b'{"kind": "pinned"}', b"\xff\xfe"])
def test_a_torn_record_is_passed_over(ledger: Ledger, tmp_path: Path, content: bytes) -> None:
    """Half-written or worse: told as damaged, the others count, and the next number is free."""
    (tmp_path / "records" / "000003.json").write_bytes(content)
    again = ledger_in(tmp_path)
    assert [record.kind for record in again.read()] == ["approved", "approved", "damaged"]
    assert state_of(again.read()).damaged == (3,)
    assert again.append(3, "approved", NOW, {"version": "4"}).number == 4
    assert state_of(again.read()).manual_approvals == {"1", "2", "4"}


def test_a_lost_record_is_damaged_too(ledger: Ledger, tmp_path: Path) -> None:
    """A gap is said, and nobody may fill it: what was decided since stands on what was read then."""
    (tmp_path / "records" / "000002.json").unlink()
    again = ledger_in(tmp_path)
    assert [record.kind for record in again.read()] == ["approved", "damaged", "approved"]
    assert again.append(3, "approved", NOW, {"version": "4"}).number == 4


def test_a_store_that_is_away_is_no_empty_ledger() -> None:
    """Or everything would be done again."""
    store = MemoryStore(Effects())
    ledger = Ledger(store)
    ledger.append(0, "approved", NOW, {"version": "1"})
    store.reachable = False
    with pytest.raises(StorageError):
        ledger.read()
    with pytest.raises(StorageError):
        Ledger(store).read()


def test_a_record_of_a_newer_program_counts_for_nothing(ledger: Ledger) -> None:
    """It is kept, and read over."""
    before = state_of(ledger.read())
    ledger.append(3, "something-new", NOW, {"x": 1})
    assert state_of(ledger.read()).manual_approvals == before.manual_approvals


def test_what_a_digest_stands_for_is_kept(ledger: Ledger, tmp_path: Path) -> None:
    """By axis, for whoever asks why; a damaged one is said."""
    observed = Axes(*(axis_of({name: "1"}) for name in ("a.wav", "training.seeds", "spira/features/noise.py")))
    ledger.keep(observed)
    ledger.keep(observed)
    assert ledger.axis("data", observed.data.digest) == observed.data
    (tmp_path / "axes" / f"code-{observed.code.digest}.json").write_text("{")
    with pytest.raises(StorageError, match="damaged"):
        ledger.axis("code", observed.code.digest)
    ledger.keep(observed)
    assert ledger.axis("code", observed.code.digest) == observed.code


def test_records_are_for_people_too(ledger: Ledger, tmp_path: Path) -> None:
    """A file a record, JSON, readable without this program."""
    told = json.loads((tmp_path / "records" / "000001.json").read_text())
    assert (told["kind"], told["at"], told["version"]) == ("approved", NOW.isoformat(), "1")


def test_on_a_bucket(bucket: str) -> None:
    """The same on Google Cloud Storage (an emulator of it), where the generation decides who was first."""
    one, other = Ledger(open_store(bucket), "one"), Ledger(open_store(bucket), "other")
    one.append(0, "approved", NOW, {"version": "1"})
    with pytest.raises(OvertakenError):
        other.append(0, "approved", NOW, {"version": "2"})
    assert other.append(len(other.read()), "approved", NOW, {"version": "2"}).number == 2
    assert state_of(one.read()).manual_approvals == {"1", "2"}
