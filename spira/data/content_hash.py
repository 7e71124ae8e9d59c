"""What a data set holds, by content: a hash of each file, and one digest over them all.

Equal digests are equal contents, wherever they lie and whenever they were copied. A file is read anew only where its
size or generation isn't the one that was hashed, so that looking again at what hasn't moved costs a listing.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from spira.data.storage import Entry, Store

SETTLED_SECONDS = 2.0
"""A file on disk that changed less than this before it was hashed may change again within the clock's grain."""


@dataclass(frozen=True)
class Hashed:
    """A file as it was when it was hashed."""

    size: int
    """Bytes."""
    sha256: str
    generation: str
    """As its store gave it; empty where the file was too fresh to be known again by it."""


Files = Mapping[str, Hashed]
"""By path."""


def digest(files: Files) -> str:
    """SHA-256 over the sorted paths, sizes and hashes."""
    canonical = json.dumps([[path, files[path].size, files[path].sha256] for path in sorted(files)])
    return hashlib.sha256(canonical.encode()).hexdigest()


def look(store: Store, entries: Mapping[str, Entry], known: Files) -> dict[str, Hashed]:
    """The files' hashes, those that ``known`` (of this very place) has seen in this generation taken from it.

    Raises:
        StorageError: a file changed since it was listed, or can't be read.
    """
    return {
        path: known[path] if _is_known(entry, known) else hash_file(store, entry) for path, entry in entries.items()
    }


def hash_file(store: Store, entry: Entry) -> Hashed:
    """Read a stored file of this very generation."""
    with store.local(entry.path, entry.generation) as file:
        return hash_local(file, entry)


def hash_local(file: Path, entry: Entry) -> Hashed:
    """Read the local form of a stored file."""
    settled = entry.changed is None or entry.changed < time.time() - SETTLED_SECONDS
    with file.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    return Hashed(entry.size, sha256, entry.generation if settled else "")


def _is_known(entry: Entry, known: Files) -> bool:
    seen = known.get(entry.path)
    return seen is not None and (seen.size, seen.generation) == (entry.size, entry.generation)
