"""Ledgers written by hand, a world for them, and what is observed of the code, for the tests of continuous delivery."""

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
ORDER = {"data": "voices", "data_digest": "d", "config": "{}", "gate": "{}", "skip_bad": False, "git_commit": "abc123"}


class Book:
    """A ledger written by hand, a record a minute."""

    def __init__(self, folder: Path) -> None:
        self.ledger = Ledger(open_store(folder), "a test")

    def add(self, kind: str, **body: Any) -> Record:
        """One record after those that are there."""
        last = len(self.ledger.read())
        return self.ledger.append(last, kind, START + timedelta(minutes=last), body)

    def observe(self, seen: Axes) -> str:
        """Record an observation; its fingerprint."""
        self.ledger.keep(seen)
        axes = {name: axis.digest for name, axis in seen.axes.items()}
        self.add("observed", fingerprint=seen.fingerprint.digest, axes=axes, git_commit="abc123")
        return seen.fingerprint.digest

    def run(self, fingerprint: str, outcome: str, version: str | None = None, attempt: int = 1) -> None:
        """Record a claim and how it ended."""
        name = f"run-{fingerprint[:6]}-{attempt}"
        self.add("claimed", fingerprint=fingerprint, attempt=attempt, run=name, order=ORDER)
        reasons = ["accuracy 0.4 is below 0.8"] if outcome == "rejected" else []
        message = "the disk is full" if outcome == "failed" else ""
        self.add("finished", run=name, outcome=outcome, version=version, reasons=reasons, message=message, metrics={})

    def deliver(self, seen: Axes, version: str) -> None:
        """Record the whole way of a version that was approved, up to its service."""
        self.run(self.observe(seen), "approved", version)
        self.add("promoting", version=version, why="approved by its gate")
        self.add("promoted", version=version, why="approved by its gate")


def observed(**changed: dict[str, str]) -> Axes:
    """Something to train on; parts of an axis by name over these."""
    parts = {
        "data": {"a.wav": "1" * 64 + " 10", "b.wav": "2" * 64 + " 20"},
        "model": {"training.learning_rate": "0.002", "skip_bad": "false"},
        "code": {"spira/models/networks.py": "3" * 64, "python": "3.11.9"},
    }
    axes: dict[str, Axis] = {name: axis_of({**parts[name], **changed.get(name, {})}) for name in parts}
    return Axes(**axes)


FIRST, SECOND, THIRD = (observed(model={"training.learning_rate": rate}) for rate in ("0.1", "0.2", "0.3"))


@dataclass
class World:
    """A ledger by hand, a real model repository of three versions, and a folder that serves."""

    folder: Path
    book: Book
    registry: Registry

    @property
    def served(self) -> str | None:
        return Local(self.folder / "work" / "serving").status().version

    @property
    def kinds(self) -> list[str]:
        """Of the records, in order."""
        return [record.kind for record in self.book.ledger.read()]


@contextmanager
def code_at(root: Path) -> Iterator[None]:
    """What is observed of the code is observed there."""
    before = lineage.ROOT
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPIRA_GIT_COMMIT", "abc123")
        try:
            _move_code(root)
            yield
        finally:
            _move_code(before)


def _move_code(root: Path) -> None:
    lineage.ROOT = root
    lineage.clear_caches()
