"""Small JSON files beside the ledger, each with a checksum. A file that is lost or damaged is written anew."""

from __future__ import annotations

import json
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from spira import files
from spira.data.storage import MissingError, Store

Content = TypeVar("Content", bound=BaseModel)


def read(store: Store, path: str, model: type[Content]) -> Content | None:
    """Return the content of a file; None if there is none, or it is damaged.

    Raises:
        StorageError: the store is unreachable.
    """
    try:
        content = json.loads(store.read(path))
        if not files.has_checksum(content):
            return None
        del content[files.CHECKSUM]
        return model.model_validate_json(json.dumps(content))
    except (MissingError, ValidationError, ValueError, TypeError, AttributeError, RecursionError):
        return None


def write(store: Store, path: str, content: BaseModel) -> None:
    """Replace a file in one step.

    Raises:
        StorageError: the store is unreachable.
    """
    values = files.with_checksum(content.model_dump(mode="json"))
    store.write(path, json.dumps(values, indent=1).encode())
