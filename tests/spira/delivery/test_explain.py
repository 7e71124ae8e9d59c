"""Answers from the ledger: why a run started, what happened, and what served when."""

from __future__ import annotations

from datetime import timedelta

import pytest

from spira.data.pseudonyms import from_environment
from spira.data.storage import StorageError
from spira.delivery import explain
from spira.delivery.history.events import (
    EVENTS,
    Approved,
    Cancelled,
    DamageAccepted,
    Observed,
    Pinned,
    Refused,
    Repaired,
    Retried,
    RolledBack,
    UnknownEvent,
    Unpinned,
    read_event,
)
from spira.delivery.history.ledger import Ledger, Record
from spira.delivery.history.state import state_of
from spira.delivery.observation.fingerprints import Change
from spira.errors import SpiraError
from tests.support.ledger_builder import START, LedgerBuilder, observed

FIRST = observed()
NAMES = from_environment()


def changes_after_first(ledger_builder: LedgerBuilder, **parts: dict[str, str]) -> list[str]:
    """Return the changes that ``why`` lists for an observation with these parts, after FIRST was delivered."""
    ledger_builder.deliver(FIRST, "1")
    ledger_builder.observe(observed(**parts))
    result = explain.why(ledger_builder.ledger)
    assert (result.since, result.outcome, result.run) == ("version 1", "not run yet", None)
    assert result.axes == list(parts)
    return [explain.describe_change(change) for change in result.changes]


def test_why_names_the_files_that_changed(ledger_builder: LedgerBuilder) -> None:
    """The changes are shown by pseudonym, without hashes."""
    parts = {"a.wav": "9" * 64 + " 10", "c.wav": "7" * 64 + " 30"}
    assert changes_after_first(ledger_builder, data=parts) == sorted(
        [f"{NAMES.recording('a.wav')} changed", f"{NAMES.recording('c.wav')} added"]
    )


def test_why_recognises_a_renamed_file(ledger_builder: LedgerBuilder) -> None:
    ledger_builder.deliver(observed(data={"old.wav": "8" * 64 + " 10"}), "1")
    ledger_builder.observe(observed(data={"new.wav": "8" * 64 + " 10"}))
    (change,) = explain.why(ledger_builder.ledger).changes
    old, new = map(NAMES.recording, ("old.wav", "new.wav"))
    assert change == Change("data", "renamed", new, old, new)
    assert explain.describe_change(change) == f"{old} renamed to {new}"


def test_why_shows_a_setting_before_and_after(ledger_builder: LedgerBuilder) -> None:
    changes = changes_after_first(ledger_builder, model={"training.learning_rate": "0.001"})
    assert changes == ["training.learning_rate: 0.002 -> 0.001"]


def test_why_names_sources_and_interpreter(ledger_builder: LedgerBuilder) -> None:
    changes = changes_after_first(ledger_builder, code={"spira/models/networks.py": "4" * 64, "python": "3.12.1"})
    assert changes == ["python changed", "spira/models/networks.py changed"]


def test_why_names_every_axis_that_changed(ledger_builder: LedgerBuilder) -> None:
    changes = changes_after_first(ledger_builder, data={"a.wav": "9" * 64 + " 10"}, model={"skip_bad": "true"})
    assert changes == [f"{NAMES.recording('a.wav')} changed", "skip_bad: false -> true"]


def test_why_of_the_first_version_lists_no_changes(ledger_builder: LedgerBuilder) -> None:
    """It would be a list of every file as added."""
    ledger_builder.deliver(FIRST, "1")
    result = explain.why(ledger_builder.ledger, "1")
    assert (result.version, result.outcome, result.since, result.changes) == ("1", "approved", "", ())


def test_why_compares_with_the_served_version_not_with_a_rejected_one(ledger_builder: LedgerBuilder) -> None:
    ledger_builder.deliver(FIRST, "1")
    rejected = ledger_builder.observe(observed(model={"training.learning_rate": "9"}))
    ledger_builder.run(rejected, "rejected")
    ledger_builder.deliver(observed(model={"training.learning_rate": "0.001"}), "2")
    changes = explain.why(ledger_builder.ledger, "2").changes
    assert [explain.describe_change(change) for change in changes] == ["training.learning_rate: 0.002 -> 0.001"]


def test_why_accepts_versions_runs_and_fingerprints(ledger_builder: LedgerBuilder) -> None:
    """An unknown name is refused with the versions that exist."""
    ledger_builder.deliver(FIRST, "1")
    second = observed(model={"skip_bad": "true"})
    ledger_builder.deliver(second, "2")
    fingerprint = second.fingerprint.digest
    subjects = ("2", f"run-{fingerprint[:6]}-1", fingerprint[:8], "")
    results = [explain.why(ledger_builder.ledger, subject) for subject in subjects]
    assert results == [results[0]] * 4
    with pytest.raises(SpiraError, match="7 is no version, run or fingerprint of this ledger; versions: 1, 2"):
        explain.why(ledger_builder.ledger, "7")


def test_why_without_a_valid_observation_is_refused_with_advice(ledger_builder: LedgerBuilder) -> None:
    """Both for an empty ledger and for one that has only invalid input."""
    with pytest.raises(SpiraError, match="no valid input was observed yet: run spira deliver tick"):
        explain.why(ledger_builder.ledger)
    ledger_builder.add(Observed(problem="data: no recordings"))
    with pytest.raises(SpiraError, match="no valid input was observed yet"):
        explain.why(ledger_builder.ledger)


def test_why_names_a_missing_axis(ledger_builder: LedgerBuilder) -> None:
    ledger_builder.deliver(FIRST, "1")
    (missing,) = (ledger_builder.ledger.store.root / "axes").glob("code-*")
    missing.unlink()
    with pytest.raises(StorageError, match=missing.name):
        explain.why(ledger_builder.ledger)


def test_history_describes_every_kind_of_record(ledger_builder: LedgerBuilder) -> None:
    """A record of an unknown kind, written by a newer program, is shown as it is."""
    ledger_builder.deliver(FIRST, "1")
    ledger_builder.run(ledger_builder.observe(observed(model={"skip_bad": "true"})), "rejected")
    ledger_builder.run(ledger_builder.observe(observed(model={"skip_bad": "null"})), "failed")
    ledger_builder.add(Observed(problem="data: no recordings"))
    ledger_builder.add(Observed(problem="settings: training.max_epochs: too small"))
    ledger_builder.add(Observed(problem="something else"))
    ledger_builder.add(Pinned(version="1", reason="for now", who="me"))
    ledger_builder.add(Unpinned(version="1", who="me"))
    ledger_builder.add(Repaired(what="local", version="1", instead_of=None))
    ledger_builder.add(Repaired(what="local", version="1", instead_of="1"))
    ledger_builder.add(Repaired(what="champion", version="1", instead_of="7"))
    ledger_builder.add(Refused(version="2", message="golden recording 3 differs"))
    ledger_builder.add(RolledBack(bad="2", to="1", reason="worse", who="me"))
    ledger_builder.add(Approved(version="1", who="me"))
    ledger_builder.add(Retried(fingerprint="f" * 64, who="me"))
    ledger_builder.add(Cancelled(run="run-1", reason="wrong folder", who="me"))
    ledger_builder.add(Cancelled(run="run-1"))
    ledger_builder.add(DamageAccepted(records=(4, 7), reason="power cut", who="me"))
    records = [*ledger_builder.ledger.read(), Record(29, START, read_event("novelty", {"surprise": 1}))]
    assert {type(record.event) for record in records} == {*EVENTS.values(), UnknownEvent}
    texts = [line.text for line in explain.history(records)]
    second, third = (observed(model={"skip_bad": value}).fingerprint.digest for value in ("true", "null"))
    first = FIRST.fingerprint.digest
    assert texts[:-1] == [
        f"observed fingerprint {first[:12]}",
        f"claimed run run-{first[:6]}-1",
        f"run run-{first[:6]}-1 was approved as version 1",
        "promoting version 1: approved by its gate",
        "version 1 is champion and serves: approved by its gate",
        f"observed fingerprint {second[:12]}",
        f"claimed run run-{second[:6]}-1",
        f"run run-{second[:6]}-1 was rejected: accuracy 0.4 is below 0.8",
        f"observed fingerprint {third[:12]}",
        f"claimed run run-{third[:6]}-1",
        f"run run-{third[:6]}-1 failed: the disk is full",
        "the data cannot be trained on: no recordings",
        "the settings are invalid: training.max_epochs: too small",
        "the input is invalid: something else",
        "version 1 was pinned: for now",
        "version 1 was unpinned",
        "repaired: local serves version 1 (was nothing)",
        "repaired: version 1 applied to local again",
        "repaired: champion set to version 1 (was 7)",
        "version 2 was not deployed: golden recording 3 differs",
        "rolled back from version 2 to 1, pinned: worse",
        "version 1 was approved by me",
        "retry of fingerprint ffffffffffff requested",
        "run run-1 was cancelled by me: wrong folder",
        "run run-1 was cancelled by an operator",
        "damaged record 4, 7 is left out, accepted by me: power cut",
    ]
    assert texts[-1] == 'novelty: {"surprise": 1}'


def test_history_shows_a_torn_record(ledger_builder: LedgerBuilder) -> None:
    ledger_builder.deliver(FIRST, "1")
    (ledger_builder.ledger.store.root / "records" / "000005.json").write_text("{")
    lines = explain.history(Ledger(ledger_builder.ledger.store).read())
    assert [line.number for line in lines] == [1, 2, 3, 4, 5]
    assert lines[4].text == "this record was set aside: it is incomplete"


def test_the_version_that_served_at_a_time_is_known(ledger_builder: LedgerBuilder) -> None:
    """Promotion, pin, unpin and rollback begin a period each, to the minute."""
    ledger_builder.deliver(FIRST, "1")  # records 1 to 5, at minutes 0 to 4
    ledger_builder.deliver(observed(model={"skip_bad": "true"}), "2")  # 6 to 10
    ledger_builder.add(Pinned(version="1", reason="compared"))  # 11
    ledger_builder.add(Unpinned(version="1"))  # 12
    ledger_builder.add(RolledBack(bad="2", to="1", reason="worse"))  # 13
    records = ledger_builder.ledger.read()

    def version_at(minute: float) -> str | None:
        period = explain.served_at(records, START + timedelta(minutes=minute))
        return period and period.version

    versions = [version_at(minute) for minute in (3.9, 4, 8.9, 9, 10, 11, 12, 1000)]
    assert versions == [None, "1", "1", "2", "1", "2", "1", "1"]
    last = explain.served_at(records, START + timedelta(days=9))
    assert last is not None
    assert last.why == "rolled back from version 2 to 1, pinned: worse"
    assert last.since == START + timedelta(minutes=12)


def test_invalid_input_has_no_fingerprint(ledger_builder: LedgerBuilder) -> None:
    problem = "data: metadata_train.csv does not exist"
    ledger_builder.add(Observed(problem=problem))
    last_observation = state_of(ledger_builder.ledger.read()).last_observation
    assert last_observation is not None
    assert (last_observation.fingerprint, last_observation.problem) == ("", problem)
