"""Processes that outlive who started them; a folder each, which tells all that is to be known of it.

    processes/0003/service.env    its environment, KEY=VALUE a line
    processes/0003/pid            written by the process itself, before it becomes the command
    processes/0003/log            its output, locked for as long as it lives
    processes/0003/proven         there once it has answered rightly

The lock is taken before the process is and inherited by it, so whether it lives is the kernel's word, and no pid that
belongs to another by now is ever signalled. A starter that is killed at any moment leaves a process that stands here,
or none. Linux only.
"""

from __future__ import annotations

import fcntl
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
"""In a command: the path of the environment file."""

DETACH = 'setsid sh -c "$0" "$@" &'
BECOME = 'echo $$ >"$0.writing" && mv "$0.writing" "$0" && exec "$@"'
"""A session of its own, no child of ours; it says its pid, which stays the same, then becomes the command."""

POLL_SECONDS = 0.05
PID_SECONDS = 30
"""The longest that a process may take from its start to saying its pid."""

LOG_LINES, LOG_BYTES = 8, 2**14
"""The end of a log in a message: so many lines at most, of so many bytes."""


class Process:
    """A process that was started in a folder, alive or not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"

    @property
    def alive(self) -> bool:
        """Whether it, or a process that it started, runs."""
        try:
            with self.log.open() as log:
                fcntl.flock(log, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False  # its start was killed
        except BlockingIOError:
            return True
        return False

    @property
    def pid(self) -> int | None:
        """None in the moments before it has one."""
        try:
            return int((self.folder / "pid").read_text())
        except FileNotFoundError:
            return None

    @property
    def environment(self) -> dict[str, str]:
        """As it was started, its own variables only."""
        try:
            lines = (self.folder / "service.env").read_text().splitlines()
        except FileNotFoundError:
            return {}
        return dict(line.split("=", 1) for line in lines)

    @property
    def running_environment(self) -> dict[str, str]:
        """As the system tells it, all variables; empty where the process has ended."""
        try:
            told = Path(f"/proc/{self.pid}/environ").read_bytes().decode(errors="replace")
        except OSError:
            return {}
        return dict(entry.split("=", 1) for entry in told.split("\0") if "=" in entry)

    @property
    def proven(self) -> bool:
        """Whether :meth:`prove` was called."""
        return (self.folder / "proven").exists()

    def prove(self) -> None:
        """Keep in its folder that it has answered rightly."""
        (self.folder / "proven").touch()

    def wait_for(self, line: str, seconds: float) -> None:
        """Wait until the log holds a text.

        Raises:
            DeploymentError: the process ends before, or the time does.
        """
        if not _within(seconds, lambda: line in self._logged() or not self.alive):
            raise DeploymentError(f"its log doesn't say '{line}' within {seconds:g} s")
        if not self.alive:
            raise DeploymentError("the process ended by itself")

    def stop(self, seconds: float) -> None:
        """End it and what it started: asked first, after so many seconds killed.

        Raises:
            DeploymentError: it can't be ended.
        """
        for number in (signal.SIGTERM, signal.SIGKILL):
            _within(PID_SECONDS, lambda: self.pid is not None or not self.alive)
            if self.alive and self.pid is not None:
                _signal_group(self.pid, number)
            if _within(seconds, lambda: not self.alive):
                return
        raise DeploymentError(f"{self.folder}: process {self.pid} can't be ended: end it by hand, then call again")

    def last_words(self) -> str:
        """The end of its log as the end of a message, from a new line on."""
        lines = self._logged(LOG_BYTES).splitlines()[-LOG_LINES:]
        return "\n".join([f"\nThe end of {self.log}:", *(lines or ["(it is empty)"])])

    def _logged(self, last: int | None = None) -> str:
        """The log, or its last bytes."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - last) if last else 0)
            return log.read().decode(errors="replace")


def listed(root: Path) -> list[Process]:
    """All that were started in a folder and not pruned, oldest first."""
    return [Process(folder) for folder in sorted(root.glob("[0-9]*"), key=lambda folder: int(folder.name))]


def prune(root: Path, kept: int) -> None:
    """Remove the folders of those that have ended, but for so many of the last."""
    ended = [process for process in listed(root) if not process.alive]
    for process in ended[: max(0, len(ended) - kept)]:
        shutil.rmtree(process.folder)


def start(root: Path, command: Sequence[str], environment: Mapping[str, str]) -> Process:
    """Start a command in a new folder under ``root``.

    Args:
        command: in which ``{env_file}`` stands for the file with the environment.
        environment: given to the process besides our own, and in the file, which only its owner can read.

    Raises:
        DeploymentError: a variable spans lines, or there is no shell to start with.
    """
    if any("\n" in value for value in environment.values()):
        raise DeploymentError("a variable of the service's environment spans lines: an environment file can't hold it")
    process = Process(_new_folder(root))
    env_file = process.folder / "service.env"
    files.write_text(env_file, "".join(f"{name}={value}\n" for name, value in environment.items()))
    parts = [part.replace(ENV_FILE, str(env_file)) for part in command]
    launch = ["sh", "-c", DETACH, BECOME, str(process.folder / "pid"), *parts]
    with process.log.open("a") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        try:
            subprocess.run(launch, env=os.environ | environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        except OSError as error:
            raise DeploymentError(f"no process can be started: {error}") from error
    return process


def _new_folder(root: Path) -> Path:
    last = listed(root)
    folder = root.resolve() / f"{int(last[-1].folder.name) + 1 if last else 1:04d}"
    folder.mkdir(mode=0o700, parents=True)
    return folder


def _signal_group(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return  # it has just ended


def _within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Whether a condition holds in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
