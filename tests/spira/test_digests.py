"""Digests of the files of a folder: every flipped bit is found, and folders without digests are accepted."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from spira import digests
from spira.digests import DamagedError

NAMES = ("a.json", "b.npy")
REMEDY = "write it again"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two files with their digests."""
    (tmp_path / "a.json").write_text('{"a": 1}')
    (tmp_path / "b.npy").write_bytes(bytes(range(100)))
    digests.record(tmp_path, NAMES)
    return tmp_path


def check(folder: Path) -> None:
    digests.check(folder, NAMES, REMEDY)


@pytest.mark.parametrize("name", [*NAMES, digests.FILE])
def test_every_flipped_bit_is_refused_by_name(folder: Path, name: str) -> None:
    """The message names the file, or the list, and the remedy."""
    check(folder)
    before = (folder / name).read_bytes()
    for position in range(len(before) * 8):
        content = bytearray(before)
        content[position // 8] ^= 1 << position % 8
        (folder / name).write_bytes(content)
        with pytest.raises(DamagedError, match=rf"{folder}.*: {REMEDY}") as refusal:
            check(folder)
        assert name == digests.FILE or str(folder / name) in str(refusal.value)


def test_the_list_is_that_of_sha256sum(folder: Path) -> None:
    """The folder can be checked where this program is not installed."""
    result = subprocess.run(["sha256sum", "--check", "--strict", digests.FILE], cwd=folder, capture_output=True)
    assert result.returncode == 0, result.stderr


def test_a_folder_without_digests_is_accepted(folder: Path) -> None:
    """Earlier versions wrote none."""
    digests.remove(folder)
    (folder / "a.json").write_text("{}")
    check(folder)


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff", b"no digest  a.json\n"])
def test_a_damaged_list_is_refused(folder: Path, content: bytes) -> None:
    """A list that a crash emptied must not look like that of a folder without files."""
    (folder / digests.FILE).write_bytes(content)
    with pytest.raises(DamagedError, match=f"{digests.FILE}.*{REMEDY}"):
        check(folder)


def test_a_missing_file_is_refused_unless_nobody_lists_it(folder: Path) -> None:
    """An optional file may be absent, but not after it was written."""
    digests.check(folder, [*NAMES, "optional.json"], REMEDY)
    (folder / "a.json").unlink()
    with pytest.raises(DamagedError, match=rf"{folder / 'a.json'} is missing: {REMEDY}"):
        check(folder)


def test_a_file_that_is_not_listed_is_refused(folder: Path) -> None:
    """It came later than the list, or the list is damaged."""
    (folder / "c.json").write_text("{}")
    check(folder)
    with pytest.raises(DamagedError, match=r"does not list c\.json"):
        digests.check(folder, [*NAMES, "c.json"], REMEDY)


def test_a_large_file_is_hashed_once_in_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also under another name, and again after a change."""
    hashed: list[str] = []
    monkeypatch.setattr("hashlib.file_digest", counted(hashed))
    large = tmp_path / "large"
    large.write_bytes(bytes(digests.MIN_REMEMBERED_BYTES))
    digests.record(tmp_path, ["large"])
    digests.check(tmp_path, ["large"], REMEDY)
    os.link(large, tmp_path / "link")
    assert digests.sha256(tmp_path / "link") == digests.sha256(large)
    assert hashed == [str(large)]
    with large.open("r+b") as file:
        file.write(b"\x01")
    with pytest.raises(DamagedError, match="large is damaged"):
        digests.check(tmp_path, ["large"], REMEDY)
    assert len(hashed) == 2


def counted(hashed: list[str]):
    """Return ``hashlib.file_digest``, which appends the name of each file to a list."""
    import hashlib

    original = hashlib.file_digest

    def file_digest(content, name):
        hashed.append(content.name)
        return original(content, name)

    return file_digest
