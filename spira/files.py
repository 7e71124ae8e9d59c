"""Files and folders that are never half-written, and locks between processes.

Every writer here writes under a temporary name beside the target and renames it. A process that is killed leaves the
old content, or the whole new content, under the name.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from spira import temporary

log = logging.getLogger(__name__)


FULL = (errno.ENOSPC, errno.EDQUOT)
NO_SPACE = re.compile(r"no space left|disk is full|quota exceeded", re.IGNORECASE)
"""Words with which the kernel, SQLite and libraries report a full disk."""
ALMOST_FULL_BYTES = 10_000_000
"""Free space below which a place counts as the full one."""


class LockedError(OSError):
    """Another process holds the lock."""


@contextmanager
def new_file(path: Path, *, concurrent: bool = False) -> Iterator[Path]:
    """Yield a temporary path that replaces ``path`` at the end; on an exception ``path`` stays as it was.

    Args:
        path: the file to write; its folder must exist.
        concurrent: processes may write the file at the same time, so each uses a temporary name of its own. A name
            that does not change is better otherwise: the next writer replaces what a killed writer left.
    """
    if concurrent:
        with temporary.file(path.parent, path.name) as partial:
            yield partial
            partial.replace(path)
        return
    writing = path.with_name(f"{path.name}.writing")
    try:
        yield writing
        writing.replace(path)
    except BaseException:
        writing.unlink(missing_ok=True)
        raise


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text to ``path`` in one step; its folder must exist."""
    with new_file(path) as writing:
        writing.write_text(content, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON to ``path`` in one step; its folder must exist."""
    write_text(path, json.dumps(value, indent=1))


def read_json(path: Path) -> Any:
    """Return the value that a JSON file holds."""
    return json.loads(path.read_text(encoding="utf-8"))


CHECKSUM = "checksum"
"""Key of the checksum in a JSON object that has one."""


def with_checksum(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object with a checksum over its other values, by which :func:`has_checksum` finds damage."""
    return {**values, CHECKSUM: checksum(values)}


def has_checksum(values: Mapping[str, Any]) -> bool:
    """Return whether a JSON object has the checksum of its other values."""
    return values.get(CHECKSUM) == checksum(values)


def checksum(values: Mapping[str, Any]) -> str:
    """Return the SHA-256 digest of all values but the checksum, whatever their order and layout in the file."""
    content = {key: value for key, value in values.items() if key != CHECKSUM}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces ``path`` at the end; on an exception ``path`` stays as it was.

    The temporary name does not change, so that the next writer removes what a killed writer left. Two processes must
    not write one folder at the same time: hold a :func:`lock`.
    """
    staged = path.with_name(f"{path.name}.writing")
    _restore_replaced(staged, path)
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    try:
        yield staged
        replace_folder(staged, path)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise


def unfinished(folder: Path, pattern: str = "*") -> list[Path]:
    """Return the paths in a folder beside which killed writers have left something.

    Args:
        folder: may be absent.
        pattern: of the paths, relative to the folder.
    """
    left = (*folder.glob(f"{pattern}.writing"), *folder.glob(f"{pattern}.writing.old"))
    return sorted({path.with_name(path.name.removesuffix(".old").removesuffix(".writing")) for path in left})


def remove_unfinished(path: Path) -> None:
    """Remove what a killed writer left beside ``path``; hold the lock of its writers."""
    staged = path.with_name(f"{path.name}.writing")
    _restore_replaced(staged, path)
    shutil.rmtree(_replaced(staged), ignore_errors=True)
    shutil.rmtree(staged) if staged.is_dir() else staged.unlink(missing_ok=True)


def replace_folder(staged: Path, path: Path) -> None:
    """Rename the folder ``staged`` to ``path``; an older folder of that name is renamed first and then removed.

    Deleting gigabytes takes seconds and a rename takes microseconds. A process killed between the two renames leaves
    nothing under ``path`` and the old folder beside ``staged``; :func:`new_folder` renames it back.
    """
    replaced = _replaced(staged)
    shutil.rmtree(replaced, ignore_errors=True)
    if path.exists():
        path.rename(replaced)
    try:
        staged.rename(path)
    except OSError:
        _restore_replaced(staged, path)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


def _replaced(staged: Path) -> Path:
    """Return the temporary name of the folder that ``staged`` replaces."""
    return staged.with_name(f"{staged.name}.old")


def _restore_replaced(staged: Path, path: Path) -> None:
    """Rename the old folder back if nothing replaced it."""
    if _replaced(staged).is_dir() and not path.exists():
        _replaced(staged).rename(path)


def disk_problem(error: BaseException, *places: Path) -> str | None:
    """Return a message for an error of a disk that is full or cannot be written; None for any other error.

    Args:
        error: the exception, of the kernel or of a library that reports it in words.
        places: files and folders in which the program may have written, in addition to the error's own file name.
    """
    number = error.errno if isinstance(error, OSError) else None
    named = [Path(os.fsdecode(error.filename))] if isinstance(error, OSError) and error.filename else []
    if number in FULL or (number is None and NO_SPACE.search(str(error))):
        candidates = [*named, *places, Path(tempfile.gettempdir()), Path.cwd()]
        place = next((path for path in candidates if _is_almost_full(path)), candidates[0])
        return f"no space left in {_existing(place)}: free space there, or use another folder (--work, TMPDIR)"
    if number in (errno.EACCES, errno.EPERM, errno.EROFS) and named:
        folder = _existing(named[0].parent)
        cause = "on a read-only file system" if number == errno.EROFS else "without permission for this user"
        return f"{folder} is {cause}: choose another place (--out, --work), or change its permissions"
    return None


def _is_almost_full(path: Path) -> bool:
    return shutil.disk_usage(_existing(path)).free < ALMOST_FULL_BYTES


def _existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    return next(part for part in (path.absolute(), *path.absolute().parents) if part.exists())


def link_files(source: Path, names: Sequence[str], target: Path, *, optional: Sequence[str] = ()) -> None:
    """Make ``target`` a folder of the named files of ``source``: hard links on one file system, else copies.

    Args:
        optional: names of more files, which need not exist.
    """
    if source == target:
        return
    with new_folder(target) as staged:
        for name in (*names, *(name for name in optional if (source / name).exists())):
            try:
                os.link(source / name, staged / name)
            except OSError:
                shutil.copyfile(source / name, staged / name)


@contextmanager
def lock(path: Path, *, wait: bool = True) -> Iterator[IO[str]]:
    """Hold an exclusive lock on the file ``path``, which is created if absent and never removed.

    The kernel releases the lock when the process ends, however it ends.

    Yields:
        The open file, to append to. A child process that inherits it holds the lock too, until it ends.

    Raises:
        LockedError: another process holds it, and ``wait`` is false.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if not wait:
                raise LockedError(f"{path}: another process holds the lock") from error
            log.info("%s: waiting for another process", path.name)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock; create nothing."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
