"""Ledgers written record by record, for the tests of continuous delivery."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from spira import lineage
from spira.data.content_hash import Hashed
from spira.data.storage import open_store
from spira.delivery.history.events import Claimed, Event, Finished, Observed, Promoted, Promoting
from spira.delivery.history.ledger import BEFORE, Ledger, Record, path_of
from spira.delivery.observation.fingerprints import Axes, axis_of, data_axis
from spira.deployment.local import Local
from spira.files import CHECKSUM

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

    def add(self, event: Event) -> Record:
        """Append one record."""
        last = len(self.ledger.read())
        return self.ledger.append(last, event, START + timedelta(minutes=last))

    def add_stored(self, kind: str, **fields: Any) -> int:
        """Write one record as version 79862e6 did, without a checksum, and return its number."""
        number = len(self.ledger.read()) + 1
        content = {"kind": kind, "at": (START + timedelta(minutes=number - 1)).isoformat(), "by": "a test", **fields}
        self.ledger.store.write(path_of(number), json.dumps(content, indent=1).encode())
        return number

    def observe(self, axes: Axes) -> str:
        """Record an observation and return its fingerprint."""
        self.ledger.save_axes(axes)
        fingerprint = axes.fingerprint
        self.add(Observed(axes=fingerprint, fingerprint=fingerprint.digest, git_commit="abc123"))
        return fingerprint.digest

    def run(
        self,
        fingerprint: str,
        outcome: Literal["approved", "rejected", "failed"],
        version: str | None = None,
        attempt: int = 1,
    ) -> None:
        """Record the claim and the outcome of a run."""
        name = f"run-{fingerprint[:6]}-{attempt}"
        self.add(Claimed(fingerprint=fingerprint, attempt=attempt, run=name, request=REQUEST))
        reasons = ("accuracy 0.4 is below 0.8",) if outcome == "rejected" else ()
        message = "the disk is full" if outcome == "failed" else ""
        self.add(Finished(run=name, outcome=outcome, version=version, reasons=reasons, message=message))

    def deliver(self, axes: Axes, version: str) -> None:
        """Record the five records of a version, from its observation to its promotion."""
        self.run(self.observe(axes), "approved", version)
        self.add(Promoting(version=version, why="approved by its gate"))
        self.add(Promoted(version=version, why="approved by its gate"))


def observed(**changed: dict[str, str]) -> Axes:
    """Return the axes of a small input, with the given parts by axis added or replaced."""
    parts = {
        "data": {"a.wav": "1" * 64 + " 10", "b.wav": "2" * 64 + " 20"},
        "model": {"training.learning_rate": "0.002", "skip_bad": "false"},
        "code": {"spira/models/networks.py": "3" * 64, "python": "3.11.9"},
    }
    data, model, code = ({**parts[name], **changed.get(name, {})} for name in parts)
    files = {path: Hashed(int(part.split()[1]), part.split()[0], "") for path, part in data.items()}
    return Axes(data_axis(files), axis_of(model), axis_of(code))


def replace_in_records(ledger: Path, old: str, new: str) -> None:
    """Replace text in every record, and write the records as version 79862e6 did, without checksums."""
    for path in (ledger / "records").iterdir():
        fields = json.loads(path.read_text().replace(old, new))
        path.write_text(json.dumps({name: fields[name] for name in fields.keys() - {BEFORE, CHECKSUM}}))


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
