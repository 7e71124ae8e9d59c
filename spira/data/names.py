"""Names that people type and computers store: of files and of speakers.

A name can be written in several ways that look the same, or nearly so. Accents are composed (NFC) on most systems and
decomposed (NFD) on a Mac; a spreadsheet changes case; Windows writes backslashes.

- A file's name matches exactly, or else after NFC. Every other difference is only hinted at, since two files may differ
  by it.
- Speakers are the same person if their names match after NFC, without regard to case and spaces.
"""

from __future__ import annotations

import os
import posixpath
import sys
import unicodedata
from collections.abc import Iterable


def nfc(name: str) -> str:
    """Return a name with composed accents."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def speaker_key(name: str) -> str:
    """Return what the spellings of a speaker's name have in common."""
    return nfc(nfc(" ".join(name.split())).casefold())


class NearMatches:
    """The stored files, by what a mistyped name has in common with theirs."""

    def __init__(self, paths: Iterable[str]) -> None:
        self.by_path: dict[str, str] = {}
        self.by_stem: dict[str, str] = {}
        self.by_base_name: dict[str, list[str]] = {}
        self.misread: dict[str, str] = {}
        """Name as another program reads it -> why this one does not."""
        for path in paths:
            name, reason = _as_utf8(path)
            if reason:
                self.misread[nfc(name)] = reason
            key = _loose(name)
            self.by_path.setdefault(key, path)
            self.by_stem.setdefault(posixpath.splitext(key)[0], path)
            self.by_base_name.setdefault(posixpath.basename(key), []).append(path)

    def nearest(self, path: str) -> str | None:
        """Return the stored file that was probably meant, or None."""
        key = _loose(path)
        elsewhere = self.by_base_name.get(posixpath.basename(key), [])
        near = self.by_path.get(key) or self.by_stem.get(posixpath.splitext(key)[0])
        return near or (elsewhere[0] if len(elsewhere) == 1 else None)

    def hint(self, path: str) -> str:
        """Return a sentence that names the file that was probably meant, and the remedy; empty if there is none."""
        if reason := self.misread.get(nfc(path)):
            return reason
        near = self.nearest(path)
        return f"{near!r} is there; write that name in the table, or rename the file" if near else ""


def _loose(path: str) -> str:
    """Return a path without regard to case, form of accents, kind of slashes, and spaces around its parts."""
    parts = nfc(path).replace("\\", "/").split("/")
    return nfc("/".join(stripped for part in parts if (stripped := part.strip()) not in ("", ".")).casefold())


def _as_utf8(path: str) -> tuple[str, str]:
    """Return the name of a stored file as UTF-8, and the reason if this process reads it otherwise."""
    encoding = sys.getfilesystemencoding()
    try:
        name = os.fsencode(path).decode()
    except UnicodeEncodeError:  # the name comes from a bucket, not from this file system
        return path, ""
    except UnicodeDecodeError:
        name = os.fsencode(path).decode("latin-1")
        return name, "a file of this name is there, but its name is not stored as UTF-8: rename it"
    if name == path:
        return path, ""
    return name, f"it is there, but this process reads file names as {encoding}: set LC_ALL=C.UTF-8 and run again"
