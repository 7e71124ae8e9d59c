"""``spira deliver watch`` in a process of its own."""

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

pytestmark = pytest.mark.integration

SECRET = "s3cret"
TIMEOUT_SECONDS = 90
"""For a busy machine; normally nothing takes this long."""
RESTART = "the code has changed; restarting"


class Watch:
    """A ``spira deliver watch`` process, and the lines that it has printed."""

    def __init__(self, settings: Path, sources: Path) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as free_socket:
            self.port = free_socket.getsockname()[1]
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

    def wait_for(self, text: str) -> list[str]:
        """Wait for a new line that contains ``text``; return the lines between the last such line and this one."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not any(text in line for line in self.lines[self.read :]):
            assert self.process.poll() is None, f"the process ended: {self.lines}"
            assert time.monotonic() < deadline, f"no line with {text!r}: {self.lines}"
            time.sleep(0.05)
        index = next(n for n, line in enumerate(self.lines) if n >= self.read and text in line)
        before, self.read = self.lines[self.read : index], index + 1
        return before

    def wake(self) -> None:
        """Call the webhook of git."""
        signature = hmac.new(SECRET.encode(), b"push", hashlib.sha256).hexdigest()
        headers = {"X-Hub-Signature-256": f"sha256={signature}"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/wake/git", b"push", headers)
        with urllib.request.urlopen(request, timeout=30) as response:
            assert response.status == 202

    def end(self, number: int) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=TIMEOUT_SECONDS)


@pytest.fixture
def watch(work: Path, sources: Path) -> Iterator[Callable[..., Watch]]:
    """Return a function that starts a process; the test's end kills it."""
    started: list[Watch] = []

    def start(code: Path = sources) -> Watch:
        started.append(Watch(work.parent / "delivery.yaml", code))
        return started[-1]

    yield start
    for watch in started:
        watch.process.kill()
        watch.process.wait()


@pytest.fixture
def write_settings(work: Path) -> Callable[..., None]:
    """Return a function that writes settings with one invalid value, so that nothing is trained."""

    def write(invalid: str, every_seconds: float = 3600) -> None:
        text = f"data: voices\nwork: work\nset: ['{invalid}']\nevery_seconds: {every_seconds}\n"
        replace(work.parent / "delivery.yaml", text)

    return write


def replace(path: Path, text: str) -> None:
    """Replace a file atomically, as an editor does."""
    path.with_name(f".{path.name}").write_text(text)
    path.with_name(f".{path.name}").replace(path)


def test_a_webhook_brings_the_next_tick_forward(
    watch: Callable[..., Watch], write_settings: Callable[..., None]
) -> None:
    """The interval is an hour."""
    write_settings("training.max_epochs=0")
    process = watch()
    process.wait_for(f"listening for webhooks on 127.0.0.1:{process.port}")
    process.wait_for("the settings are invalid: training.max_epochs")
    write_settings("training.batch_files=0")
    time.sleep(1)
    assert not any("batch_files" in line for line in process.lines)
    process.wake()
    process.wait_for("the settings are invalid: training.batch_files")


def test_an_invalid_settings_file_is_reported_until_it_is_corrected(
    watch: Callable[..., Watch], write_settings: Callable[..., None], work: Path
) -> None:
    """It is reported once and read again soon without a webhook; SIGTERM ends the process with exit code 0."""
    write_settings("training.max_epochs=0")
    process = watch()
    process.wait_for("training.max_epochs")
    replace(work.parent / "delivery.yaml", "data: [")
    for _ in range(3):
        process.wake()
        time.sleep(0.3)
    process.wait_for(f"trouble: {work.parent / 'delivery.yaml'}: cannot be read as YAML")
    write_settings("training.batch_files=0")
    lines = process.wait_for("training.batch_files")
    assert not any("trouble" in line for line in lines)
    assert process.end(signal.SIGTERM) == 0
    assert "Traceback" not in "".join(process.lines)


def test_it_ticks_at_the_interval_and_ctrl_c_ends_it(
    watch: Callable[..., Watch], write_settings: Callable[..., None]
) -> None:
    """An interrupt in the middle of a tick prints no traceback."""
    write_settings("training.max_epochs=0", every_seconds=0.01)
    process = watch()
    process.wait_for("training.max_epochs")
    write_settings("training.batch_files=0", every_seconds=0.01)
    process.wait_for("training.batch_files")
    assert process.end(signal.SIGINT) == 0
    assert [line for line in process.lines if "Traceback" in line or "Abort" in line] == []


def test_it_restarts_when_its_code_changes(
    watch: Callable[..., Watch], write_settings: Callable[..., None], sources: Path, tmp_path: Path
) -> None:
    """A comment is no change. Code that does not start is reported, and the process waits for code that does."""
    changed = Path(shutil.copytree(sources, tmp_path / "src"))
    source = changed / "spira" / "files.py"
    good = source.read_text()
    write_settings("training.max_epochs=0")
    process = watch(changed)
    process.wait_for("training.max_epochs")
    replace(source, f"{good}# a comment\n")
    write_settings("training.batch_files=0")
    process.wake()
    assert f"{RESTART}\n" not in process.wait_for("training.batch_files")
    replace(source, f"{good}CHANGED =\n")
    process.wake()
    process.wait_for("trouble: the code has changed and does not start: SyntaxError")
    replace(source, f"{good}CHANGED = True\n")
    process.wait_for(RESTART)
    process.wait_for("listening for webhooks on")
    process.wait_for("training.batch_files")
    assert process.end(signal.SIGTERM) == 0


def test_with_json_every_message_is_a_line_of_json(work: Path) -> None:
    """Each line goes to standard output at once, with its time."""
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
        message = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
    assert set(message) == {"at", "said"}
    assert "nowhere" in message["said"]


def test_a_missing_settings_file_is_refused_at_the_start(deliver: Callable, tmp_path: Path) -> None:
    """The process does not wait for the file."""
    refused = deliver("watch")
    assert refused.exit_code == 2
    assert (
        f"{tmp_path / 'delivery.yaml'} does not exist: write one with spira deliver init --data DIR" in refused.stderr
    )
