"""Commands of the operator: recorded once, or refused with what to do."""

from __future__ import annotations

import getpass
import multiprocessing
from pathlib import Path

import pytest

from spira.data.storage import open_store
from spira.delivery import operator_commands
from spira.delivery.history.events import Approved, Pinned, Retried, RolledBack, Unpinned
from spira.delivery.history.ledger import Ledger, OvertakenError
from spira.delivery.history.state import state_of
from spira.errors import SpiraError
from tests.support.ledger_builder import FIRST, SECOND, START, THIRD, LedgerBuilder


@pytest.fixture
def two_versions(ledger_builder: LedgerBuilder) -> LedgerBuilder:
    """A ledger of two versions, the second of which serves."""
    ledger_builder.deliver(FIRST, "1")
    ledger_builder.deliver(SECOND, "2")
    return ledger_builder


def test_a_pin_records_version_reason_and_user(two_versions: LedgerBuilder) -> None:
    """It holds until it is removed."""
    record = operator_commands.pin(two_versions.ledger, "1", "compared this week")
    assert record.event == Pinned(version="1", reason="compared this week", who=getpass.getuser())
    assert two_versions.ledger.read()[-1].event == record.event
    assert operator_commands.unpin(two_versions.ledger).event == Unpinned(version="1", who=getpass.getuser())
    assert state_of(two_versions.ledger.read()).pin is None


def test_a_pin_of_an_unknown_version_is_refused(two_versions: LedgerBuilder) -> None:
    """Nothing is recorded; the message lists the known versions."""
    before = len(two_versions.ledger.read())
    with pytest.raises(SpiraError, match="version 7 is not in the ledger; approved or delivered versions: 1, 2"):
        operator_commands.pin(two_versions.ledger, "7", "a typing error")
    assert len(two_versions.ledger.read()) == before


def test_an_empty_ledger_refuses_every_command(ledger_builder: LedgerBuilder) -> None:
    with pytest.raises(SpiraError, match="approved or delivered versions: none"):
        operator_commands.pin(ledger_builder.ledger, "1", "why not")
    with pytest.raises(SpiraError, match="no version is pinned"):
        operator_commands.unpin(ledger_builder.ledger)
    with pytest.raises(SpiraError, match="cannot roll back"):
        operator_commands.roll_back(ledger_builder.ledger, "bad")
    with pytest.raises(SpiraError, match="no version waits for approval"):
        operator_commands.approve(ledger_builder.ledger, "1")
    with pytest.raises(SpiraError, match="nothing to cancel: no run is active"):
        operator_commands.cancel(ledger_builder.ledger)
    with pytest.raises(SpiraError, match="nothing to retry"):
        operator_commands.retry(ledger_builder.ledger)
    assert ledger_builder.ledger.read() == []


def test_a_rollback_pins_the_version_before(two_versions: LedgerBuilder) -> None:
    """The version that is left cannot be pinned any more."""
    event = operator_commands.roll_back(two_versions.ledger, "false alarms").event
    assert event == RolledBack(bad="2", to="1", reason="false alarms", who=getpass.getuser())
    with pytest.raises(SpiraError, match=r"version 2 was rolled back \(false alarms\)"):
        operator_commands.pin(two_versions.ledger, "2", "once more")


def test_repeated_rollbacks_go_back_until_no_version_is_left(two_versions: LedgerBuilder) -> None:
    """A rollback never returns to a version that was rolled back."""
    two_versions.deliver(THIRD, "3")
    events = [operator_commands.roll_back(two_versions.ledger, "bad").event for _ in range(2)]
    assert [event.to for event in events if isinstance(event, RolledBack)] == ["2", "1"]
    with pytest.raises(SpiraError, match="cannot roll back: there is no other delivered version"):
        operator_commands.roll_back(two_versions.ledger, "bad")


def test_a_rollback_can_name_its_version(two_versions: LedgerBuilder) -> None:
    """It must be in the ledger, and not the version that is left."""
    two_versions.deliver(THIRD, "3")
    with pytest.raises(SpiraError, match="cannot roll back from version 3 to itself: name another version"):
        operator_commands.roll_back(two_versions.ledger, "bad", "3")
    with pytest.raises(SpiraError, match="version 9 is not in the ledger"):
        operator_commands.roll_back(two_versions.ledger, "bad", "9")
    event = operator_commands.roll_back(two_versions.ledger, "bad", "1").event
    assert isinstance(event, RolledBack)
    assert event.to == "1"


def test_only_the_version_that_waits_is_approved(two_versions: LedgerBuilder) -> None:
    with pytest.raises(SpiraError, match="no version waits for approval"):
        operator_commands.approve(two_versions.ledger, "2")
    two_versions.run(two_versions.observe(THIRD), "approved", "3")
    with pytest.raises(SpiraError, match="version 2 does not wait for approval; version 3 does"):
        operator_commands.approve(two_versions.ledger, "2")
    event = operator_commands.approve(two_versions.ledger, "3").event
    assert event == Approved(version="3", who=getpass.getuser())


def test_only_a_failed_observation_is_retried(ledger_builder: LedgerBuilder) -> None:
    """A rejection is a verdict, not a failure."""
    fingerprint = ledger_builder.observe(FIRST)
    ledger_builder.run(fingerprint, "failed")
    event = operator_commands.retry(ledger_builder.ledger).event
    assert event == Retried(fingerprint=fingerprint, who=getpass.getuser())
    assert state_of(ledger_builder.ledger.read()).failures_reset == {fingerprint: 1}
    ledger_builder.run(ledger_builder.observe(SECOND), "rejected")
    with pytest.raises(SpiraError, match="nothing to retry: the last run for the observed input has not failed"):
        operator_commands.retry(ledger_builder.ledger)


def test_concurrent_commands_are_checked_against_each_other(two_versions: LedgerBuilder) -> None:
    """Of eight processes that remove the same pin, one succeeds."""
    operator_commands.pin(two_versions.ledger, "1", "for all")
    before = len(two_versions.ledger.read())
    folder = Path(two_versions.ledger.store.uri)
    with multiprocessing.get_context("fork").Pool(4) as pool:
        results = pool.map(_unpin, [folder] * 8)
    assert sorted(results) == ["no version is pinned"] * 7 + ["unpinned"]
    assert len(two_versions.ledger.read()) == before + 1


def _unpin(folder: Path) -> str:
    try:
        return operator_commands.unpin(Ledger(open_store(folder))).kind
    except SpiraError as error:
        return str(error)


def test_a_command_that_is_always_overtaken_gives_up(two_versions: LedgerBuilder) -> None:
    """It must not hang while other processes write all the time."""

    class OvertakenLedger(Ledger):
        def read(self):  # always lacks the record that the other process has just written
            records = super().read()
            other.append(records[-1].number, Retried(fingerprint="f"), START)
            return records

    other = Ledger(two_versions.ledger.store, "another")
    overtaken = OvertakenLedger(two_versions.ledger.store, "an operator")
    with pytest.raises(OvertakenError, match="run again"):
        operator_commands.pin(overtaken, "1", "in vain")
    assert sum(record.kind == "pinned" for record in other.read()) == 0
