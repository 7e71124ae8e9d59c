"""Temporary files end with their process, or are removed by a later one; those in use are never removed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest

from spira import files, temporary
from tests.support import ROOT


@contextmanager
def concurrent_writer(parent: Path) -> Iterator[Path]:
    with files.new_file(parent / "a.json", concurrent=True) as path:
        yield path


@contextmanager
def tmpdir(parent: Path) -> Iterator[Path]:
    tempfile.tempdir = str(parent)
    with temporary.own_tmpdir() as path:
        tempfile.mkdtemp()  # such as kfp's, which nobody removes
        yield path


HELD: dict[str, Callable[[Path], AbstractContextManager[Path]]] = {
    "folder": lambda parent: temporary.folder(parent, "fetch"),
    "folder without a label": temporary.folder,
    "file": lambda parent: temporary.file(parent, "create"),
    "concurrent writer": concurrent_writer,
    "TMPDIR": tmpdir,
    "long name": lambda parent: temporary.file(parent, "ã" * 120),
}
"""Every way to hold something temporary in a folder."""

HOLDER = """
import sys, time
from pathlib import Path
from tests.spira.test_temporary import HELD

with HELD[sys.argv[1]](Path(sys.argv[2])) as path:
    if path.is_dir():
        (path / "part").write_text("part")
    print(path, flush=True)
    time.sleep(600)
"""


@contextmanager
def holder(name: str, parent: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a process that holds something temporary, until the end or until it is killed."""
    command = [sys.executable, "-c", HOLDER, name, str(parent)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert Path(process.stdout.readline().strip()).parent == parent
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.integration
@pytest.mark.parametrize("name", HELD)
def test_what_a_killed_process_left_is_removed_and_what_is_in_use_stays(name: str, tmp_path: Path) -> None:
    """A sweep finds both; after the kill it finds one more to remove."""
    (tmp_path / "other.spira-tmp").write_text("not ours: its name has no random part")
    (tmp_path / "data.csv").write_text("data")
    with holder(name, tmp_path) as process:
        temporary.sweep(tmp_path)
        assert len(list(tmp_path.iterdir())) == 3
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert len(list(tmp_path.iterdir())) == 3
        temporary.sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.csv", "other.spira-tmp"]


@pytest.mark.parametrize("name", HELD)
def test_nothing_is_left_at_the_end(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an exception too."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    before = os.environ.get("TMPDIR")
    with suppress(KeyError), HELD[name](tmp_path) as path:
        assert path.exists()
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    assert os.environ.get("TMPDIR") == before


def test_the_first_use_of_a_folder_sweeps_it(tmp_path: Path) -> None:
    """A process sweeps a folder once: it may get thousands of files."""
    with temporary.folder(tmp_path) as left:
        (tmp_path / left.with_name("00000000.spira-tmp").name).mkdir()
        with temporary.file(tmp_path):
            assert len(list(tmp_path.iterdir())) == 3
    other = tmp_path / "other"
    (other / "00000000.spira-tmp").mkdir(parents=True)
    with temporary.file(other) as path:
        assert list(other.iterdir()) == [path]


def test_makers_and_sweepers_at_the_same_time(tmp_path: Path) -> None:
    """No folder disappears while it is used, although sweepers find it between its creation and its lock."""

    def make(number: int) -> bool:
        with temporary.folder(tmp_path) as path:
            (path / "content").write_text(str(number))
            return (path / "content").read_text() == str(number)

    with ThreadPoolExecutor(6) as pool:
        sweeps = [pool.submit(temporary.sweep, tmp_path) for _ in range(300)]
        made = list(pool.map(make, range(300)))
        for sweep in sweeps:
            sweep.result()
    assert all(made)
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """A stranger can make one in a shared TMPDIR."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "recording.wav").write_bytes(b"")
    (tmp_path / "00000000.spira-tmp").symlink_to(tmp_path / "data")
    temporary.sweep(tmp_path)
    assert (tmp_path / "data" / "recording.wav").exists()


def test_an_absent_folder_is_swept(tmp_path: Path) -> None:
    """There is nothing to remove."""
    temporary.sweep(tmp_path / "absent")


def test_unfinished_folders_are_removed_or_finished(tmp_path: Path) -> None:
    """An old folder that nothing has replaced is renamed back."""
    for name in ("a.writing", "b.writing.old", "c", "c.writing.old", "d.writing", "d.writing.old", "e"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "content").write_text(name)
    (tmp_path / "f.writing").write_text("half")
    for path in files.unfinished(tmp_path):
        files.remove_unfinished(path)
    content = {path.name: (path / "content").read_text() for path in tmp_path.iterdir()}
    assert content == {"b": "b.writing.old", "c": "c", "d": "d.writing.old", "e": "e"}
