"""Temporary files and folders: removed at the end, and by a later process if theirs was killed.

    TMPDIR/1a2b3c4d.spira-tmp           a folder of :func:`folder`, or the TMPDIR of a run (:func:`own_tmpdir`)
    work/models/.3.1a2b3c4d.spira-tmp   a temporary name beside what it becomes

Each is locked by its process while it is used, and the kernel releases the lock when the process ends, however it ends.
The first use of a folder by a process removes what is not locked in it (:func:`sweep`).
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NAME = re.compile(r"(\.[^/]*\.)?[0-9a-f]{8}\.spira-tmp")
"""Names that :func:`sweep` may remove."""

MAX_LABEL = 50
"""Characters of a label in a name, which has at most 255 bytes."""

_swept: set[Path] = set()
"""Folders that this process has swept. It sweeps each once: a folder may get thousands of files, one after another."""


@contextmanager
def folder(parent: Path | None = None, label: str = "") -> Iterator[Path]:
    """Yield an empty folder that is removed at the end.

    Args:
        parent: folder to make it in; TMPDIR by default.
        label: part of its hidden name, for a parent with other content.
    """
    path, handle = _create(_parent(parent), label, os.mkdir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(handle)


@contextmanager
def file(parent: Path, label: str = "", mode: int = 0o666) -> Iterator[Path]:
    """Yield an empty file; it is removed at the end, if it still has this name.

    Args:
        parent: folder to make it in.
        label: part of its hidden name, for a parent with other content.
        mode: its permissions, which the process's mask limits.
    """

    def make(path: Path) -> None:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))

    path, handle = _create(_parent(parent), label, make, os.O_RDWR)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


@contextmanager
def own_tmpdir() -> Iterator[Path]:
    """Give this process and those that it starts a TMPDIR of their own, so that all temporary files end with it.

    Libraries and the tasks of kfp make temporary files of their own, some of which they never remove.
    """
    before, default = os.environ.get("TMPDIR"), tempfile.tempdir
    with folder() as path:
        os.environ["TMPDIR"] = tempfile.tempdir = str(path)
        try:
            yield path
        finally:
            tempfile.tempdir = default
            if before is None:
                del os.environ["TMPDIR"]
            else:
                os.environ["TMPDIR"] = before


def sweep(parent: Path) -> None:
    """Remove the temporary files and folders in a folder that no process uses; those of other users stay."""
    with suppress(OSError), os.scandir(parent) as entries:
        for path in [Path(entry.path) for entry in entries if NAME.fullmatch(entry.name)]:
            with suppress(OSError):  # it is gone, in use, or belongs to another user
                handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
                finally:
                    os.close(handle)


def _parent(parent: Path | None) -> Path:
    """Return the folder for a temporary name, swept by this process."""
    chosen = Path(tempfile.gettempdir()) if parent is None else parent
    if (absolute := chosen.absolute()) not in _swept:
        _swept.add(absolute)
        sweep(absolute)
    return chosen


def _create(parent: Path, label: str, make: Callable[[Path], None], flags: int) -> tuple[Path, int]:
    """Make a file or folder with a new name; return its path, and a handle whose closing releases its lock."""
    while True:
        path = parent / f"{f'.{label[:MAX_LABEL]}.' if label else ''}{secrets.token_hex(4)}.spira-tmp"
        with suppress(FileExistsError):
            make(path)
            if handle := _lock(path, flags):
                return path, handle


def _lock(path: Path, flags: int) -> int | None:
    """Lock a new file or folder; return None if another process has swept it before."""
    try:
        handle = os.open(path, flags)
    except FileNotFoundError:
        return None
    fcntl.flock(handle, fcntl.LOCK_EX)
    if path.exists():  # a name is used once, so it is the same one
        return handle
    os.close(handle)
    return None
