"""Check of a ledger, and its repair from a backup."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from spira.data.storage import Folder
from spira.delivery import operator_commands
from spira.delivery.history import ledger_check
from spira.delivery.history.ledger import Ledger
from spira.delivery.history.state import state_of
from spira.errors import SpiraError
from tests.support.ledger_builder import FIRST, SECOND, LedgerBuilder


@pytest.fixture
def ledger(ledger_builder: LedgerBuilder) -> Ledger:
    """A ledger of ten records and two delivered versions."""
    ledger_builder.deliver(FIRST, "1")
    ledger_builder.deliver(SECOND, "2")
    return ledger_builder.ledger


@pytest.fixture
def backup(ledger: Ledger, tmp_path: Path) -> Path:
    """A copy of the intact ledger."""
    return shutil.copytree(root(ledger), tmp_path / "backup")


def root(ledger: Ledger) -> Path:
    return Path(ledger.store.uri)


def record_file(folder: Path, number: int) -> Path:
    return folder / "records" / f"{number:06d}.json"


def test_an_intact_ledger_needs_no_repair(ledger: Ledger, backup: Path) -> None:
    check = ledger_check.check(ledger)
    assert (check.records, check.torn, check.damaged, check.without_checksum) == (10, (), (), 0)
    with pytest.raises(SpiraError, match="no record of the ledger is damaged"):
        ledger_check.repair(ledger, Folder(backup))
    with pytest.raises(SpiraError, match="no record of the ledger is damaged"):
        operator_commands.accept_damage(ledger, "why not")


def test_damaged_records_are_restored(ledger: Ledger, backup: Path) -> None:
    """A changed record, a removed one and a torn one; the replaced content is kept."""
    before = state_of(ledger.read())
    changed = record_file(root(ledger), 8)
    changed.write_bytes(changed.read_bytes().replace(b'"2"', b'"1"'))
    damaged_content = changed.read_bytes()
    record_file(root(ledger), 3).unlink()
    record_file(root(ledger), 5).write_bytes(b"{")
    assert [record.number for record in ledger_check.check(ledger).damaged] == [3, 5, 8]
    assert ledger_check.repair(ledger, Folder(backup)) == (3, 5, 8)
    assert state_of(Ledger(ledger.store).read()) == before
    assert (root(ledger) / "damaged" / "000008.json").read_bytes() == damaged_content


def test_a_backup_that_does_not_fit_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    """The record of another ledger has another digest over the records before it. Nothing is written."""
    other = LedgerBuilder(tmp_path / "other")
    other.deliver(SECOND, "2")
    other.deliver(FIRST, "1")
    record_file(root(ledger), 4).unlink()
    with pytest.raises(SpiraError, match="has no record 4 that fits this ledger"):
        ledger_check.repair(ledger, other.ledger.store)
    assert not record_file(root(ledger), 4).exists()


def test_a_changed_record_of_an_older_program_is_restored(ledger_builder: LedgerBuilder, tmp_path: Path) -> None:
    """Without a checksum it is not known which record was changed; the backup tells."""
    for version in "123":
        ledger_builder.add_stored("approved", version=version, who="me")
    ledger_builder.deliver(FIRST, "4")
    ledger = ledger_builder.ledger
    backup = shutil.copytree(root(ledger), tmp_path / "backup")
    first = record_file(root(ledger), 1)
    first.write_bytes(first.read_bytes().replace(b'"1"', b'"9"'))
    assert ledger_check.check(ledger).without_checksum == 3
    assert ledger_check.repair(ledger, Folder(backup)) == (1,)
    assert not ledger_check.check(ledger).damaged


def test_accepted_damage_has_no_effect(ledger: Ledger) -> None:
    """Without the record of the promotion, version 1 is the wanted one no more than before; later records count."""
    record_file(root(ledger), 5).unlink()
    reopened = Ledger(ledger.store)
    operator_commands.accept_damage(reopened, "the disk is broken")
    state = state_of(Ledger(ledger.store).read())
    assert (state.torn, state.damaged) == ((5,), ())
    assert [delivery.version.number for delivery in state.deliveries] == ["2"]
