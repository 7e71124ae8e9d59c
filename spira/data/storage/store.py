"""The interface of all stores, and their errors."""

from __future__ import annotations

import posixpath
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from spira import temporary
from spira.data.pseudonyms import shown_recording
from spira.errors import SpiraError


class StorageError(SpiraError):
    """A file, object, folder or bucket that cannot be read or written; the message names it."""


class MissingError(StorageError):
    """No file of this name exists, or no longer in this generation."""


@dataclass(frozen=True)
class Entry:
    """One stored file."""

    path: str
    """Relative to the store, with forward slashes."""
    size: int
    """Bytes."""
    generation: str
    """Changes when the content is replaced: an object's generation, or a file's two times of change in ns."""
    changed: float | None = None
    """Time of the last change of a file on disk, s since 1970; None for objects, whose generation is enough."""
    md5: str = ""
    """Hex digest of an object as its store computed it; empty for a file, and where the store has none."""


class Store(Protocol):
    """Files under one root."""

    uri: str

    def list(self) -> list[Entry]:
        """Return every file under the root, sorted by path."""

    def read(self, path: str, generation: str | None = None) -> bytes:
        """Return the content of a file; refuse one of another generation."""

    def fetch(self, path: str, to: Path, generation: str | None = None) -> None:
        """Copy a file to a local path, in one step."""

    def local(self, path: str, generation: str | None = None) -> AbstractContextManager[Path]:
        """Give a file a local path for the length of a ``with`` block; a fetched copy is then removed."""

    def create(self, path: str, data: bytes) -> bool:
        """Write a file unless it exists, and return whether this call wrote it. Of many callers, one gets True.

        The client of a bucket may repeat a request whose response was lost. This call then returns False although
        it wrote the file: a caller that must be sure reads the file back and compares.
        """

    def write(self, path: str, data: bytes) -> None:
        """Write or replace a file, in one step."""

    def replace(self, path: str, data: bytes, generation: str) -> None:
        """Replace a file of this generation, in one step; refuse one of another generation."""

    def history(self) -> tuple[Entry, ...]:
        """Return what the store keeps of replaced and deleted files, sorted by path."""

    def delete(self, entry: Entry) -> None:
        """Delete an entry of :meth:`list` or :meth:`history`, unless it is gone.

        A store that keeps deleted files may then have it in :meth:`history`, where it can be deleted for good.
        """

    def kept_after_delete(self) -> str:
        """Return what the store keeps of deleted files, and how long; empty if it says nothing of it."""


class Bucket(ABC):
    """A store whose files are objects, which have no local path of their own."""

    @abstractmethod
    def fetch(self, path: str, to: Path, generation: str | None = None) -> None:
        """See :class:`Store`."""

    @contextmanager
    def local(self, path: str, generation: str | None = None) -> Iterator[Path]:
        """See :class:`Store`; in a temporary folder."""
        with temporary.folder() as folder:
            file = folder / posixpath.basename(path)
            self.fetch(path, file, generation)
            yield file


def clean(path: str) -> str:
    """Return the normal form of a path relative to a root, with forward slashes.

    Raises:
        StorageError: the path is empty, absolute, or leads out of the root.
    """
    normal = posixpath.normpath(path)
    if not path.strip() or normal == ".":
        raise StorageError("a path must not be empty")
    if "\0" in path or posixpath.isabs(normal) or normal.split("/")[0] == "..":
        raise StorageError(
            f"{shown_recording(path)!r} leads out of the data set: paths must be relative and stay inside it"
        )
    return normal


@contextmanager
def disk_errors(name: str) -> Iterator[None]:
    """Turn a failure of the disk into a StorageError that names the file or store."""
    try:
        yield
    except FileNotFoundError as error:
        raise MissingError(f"{name}: not found") from error
    except OSError as error:
        raise StorageError(f"{name}: {error.strerror or error}") from error
