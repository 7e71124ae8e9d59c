"""Problems of the last tick, in a small file beside the ledger: a status without actions cannot find them again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from spira.config import FrozenModel
from spira.data.storage import Store
from spira.delivery.history import beside_ledger

PATH = "problems.json"
"""Path of the file in the ledger's store. It can be deleted: the next tick writes it again."""


class LastProblems(FrozenModel):
    """Problems of one tick."""

    since: datetime
    """Time of the first tick with exactly these problems."""
    problems: tuple[str, ...]

    def describe(self) -> list[str]:
        """Return each problem in one line, with its time."""
        return [f"last tick, since {self.since:%Y-%m-%d %H:%M}: {problem}" for problem in self.problems]


def load(store: Store) -> LastProblems | None:
    """Return the problems of the last tick; None if there are none, or the file is damaged.

    Raises:
        StorageError: the store is unreachable.
    """
    return beside_ledger.read(store, PATH, LastProblems)


def save(store: Store, problems: Sequence[str], now: datetime) -> None:
    """Replace the problems of the last tick; write nothing if they are the same.

    Raises:
        StorageError: the store is unreachable.
    """
    before = load(store)
    if (before.problems if before else ()) == tuple(problems):
        return
    beside_ledger.write(store, PATH, LastProblems(since=now, problems=tuple(problems)))
