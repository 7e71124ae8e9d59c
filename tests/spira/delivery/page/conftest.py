"""A ledger with everything that a status page shows."""

from __future__ import annotations

from datetime import timedelta

import pytest

from spira.delivery.decide import Policy
from spira.delivery.history.events import Approved, Claimed, Finished, Observed, Pinned, Promoted, Repaired, RolledBack
from spira.delivery.links import Links
from spira.delivery.page.build import PageBuilder, StatusPage
from spira.delivery.status import DeliveryStatus, ObservedStatus, PinStatus, TargetStatus
from tests.support.ledger_builder import REQUEST, START, LedgerBuilder, observed

LINKS = Links("https://mlflow.example", "https://status.example")
NEW_FILES = {f"{name}.wav": "7" * 64 + " 30" for name in "cdefg"}
METRICS = {"accuracy": 0.9167, "auroc": 0.958, "sensitivity": 0.9, "specificity": 0.9333, "brier": 0.08}
REASONS = (
    "not clearly better than chance: AUROC: 0.498 [0.394, 0.594], its lower end must reach 0.60",
    "noise test: accuracy is too low: 0.531 [0.500, 0.562], at least 0.80 is required",
)


@pytest.fixture
def full_ledger(ledger_builder: LedgerBuilder) -> LedgerBuilder:
    """Three versions, a rejection, a failure, a problem with the data, a pin, a rollback and a repair."""
    add = ledger_builder.add

    def run(fingerprint: str, outcome: str, version: str | None = None, attempt: int = 1) -> None:
        name = f"spira-{fingerprint[:12]}-{attempt}"
        add(Claimed(fingerprint=fingerprint, attempt=attempt, run=name, request=REQUEST))
        add(
            Finished(
                run=name,
                outcome=outcome,
                version=version,
                digest=f"package {version}" if version else "",
                reasons=REASONS if outcome == "rejected" else (),
                message="train seed 42: the disk is full" if outcome == "failed" else "",
                metrics=METRICS if version else {"accuracy": 0.531, "auroc": 0.498},
                page=f"experiments/1/runs/{name}" if outcome != "failed" else "",
            )
        )

    def promote(version: str) -> None:
        add(Promoted(version=version, digest=f"package {version}", why="approved by its gate"))

    first, second = observed(), observed(data=NEW_FILES)
    third = observed(data=NEW_FILES, model={"training.learning_rate": "0.001", "noise.train_patients": "4"})
    run(ledger_builder.observe(first), "approved", "1")
    promote("1")
    run(ledger_builder.observe(second), "approved", "2")
    promote("2")
    add(Observed(problem="data: metadata_train.csv, row 3: no class"))
    digest = ledger_builder.observe(third)
    run(digest, "failed")
    run(digest, "approved", "3", attempt=2)
    add(Approved(version="3", digest="package 3", who="maria"))
    promote("3")
    add(Repaired(what="local", version="3", digest="package 3", instead_of="2"))
    bad = observed(data=NEW_FILES, model={"noise.train_patients": "0"}, code={"spira/training/train.py": "5" * 64})
    run(ledger_builder.observe(bad), "rejected")
    add(
        RolledBack(bad="3", to="2", reason="the ward hears false alarms", bad_digest="package 3", to_digest="package 2")
    )
    add(Repaired(what="local", version="2", digest="package 2", instead_of="3"))
    add(Pinned(version="1", digest="package 1", reason="compared with paper records", who="joão"))
    add(Repaired(what="local", version="1", digest="package 1", instead_of="2"))
    digest = ledger_builder.observe(observed(data=NEW_FILES, code={"python": "3.11.10"}))
    add(Claimed(fingerprint=digest, attempt=1, run=f"spira-{digest[:12]}-1", request=REQUEST))
    return ledger_builder


def status_of(ledger_builder: LedgerBuilder, **changed: object) -> DeliveryStatus:
    """Return a status in which version 1 serves as wanted."""
    local = TargetStatus(version="1", ready=True, message="", digest="package 1")
    status = DeliveryStatus(
        observed=ObservedStatus(fingerprint="27d492b81538", axes=None, problem="", since=START),
        training="running",
        run="spira-27d492b81538-1",
        wanted="1",
        wanted_digest="package 1",
        champion="1",
        champion_digest="package 1",
        serving={"local": local},
        pin=PinStatus(version="1", reason="compared with paper records"),
        rolled_back={"3": "the ward hears false alarms"},
        notes=("run spira-27d492b81538-1 is running since 2026-11-24 06:30:00",),
        troubles=(),
        torn_records=(),
        damaged_records=(),
        records=len(ledger_builder.ledger.read()),
    )
    return status.model_copy(update=changed)


def with_problems(ledger_builder: LedgerBuilder) -> DeliveryStatus:
    """Return a status with a problem of each kind."""
    other = TargetStatus(version="2", ready=True, message="", digest="package 2")
    return status_of(
        ledger_builder,
        serving={"local": other, "kserve": None},
        observed=ObservedStatus(
            fingerprint="", axes=None, problem="data: metadata_train.csv: no rows below the header", since=START
        ),
        troubles=("model repository: Connection refused", "last tick, since 2026-11-24 06:30: runs: no answer"),
        notice_problems=(
            "notices: address 1 (slack) accepts none since 2026-11-24 06:30; next attempt at 06:35:00: "
            "no answer within 10 s",
        ),
    )


def build(
    ledger_builder: LedgerBuilder, status: DeliveryStatus | None = None, policy: Policy | None = None
) -> StatusPage:
    """Return the page of a ledger."""
    ledger = ledger_builder.ledger
    return PageBuilder().build(
        status or status_of(ledger_builder),
        START + timedelta(hours=1),
        ledger.read(),
        ledger,
        policy or Policy(approval=True),
        LINKS,
    )
