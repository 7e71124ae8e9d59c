"""The state that records add up to: versions that were rolled back before records had digests."""

from __future__ import annotations

from spira.delivery.decide import candidate, wanted
from spira.delivery.history.events import Claimed, Finished, Promoted, RolledBack, Unpinned, VersionId
from spira.delivery.history.state import DeliveryState, state_of
from tests.support.ledger_builder import REQUEST, LedgerBuilder, observed


def approve(builder: LedgerBuilder, run: str, fingerprint: str, version: str, digest: str) -> None:
    """Record a run of this program, which registered a version."""
    builder.add(Claimed(fingerprint=fingerprint, attempt=1, run=run, request=REQUEST))
    builder.add(Finished(run=run, outcome="approved", version=version, digest=digest))


def rolled_back_by_an_older_program(builder: LedgerBuilder) -> str:
    """Record two deliveries and a rollback without digests; return the fingerprint of the version that was left."""
    builder.deliver(observed(), "1")
    second = observed(data={"c.wav": "4" * 64 + " 30"})
    builder.deliver(second, "2")
    builder.add(RolledBack(bad="2", to="1", reason="wrong in the ward"))
    return second.fingerprint.digest


def state(builder: LedgerBuilder) -> DeliveryState:
    return state_of(builder.ledger.read())


def test_a_number_that_counts_again_is_another_version(ledger_builder: LedgerBuilder) -> None:
    """The model repository was lost; the new version 2 may serve, and the old one still may not."""
    rolled_back_by_an_older_program(ledger_builder)
    new, old = VersionId("2", "d" * 64), VersionId("2")
    assert state(ledger_builder).rollback_reason(new) == "wrong in the ward"  # no other version 2 is known yet
    ledger_builder.observe(observed(data={"d.wav": "5" * 64 + " 40"}))
    approve(ledger_builder, "run-3", observed(data={"d.wav": "5" * 64 + " 40"}).fingerprint.digest, "2", new.digest)
    after = state(ledger_builder)
    assert (after.rollback_reason(new), after.rollback_reason(old)) == ("", "wrong in the ward")
    chosen = candidate(after, after.rolled_back)
    assert chosen is not None
    assert chosen.version == new
    ledger_builder.add(Unpinned())
    assert str(wanted(state(ledger_builder), after.rolled_back)) == "1"  # until the new one is delivered
    ledger_builder.add(Promoted(version="2", digest=new.digest, why="approved by its gate"))
    assert wanted(state(ledger_builder), after.rolled_back) == new


def test_the_same_input_gives_no_other_version(ledger_builder: LedgerBuilder) -> None:
    """The repository recognises the package and gives it its number again: it stays rolled back."""
    fingerprint = rolled_back_by_an_older_program(ledger_builder)
    approve(ledger_builder, "run-again", fingerprint, "2", "d" * 64)
    assert state(ledger_builder).rollback_reason(VersionId("2", "d" * 64)) == "wrong in the ward"


def test_a_rollback_without_a_digest_is_of_the_known_version(ledger_builder: LedgerBuilder) -> None:
    """The run's record has the digest, so a later version of this number is another one at once."""
    approve(ledger_builder, "run-1", "f" * 64, "2", "a" * 64)
    ledger_builder.add(RolledBack(bad="2", to="1", reason="bad"))
    now = state(ledger_builder)
    assert now.rollback_reason(VersionId("2", "a" * 64)) == "bad"
    assert now.rollback_reason(VersionId("2", "b" * 64)) == ""


def test_a_rollback_with_a_digest_keeps_it(ledger_builder: LedgerBuilder) -> None:
    """A run that registers another package under this number changes nothing."""
    ledger_builder.add(RolledBack(bad="2", bad_digest="a" * 64, to="1", reason="bad"))
    approve(ledger_builder, "run-1", "f" * 64, "2", "b" * 64)
    now = state(ledger_builder)
    assert now.rollback_reason(VersionId("2", "a" * 64)) == "bad"
    assert now.rollback_reason(VersionId("2", "b" * 64)) == ""
