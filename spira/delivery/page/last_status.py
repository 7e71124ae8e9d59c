"""The status of the last tick, in a small file beside the ledger.

A server of the status page reads it, so that it needs no rights on the data, MLflow or the targets.
"""

from __future__ import annotations

from datetime import datetime

from spira.config import FrozenModel
from spira.data.storage import Store
from spira.delivery.history import beside_ledger
from spira.delivery.status import DeliveryStatus

PATH = "status.json"
"""Path of the file in the ledger's store. It can be deleted: the next tick writes it again."""


class LastStatus(FrozenModel):
    """Status of one tick."""

    at: datetime
    status: DeliveryStatus


def load(store: Store) -> LastStatus | None:
    """Return the status of the last tick; None if there is none, or the file is damaged.

    Raises:
        StorageError: the store is unreachable.
    """
    return beside_ledger.read(store, PATH, LastStatus)


def save(store: Store, status: DeliveryStatus, at: datetime) -> None:
    """Replace the status of the last tick.

    Raises:
        StorageError: the store is unreachable.
    """
    beside_ledger.write(store, PATH, LastStatus(at=at, status=status))
