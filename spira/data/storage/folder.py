"""A store on disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spira import temporary
from spira.data.pseudonyms import shown_recording
from spira.data.storage.store import Entry, MissingError, StorageError, clean, disk_errors
from spira.files import new_file


class Folder:
    """Files below a folder."""

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
                elif _is_file(item) and (not item.is_symlink() or self._is_inside(Path(item.path))):
                    with suppress(FileNotFoundError):
                        yield _entry(path + item.name, item.stat())

    def read(self, path: str, generation: str | None = None) -> bytes:
        """See :class:`Store`."""
        file = self._file(path)
        with disk_errors(f"{self.uri}/{shown_recording(path)}"):
            data = file.read_bytes()
            self._check(file, path, generation)
        return data

    def fetch(self, path: str, to: Path, generation: str | None = None) -> None:
        """See :class:`Store`."""
        file = self._file(path)
        with disk_errors(f"{self.uri}/{shown_recording(path)}"), new_file(to, concurrent=True) as partial:
            shutil.copyfile(file, partial)
            self._check(file, path, generation)

    @contextmanager
    def local(self, path: str, generation: str | None = None) -> Iterator[Path]:
        """See :class:`Store`; the file itself, not a copy. Its generation is checked again when the block ends."""
        file = self._file(path)
        with disk_errors(f"{self.uri}/{shown_recording(path)}"):
            self._check(file, path, generation)
        yield file
        with disk_errors(f"{self.uri}/{shown_recording(path)}"):
            self._check(file, path, generation)

    def create(self, path: str, data: bytes) -> bool:
        """See :class:`Store`; a hard link from a complete file, which only one caller can make."""
        file = self._file(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        with temporary.file(file.parent, "create", 0o600) as partial:
            with partial.open("wb") as content:
                content.write(data)
                content.flush()
                os.fsync(content.fileno())  # the content reaches the disk before the name does
            try:
                os.link(partial, file)
            except FileExistsError:
                return False
        return True

    def write(self, path: str, data: bytes) -> None:
        """See :class:`Store`."""
        file = self._file(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        with new_file(file, concurrent=True) as partial:
            partial.write_bytes(data)

    def replace(self, path: str, data: bytes, generation: str) -> None:
        """See :class:`Store`; a file system has no conditional write, so a change in the same moment is lost."""
        file = self._file(path)
        with disk_errors(f"{self.uri}/{shown_recording(path)}"), new_file(file, concurrent=True) as partial:
            partial.write_bytes(data)
            self._check(file, path, generation)

    def history(self) -> tuple[Entry, ...]:
        """See :class:`Store`; a folder keeps nothing."""
        return ()

    def delete(self, entry: Entry) -> None:
        """See :class:`Store`."""
        with disk_errors(f"{self.uri}/{shown_recording(entry.path)}"):
            self._file(entry.path).unlink(missing_ok=True)

    def kept_after_delete(self) -> str:
        """See :class:`Store`."""
        return ""

    def _file(self, path: str) -> Path:
        file = self.root / clean(path)
        if not self._is_inside(file):
            raise StorageError(f"{shown_recording(path)!r} is a link that leads out of {self.root}: copy the file in")
        return file

    def _is_inside(self, file: Path) -> bool:
        return Path(os.path.realpath(file)).is_relative_to(self.root)  # Path.resolve fails on a link to itself

    def _check(self, file: Path, path: str, generation: str | None) -> None:
        if generation is not None and generation != _entry("", file.stat()).generation:
            raise StorageError(f"{self.uri}/{shown_recording(path)} has changed since it was listed: run again")


def _is_file(item: os.DirEntry[str]) -> bool:
    """Return whether an entry is a file, or a link to one; a link that leads to itself is none."""
    try:
        return item.is_file()
    except OSError:
        return False


def _entry(path: str, status: os.stat_result) -> Entry:
    """Return an entry whose generation holds both times of a file: copying tools can set back only the first."""
    return Entry(path, status.st_size, f"{status.st_mtime_ns}-{status.st_ctime_ns}", status.st_ctime)
