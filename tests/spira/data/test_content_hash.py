"""Hashes of a store's files: read side by side, and only where a file has changed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spira.data.content_hash import Hashed, hash_files
from spira.data.storage import Folder


class MeetingFolder(Folder):
    """A folder in which a read waits until a second one runs."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.meeting = threading.Barrier(2, timeout=20)

    @contextmanager
    def local(self, path: str, generation: str | None = None) -> Iterator[Path]:
        """Wait for another read, then yield the file."""
        self.meeting.wait()
        with super().local(path, generation) as file:
            yield file


def test_files_are_read_side_by_side(tmp_path: Path):
    """On a bucket each read is a round trip; the result has the order of the entries."""
    for name in ("a", "b", "c", "d"):
        (tmp_path / name).write_text(name)
    store = MeetingFolder(tmp_path)
    entries = {entry.path: entry for entry in store.list()}
    assert list(hash_files(store, entries, {})) == ["a", "b", "c", "d"]


def test_a_known_generation_is_not_read_again(tmp_path: Path):
    """Its hash is taken over."""
    (tmp_path / "a").write_text("a")
    store = MeetingFolder(tmp_path)
    (entry,) = store.list()
    known = {"a": Hashed(entry.size, "known", entry.generation)}
    assert hash_files(store, {"a": entry}, known) == known
