"""The local runner of continuous delivery: each order a process of its own that outlives who gave it.

    WORK/runs/NAME/order.json     what was ordered
    WORK/runs/NAME/outcome.json   how it ended; there only when it has
    WORK/runs/NAME/.lock          held by the process while it lives

The lock is taken before the process begins and handed to it, so that there is no moment at which an order is
neither running nor free, and it goes with the process, however that ends.

    python -m pipelines.local_runner WORK/runs/NAME     (what the runner starts)
"""

from __future__ import annotations

import fcntl
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from spira import files, lineage
from spira.delivery.fingerprints import axis_of
from spira.delivery.runner import Run, RunnerError
from spira.delivery.training_request import TrainingRequest
from spira.errors import SpiraError

ORDER, OUTCOME, LOG = "order.json", "outcome.json", "log.txt"
MOST_STARTS = 20
"""A process that dies again and again without a word (sources that can't be read, say) is not begun for ever."""


class LocalRunner:
    """See :class:`spira.delivery.runner.Runner`.

    Args:
        work: folder of runs, corpora, trainings and, without a registry of its own, MLflow; one run works in it at a
            time.
        registry_uri: MLflow URL; SQLite in ``work`` if empty.
    """

    def __init__(self, work: Path, registry_uri: str = "") -> None:
        self.work, self.registry_uri = work.resolve(), registry_uri

    def find(self, name: str) -> Run | None:
        """See :class:`~spira.delivery.runner.Runner`."""
        folder = self._folder(name)
        if not (folder / ORDER).exists():
            return None
        with _explained(folder), _lock(folder) as lock:
            if (folder / OUTCOME).exists():  # looked for while nobody can write it
                told = json.loads((folder / OUTCOME).read_text())
                return Run(**(told | {"reasons": tuple(told["reasons"])}))
            return Run("interrupted") if lock else Run("running", _last_line(folder / LOG))

    def start(self, request: TrainingRequest) -> None:
        """See :class:`~spira.delivery.runner.Runner`."""
        folder = self._folder(request.name)
        with _explained(folder), _lock(folder) as lock:
            if lock is None or (folder / OUTCOME).exists():
                return
            starts = _starts(folder) + 1
            own = {"name": request.name, "work": str(self.work), "registry_uri": self.registry_uri, "starts": starts}
            files.write_text(folder / ORDER, json.dumps(request.to_record() | own, indent=1))
            if starts > MOST_STARTS:
                _leave(folder, Run("failed", f"it was started {MOST_STARTS} times and never ended: see {folder / LOG}"))
                return
            with (folder / LOG).open("a") as log:
                subprocess.Popen(
                    [sys.executable, "-m", "pipelines.local_runner", str(folder)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=[lock.fileno()],
                    start_new_session=True,
                )

    def _folder(self, name: str) -> Path:
        return self.work / "runs" / name


def run(folder: Path) -> None:
    """Run the order in a folder to its end, and leave its outcome."""
    try:
        outcome = _outcome(json.loads((folder / ORDER).read_text()))
    except SpiraError as error:
        outcome = Run("failed", str(error))
    except Exception as error:  # whatever it was, the order has ended, and the log has the rest
        logging.exception("the run failed")
        outcome = Run("failed", f"{type(error).__name__}: {error}")
    _leave(folder, outcome)


def _leave(folder: Path, outcome: Run) -> None:
    files.write_text(folder / OUTCOME, json.dumps(asdict(outcome), indent=1))


def _starts(folder: Path) -> int:
    """How often the order was begun."""
    return json.loads((folder / ORDER).read_text())["starts"] if (folder / ORDER).exists() else 0


def _outcome(body: dict[str, Any]) -> Run:
    from pipelines import local

    request = TrainingRequest.from_record(body["name"], body)
    _check_code(request)
    summary = local.run(
        request.data,
        request.config,
        request.gate,
        Path(body["work"]),
        data_digest=request.data_digest,
        skip_bad=request.skip_bad,
        registry_uri=body["registry_uri"],
        serve=False,
        name=request.name,
        tell=_tell,
    )
    _check_code(request)
    return Run(
        "succeeded",
        approved=summary["approved"],
        reasons=tuple(summary["reasons"]),
        model_version=summary["model_version"],
        metrics={name: each["value"] for name, each in summary["metrics"].items() if each["value"] is not None},
    )


def _check_code(request: TrainingRequest) -> None:
    """Each stage is a process that reads the sources anew: what was trained must be of the code that was claimed."""
    lineage.look_again()
    if request.code_digest not in ("", axis_of(lineage.code_parts()).digest):
        raise SpiraError("the code has changed since this run was claimed: what it made counts for nothing")


def _tell(line: str) -> None:
    """Into the order's log: kfp has changed ``print`` and standard output meanwhile."""
    sys.stderr.write(f"{line}\n")


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """What the disk refuses, or holds damaged, is told in one line; the next tick asks again."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunnerError(f"{folder} can't be used: {type(error).__name__}: {error}") from error


@contextmanager
def _lock(folder: Path) -> Iterator[IO[str] | None]:
    """The folder's lock, or None where another process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield lock


def _last_line(log: Path) -> str:
    """Where the run is, as it tells."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return next((line for line in reversed(lines) if line.strip()), "")


if __name__ == "__main__":
    run(Path(sys.argv[1]))
