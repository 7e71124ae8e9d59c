"""Ledgers written record by record, for the tests of continuous delivery."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from spira import lineage
from spira.data.storage import open_store
from spira.delivery.fingerprints import Axes, Axis, axis_of
from spira.delivery.ledger import Ledger, Record
from spira.deployment.local import Local

if TYPE_CHECKING:
    from spira.registry import Registry

START = datetime(2026, 11, 24, 6, 0, tzinfo=UTC)
REQUEST = {
    "data": "voices",
    "data_digest": "d",
    "config": "{}",
    "gate": "{}",
    "skip_bad": False,
    "git_commit": "abc123",
}


class LedgerBuilder:
    """A ledger to which a test appends one record a minute."""

    def __init__(self, folder: Path) -> None:
        self.ledger = Ledger(open_store(folder), "a test")

    def add(self, kind: str, **body: Any) -> Record:
        """Append one record."""
        last = len(self.ledger.read())
        return self.ledger.append(last, kind, START + timedelta(minutes=last), body)

    def observe(self, axes: Axes) -> str:
        """Record an observation and return its fingerprint."""
        self.ledger.save_axes(axes)
        digests = {name: axis.digest for name, axis in axes.by_name.items()}
        self.add("observed", fingerprint=axes.fingerprint.digest, axes=digests, git_commit="abc123")
        return axes.fingerprint.digest

    def run(self, fingerprint: str, outcome: str, version: str | None = None, attempt: int = 1) -> None:
        """Record the claim and the outcome of a run."""
        name = f"run-{fingerprint[:6]}-{attempt}"
        self.add("claimed", fingerprint=fingerprint, attempt=attempt, run=name, order=REQUEST)
        reasons = ["accuracy 0.4 is below 0.8"] if outcome == "rejected" else []
        message = "the disk is full" if outcome == "failed" else ""
        self.add("finished", run=name, outcome=outcome, version=version, reasons=reasons, message=message, metrics={})

    def deliver(self, axes: Axes, version: str) -> None:
        """Record the five records of a version, from its observation to its promotion."""
        self.run(self.observe(axes), "approved", version)
        self.add("promoting", version=version, why="approved by its gate")
        self.add("promoted", version=version, why="approved by its gate")


def observed(**changed: dict[str, str]) -> Axes:
    """Return the axes of a small input, with the given parts by axis added or replaced."""
    parts = {
        "data": {"a.wav": "1" * 64 + " 10", "b.wav": "2" * 64 + " 20"},
        "model": {"training.learning_rate": "0.002", "skip_bad": "false"},
        "code": {"spira/models/networks.py": "3" * 64, "python": "3.11.9"},
    }
    axes: dict[str, Axis] = {name: axis_of({**parts[name], **changed.get(name, {})}) for name in parts}
    return Axes(**axes)


FIRST, SECOND, THIRD = (observed(model={"training.learning_rate": rate}) for rate in ("0.1", "0.2", "0.3"))


@dataclass
class LocalDelivery:
    """A settings file with a built ledger, a real model repository of three versions, and a local target."""

    folder: Path
    ledger_builder: LedgerBuilder
    registry: Registry

    @property
    def served(self) -> str | None:
        """Version that the local target serves."""
        return Local(self.folder / "work" / "serving").status().version

    @property
    def kinds(self) -> list[str]:
        """Kinds of the records, by number."""
        return [record.kind for record in self.ledger_builder.ledger.read()]


@contextmanager
def code_at(root: Path) -> Iterator[None]:
    """Observe the code of another checkout."""
    before = lineage.ROOT
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPIRA_GIT_COMMIT", "abc123")
        try:
            _set_code_root(root)
            yield
        finally:
            _set_code_root(before)


def _set_code_root(root: Path) -> None:
    lineage.ROOT = root
    lineage.clear_caches()
