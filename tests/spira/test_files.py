"""A file is replaced whole or not at all."""

from __future__ import annotations

from pathlib import Path
from threading import Thread

import pytest

from spira import files


def test_the_new_content_takes_the_old_ones_place(tmp_path: Path) -> None:
    """And nothing else is left beside it."""
    for content in ("old", "né"):
        files.write_text(tmp_path / "a.json", content)
    assert (tmp_path / "a.json").read_text("utf-8") == "né"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_write_that_fails_leaves_the_old_content(tmp_path: Path) -> None:
    """What can't be encoded fails on the way, under the temporary name."""
    files.write_text(tmp_path / "a.json", "old")
    with pytest.raises(UnicodeEncodeError):
        files.write_text(tmp_path / "a.json", "new \ud800")
    assert (tmp_path / "a.json").read_text("utf-8") == "old"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A kept folder of one file."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "a").write_text("1")
    return tmp_path / "kept"


def test_kept_files_are_linked_not_copied(place: Path, tmp_path: Path):
    """A corpus of gigabytes costs its disk once."""
    files.link_files(place, ["a"], tmp_path / "out")
    assert (tmp_path / "out" / "a").samefile(place / "a")


def test_what_is_handed_on_replaces_what_was_there(place: Path, tmp_path: Path):
    """A task that is repeated after a kill finds leftovers and replaces them."""
    for leftover in ("out", "out.writing"):
        (tmp_path / leftover).mkdir()
        (tmp_path / leftover / "b").write_text("old")
    files.link_files(place, ["a"], tmp_path / "out")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "a", "kept", "out"]


def test_a_place_in_place_is_left_alone(place: Path):
    """Without a state folder a stage works in its output directly."""
    files.link_files(place, ["a"], place)
    assert (place / "a").read_text() == "1"


def test_one_process_at_a_time_makes_a_place(tmp_path: Path):
    """The second waits for the first, then sees what it made."""
    seen = []

    def second() -> None:
        with files.lock(tmp_path / ".corpus.lock"):
            seen.append((tmp_path / "made").exists())

    with files.lock(tmp_path / ".corpus.lock"):
        waiting = Thread(target=second)
        waiting.start()
        waiting.join(0.2)
        assert seen == []
        (tmp_path / "made").touch()
    waiting.join()
    assert seen == [True]
