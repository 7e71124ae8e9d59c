"""Digests of the files of a folder, which show damage when the folder is opened.

    SHA256SUMS    a line for each file, its SHA-256 and its name, as ``sha256sum --check`` reads them

The list is written last. A folder without one is of an earlier version and is accepted as it is. No fingerprint, cache
key or package digest covers the list.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from spira.errors import SpiraError
from spira.files import write_text

FILE = "SHA256SUMS"
"""Name of the list in its folder."""
LINE = re.compile(r"([0-9a-f]{64})  ([^/\n]+)")
MIN_REMEMBERED_BYTES = 16_000_000
"""Size from which a file is hashed once in a process. Smaller files are hashed at every check."""

_remembered: dict[tuple[int, ...], str] = {}
"""Device, inode, size and time of change of a large file -> its SHA-256. A link and a renamed folder keep all four."""


class DamagedError(SpiraError):
    """A file that is not as it was written; the message names it."""


def record(folder: Path, names: Iterable[str]) -> None:
    """Write the list of a folder: the digests of the named files, all of which exist."""
    write_text(folder / FILE, "".join(f"{sha256(folder / name)}  {name}\n" for name in names))


def remove(folder: Path) -> None:
    """Remove the list of a folder whose files are about to be written again."""
    (folder / FILE).unlink(missing_ok=True)


def check(folder: Path, names: Iterable[str], remedy: str) -> None:
    """Compare the named files of a folder with its list, if it has one. A file that neither has is accepted.

    Args:
        remedy: end of the message, such as "train again".

    Raises:
        DamagedError: a file was changed or is missing, or the list is damaged; the message names it.
    """
    try:
        damage = _find_damage(folder, names)
    except FileNotFoundError as error:
        damage = f"{error.filename} is missing"
    except (OSError, ValueError) as error:
        damage = f"{folder} is damaged ({error})"
    if damage:
        raise DamagedError(f"{damage}: {remedy}")


def _find_damage(folder: Path, names: Iterable[str]) -> str:
    """Return the first of the named files that is not as it was written, and why; empty if there is none."""
    listed = _read(folder / FILE)
    if listed is None:
        return ""
    for name in names:
        if name in listed and sha256(folder / name) != listed[name]:
            return f"{folder / name} is damaged, its digest is not that in {FILE}"
        if name not in listed and (folder / name).exists():
            return f"{folder / FILE} is damaged, it does not list {name}"
    return ""


def _read(file: Path) -> dict[str, str] | None:
    """Return the digests in a list by name; None if there is no list.

    Raises:
        ValueError: a line has another form.
    """
    if not file.exists():
        return None
    lines = file.read_text("utf-8", errors="replace").removesuffix("\n").split("\n")
    matches = [LINE.fullmatch(line) for line in lines]
    if not all(matches):
        raise ValueError(f"{file.name} is no list of digests")
    return {match[2]: match[1] for match in matches if match}


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file, which is read in pieces.

    Raises:
        OSError: it cannot be read.
    """
    with file.open("rb") as content:
        status = os.fstat(content.fileno())
        key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if digest := _remembered.get(key):
            return digest
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if status.st_size >= MIN_REMEMBERED_BYTES:
        _remembered[key] = digest
    return digest
