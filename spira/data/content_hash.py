"""Content hashes of a data set: one per file, and one digest over them all.

Equal digests mean equal contents, wherever the files are and whenever they were copied. A file is read again only if
its size or generation differs from the one that was hashed. Observing an unchanged data set therefore costs a listing.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from spira.data.storage import Entry, Store

SETTLED_SECONDS = 2.0
"""Age below which a file on disk may change again with the same time of change: file systems round times."""

MAX_CONCURRENT_READS = 8
"""Files that are read at the same time: on a bucket each is a round trip."""


@dataclass(frozen=True)
class Hashed:
    """A file as it was when it was hashed."""

    size: int
    """Bytes."""
    sha256: str
    generation: str
    """The store's generation; empty if the file was too fresh for it to prove that the content is the same."""


Files = Mapping[str, Hashed]
"""Path -> hash."""


def digest(files: Files) -> str:
    """Return the SHA-256 over the sorted paths, sizes and hashes."""
    canonical = json.dumps([[path, files[path].size, files[path].sha256] for path in sorted(files)])
    return hashlib.sha256(canonical.encode()).hexdigest()


def hash_files(store: Store, entries: Mapping[str, Entry], known: Files) -> dict[str, Hashed]:
    """Return the files' hashes; those of unchanged generations are taken from ``known``, which is of the same store.

    Raises:
        StorageError: a file changed since it was listed, or cannot be read.
    """
    new = {path: entry for path, entry in entries.items() if not _is_known(entry, known)}
    with ThreadPoolExecutor(MAX_CONCURRENT_READS) as pool:
        hashed = dict(zip(new, pool.map(lambda entry: hash_file(store, entry), new.values()), strict=True))
    return {path: hashed.get(path) or known[path] for path in entries}


def hash_file(store: Store, entry: Entry) -> Hashed:
    """Read a stored file of the listed generation and return its hash."""
    with store.local(entry.path, entry.generation) as file:
        return hash_local(file, entry)


def hash_local(file: Path, entry: Entry) -> Hashed:
    """Return the hash of a stored file from its local copy."""
    settled = entry.changed is None or entry.changed < time.time() - SETTLED_SECONDS
    with file.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    return Hashed(entry.size, sha256, entry.generation if settled else "")


def _is_known(entry: Entry, known: Files) -> bool:
    hashed = known.get(entry.path)
    return hashed is not None and (hashed.size, hashed.generation) == (entry.size, entry.generation)
