"""The status of the last tick, in a small file beside the ledger.

A server of the status page reads it, so that it needs no rights on the data, MLflow or the targets.
"""

from __future__ import annotations

import json
from datetime import datetime

from pydantic import ValidationError

from spira import files
from spira.config import FrozenModel
from spira.data.storage import MissingError, Store
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
    try:
        content = json.loads(store.read(PATH))
        if not files.has_checksum(content):
            return None
        del content[files.CHECKSUM]
        return LastStatus.model_validate_json(json.dumps(content))
    except (MissingError, ValidationError, ValueError, TypeError, AttributeError, RecursionError):
        return None


def save(store: Store, status: DeliveryStatus, at: datetime) -> None:
    """Replace the status of the last tick.

    Raises:
        StorageError: the store is unreachable.
    """
    content = LastStatus(at=at, status=status).model_dump(mode="json")
    store.write(PATH, json.dumps(files.with_checksum(content), indent=1).encode())
