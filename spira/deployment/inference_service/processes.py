"""Processes that outlive the program that started them, each with a folder that holds its whole state.

    processes/0003/service.env    environment, one KEY=VALUE per line
    processes/0003/pid            written by the process itself, before it becomes the command
    processes/0003/log            output, locked while the process lives
    processes/0003/proven         exists once the process has passed the golden check

The process inherits a lock on its log, taken before it starts. The kernel therefore decides whether it is alive, and
a pid that now belongs to another process is never signalled. A program that is killed while it starts a process leaves
either a process with a folder or no process. Linux only.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from spira import files
from spira.deployment.target import DeploymentError

ENV_FILE = "{env_file}"
"""Placeholder in a command for the path of the environment file."""

DETACH = 'setsid sh -c "$0" "$@" &'
BECOME = 'echo $$ >"$0.writing" && mv "$0.writing" "$0" && exec "$@"'
"""Shell commands that start a new session, so that the process is no child of this program; the process writes its
pid, which ``exec`` keeps, then becomes the command."""

POLL_SECONDS = 0.05
MAX_PID_SECONDS = 30
"""Maximum time from the start of a process until its pid file exists."""

MAX_LOG_LINES, MAX_LOG_BYTES = 8, 2**14
"""Size of the end of a log in a message."""


class Process:
    """A process that was started in a folder, alive or ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"

    @property
    def is_alive(self) -> bool:
        """Whether the process or one of its children runs."""
        return files.is_locked(self.log)  # no log: the program was killed before the start

    @property
    def pid(self) -> int | None:
        """Process id; None until the process has written it."""
        try:
            return int((self.folder / "pid").read_text())
        except FileNotFoundError:
            return None

    @property
    def environment(self) -> dict[str, str]:
        """Variables that the process was started with, without inherited ones."""
        try:
            lines = (self.folder / "service.env").read_text().splitlines()
        except FileNotFoundError:
            return {}
        return dict(line.split("=", 1) for line in lines)

    @property
    def running_environment(self) -> dict[str, str]:
        """All variables of the running process, read from the kernel; empty after it has ended."""
        try:
            content = Path(f"/proc/{self.pid}/environ").read_bytes().decode(errors="replace")
        except OSError:
            return {}
        return dict(entry.split("=", 1) for entry in content.split("\0") if "=" in entry)

    @property
    def is_verified(self) -> bool:
        """Whether :meth:`mark_verified` was called."""
        return (self.folder / "proven").exists()

    def mark_verified(self) -> None:
        """Record that the process has passed the golden check."""
        (self.folder / "proven").touch()

    def wait_for(self, text: str, seconds: float) -> None:
        """Wait until the log contains a text.

        Raises:
            DeploymentError: the process ended first, or the time is over.
        """
        if not _wait_until(lambda: text in self._read_log() or not self.is_alive, seconds):
            raise DeploymentError(f"its log does not contain '{text}' after {seconds:g} s")
        if not self.is_alive:
            raise DeploymentError("the process exited")

    def stop(self, seconds: float) -> None:
        """End the process and its children: SIGTERM, and SIGKILL after ``seconds``.

        Raises:
            DeploymentError: the process does not end.
        """
        for number in (signal.SIGTERM, signal.SIGKILL):
            _wait_until(lambda: self.pid is not None or not self.is_alive, MAX_PID_SECONDS)
            if self.is_alive and self.pid is not None:
                _signal_group(self.pid, number)
            if _wait_until(lambda: not self.is_alive, seconds):
                return
        raise DeploymentError(f"{self.folder}: process {self.pid} does not end: end it by hand, then run again")

    def log_tail(self) -> str:
        """Return the end of the log, to append to a message."""
        lines = self._read_log(MAX_LOG_BYTES).splitlines()[-MAX_LOG_LINES:]
        return "\n".join([f"\nThe end of {self.log}:", *(lines or ["(empty)"])])

    def _read_log(self, max_bytes: int | None = None) -> str:
        """Return the log, or its last bytes."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - max_bytes) if max_bytes else 0)
            return log.read().decode(errors="replace")


def find_all(root: Path) -> list[Process]:
    """Return all processes with a folder in ``root``, oldest first."""
    return [Process(folder) for folder in sorted(root.glob("[0-9]*"), key=lambda folder: int(folder.name))]


def prune(root: Path, keep: int) -> None:
    """Remove the folders of processes that have ended, except the last ``keep`` ones."""
    ended = [process for process in find_all(root) if not process.is_alive]
    for process in ended[: max(0, len(ended) - keep)]:
        shutil.rmtree(process.folder)


def start(root: Path, command: Sequence[str], environment: Mapping[str, str]) -> Process:
    """Start a command in a new folder under ``root``.

    Args:
        root: folder of the processes.
        command: command line; ``{env_file}`` is replaced by the path of the environment file.
        environment: variables that the process gets besides inherited ones, also written to the environment file,
            which only the owner can read.

    Raises:
        DeploymentError: a variable contains a line break, or the shell cannot be started.
    """
    if any("\n" in value for value in environment.values()):
        raise DeploymentError("a variable of the service's environment contains a line break: remove it")
    process = Process(_new_folder(root))
    env_file = process.folder / "service.env"
    files.write_text(env_file, "".join(f"{name}={value}\n" for name, value in environment.items()))
    arguments = [part.replace(ENV_FILE, str(env_file)) for part in command]
    launch = ["sh", "-c", DETACH, BECOME, str(process.folder / "pid"), *arguments]
    with files.lock(process.log) as log:  # the process inherits it, so the lock lives as long as the process does
        try:
            subprocess.run(launch, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        except OSError as error:
            raise DeploymentError(f"the process cannot be started: {error}") from error
    return process


def _new_folder(root: Path) -> Path:
    processes = find_all(root)
    folder = root.resolve() / f"{int(processes[-1].folder.name) + 1 if processes else 1:04d}"
    folder.mkdir(mode=0o700, parents=True)
    return folder


def _signal_group(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return  # the group has just ended


def _wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition; return whether it holds in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
