"""Parameters that several stages share: configuration, state folder, cache key."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from spira.config import Config, from_dict
from spira.errors import SpiraError


def read_config(text: str) -> Config:
    """Return the configuration of a full or partial JSON document.

    Raises:
        ConfigError: a key is unknown or a value out of range.
    """
    return from_dict(json.loads(text))


def state_folder(uri: str) -> Path | None:
    """Return the folder that outlives a task, or None for an empty parameter.

    Raises:
        SpiraError: the parameter is a URL.
    """
    if "://" in uri:
        raise SpiraError(f"state {uri}: must be a folder, for example of a mounted volume")
    return Path(uri) if uri else None


def cache_key(*parts: str) -> str:
    """Return 16 hex digits that identify a result by everything it was computed from."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
