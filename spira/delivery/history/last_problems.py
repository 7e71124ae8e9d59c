"""Problems of the last tick, in a small file beside the ledger: a status without actions cannot find them again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

from pydantic import ValidationError

from spira import files
from spira.config import FrozenModel
from spira.data.storage import MissingError, Store

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
    try:
        content = json.loads(store.read(PATH))
        if not files.has_checksum(content):
            return None
        del content[files.CHECKSUM]
        return LastProblems.model_validate_json(json.dumps(content))
    except (MissingError, ValidationError, ValueError, TypeError, AttributeError, RecursionError):
        return None


def save(store: Store, problems: Sequence[str], now: datetime) -> None:
    """Replace the problems of the last tick; write nothing if they are the same.

    Raises:
        StorageError: the store is unreachable.
    """
    before = load(store)
    if (before.problems if before else ()) == tuple(problems):
        return
    content = LastProblems(since=now, problems=tuple(problems)).model_dump(mode="json")
    store.write(PATH, json.dumps(files.with_checksum(content), indent=1).encode())
