"""Files and folders that are never half-written, and locks between processes.

Every writer here writes under a temporary name beside the target and renames it. A process that is killed leaves the
old content, or the whole new content, under the name.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


class LockedError(OSError):
    """Another process holds the lock."""


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text to ``path`` in one step; its folder must exist."""
    temporary = path.with_name(f"{path.name}.writing")
    temporary.write_text(content, encoding="utf-8")
    temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON to ``path`` in one step; its folder must exist."""
    write_text(path, json.dumps(value, indent=1))


def read_json(path: Path) -> Any:
    """Return the value that a JSON file holds."""
    return json.loads(path.read_text(encoding="utf-8"))


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder to fill, which replaces ``path`` at the end; on an exception ``path`` stays as it was."""
    staged = path.with_name(f"{path.name}.writing")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    try:
        yield staged
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    shutil.rmtree(path, ignore_errors=True)
    staged.rename(path)


def link_files(source: Path, names: Sequence[str], target: Path) -> None:
    """Make ``target`` a folder of the named files of ``source``: hard links on one file system, else copies."""
    if source == target:
        return
    with new_folder(target) as staged:
        for name in names:
            try:
                os.link(source / name, staged / name)
            except OSError:
                shutil.copyfile(source / name, staged / name)


@contextmanager
def lock(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold an exclusive lock on the file ``path``, which is made where it is absent and stays.

    The kernel releases the lock when the process ends, however it ends.

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
        yield
