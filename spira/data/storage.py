"""Stores of data sets: a folder, or a prefix of a Google Cloud Storage bucket, behind one small interface.

    store = open_store("gs://bucket/prefix")
    for entry in store.list():
        data = store.read(entry.path, entry.generation)

A *generation* pins the content of a listed file. Reading a generation that has been replaced is refused, so data
cannot change between listing and use. Google's client library retries requests itself: every request here is a read,
or names a generation where repeating it could do harm.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from spira.errors import SpiraError
from spira.files import new_file


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


def open_store(uri: str | Path) -> Store:
    """Return the store at a folder path or ``gs://bucket/prefix``.

    Raises:
        StorageError: an unknown scheme, no bucket name, or a path that is a file.
    """
    scheme, separator, rest = str(uri).partition("://")
    if not separator:
        return Folder(Path(uri))
    if scheme != "gs":
        raise StorageError(f"{uri}: give a folder or gs://bucket/prefix")
    bucket, _, prefix = rest.partition("/")
    if not bucket:
        raise StorageError(f"{uri}: the bucket's name is missing, write gs://bucket/prefix")
    return Bucket(bucket, prefix.strip("/"))


def clean(path: str) -> str:
    """Return the normal form of a path relative to a root, with forward slashes.

    Raises:
        StorageError: the path is empty, absolute, or leads out of the root.
    """
    normal = posixpath.normpath(path)
    if not path.strip() or normal == ".":
        raise StorageError("a path must not be empty")
    if "\0" in path or posixpath.isabs(normal) or normal.split("/")[0] == "..":
        raise StorageError(f"{path!r} leads out of the data set: paths must be relative and stay inside it")
    return normal


class Folder:
    """A store on disk."""

    def __init__(self, root: Path) -> None:
        if root.exists() and not root.is_dir():
            raise StorageError(f"{root} is a file: give a folder")
        self.root = root.resolve()
        self.uri = str(self.root)

    def list(self) -> list[Entry]:
        """See :class:`Store`; links that lead out of the folder are not followed."""
        if not self.root.is_dir():
            raise MissingError(f"{self.root}: no such folder")
        return sorted(self._walk(self.root, ""), key=lambda entry: entry.path)

    def _walk(self, folder: Path, path: str) -> Iterator[Entry]:
        """Yield the files below a folder; a file that disappears meanwhile is left out."""
        with suppress(FileNotFoundError), os.scandir(folder) as items:
            for item in items:
                if item.is_dir(follow_symlinks=False):
                    yield from self._walk(Path(item.path), f"{path}{item.name}/")
                elif item.is_file() and (not item.is_symlink() or self._is_inside(Path(item.path))):
                    with suppress(FileNotFoundError):
                        yield _entry(path + item.name, item.stat())

    def read(self, path: str, generation: str | None = None) -> bytes:
        """See :class:`Store`."""
        file = self._file(path)
        with _storage_errors(f"{self.uri}/{path}"):
            data = file.read_bytes()
            self._check(file, generation)
        return data

    def fetch(self, path: str, to: Path, generation: str | None = None) -> None:
        """See :class:`Store`."""
        file = self._file(path)
        with _storage_errors(f"{self.uri}/{path}"), new_file(to, concurrent=True) as partial:
            shutil.copyfile(file, partial)
            self._check(file, generation)

    @contextmanager
    def local(self, path: str, generation: str | None = None) -> Iterator[Path]:
        """See :class:`Store`; the file itself, not a copy. Its generation is checked again when the block ends."""
        file = self._file(path)
        with _storage_errors(f"{self.uri}/{path}"):
            self._check(file, generation)
        yield file
        with _storage_errors(f"{self.uri}/{path}"):
            self._check(file, generation)

    def create(self, path: str, data: bytes) -> bool:
        """See :class:`Store`; a hard link from a complete file, which only one caller can make."""
        file = self._file(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".create-") as partial:
            partial.write(data)
            partial.flush()
            os.fsync(partial.fileno())  # the content reaches the disk before the name does
            try:
                os.link(partial.name, file)
            except FileExistsError:
                return False
        return True

    def write(self, path: str, data: bytes) -> None:
        """See :class:`Store`."""
        file = self._file(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        with new_file(file, concurrent=True) as partial:
            partial.write_bytes(data)

    def _file(self, path: str) -> Path:
        file = self.root / clean(path)
        if not self._is_inside(file):
            raise StorageError(f"{path!r} is a link that leads out of {self.root}: copy the file in")
        return file

    def _is_inside(self, file: Path) -> bool:
        return file.resolve().is_relative_to(self.root)

    def _check(self, file: Path, generation: str | None) -> None:
        if generation is not None and generation != _entry("", file.stat()).generation:
            raise StorageError(f"{file} has changed since it was listed: run again")


def _entry(path: str, status: os.stat_result) -> Entry:
    """Return an entry whose generation holds both times of a file: copying tools can set back only the first."""
    return Entry(path, status.st_size, f"{status.st_mtime_ns}-{status.st_ctime_ns}", status.st_ctime)


class Bucket:
    """A store under a prefix of a Google Cloud Storage bucket (or of the emulator STORAGE_EMULATOR_HOST)."""

    def __init__(self, bucket: str, prefix: str) -> None:
        from google.cloud import storage  # here: the import takes half a second

        self.uri = f"gs://{bucket}/{prefix}".rstrip("/")
        self.prefix = f"{clean(prefix)}/" if prefix else ""
        with _storage_errors(self.uri):
            self.bucket = storage.Client().bucket(bucket)

    def list(self) -> list[Entry]:
        """See :class:`Store`."""
        with _storage_errors(self.uri):
            blobs = list(self.bucket.list_blobs(prefix=self.prefix))
        entries = [Entry(b.name[len(self.prefix) :], b.size, str(b.generation)) for b in blobs]
        return sorted((e for e in entries if not e.path.endswith("/")), key=lambda entry: entry.path)

    def read(self, path: str, generation: str | None = None) -> bytes:
        """See :class:`Store`."""
        with _storage_errors(f"{self.uri}/{path}"):
            return self._blob(path, generation).download_as_bytes()

    def fetch(self, path: str, to: Path, generation: str | None = None) -> None:
        """See :class:`Store`."""
        with _storage_errors(f"{self.uri}/{path}"), new_file(to, concurrent=True) as partial:
            self._blob(path, generation).download_to_filename(str(partial))

    @contextmanager
    def local(self, path: str, generation: str | None = None) -> Iterator[Path]:
        """See :class:`Store`; in a temporary folder."""
        with tempfile.TemporaryDirectory(prefix="spira-") as folder:
            file = Path(folder, posixpath.basename(path))
            self.fetch(path, file, generation)
            yield file

    def create(self, path: str, data: bytes) -> bool:
        """See :class:`Store`; generation 0 stands for an object that does not exist."""
        from google.api_core.exceptions import PreconditionFailed

        with _storage_errors(f"{self.uri}/{path}"):
            try:
                self._blob(path).upload_from_string(data, if_generation_match=0)
            except PreconditionFailed:
                return False
        return True

    def write(self, path: str, data: bytes) -> None:
        """See :class:`Store`; a repeated request writes the same bytes, so it does no harm."""
        from google.cloud.storage.retry import DEFAULT_RETRY

        with _storage_errors(f"{self.uri}/{path}"):
            self._blob(path).upload_from_string(data, retry=DEFAULT_RETRY)

    def _blob(self, path: str, generation: str | None = None) -> Any:
        return self.bucket.blob(self.prefix + clean(path), generation=None if generation is None else int(generation))


@contextmanager
def _storage_errors(name: str) -> Iterator[None]:
    """Turn a failure of disk, storage service or credentials into a StorageError that names the file or store."""
    try:
        yield
    except StorageError:
        raise
    except FileNotFoundError as error:
        raise MissingError(f"{name}: not found") from error
    except Exception as error:
        if not _is_storage_failure(error):
            raise
        kind = type(error).__name__
        error_class = MissingError if kind == "NotFound" else StorageError
        raise error_class(f"{name}: {_REASONS.get(kind, error)}") from error


_REASONS = {
    "NotFound": "not found, not visible to these credentials, or replaced since it was listed: run again",
    "Forbidden": "these credentials may not do this",
    "Unauthorized": "no valid credentials: run 'gcloud auth application-default login'",
    "DefaultCredentialsError": "no credentials: run 'gcloud auth application-default login'",
}


def _is_storage_failure(error: Exception) -> bool:
    """Return whether the disk, the storage service or its credentials failed, rather than this code."""
    return isinstance(error, OSError) or type(error).__module__.startswith(("google.api_core", "google.auth"))
