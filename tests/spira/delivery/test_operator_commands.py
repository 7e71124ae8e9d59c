"""What a person may say: each order recorded once, or refused with what to do."""

from __future__ import annotations

import getpass
import multiprocessing
from pathlib import Path

import pytest

from spira.data.storage import open_store
from spira.delivery import operator_commands
from spira.delivery.ledger import Ledger, OvertakenError
from spira.delivery.state import state_of
from spira.errors import SpiraError
from tests.support.ledger_builder import START, Book, observed

FIRST, SECOND, THIRD = (observed(model={"training.learning_rate": rate}) for rate in ("0.1", "0.2", "0.3"))


@pytest.fixture
def two(book: Book) -> Book:
    """A ledger of two versions, the second of which serves."""
    book.deliver(FIRST, "1")
    book.deliver(SECOND, "2")
    return book


def test_a_pin_tells_who_and_why(two: Book) -> None:
    """And holds until it is taken off."""
    record = operator_commands.pin(two.ledger, "1", "compared this week")
    assert (record.kind, record.body) == (
        "pinned",
        {"version": "1", "reason": "compared this week", "who": getpass.getuser()},
    )
    assert two.ledger.read()[-1].body.items() >= record.body.items()
    assert operator_commands.unpin(two.ledger).body["version"] == "1"
    assert state_of(two.ledger.read()).pin is None


def test_only_a_version_that_the_ledger_knows_is_pinned(two: Book) -> None:
    """Nothing is recorded of another; the refusal names those there are."""
    before = len(two.ledger.read())
    with pytest.raises(SpiraError, match="the ledger knows no version 7; approved or delivered: 1, 2"):
        operator_commands.pin(two.ledger, "7", "a slip")
    assert len(two.ledger.read()) == before


def test_an_empty_ledger_has_nothing_to_give_orders_about(book: Book) -> None:
    """Each order says so in its own words."""
    with pytest.raises(SpiraError, match="approved or delivered: none"):
        operator_commands.pin(book.ledger, "1", "why not")
    with pytest.raises(SpiraError, match="no version is pinned"):
        operator_commands.unpin(book.ledger)
    with pytest.raises(SpiraError, match="nothing to go back to"):
        operator_commands.roll_back(book.ledger, "bad")
    with pytest.raises(SpiraError, match="no version waits for approval"):
        operator_commands.approve(book.ledger, "1")
    with pytest.raises(SpiraError, match="nothing to try again"):
        operator_commands.retry(book.ledger)
    assert book.ledger.read() == []


def test_a_rollback_leaves_what_serves_for_what_served_before(two: Book) -> None:
    """The version that is left can't be pinned any more."""
    body = operator_commands.roll_back(two.ledger, "false alarms").body
    assert (body["bad"], body["to"], body["reason"]) == ("2", "1", "false alarms")
    with pytest.raises(SpiraError, match=r"version 2 was rolled back \(false alarms\)"):
        operator_commands.pin(two.ledger, "2", "once more")


def test_a_second_rollback_goes_further_back_and_a_third_nowhere(two: Book) -> None:
    """Never to what was rolled back from."""
    two.deliver(THIRD, "3")
    assert [operator_commands.roll_back(two.ledger, "bad").body["to"] for _ in range(2)] == ["2", "1"]
    with pytest.raises(SpiraError, match="nothing to go back to: no other version was delivered"):
        operator_commands.roll_back(two.ledger, "bad")


def test_a_rollback_may_name_where_to(two: Book) -> None:
    """A version of the ledger's, and not the one that is left."""
    two.deliver(THIRD, "3")
    with pytest.raises(SpiraError, match="version 3 is what is rolled back from: name another"):
        operator_commands.roll_back(two.ledger, "bad", "3")
    with pytest.raises(SpiraError, match="the ledger knows no version 9"):
        operator_commands.roll_back(two.ledger, "bad", "9")
    assert operator_commands.roll_back(two.ledger, "bad", "1").body["to"] == "1"


def test_only_the_version_that_waits_is_approved(two: Book) -> None:
    """Not one that serves, and not another by mistake."""
    with pytest.raises(SpiraError, match="no version waits for approval"):
        operator_commands.approve(two.ledger, "2")
    two.run(two.observe(THIRD), "approved", "3")
    with pytest.raises(SpiraError, match="version 2 doesn't wait for approval; version 3 does"):
        operator_commands.approve(two.ledger, "2")
    assert operator_commands.approve(two.ledger, "3").body["version"] == "3"


def test_what_failed_is_tried_again_and_nothing_else(book: Book) -> None:
    """A rejection is an answer, not a failure."""
    fingerprint = book.observe(FIRST)
    book.run(fingerprint, "failed")
    assert operator_commands.retry(book.ledger).body["fingerprint"] == fingerprint
    assert state_of(book.ledger.read()).failures_reset == {fingerprint: 1}
    book.run(book.observe(SECOND), "rejected")
    with pytest.raises(SpiraError, match="what is observed has not failed"):
        operator_commands.retry(book.ledger)


def test_orders_given_at_once_are_all_recorded(two: Book) -> None:
    """Each of the state it was recorded in: of eight unpins of one pin, one is right."""
    operator_commands.pin(two.ledger, "1", "for all")
    before = len(two.ledger.read())
    folder = Path(two.ledger.store.uri)
    with multiprocessing.get_context("fork").Pool(4) as pool:
        answers = pool.map(_unpin, [folder] * 8)
    assert sorted(answers) == ["no version is pinned"] * 7 + ["unpinned"]
    assert len(two.ledger.read()) == before + 1


def _unpin(folder: Path) -> str:
    try:
        return operator_commands.unpin(Ledger(open_store(folder))).kind
    except SpiraError as error:
        return str(error)


def test_an_order_that_is_overtaken_again_and_again_gives_up(two: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than hang, where others never stop writing."""

    class Busy(Ledger):
        def read(self):  # what it reads is always one record old
            records = super().read()
            other.append(records[-1].number, "retried", START, {"fingerprint": "f"})
            return records

    other = Ledger(two.ledger.store, "another")
    busy = Busy(two.ledger.store, "a person")
    with pytest.raises(OvertakenError, match="run again"):
        operator_commands.pin(busy, "1", "in vain")
    assert sum(record.kind == "pinned" for record in other.read()) == 0
