"""Processes that outlive the program that started them, each with a folder that holds its whole state.

    processes/0003/service.env         environment, one KEY=VALUE per line
    processes/0003/command.json        command line
    processes/0003/pid                 written by the process itself, before it becomes the command
    processes/0003/log, log.1, ...     output, see :mod:`.logs`; ``log`` begins anew with each start
    processes/0003/listening           exists once the service listens after its last start
    processes/0003/proven              exists once the process has passed the golden check
    processes/0003/supervisor.pid, .log    its supervisor, see :mod:`.supervisor`

A process inherits a lock on its log, taken before it starts. The kernel therefore decides whether it is alive, and
a pid that now belongs to another process is never signalled. A program that is killed while it starts a process leaves
either a process with a folder or no process. Linux only.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from spira import files
from spira.deployment.inference_service import containers, logs
from spira.deployment.inference_service.contract import WAITING
from spira.deployment.target import DeploymentError
from spira.packaging.verify import PackageError, package_digest

ENV_FILE = "{env_file}"
"""Placeholder in a command for the path of the environment file."""

DETACH = 'setsid sh -c "$0" "$@" &'
BECOME = 'echo $$ >"$0.writing" && mv "$0.writing" "$0" && exec "$@"'
"""Shell commands that start a new session, so that the process is no child of this program; the process writes its
pid, which ``exec`` keeps, then becomes the command."""

POLL_SECONDS = 0.05
MAX_PID_SECONDS = 30
"""Maximum time from the start of a process until its pid file exists."""
MAX_ABSENT_SECONDS = 3
"""Time without the process after which a restart is no longer waited for: its supervisor backs off."""


class Detached:
    """A command in a session of its own, alive or ended; its log carries the lock."""

    def __init__(self, log: Path, pid_file: Path) -> None:
        self.log, self.pid_file = log, pid_file

    @property
    def is_alive(self) -> bool:
        """Whether the command or one of its children runs."""
        return files.is_locked(self.log)  # no log: the program was killed before the start

    @property
    def pid(self) -> int | None:
        """Process id; None until the process has written it."""
        try:
            return int(self.pid_file.read_text())
        except FileNotFoundError:
            return None

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start the command with an empty log; wait for the end of one that still runs.

        Raises:
            DeploymentError: the shell cannot be started.
        """
        with files.lock(self.log) as log:  # the process inherits it, so the lock lives as long as the process does
            self.log.chmod(0o600)
            logs.move_aside(self.log)
            self.pid_file.unlink(missing_ok=True)
            launch = ["sh", "-c", DETACH, BECOME, str(self.pid_file), *command]
            variables = {**os.environ, **environment}
            try:
                subprocess.run(launch, env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            except OSError as error:
                raise DeploymentError(f"the process cannot be started: {error}") from error

    def stop(self, seconds: float) -> None:
        """End the command and its children: SIGTERM, and SIGKILL after ``seconds``.

        Raises:
            DeploymentError: the process does not end.
        """
        for number in (signal.SIGTERM, signal.SIGKILL):
            _wait_until(lambda: self.pid is not None or not self.is_alive, MAX_PID_SECONDS)
            if self.is_alive and self.pid is not None:
                _signal_group(self.pid, number)
            if _wait_until(lambda: not self.is_alive, seconds):
                return
        raise DeploymentError(f"{self.log.parent}: process {self.pid} does not end: end it by hand, then run again")

    def end_children_of_dead(self) -> None:
        """Kill the children that a dead process has left: they hold the lock, so it could not be started again."""
        if self.is_alive and self.pid is not None and not _is_running(self.pid):
            _signal_group(self.pid, signal.SIGKILL)


class Process:
    """A process of the service that was started in a folder, alive, waiting for its restart, or ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.service = Detached(self.log, folder / "pid")
        self.supervisor = Detached(folder / "supervisor.log", folder / "supervisor.pid")

    @property
    def is_alive(self) -> bool:
        """Whether the service runs."""
        return self.service.is_alive

    @property
    def is_supervised(self) -> bool:
        """Whether a supervisor runs, which starts the service again."""
        return self.supervisor.is_alive

    @property
    def is_active(self) -> bool:
        """Whether the service runs or will run again."""
        return self.is_supervised or self.is_alive

    @property
    def is_restarting(self) -> bool:
        """Whether the service has ended, and does not listen again yet."""
        return self.is_supervised and not (self.is_alive and self._listening.exists())

    @property
    def pid(self) -> int | None:
        """Process id of the service; None until the process has written it."""
        return self.service.pid

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

    def launch(self) -> None:
        """Start the service, after a container that its killed client left was removed.

        Raises:
            DeploymentError: the shell cannot be started, or a container cannot be removed.
        """
        self._listening.unlink(missing_ok=True)
        command = [part.replace(ENV_FILE, str(self._env_file)) for part in self._command]
        containers.remove(command, self.folder)
        self.service.start(containers.with_label(command, self.folder), self.environment)

    def check_model(self) -> None:
        """Refuse a model folder that has changed since the service passed the golden check: its code would run.

        Raises:
            DeploymentError: a file was changed, added or removed.
        """
        if self._digest_file.exists() and self._model_digest() != self._digest_file.read_text():
            raise DeploymentError(f"{self.environment['model_path']} was changed: apply the version again")

    def _model_digest(self) -> str:
        """Return the digest of the folder from which the service loads its model; empty for a URI of MLflow."""
        folder = Path(self.environment.get("model_path", ""))
        if not folder.is_absolute() or not folder.is_dir():
            return ""
        try:
            return package_digest(folder)
        except PackageError as error:  # a link: no digest equals this text
            return str(error)

    def check_listening(self) -> bool:
        """Return whether the service has logged, since its last start, that it listens; remember it if so.

        Only the program that started the service calls this: another could read the log of the start before.
        """
        if not self._listening.exists() and WAITING in logs.read_start(self.log):
            self._listening.touch()
        return self._listening.exists()

    def wait_until_listening(self, seconds: float) -> None:
        """Wait until the service listens for the first time.

        Raises:
            DeploymentError: the process ended first, or the time is over.
        """
        if not _wait_until(lambda: self.check_listening() or not self.is_alive, seconds):
            raise DeploymentError(f"its log does not contain '{WAITING}' after {seconds:g} s")
        if not self.is_alive:
            raise DeploymentError("the process exited")

    def supervise(self, command: Sequence[str]) -> None:
        """Start a supervisor for the service, which has passed the golden check; do nothing if one runs.

        Args:
            command: command line, for a service that was started by a version of this program without supervisors.
        """
        if self.is_supervised:
            return
        if not self._command_file.exists():
            logs.write_private(self._command_file, json.dumps(command).encode())
        if not self._digest_file.exists():  # only the first supervisor follows a check of the model
            logs.write_private(self._digest_file, self._model_digest().encode())
        self._listening.touch()
        self.supervisor.start([sys.executable, "-m", f"{__package__}.supervisor", str(self.folder)], {})

    def wait_for_restart(self, seconds: float) -> None:
        """Wait until a service that its supervisor starts again listens, or it is clear that it does not."""
        absent_since = None
        deadline = time.monotonic() + seconds
        while self.is_restarting and time.monotonic() < deadline:
            absent_since = None if self.is_alive else absent_since or time.monotonic()
            if absent_since and time.monotonic() - absent_since > MAX_ABSENT_SECONDS:
                return
            time.sleep(POLL_SECONDS)

    def stop(self, seconds: float) -> None:
        """End the supervisor, which would start the service again, and then the service with children and container.

        Args:
            seconds: time between SIGTERM and SIGKILL.

        Raises:
            DeploymentError: a process does not end, or a container cannot be removed.
        """
        self.supervisor.stop(seconds)
        self.service.stop(seconds)
        containers.remove(self._command, self.folder)

    def quote_log(self) -> str:
        """Return the known lines at the end of the log, to append to a message."""
        return logs.quote(self.log)

    @property
    def _command(self) -> list[str]:
        """Command line, with placeholders; empty if an earlier version started the service."""
        command: list[str] = files.read_json(self._command_file) if self._command_file.exists() else []
        return command

    @property
    def _env_file(self) -> Path:
        return self.folder / "service.env"

    @property
    def _command_file(self) -> Path:
        return self.folder / "command.json"

    @property
    def _digest_file(self) -> Path:
        return self.folder / "model.sha256"

    @property
    def _listening(self) -> Path:
        return self.folder / "listening"


def find_all(root: Path) -> list[Process]:
    """Return all processes with a folder in ``root``, oldest first."""
    return [Process(folder) for folder in sorted(root.glob("[0-9]*"), key=lambda folder: int(folder.name))]


def prune(root: Path, keep: int) -> None:
    """Remove the folders of processes that have ended, except the last ``keep`` ones."""
    ended = [process for process in find_all(root) if not process.is_active]
    for process in ended[: max(0, len(ended) - keep)]:
        shutil.rmtree(process.folder)


def start(root: Path, command: Sequence[str], environment: Mapping[str, str]) -> Process:
    """Start a command in a new folder under ``root``, without a supervisor.

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
    lines = "".join(f"{name}={value}\n" for name, value in environment.items())
    logs.write_private(process.folder / "service.env", lines.encode())
    logs.write_private(process.folder / "command.json", json.dumps(command).encode())
    process.launch()
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


def _is_running(pid: int) -> bool:
    """Return whether a process runs; one that has ended and whose parent has not noticed does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition; return whether it holds in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
