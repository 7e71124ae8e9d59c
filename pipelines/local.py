"""The compiled pipeline on this machine: the same tasks as on a cluster, each in a process of its own.

    spira run --data DIR --work DIR

kfp's runner prints a lot, names no cause of a failure, and reports success when a condition can't be read.
Here its output goes to a log, lines of the stages go to the reader, a failure is told by its cause, and the
branch that ran is held against the verdict.
"""

from __future__ import annotations

import builtins
import fcntl
import io
import json
import logging
import os
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import datetime
from pathlib import Path
from typing import Any

from kfp import components, local

from pipelines.parameters import Parameters
from pipelines.training import compile_pipeline
from spira import files
from spira.delivery.training_request import TrainingRequest
from spira.errors import SpiraError
from spira.stage_logging import MARKS
from spira.stages.verdict_folder import LINEAGE, VERDICT

SUMMARY, REPORT = "summary.json", "report.html"
OUTPUTS = "executor_output.json"
"""What kfp leaves of a task that succeeded: parameters, artifacts and their metadata."""
BRANCHES = {True: {"push", "deploy"}, False: {"reject"}}
TASKS_AT_ONCE = 2
"""kfp's limit for a loop."""


class RunError(SpiraError):
    """A run that did not finish; the message gives the cause and the log."""


def run(
    request: TrainingRequest,
    work: Path,
    *,
    device: str = "auto",
    require_gpu: bool = False,
    registry_uri: str = "",
    serve: bool = True,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Run the pipeline, write ``report.html`` and ``summary.json`` into ``work``, and return the summary.

    Running a killed run again continues it. Everything that a run makes stays in ``work/pipeline``.

    Args:
        request: What to train; a request without a name gets one from the time.
        registry_uri: MLflow URL; SQLite in ``work`` if empty.
        serve: Serve an approved model and make it champion; False leaves both to continuous delivery.
        tell: Receives progress line by line, from several threads in turn; kfp has replaced ``print`` meanwhile.

    Raises:
        RunError: a stage failed, or another run works in this folder.
    """
    work = work.resolve()
    with _alone(work):
        folder = _new_folder(work / "pipeline")
        for name in (
            SUMMARY,
            REPORT,
        ):  # those of an earlier run must not pass for this run's
            (work / name).unlink(missing_ok=True)
        compile_pipeline(folder / "training.yaml")
        parameters = Parameters.local(
            request if request.name else request.named(f"spira-training-{folder.name}"),
            work,
            device=device,
            require_gpu=require_gpu,
            registry_uri=registry_uri,
            serve=serve,
        )
        began = time.monotonic()
        execute(folder, parameters.arguments(), tell)
        summary = gather(folder, work, round(time.monotonic() - began, 3))
        summary["mlflow"] = registry_uri or f"sqlite:///{work}/mlflow.db"
        _publish(summary, folder, work)
    return summary


@contextmanager
def _alone(work: Path) -> Iterator[None]:
    work.mkdir(parents=True, exist_ok=True)
    with (work / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"{work}: another run works here; wait for it or choose another --work") from None
        yield


def _new_folder(parent: Path) -> Path:
    folder = parent / datetime.now().strftime("%Y-%m-%d-%H-%M-%S-%f")
    folder.mkdir(parents=True)
    return folder


def execute(folder: Path, arguments: dict[str, Any], tell: Callable[[str], None]) -> None:
    """Run ``folder/training.yaml``; its artifacts and ``log.txt`` come into ``folder``.

    Raises:
        RunError: a task failed; the message is what the task said.
    """
    pipeline = components.load_component_from_file(str(folder / "training.yaml"))
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(folder))
    with (folder / "log.txt").open("w") as file, _quiet(_Listener(file, tell)) as listener, _threads(arguments):
        try:
            pipeline(**arguments)
        except RuntimeError as error:
            raise RunError(_cause(listener, str(error), folder / "log.txt")) from None


class _Listener(io.TextIOBase):
    """Stands for standard output: everything goes to the log, marked lines to the reader."""

    def __init__(self, file: io.TextIOBase, tell: Callable[[str], None]) -> None:
        self.file, self.progress, self.lock = file, tell, threading.RLock()
        self.refusals: list[str] = []

    def write(self, text: str) -> int:
        with self.lock:
            self.file.write(text)
            self.file.flush()
            for line in text.splitlines():
                self._hear(line.strip())
        return len(text)

    def _hear(self, line: str) -> None:
        if line.startswith(mark := MARKS[logging.ERROR]):
            self.refusals.append(line.removeprefix(mark))
        elif line.startswith(mark := MARKS[logging.WARNING]):
            self.progress(f"warning: {line.removeprefix(mark)}")
        elif line.startswith(mark := MARKS[logging.INFO]):
            self.progress(line.removeprefix(mark))


@contextmanager
def _quiet(listener: _Listener) -> Iterator[_Listener]:
    """kfp swaps ``print`` and the root logger's handlers, in a loop from several threads: put all back after."""
    root = logging.getLogger()
    before = builtins.print, root.handlers[:], root.level
    try:
        with redirect_stdout(listener), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield listener
    finally:
        builtins.print, root.handlers[:], level = before
        root.setLevel(level)


@contextmanager
def _threads(arguments: dict[str, Any]) -> Iterator[None]:
    """Share the cores among the trainings that run at once, unless the user has decided."""
    at_once = min(TASKS_AT_ONCE, len(arguments["seeds"]))
    decided = "OMP_NUM_THREADS" in os.environ
    if not decided:
        os.environ["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // at_once))
    try:
        yield
    finally:
        if not decided:
            del os.environ["OMP_NUM_THREADS"]


def _cause(listener: _Listener, error: str, log: Path) -> str:
    """What the failed task said last: its refusal, or the exception that ended it."""
    if listener.refusals:
        return "\n".join([*dict.fromkeys(listener.refusals), f"(log: {log})"])
    task = re.search(r"failed: \S*?'([\w-]+)'", error)
    exceptions = re.findall(r"^\s*([\w.]+(?:Error|Exception|Interrupt|Exit)\b.*)$", log.read_text(), re.MULTILINE)
    said = exceptions[-1] if exceptions else "it ended without a word, perhaps killed for lack of memory"
    return f"{task.group(1) if task else 'a task'} failed: {said} (log: {log})"


def gather(folder: Path, work: Path, seconds: float) -> dict[str, Any]:
    """The summary of a run from what its tasks left.

    Raises:
        RunError: the branch that ran is not the one that the verdict asks for.
    """
    ended = sorted((path.parent.name, path.parent, json.loads(path.read_text())) for path in folder.rglob(OUTPUTS))
    tasks = [task for task in ended if "artifacts" in task[2]]  # an exit handler makes none
    where = {name: place for name, place, _ in tasks}
    told = {name: _metrics(outputs) for name, _, outputs in tasks}
    verdict = json.loads((where["evaluate"] / "verdict" / VERDICT).read_text())
    check_branch(verdict, set(where))
    noisy = verdict["conditions"].get("noisy", {})
    times = {_label(name, _metrics(outputs)): _metrics(outputs)["seconds"] for name, _, outputs in tasks}
    paths = {
        "verdict": where["evaluate"] / "verdict" / VERDICT,
        "predictions": where["evaluate"] / "verdict" / "predictions.parquet",
        "checkpoint": where["evaluate"] / "candidate",
        "corpus": where["preprocess"] / "corpus",
        "report": work / REPORT,
        "log": folder / "log.txt",
    }
    if verdict["approved"]:
        paths |= {"package": where["push"] / "package", "serving": work / "serving"}
    return {
        "approved": verdict["approved"],
        "reasons": verdict["reasons"],
        "metrics": noisy.get("by_file", {}),
        "metrics_of": "the noisy test, by file",
        "model_version": told["push"]["model_version"] if verdict["approved"] else None,
        "candidate": verdict["candidate"],
        "training": verdict["training"],
        "seeds": verdict["seeds"],
        "spread": verdict["spread"],
        "data": verdict["data"],
        "config": verdict["config"],
        "lineage": json.loads((where["evaluate"] / "verdict" / LINEAGE).read_text()),
        "stages": times | {"pipeline": seconds},
        "paths": {name: str(path) for name, path in paths.items()},
    }


def check_branch(verdict: dict[str, Any], ran: set[str]) -> None:
    """Hold what ran against the verdict: kfp skips a branch in silence where it can't read a condition.

    Raises:
        RunError: they disagree.
    """
    branches = ran & (BRANCHES[True] | BRANCHES[False])
    if verdict["approved"] not in BRANCHES or branches != BRANCHES[verdict["approved"]]:
        raise RunError(
            f"the verdict is approved={verdict['approved']}, yet {sorted(branches) or 'nothing'} ran after it: "
            "the run counts as failed, no model of it may be used"
        )


def _metrics(outputs: dict[str, Any]) -> dict[str, Any]:
    return outputs["artifacts"]["metrics"]["artifacts"][0]["metadata"]


def _label(task: str, metrics: dict[str, Any]) -> str:
    return f"train seed {metrics['seed']:.0f}" if task == "train" else task


def _publish(summary: dict[str, Any], folder: Path, work: Path) -> None:
    """The report first, then the summary, each under its name only when it is whole."""
    report = Path(summary["paths"]["verdict"]).parents[1] / "report"
    files.write_text(work / REPORT, report.read_text("utf-8"))
    text = json.dumps(summary, indent=1)
    files.write_text(folder / SUMMARY, text)
    files.write_text(work / SUMMARY, text)
