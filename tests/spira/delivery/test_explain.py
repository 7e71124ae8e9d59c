"""The ledger in words: why a run was, what happened, what served when."""

from __future__ import annotations

from datetime import timedelta

import pytest

from spira.data.storage import StorageError
from spira.delivery import explain
from spira.delivery.fingerprints import Change, InvalidInput
from spira.delivery.state import STEPS, state_of
from spira.errors import SpiraError
from tests.support.ledger_builder import START, Book, observed

FIRST = observed()


def changed(book: Book, **parts: dict[str, str]) -> list[str]:
    """What ``why`` says of an observation with these parts otherwise, after the first was delivered."""
    book.deliver(FIRST, "1")
    book.observe(observed(**parts))
    told = explain.why(book.ledger)
    assert (told.since, told.outcome, told.run) == ("version 1", "not run yet", None)
    assert told.axes == list(parts)
    return [explain.describe(change) for change in told.changes]


def test_why_names_the_files_that_changed(book: Book) -> None:
    """By name, and not by hashes, which tell a person nothing."""
    told = changed(book, data={"a.wav": "9" * 64 + " 10", "c.wav": "7" * 64 + " 30"})
    assert told == ["a.wav changed", "c.wav added"]


def test_why_knows_a_file_that_only_moved(book: Book) -> None:
    """Same content under another name."""
    book.deliver(observed(data={"old.wav": "8" * 64 + " 10"}), "1")
    book.observe(observed(data={"new.wav": "8" * 64 + " 10"}))
    assert explain.why(book.ledger).changes == (Change("data", "renamed", "new.wav", "old.wav", "new.wav"),)
    assert [explain.describe(each) for each in explain.why(book.ledger).changes] == ["old.wav is now new.wav"]


def test_why_names_the_settings_with_both_values(book: Book) -> None:
    """From and to."""
    assert changed(book, model={"training.learning_rate": "0.001"}) == ["training.learning_rate: 0.002 -> 0.001"]


def test_why_names_the_sources_and_the_interpreter(book: Book) -> None:
    """What code is made of."""
    told = changed(book, code={"spira/models/networks.py": "4" * 64, "python": "3.12.1"})
    assert told == ["python changed", "spira/models/networks.py changed"]


def test_why_names_every_axis_that_changed(book: Book) -> None:
    """Two at once are two."""
    told = changed(book, data={"a.wav": "9" * 64 + " 10"}, model={"skip_bad": "true"})
    assert told == ["a.wav changed", "skip_bad: false -> true"]


def test_why_of_the_first_compares_with_nothing(book: Book) -> None:
    """No list of a thousand files that were "added"."""
    book.deliver(FIRST, "1")
    told = explain.why(book.ledger, "1")
    assert (told.version, told.outcome, told.since, told.changes) == ("1", "approved", "", ())


def test_why_compares_with_what_served_not_with_what_failed(book: Book) -> None:
    """A rejected change between is no base: the second change is told with the first."""
    book.deliver(FIRST, "1")
    book.run(book.observe(observed(model={"training.learning_rate": "9"})), "rejected")
    book.deliver(observed(model={"training.learning_rate": "0.001"}), "2")
    assert [explain.describe(each) for each in explain.why(book.ledger, "2").changes] == [
        "training.learning_rate: 0.002 -> 0.001"
    ]


def test_why_knows_versions_runs_and_fingerprints(book: Book) -> None:
    """The same answer by each name; of the unknown, what there is."""
    book.deliver(FIRST, "1")
    second = observed(model={"skip_bad": "true"})
    book.deliver(second, "2")
    fingerprint = second.fingerprint.digest
    answers = [explain.why(book.ledger, name) for name in ("2", f"run-{fingerprint[:6]}-1", fingerprint[:8], "")]
    assert answers == [answers[0]] * 4
    with pytest.raises(SpiraError, match="7 is no version, run or fingerprint of this ledger; versions: 1, 2"):
        explain.why(book.ledger, "7")


def test_why_of_nothing_says_what_to_do(book: Book) -> None:
    """An empty ledger, or one that saw only what is unfit."""
    with pytest.raises(SpiraError, match="nothing fit to train on was observed yet: spira deliver tick"):
        explain.why(book.ledger)
    book.add("observed", problem="data: no recordings")
    with pytest.raises(SpiraError, match="nothing fit to train on"):
        explain.why(book.ledger)


def test_why_without_the_axis_that_was_lost_names_it(book: Book) -> None:
    """A refusal, not a guess."""
    book.deliver(FIRST, "1")
    (lost,) = (book.ledger.store.root / "axes").glob("code-*")
    lost.unlink()
    with pytest.raises(StorageError, match=lost.name):
        explain.why(book.ledger)


def test_history_has_a_line_for_every_kind_of_record(book: Book) -> None:
    """In words: none is shown raw, and an unknown one of a newer program is not lost."""
    assert set(STEPS) | {"repaired"} == set(explain.TOLD)
    book.deliver(FIRST, "1")
    book.run(book.observe(observed(model={"skip_bad": "true"})), "rejected")
    book.run(book.observe(observed(model={"skip_bad": "null"})), "failed")
    book.add("observed", problem="data: no recordings")
    book.add("pinned", version="1", reason="for now", who="me")
    book.add("unpinned", version="1", who="me")
    book.add("repaired", what="local", version="1", instead_of=None)
    book.add("repaired", what="champion", version="1", instead_of="7")
    book.add("refused", version="2", message="its golden recordings are off")
    book.add("rolled_back", bad="2", to="1", reason="worse", who="me")
    book.add("approved", version="1", who="me")
    book.add("retried", fingerprint="f" * 64, who="me")
    book.add("novelty", surprise=1)
    told = [event.text for event in explain.history(book.ledger.read())]
    first, second, third = (seen.fingerprint.digest for seen in (FIRST, *(
        observed(model={"skip_bad": value}) for value in ("true", "null")
    )))  # fmt: skip
    assert told[:-1] == [
        f"saw {first[:12]}",
        f"claimed run run-{first[:6]}-1",
        f"run run-{first[:6]}-1 ended: approved, version 1",
        "promotes version 1: approved by its gate",
        "version 1 is champion and serves: approved by its gate",
        f"saw {second[:12]}",
        f"claimed run run-{second[:6]}-1",
        f"run run-{second[:6]}-1 ended: rejected (accuracy 0.4 is below 0.8)",
        f"saw {third[:12]}",
        f"claimed run run-{third[:6]}-1",
        f"run run-{third[:6]}-1 ended: failed (the disk is full)",
        "not fit to train on: data: no recordings",
        "version 1 was pinned: for now",
        "the pin was taken off",
        "put right: local serves version 1 again, not nothing",
        "put right: champion is version 1 again, not 7",
        "version 2 could not be served: its golden recordings are off",
        "rolled back from version 2 to 1, pinned: worse",
        "version 1 was approved by me",
        "asked to try ffffffffffff again",
    ]
    assert told[-1].startswith("novelty: ")


def test_history_tells_a_record_that_is_torn(book: Book) -> None:
    """By number, among the others."""
    book.deliver(FIRST, "1")
    (book.ledger.store.root / "records" / "000002.json").write_text("{")
    events = explain.history(type(book.ledger)(book.ledger.store).read())
    assert [event.number for event in events] == [1, 2, 3, 4, 5]
    assert "can't be read" in events[1].text


def test_what_served_at_a_time_is_known(book: Book) -> None:
    """Every version with its hours: promotion, pin, unpin and rollback each to the minute."""
    book.deliver(FIRST, "1")  # records 1 to 5, at minutes 0 to 4
    book.deliver(observed(model={"skip_bad": "true"}), "2")  # 6 to 10
    book.add("pinned", version="1", reason="compared")  # 11
    book.add("unpinned", version="1")  # 12
    book.add("rolled_back", bad="2", to="1", reason="worse")  # 13
    records = book.ledger.read()

    def at(minute: float) -> str | None:
        served = explain.served_at(records, START + timedelta(minutes=minute))
        return served and served.version

    assert [at(minute) for minute in (3.9, 4, 8.9, 9, 10, 11, 12, 1000)] == [None, "1", "1", "2", "1", "2", "1", "1"]
    last = explain.served_at(records, START + timedelta(days=9))
    assert last is not None
    assert last.why == "rolled back from version 2 to 1, pinned: worse"
    assert last.since == START + timedelta(minutes=12)


def test_what_is_unfit_has_no_fingerprint(book: Book) -> None:
    """The last observation is the problem, told as it was seen."""
    problem = InvalidInput("data: metadata_train.csv isn't there").problem
    book.add("observed", problem=problem)
    last_observation = state_of(book.ledger.read()).last_observation
    assert last_observation is not None
    assert (last_observation.fingerprint, last_observation.problem) == ("", problem)
