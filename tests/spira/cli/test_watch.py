"""``spira deliver watch`` as people run it: a process that ticks until it is ended."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

SECRET = "s3cret"
PATIENCE_SECONDS = 90
"""On a busy machine; nothing here waits for so long where all is well."""
ANEW = "the code has changed: begins anew"


class Watch:
    """A watching process and what it has said so far."""

    def __init__(self, settings: Path, sources: Path) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port = free.getsockname()[1]
        options = [f"--settings={settings}", f"--listen=127.0.0.1:{self.port}"]
        environment = os.environ | {"SPIRA_WAKE_GIT": SECRET, "PYTHONPATH": str(sources)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "spira", "deliver", "watch", *options],
            cwd=settings.parent,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self.read = 0
        threading.Thread(target=lambda: self.lines.extend(self.process.stderr or ()), daemon=True).start()

    def says(self, text: str) -> list[str]:
        """Wait until it says something new with this in it; what it said before that, and since it was last asked."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not any(text in line for line in self.lines[self.read :]):
            assert self.process.poll() is None, f"it ended: {self.lines}"
            assert time.monotonic() < deadline, f"never said {text!r}: {self.lines}"
            time.sleep(0.05)
        place = next(n for n, line in enumerate(self.lines) if n >= self.read and text in line)
        before, self.read = self.lines[self.read : place], place + 1
        return before

    def wake(self) -> None:
        """Call it as a git server does."""
        signature = hmac.new(SECRET.encode(), b"push", hashlib.sha256).hexdigest()
        headers = {"X-Hub-Signature-256": f"sha256={signature}"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/wake/git", b"push", headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 202

    def end(self, number: int) -> int:
        """Its exit code after a signal."""
        self.process.send_signal(number)
        return self.process.wait(timeout=PATIENCE_SECONDS)


@pytest.fixture
def watch(work: Path, sources: Path) -> Iterator[Callable[..., Watch]]:
    """Starts one; killed when the test ends."""
    started: list[Watch] = []

    def start(code: Path = sources) -> Watch:
        started.append(Watch(work.parent / "delivery.yaml", code))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.wait()


@pytest.fixture
def ask(work: Path) -> Callable[..., None]:
    """Writes the settings: such as nothing is trained by, each refused by a name of its own."""

    def write(refused: str, every_seconds: float = 3600) -> None:
        text = f"data: voices\nwork: work\nset: ['{refused}']\nevery_seconds: {every_seconds}\n"
        replace(work.parent / "delivery.yaml", text)

    return write


def replace(file: Path, text: str) -> None:
    """Whole, as an editor saves: a watcher never sees a half."""
    file.with_name(f".{file.name}").write_text(text)
    file.with_name(f".{file.name}").replace(file)


def test_a_wake_up_brings_the_next_tick_forward(watch: Callable[..., Watch], ask: Callable[..., None]) -> None:
    """A change is seen at the next tick, an hour away: or at once where something wakes it."""
    ask("training.max_epochs=0")
    watching = watch()
    watching.says(f"listens on 127.0.0.1:{watching.port} for wake-ups")
    watching.says("not fit to train on: settings: training.max_epochs")
    ask("training.batch_files=0")
    time.sleep(1)
    assert not any("batch_files" in line for line in watching.lines)
    watching.wake()
    watching.says("not fit to train on: settings: training.batch_files")


def test_broken_settings_are_told_and_mending_heals(
    watch: Callable[..., Watch], ask: Callable[..., None], work: Path
) -> None:
    """Once, by file; it looks again soon by itself, and SIGTERM ends it in peace."""
    ask("training.max_epochs=0")
    watching = watch()
    watching.says("training.max_epochs")
    replace(work.parent / "delivery.yaml", "data: [")
    for _ in range(3):
        watching.wake()
        time.sleep(0.3)
    watching.says(f"trouble: {work.parent / 'delivery.yaml'}: can't be read as YAML")
    ask("training.batch_files=0")
    told_again = watching.says("training.batch_files")
    assert not any("trouble" in line for line in told_again)
    assert watching.end(signal.SIGTERM) == 0
    assert "Traceback" not in "".join(watching.lines)


def test_it_ticks_by_itself_and_ctrl_c_ends_it(watch: Callable[..., Watch], ask: Callable[..., None]) -> None:
    """At the interval, without any wake-up; interrupted in the middle of a tick it ends without a traceback."""
    ask("training.max_epochs=0", every_seconds=0.01)
    watching = watch()
    watching.says("training.max_epochs")
    ask("training.batch_files=0", every_seconds=0.01)
    watching.says("training.batch_files")
    assert watching.end(signal.SIGINT) == 0
    assert [line for line in watching.lines if "Traceback" in line or "Abort" in line] == []


def test_it_begins_anew_when_its_code_changes(
    watch: Callable[..., Watch], ask: Callable[..., None], sources: Path, tmp_path: Path
) -> None:
    """A comment is no change; code that doesn't start is told, and waited for; code that does takes over."""
    changed = Path(shutil.copytree(sources, tmp_path / "src"))
    source = changed / "spira" / "files.py"
    good = source.read_text()
    ask("training.max_epochs=0")
    watching = watch(changed)
    watching.says("training.max_epochs")
    replace(source, f"{good}# a comment\n")
    ask("training.batch_files=0")
    watching.wake()
    assert f"{ANEW}\n" not in watching.says("training.batch_files")
    replace(source, f"{good}CHANGED =\n")
    watching.wake()
    watching.says("trouble: the code has changed, and doesn't start: SyntaxError")
    replace(source, f"{good}CHANGED = True\n")
    watching.says(ANEW)
    watching.says("listens on")
    watching.says("training.batch_files")
    assert watching.end(signal.SIGTERM) == 0


def test_a_program_gets_a_line_of_json_for_each(work: Path) -> None:
    """On standard output, each with its time, as it is said."""
    (work.parent / "delivery.yaml").write_text(f"data: {work.parent / 'nowhere'}\n")
    command = [
        sys.executable,
        "-m",
        "spira",
        "deliver",
        "watch",
        "--json",
        f"--settings={work.parent / 'delivery.yaml'}",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        told = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
    assert set(told) == {"at", "said"}
    assert "nowhere" in told["said"]


def test_settings_that_cannot_be_read_at_the_beginning_are_refused(deliver: Callable, tmp_path: Path) -> None:
    """Exit code 2 and what to do, rather than a process that waits for ever."""
    refused = deliver("watch")
    assert refused.exit_code == 2
    assert f"{tmp_path / 'delivery.yaml'} isn't there: write one (spira deliver init --data DIR)" in refused.stderr
