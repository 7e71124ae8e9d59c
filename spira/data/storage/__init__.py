"""Stores of data sets: a folder, or a prefix of a bucket, behind one small interface.

    store = open_store("gs://bucket/prefix")        # Google Cloud Storage
    store = open_store("s3://bucket/prefix")        # S3, or a store that speaks its protocol
    for entry in store.list():
        data = store.read(entry.path, entry.generation)

A *generation* pins the content of a listed file. Reading a generation that has been replaced is refused, so data
cannot change between listing and use.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from spira.data.storage.folder import Folder
from spira.data.storage.gcs import GcsBucket
from spira.data.storage.s3 import S3Bucket
from spira.data.storage.store import Entry, MissingError, StorageError, Store, clean

__all__ = ["Entry", "Folder", "MissingError", "StorageError", "Store", "clean", "is_bucket", "open_store"]

BUCKETS: dict[str, Callable[[str, str], Store]] = {"gs": GcsBucket, "s3": S3Bucket}
"""Scheme of an address -> store of a bucket and a prefix."""
PLACES = "give a folder, gs://bucket/prefix or s3://bucket/prefix"


def open_store(uri: str | Path) -> Store:
    """Return the store at a folder path, ``gs://bucket/prefix`` or ``s3://bucket/prefix``.

    Raises:
        StorageError: an unknown scheme, no bucket name, or a path that is a file.
    """
    scheme, separator, rest = str(uri).partition("://")
    if not separator:
        return Folder(Path(uri))
    if scheme not in BUCKETS:
        raise StorageError(f"{uri}: {PLACES}")
    bucket, _, prefix = rest.partition("/")
    if not bucket:
        raise StorageError(f"{uri}: the bucket's name is missing, write {scheme}://bucket/prefix")
    return BUCKETS[scheme](bucket, prefix.strip("/"))


def is_bucket(uri: str | Path) -> bool:
    """Return whether an address is of a store that other machines reach too."""
    return str(uri).partition("://")[0] in BUCKETS
