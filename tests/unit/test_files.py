"""A file is replaced whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from spira import files


def test_the_new_content_takes_the_old_ones_place(tmp_path: Path) -> None:
    """And nothing else is left beside it."""
    for content in ("old", "né"):
        files.replace(tmp_path / "a.json", content)
    assert (tmp_path / "a.json").read_text("utf-8") == "né"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_write_that_fails_leaves_the_old_content(tmp_path: Path) -> None:
    """What can't be encoded fails on the way, under the temporary name."""
    files.replace(tmp_path / "a.json", "old")
    with pytest.raises(UnicodeEncodeError):
        files.replace(tmp_path / "a.json", "new \ud800")
    assert (tmp_path / "a.json").read_text("utf-8") == "old"
