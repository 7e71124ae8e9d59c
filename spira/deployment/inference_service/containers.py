"""Containers of a service whose command is ``docker run`` or ``podman run``.

Such a command is only a client. If it is killed, its container goes on and answers a second time. Each container
therefore has a label with the folder of its process, by which the next start or stop removes it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from spira.deployment.target import DeploymentError

PROGRAMS = ("docker", "podman", "nerdctl")
LABEL = "spira.inference-service"
"""Name of the label; its value is the folder of the process."""
TIMEOUT_SECONDS = 60


def with_label(command: Sequence[str], folder: Path) -> list[str]:
    """Return the command with a label for its container; any command that starts no container is unchanged."""
    client = _client(command)
    if not client:
        return list(command)
    run = len(client) + 1
    return [*command[:run], "--label", f"{LABEL}={folder}", *command[run:]]


def remove(command: Sequence[str], folder: Path) -> None:
    """Remove the containers of a process; none exists unless the client of one was killed.

    Raises:
        DeploymentError: they cannot be listed or removed.
    """
    if not (client := _client(command)):
        return
    find = [*client, "ps", "--all", "--quiet", "--filter", f"label={LABEL}={folder}"]
    if left := _run(find).split():
        subprocess.run([*client, "rm", "--force", *left], capture_output=True, timeout=TIMEOUT_SECONDS)
        # a container that just removes itself (--rm) is an error for rm, and no problem
        if left := _run(find).split():
            raise DeploymentError(f"container {', '.join(left)} of {folder} goes on: remove it by hand, then run again")


def _client(command: Sequence[str]) -> Sequence[str]:
    """Return what stands before ``run`` in a command that starts a container; empty for any other command."""
    if not command or Path(command[0]).name not in PROGRAMS or "run" not in command:
        return []
    return command[: command.index("run")]


def _run(command: Sequence[str]) -> str:
    """Run a command and return its output.

    Raises:
        DeploymentError: it fails, or does not end in time.
    """
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeploymentError(f"{command[0]} cannot list its containers: {error}") from error
    if result.returncode:
        raise DeploymentError(f"{command[0]} cannot list its containers: {result.stderr.strip()}")
    return result.stdout
