"""The supervisor of one process of the service: it starts the service again, and bounds its log.

    python -m spira.deployment.inference_service.supervisor FOLDER     (the command that a deployment starts)

It holds no state: whether the service runs is read from the lock on its log, so a supervisor that is killed leaves the
service running, and the next tick starts another supervisor, which takes over. Nobody else restarts the service.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from spira.deployment.inference_service import logs
from spira.deployment.inference_service.processes import Process
from spira.deployment.target import DeploymentError

POLL_SECONDS = 0.2
HEALTHY_SECONDS = 60
"""Time for which a service must listen, so that its next end counts as the first again."""
RESTART_SECONDS = 0.5
"""Wait before each of the first restarts: with :data:`POLL_SECONDS` well below 2 s."""
MAX_QUICK_RESTARTS = 5
MAX_RESTART_SECONDS = 60.0


def restart_seconds(ends: int) -> float:
    """Return the wait before a restart: short for the first ones, then doubled each time.

    Args:
        ends: how often the service has ended before this time without listening for :data:`HEALTHY_SECONDS`.
    """
    doublings = min(max(0, ends - MAX_QUICK_RESTARTS + 1), 10)
    return min(MAX_RESTART_SECONDS, RESTART_SECONDS * 2.0**doublings)


def supervise(process: Process) -> None:
    """Start the service again whenever it has ended, until this process is killed or the folder is removed."""
    ends, started = 0, time.monotonic()
    while process.folder.exists():
        if process.is_alive:
            process.service.end_children_of_dead()
            if process.check_listening() and time.monotonic() - started > HEALTHY_SECONDS:
                ends = 0
            logs.limit(process.log)
        else:
            _report(process, f"the service has ended; it is started again in {restart_seconds(ends):g} s")
            time.sleep(restart_seconds(ends))
            ends, started = ends + 1, time.monotonic()
            _launch(process)
        time.sleep(POLL_SECONDS)


def _launch(process: Process) -> None:
    try:
        process.check_model()
        process.launch()
    except (OSError, DeploymentError) as error:  # a full disk, for example: the next attempt follows
        _report(process, str(error))


def _report(process: Process, message: str) -> None:
    """Write a line to the supervisor's own log, and bound it."""
    with suppress(OSError):  # a full disk must not end the supervisor
        print(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {message}", flush=True)
        logs.limit(process.supervisor.log)


if __name__ == "__main__":
    supervise(Process(Path(sys.argv[1])))
