"""Logs of the service's processes: bounded, readable by their owner only, and quoted by known lines only.

The service logs every inference whole, with the hospital's record number of the patient. A message, status or record
of this program therefore contains no text of a log except what :data:`KNOWN` lists.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from spira.deployment.inference_service.contract import WAITING

MAX_BYTES = 10_000_000
"""Size at which a log is moved aside."""
MAX_OLD = 3
"""Number of older logs to keep: ``log.1`` is the newest."""
MAX_QUOTED_LINES, MAX_QUOTED_BYTES = 8, 2**16
"""Limits of a quotation, and of the end of the log that is searched for it."""

LOGGER = r"(?:(?:DEBUG|INFO|WARNING|ERROR|CRITICAL):[\w.]{1,50}:)?\s*"
"""Start of a line as Python's logging writes it."""
KNOWN = tuple(
    re.compile(LOGGER + pattern)
    for pattern in (
        rf"({WAITING}) [\w.-]+",
        r"(Traceback \(most recent call last\)):",
        r'File "(?:[^"]*/)?([a-z_]{1,60}\.py)", (line \d{1,5}), in .*',
        r"(ModuleNotFoundError: No module named '[a-z_.]{1,60}')",
        r"((?:[A-Za-z_]\w*\.){0,6}[A-Z][A-Za-z]{0,60}(?:Error|Exception|Interrupt|Exit|Warning))"
        r"(?::(?: (RESOURCE_DOES_NOT_EXIST|INVALID_PARAMETER_VALUE|PERMISSION_DENIED|INTERNAL_ERROR)\b)?.*)?",
        r"(Killed|Aborted|Segmentation fault|Bus error|Terminated)\b.*",
        r"sh: \d+: (exec): .*: (not found|Permission denied)",
        r"(docker: Error response from daemon)\b.*",
    )
)
"""Lines that may be quoted; only the groups are, and none of them matches a name or a number that the service has
received. The message of an exception is no group: it may name a patient."""


def quote(log: Path) -> str:
    """Return the known lines at the end of a log, and where the rest stands, to append to a message."""
    known = (match for line in read_end(log).splitlines() for match in [_match(line)] if match)
    lines = [" ".join(filter(None, match.groups())) for match in known][-MAX_QUOTED_LINES:]
    return "\n".join([f"\nKnown lines of {log}, which has the rest:", *(lines or ["(none)"])])


def _match(line: str) -> re.Match[str] | None:
    return next((match for pattern in KNOWN if (match := pattern.fullmatch(line.strip().rstrip(".")))), None)


def read_start(log: Path) -> str:
    """Return the beginning of a log; empty if there is none."""
    try:
        with log.open("rb") as file:
            return file.read(MAX_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return ""


def read_end(log: Path) -> str:
    """Return the end of a log and of the one before it, since a restart begins a new one."""
    return "".join(_last(path, MAX_QUOTED_BYTES).decode(errors="replace") for path in (_old(log, 1), log))


def limit(log: Path) -> None:
    """Move a log aside if it has reached :data:`MAX_BYTES`."""
    if log.stat().st_size >= MAX_BYTES:
        move_aside(log)


def move_aside(log: Path) -> None:
    """Copy a log to ``log.1`` and empty it; the logs before it move on by one, and the last is deleted.

    The process keeps its open file, which also carries its lock, and goes on appending. What it writes between the
    copy and the emptying is lost.
    """
    content = _last(log, MAX_BYTES)
    if content:
        for number in range(MAX_OLD, 1, -1):
            if _old(log, number - 1).exists():
                _old(log, number - 1).replace(_old(log, number))
        with suppress(OSError):  # on a full disk the old lines are lost, but the space is free again
            write_private(_old(log, 1), content)
    os.truncate(log, 0)


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, in one step."""
    temporary = path.with_name(f"{path.name}.writing")
    temporary.unlink(missing_ok=True)  # of a process that was killed
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    temporary.replace(path)


def _old(log: Path, number: int) -> Path:
    return log.with_name(f"{log.name}.{number}")


def _last(path: Path, size: int) -> bytes:
    """Return the last bytes of a file; none if there is no file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - size))
            return file.read(size)
    except FileNotFoundError:
        return b""
