"""The local runner of continuous delivery: each run is a process that outlives the process that started it.

    WORK/runs/NAME/order.json     the training request
    WORK/runs/NAME/outcome.json   the result; absent until the run has ended
    WORK/runs/NAME/.lock          held by the process of the run

The runner takes the lock before it starts the process, and the process inherits it. A run is therefore locked at every
moment until it ends, and the lock is released however the process ends. The process leads a session, to which the
processes of the stages belong too.

    python -m pipelines.local_runner WORK/runs/NAME     (the command that the runner starts)
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import psutil

from spira import files, lineage
from spira.data import pseudonyms
from spira.delivery.observation.fingerprints import axis_of
from spira.delivery.runner import Run, RunnerError
from spira.delivery.training_request import TrainingRequest
from spira.errors import SpiraError
from spira.signature import VERIFY_KEY

ORDER, OUTCOME, LOG, LOCK = "order.json", "outcome.json", "log.txt", ".lock"
MAX_STARTS = 20
"""Number of starts after which a run that never ended counts as failed, such as one whose sources cannot be read."""
MAX_END_SECONDS = 10
"""Time in which a cancelled run ends."""
POLL_SECONDS = 0.05


class LocalRunner:
    """A runner on this machine; see :class:`spira.delivery.runner.Runner`.

    Args:
        work: Folder of runs, corpora and trainings, in which one run works at a time.
        registry_uri: MLflow URL; SQLite in ``work`` if empty.
        verify_key: Path of the public key that the champion's signature is checked with; see :mod:`spira.signature`.
    """

    def __init__(self, work: Path, registry_uri: str = "", verify_key: str = "") -> None:
        self.work, self.registry_uri, self.verify_key = work.resolve(), registry_uri, verify_key

    def find(self, name: str) -> Run | None:
        """See :class:`~spira.delivery.runner.Runner`."""
        folder = self._folder(name)
        if not (folder / ORDER).exists():
            return None
        with _explained(folder), _lock(folder) as lock:
            if (folder / OUTCOME).exists():  # checked under the lock, while no process can write it
                outcome = files.read_json(folder / OUTCOME)
                return Run(**(outcome | {"reasons": tuple(outcome["reasons"])}))
            return Run("interrupted") if lock else Run("running", _last_line(folder / LOG))

    def start(self, request: TrainingRequest) -> None:
        """See :class:`~spira.delivery.runner.Runner`."""
        folder = self._folder(request.name)
        with _explained(folder), _lock(folder) as lock:
            if lock is None or (folder / OUTCOME).exists():
                return
            starts = _starts(folder) + 1
            own = {"name": request.name, "work": str(self.work), "registry_uri": self.registry_uri, "starts": starts}
            files.write_json(folder / ORDER, request.to_record() | own)
            if starts > MAX_STARTS:
                message = f"it was started {MAX_STARTS} times and never ended: see {folder / LOG}"
                _write_outcome(folder, Run("failed", message))
                return
            with (folder / LOG).open("a") as log:
                subprocess.Popen(
                    [sys.executable, *_arguments(folder)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=[lock.fileno()],
                    start_new_session=True,
                    env=self._environment(),
                )

    def cancel(self, name: str) -> None:
        """See :class:`~spira.delivery.runner.Runner`; the run is then interrupted, as after a kill."""
        folder = self._folder(name)
        with _explained(folder):
            deadline = time.monotonic() + MAX_END_SECONDS
            while files.is_locked(folder / LOCK):
                if time.monotonic() > deadline:
                    raise RunnerError(f"run {name} does not end: end its processes by hand, then run again")
                _kill(folder)
                time.sleep(POLL_SECONDS)

    def _environment(self) -> dict[str, str]:
        """Return the environment of a run."""
        key = {VERIFY_KEY: self.verify_key} if self.verify_key else {}
        return os.environ | pseudonyms.in_work(self.work).environment() | {pseudonyms.HIDE_VARIABLE: "1"} | key

    def _folder(self, name: str) -> Path:
        return self.work / "runs" / name


def run(folder: Path) -> None:
    """Run the training request of a folder, and write its outcome."""
    try:
        outcome = _outcome(files.read_json(folder / ORDER))
    except SpiraError as error:
        outcome = Run("failed", str(error))
    except Exception as error:  # whatever the error, the run has ended; the log has the traceback
        logging.exception("the run failed")
        outcome = Run("failed", f"{type(error).__name__}: {error}")
    _write_outcome(folder, outcome)


def _write_outcome(folder: Path, outcome: Run) -> None:
    files.write_json(folder / OUTCOME, asdict(outcome))


def _starts(folder: Path) -> int:
    """Return how often the run was started."""
    return int(files.read_json(folder / ORDER)["starts"]) if (folder / ORDER).exists() else 0


def _arguments(folder: Path) -> list[str]:
    """Return the arguments of the interpreter for a run's process."""
    return ["-m", "pipelines.local_runner", str(folder)]


def _kill(folder: Path) -> None:
    """Kill the process of a run, and all processes of its session; none if it has not become a run's process yet."""
    for leader in psutil.process_iter(["cmdline"]):
        if (leader.info["cmdline"] or [])[1:] == _arguments(folder):
            session = leader.pid
            while members := [process for process in psutil.process_iter() if _is_in(session, process)]:
                # the leader first, so that it does not start the next stage
                for process in sorted(members, key=lambda process: process.pid != session):
                    with suppress(psutil.NoSuchProcess):
                        process.kill()
                psutil.wait_procs(members, POLL_SECONDS)


def _is_in(session: int, process: psutil.Process) -> bool:
    """Return whether a process belongs to a session and has not ended."""
    try:
        return os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, PermissionError, psutil.NoSuchProcess):
        return False


def _outcome(body: dict[str, Any]) -> Run:
    from pipelines import local

    request = TrainingRequest.from_record(body["name"], body)
    _check_code(request)
    summary = local.run(
        request, Path(body["work"]), registry_uri=body["registry_uri"], serve=False, progress=_write_log
    )
    _check_code(request)
    return Run(
        "succeeded",
        approved=summary.approved,
        reasons=summary.reasons,
        model_version=summary.model_version,
        metrics={name: metric.value for name, metric in summary.metrics.items() if metric.value is not None},
    )


def _check_code(request: TrainingRequest) -> None:
    """Refuse a run whose code has changed: each stage is a process that reads the sources when it starts."""
    lineage.clear_caches()
    if request.code_digest not in ("", axis_of(lineage.code_parts()).digest):
        raise SpiraError("the code has changed since this run was claimed, so its result is discarded")


def _write_log(line: str) -> None:
    """Write a line to the run's log; kfp replaces ``print`` and standard output during the run."""
    sys.stderr.write(f"{line}\n")


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn an error of the disk, or a damaged file, into a RunnerError, so that the next tick tries again."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunnerError(f"{folder} cannot be used: {type(error).__name__}: {error}") from error


@contextmanager
def _lock(folder: Path) -> Iterator[IO[str] | None]:
    """Take the folder's lock and give its open file, which a child process can inherit; None if it is held."""
    with ExitStack() as stack:
        lock = None
        with suppress(files.LockedError):
            lock = stack.enter_context(files.lock(folder / LOCK, wait=False))
        yield lock


def _last_line(log: Path) -> str:
    """Return the last line of a log that is not blank, or an empty text."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return next((line for line in reversed(lines) if line.strip()), "")


if __name__ == "__main__":
    run(Path(sys.argv[1]))
