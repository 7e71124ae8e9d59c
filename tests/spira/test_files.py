"""Files and folders are replaced whole or not at all; locks exclude processes and end with them."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest

from spira import files

WRITERS: dict[str, Callable[[Path], None]] = {
    "text": lambda folder: files.write_text(folder / "a", "new"),
    "json": lambda folder: files.write_json(folder / "a", "new"),
    "file": lambda folder: _write_file(folder / "a", concurrent=False),
    "concurrent file": lambda folder: _write_file(folder / "a", concurrent=True),
    "folder": lambda folder: _write_folder(folder / "a"),
    "links": lambda folder: files.link_files(folder.parent / "source", ["1", "2"], folder / "a"),
}
"""Every writer, replacing ``a`` in a folder."""

OLD = {"text": b"old", "json": b"old", "file": b"old", "concurrent file": b"old"}
FOLDER_OLD, FOLDER_NEW = {"1": b"old"}, {"1": b"new", "2": b"new"}
NEW = {"text": b"new", "json": b'"new"', "file": b"new", "concurrent file": b"new"}


def _write_file(path: Path, concurrent: bool) -> None:
    with files.new_file(path, concurrent=concurrent) as temporary:
        temporary.write_text("new")


def _write_folder(path: Path) -> None:
    with files.new_folder(path) as staged:
        for name in FOLDER_NEW:
            (staged / name).write_text("new")


def prepare(folder: Path, name: str) -> Path:
    """Write the old content, and the source of links, and return the folder that holds it."""
    source, target = folder / "source", folder / "target"
    source.mkdir(parents=True)
    for file in FOLDER_NEW:
        (source / file).write_text("new")
    target.mkdir()
    if name in OLD:
        (target / "a").write_bytes(OLD[name])
    else:
        (target / "a").mkdir()
        (target / "a" / "1").write_text("old")
    return target


def content(path: Path) -> bytes | dict[str, bytes]:
    """Return the bytes of a file, or of the files of a folder by name."""
    return path.read_bytes() if path.is_file() else {file.name: file.read_bytes() for file in path.iterdir()}


# Runs a writer and kills its own process with SIGKILL before the system call of the given number.
KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
from tests.spira.test_files import WRITERS

name, folder, kill_at = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
calls = 0

def count(event, arguments):
    global calls
    if event in EVENTS:
        calls += 1
        if calls > kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

EVENTS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link"}
sys.addaudithook(count)
WRITERS[name](folder)
os._exit(0)
"""


def kill(name: str, folder: Path, kill_at: int) -> bool:
    """Run a writer that is killed before its effect of number ``kill_at``; return whether it was killed."""
    command = [sys.executable, "-c", KILLED_WRITER, name, str(folder), str(kill_at)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert process.returncode in (0, -signal.SIGKILL), process.stderr
    return process.returncode != 0


@pytest.mark.integration
@pytest.mark.parametrize("name", OLD)
def test_a_killed_writer_of_a_file_leaves_the_old_or_the_new_content(name: str, tmp_path: Path) -> None:
    """The writer is killed before each of its effects; the last run ends."""
    contents = []
    for kill_at in range(20):
        folder = prepare(tmp_path / str(kill_at), name)
        killed = kill(name, folder, kill_at)
        contents.append(content(folder / "a"))
        if not killed:
            break
    assert not killed
    assert set(contents) == {OLD[name], NEW[name]}
    assert contents[-1] == NEW[name]


@pytest.mark.integration
@pytest.mark.parametrize("name", ["folder", "links"])
def test_a_killed_writer_of_a_folder_leaves_the_old_or_the_new_one(name: str, tmp_path: Path) -> None:
    """A kill between the two renames leaves the old folder beside the name, and the next writer renames it back."""
    contents, gaps = [], 0
    for kill_at in range(40):
        folder = prepare(tmp_path / str(kill_at), name)
        killed = kill(name, folder, kill_at)
        if not (folder / "a").exists():
            gaps += 1
            with pytest.raises(KeyboardInterrupt), files.new_folder(folder / "a"):
                raise KeyboardInterrupt
        contents.append(content(folder / "a"))
        WRITERS[name](folder)  # the next writer replaces whatever is left
        assert (content(folder / "a"), [path.name for path in folder.iterdir()]) == (FOLDER_NEW, ["a"])
        if not killed:
            break
    assert not killed
    assert all(files in (FOLDER_OLD, FOLDER_NEW) for files in contents)
    assert (contents[0], contents[-1], gaps) == (FOLDER_OLD, FOLDER_NEW, 1)


@pytest.mark.parametrize("name", WRITERS)
def test_a_writer_leaves_nothing_beside_the_target(name: str, tmp_path: Path) -> None:
    """Temporary names are gone, whether the target existed or not."""
    folder = prepare(tmp_path, name)
    for _ in range(2):
        WRITERS[name](folder)
        assert [path.name for path in folder.iterdir()] == ["a"]
        assert content(folder / "a") == NEW.get(name, FOLDER_NEW)
    other = prepare(tmp_path / "other", name)
    (other / "a").rename(tmp_path / "moved")
    WRITERS[name](other)
    assert content(other / "a") == NEW.get(name, FOLDER_NEW)


def test_text_is_written_as_utf_8(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a.json", "né")
    assert (tmp_path / "a.json").read_bytes() == b"n\xc3\xa9"


def test_json_is_read_as_it_was_written(tmp_path: Path) -> None:
    value = {"name": "né", "numbers": [1, 0.1, None]}
    files.write_json(tmp_path / "a.json", value)
    assert files.read_json(tmp_path / "a.json") == value


def test_a_write_that_fails_leaves_the_old_content(tmp_path: Path) -> None:
    """Text that cannot be encoded fails under the temporary name, which is removed."""
    files.write_text(tmp_path / "a.json", "old")
    with pytest.raises(UnicodeEncodeError):
        files.write_text(tmp_path / "a.json", "new \ud800")
    assert (tmp_path / "a.json").read_text("utf-8") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    """The test raises any exception, KeyboardInterrupt included."""
    folder = prepare(tmp_path, "folder")

    def fail() -> None:
        with files.new_folder(folder / "a") as staged:
            (staged / "1").write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert content(folder / "a") == FOLDER_OLD
    assert [path.name for path in folder.iterdir()] == ["a"]


def test_a_rename_that_fails_brings_the_old_folder_back(tmp_path: Path) -> None:
    folder = prepare(tmp_path, "folder")
    with pytest.raises(FileNotFoundError):
        files.replace_folder(folder / "absent", folder / "a")
    assert content(folder / "a") == FOLDER_OLD


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    """A folder of one file."""
    (tmp_path / "cached").mkdir()
    (tmp_path / "cached" / "a").write_text("1")
    return tmp_path / "cached"


def test_files_are_linked_not_copied(cached: Path, tmp_path: Path):
    """A corpus of gigabytes costs its disk space once."""
    files.link_files(cached, ["a"], tmp_path / "out")
    assert (tmp_path / "out" / "a").samefile(cached / "a")


def test_linked_files_replace_an_older_folder(cached: Path, tmp_path: Path):
    """A task that is repeated after a kill finds leftovers and replaces them."""
    for leftover in ("out", "out.writing"):
        (tmp_path / leftover).mkdir()
        (tmp_path / leftover / "b").write_text("old")
    files.link_files(cached, ["a"], tmp_path / "out")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "a", "cached", "out"]


def test_files_are_not_linked_onto_themselves(cached: Path):
    """Without a state folder a stage works in its output folder directly."""
    files.link_files(cached, ["a"], cached)
    assert (cached / "a").read_text() == "1"


def test_a_lock_makes_the_second_writer_wait(tmp_path: Path):
    """The second waits for the first, and then sees what it wrote."""
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


def test_a_held_lock_is_an_error_for_a_process_that_does_not_wait(tmp_path: Path):
    """The error names the lock's file; a released lock can be taken again."""
    path = tmp_path / "new" / ".lock"
    with (
        files.lock(path),
        pytest.raises(files.LockedError, match=r"\.lock: another process holds the lock"),
        files.lock(path, wait=False),
    ):
        pytest.fail("the lock was taken twice")
    with files.lock(path, wait=False):
        pass


def test_a_killed_process_releases_its_lock(tmp_path: Path):
    script = (
        "import sys\nfrom pathlib import Path\nfrom spira import files\n"
        "with files.lock(Path(sys.argv[1])):\n    print('locked', flush=True)\n    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"locked\n"
        with pytest.raises(files.LockedError), files.lock(tmp_path / "lock", wait=False):
            pytest.fail("the lock was taken twice")
        process.kill()
        process.wait()
        with files.lock(tmp_path / "lock", wait=False):
            pass


def test_a_lock_lives_as_long_as_a_child_that_inherits_it(tmp_path: Path):
    """A lock can be looked at without taking or creating it."""
    path = tmp_path / "log"
    assert not files.is_locked(path)
    assert not path.exists()
    with files.lock(path) as file:
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=file)
        assert files.is_locked(path)
    assert files.is_locked(path)
    child.communicate(b"\n")
    assert not files.is_locked(path)


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space left in {full}: "),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "no space left in {full}: "),
        (OSError(errno.EROFS, "Read-only file system", "{full}/a/b"), "{full} is on a read-only file system: "),
        (PermissionError(errno.EACCES, "Permission denied", "{full}/a"), "{full} is without permission"),
        (FileNotFoundError(errno.ENOENT, "No such file", "x"), None),
        (ValueError("row 3 is bad"), None),
    ],
)
def test_a_disk_problem_names_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, problem: str | None
):
    """Of several folders in which the program writes, the full one, although the kernel's error names none."""
    other, full = tmp_path / "other", tmp_path / "full"
    other.mkdir()
    full.mkdir()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0 if path == full else 10**9))
    if isinstance(error, OSError) and error.filename:
        error.filename = error.filename.format(full=full)
    message = files.disk_problem(error, other / "missing", full / "corpus")
    assert message is None if problem is None else str(message).startswith(problem.format(full=full))
