"""The compiled pipeline on this machine: the same tasks as on a cluster, each in a process of its own.

    spira run --data DIR --work DIR

kfp's local runner prints much, gives no cause of a failure, and reports success when it cannot read a condition.
This module writes its output to a log, passes the stages' lines to the caller, raises a failure with its cause, and
checks the branch that ran against the verdict.
"""

from __future__ import annotations

import builtins
import io
import logging
import os
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from kfp import components, local

from pipelines.parameters import Parameters
from pipelines.summary import RunPaths, RunSummary
from pipelines.training import NAME, CompileOptions, compile_pipeline
from spira import files, temporary
from spira import progress as progress_records
from spira.data import pseudonyms
from spira.delivery.training_request import TrainingRequest
from spira.errors import SpiraError
from spira.evaluation import verdict as verdicts
from spira.files import read_json, write_json
from spira.stage_logging import MARKS
from spira.stages import verdict_folder
from spira.stages.evaluate import write_local_report
from spira.stages.verdict_folder import LINEAGE, PREDICTIONS, VERDICT

SUMMARY, REPORT, PROGRESS = "summary.json", "report.html", "progress.jsonl"
OUTPUTS = "executor_output.json"
"""File that kfp writes for a task that succeeded: parameters, artifacts and their metadata."""
APPROVED, REJECTED = {"push", "deploy"}, {"reject"}
"""Tasks after the gate, by approval. Nothing deploys where continuous delivery does."""
STAGES = ("preprocess", "train", "evaluate", "reject", "push", "deploy")
MAX_PARALLEL_TASKS = 2
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
    with_audio: bool = False,
    progress: Callable[[str], None],
    records: Callable[[progress_records.Record], None] | None = None,
) -> RunSummary:
    """Run the pipeline, write ``report.html`` and ``summary.json`` into ``work``, and return the summary.

    To resume a run that was killed, run it again. All artifacts of a run stay in ``work/pipeline``.

    Args:
        request: What to train; a request without a name gets one from the time.
        registry_uri: MLflow URL; SQLite in ``work`` if empty.
        serve: Serve an approved model and make it champion; False leaves both to continuous delivery.
        with_audio: Whether the local report has audio and spectrograms of mistakes; the report in MLflow never has.
        progress: Function that gets the progress line by line, from one thread at a time; it must not use ``print``,
            which kfp replaces during the run.
        records: Function that gets the same progress as records for a display, from a thread of its own.

    Raises:
        RunError: A stage failed, or another run works in this folder.
    """
    from spira.registry import local_uri  # takes 3 s, so not for --help

    work = work.resolve()
    with _exclusive(work), temporary.own_tmpdir():
        _remove_unfinished(work)
        folder = _new_folder(work / "pipeline")
        for name in (SUMMARY, REPORT):  # an earlier run's copies must never look like this run's
            (work / name).unlink(missing_ok=True)
        parameters = Parameters.local(
            request,
            work,
            device=device,
            require_gpu=require_gpu,
            registry_uri=registry_uri,
            serve=serve,
        )
        options = CompileOptions(target=parameters.target or "", run_name=request.name or f"{NAME}-{folder.name}")
        compile_pipeline(folder / "training.yaml", options=options)
        began = time.monotonic()
        with progress_records.followed(folder / PROGRESS, records):
            with pseudonyms.exported(work):
                execute(folder, parameters.arguments(), progress)
            seconds = round(time.monotonic() - began, 3)
            summary = gather(folder, work, seconds, registry_uri or local_uri(work), deploys=serve)
            with progress_records.stage("report"):
                _publish(summary, folder, work, with_audio)
        _remove_unfinished(work)  # also of a stage that has just ended, whose run was killed
    return summary


def _remove_unfinished(work: Path) -> None:
    """Remove what killed runs left half-written, such as a part of a corpus; a stage that goes on keeps its own."""
    for path in files.unfinished(work / "pipeline", "**/*"):
        files.remove_unfinished(path)
    for path in work.glob("pipeline/*/.*.writing.yaml"):
        path.unlink()
    for path in files.unfinished(work / "state"):
        with suppress(files.LockedError), files.lock(path.with_name(f".{path.name}.lock"), wait=False):
            files.remove_unfinished(path)


@contextmanager
def _exclusive(work: Path) -> Iterator[None]:
    """Lock the work folder; refuse one in which another run works."""
    with ExitStack() as stack:
        try:
            stack.enter_context(files.lock(work / ".lock", wait=False))
        except files.LockedError:
            raise RunError(f"{work}: another run works in this folder; wait for it or choose another --work") from None
        yield


def _new_folder(parent: Path) -> Path:
    folder = parent / datetime.now().strftime("%Y-%m-%d-%H-%M-%S-%f")
    folder.mkdir(parents=True)
    return folder


def execute(folder: Path, arguments: dict[str, Any], progress: Callable[[str], None]) -> None:
    """Run ``folder/training.yaml``; write its artifacts and ``log.txt`` into ``folder``.

    Args:
        arguments: Parameters of the pipeline.
        progress: Function that gets the progress line by line.

    Raises:
        RunError: A task failed; the message has the errors that it logged.
    """
    pipeline = components.load_component_from_file(str(folder / "training.yaml"))
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(folder))
    log = folder / "log.txt"
    with log.open("w") as file, _captured(_OutputSplitter(file, progress)) as output, _shared_cores(arguments):
        try:
            pipeline(**arguments)
        except RuntimeError as error:
            raise RunError(_cause(output, str(error), log)) from None


class _OutputSplitter(io.TextIOBase):
    """A standard output that writes everything to a log and passes marked lines to a function."""

    def __init__(self, file: io.TextIOBase, progress: Callable[[str], None]) -> None:
        self.file, self.progress, self.lock = file, progress, threading.RLock()
        self.error_lines: list[str] = []

    def write(self, text: str) -> int:
        with self.lock:
            self.file.write(text)
            self.file.flush()
            for line in text.splitlines():
                self._forward(line.strip())  # kfp indents lines
        return len(text)

    def _forward(self, line: str) -> None:
        if line.startswith(mark := MARKS[logging.ERROR]):
            self.error_lines.append(line.removeprefix(mark))
        elif line.startswith(mark := MARKS[logging.WARNING]):
            self.progress(f"warning: {line.removeprefix(mark)}")
        elif line.startswith(mark := MARKS[logging.INFO]):
            self.progress(line.removeprefix(mark))


@contextmanager
def _captured(output: _OutputSplitter) -> Iterator[_OutputSplitter]:
    """Redirect standard output, and restore at the end what kfp replaces."""
    # kfp replaces print and the root logger's handlers; in a loop, several threads do so
    root = logging.getLogger()
    before = builtins.print, root.handlers[:], root.level
    try:
        with redirect_stdout(output), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield output
    finally:
        builtins.print, root.handlers[:], level = before
        root.setLevel(level)


@contextmanager
def _shared_cores(arguments: dict[str, Any]) -> Iterator[None]:
    """Divide the cores among the trainings that run at the same time, unless the user has set OMP_NUM_THREADS."""
    parallel = min(MAX_PARALLEL_TASKS, len(arguments["seeds"]))
    is_set = "OMP_NUM_THREADS" in os.environ
    if not is_set:
        os.environ["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // parallel))
    try:
        yield
    finally:
        if not is_set:
            del os.environ["OMP_NUM_THREADS"]


def _cause(output: _OutputSplitter, error: str, log: Path) -> str:
    """Return the errors that the failed task logged, or else the exception that ended it."""
    if output.error_lines:
        return "\n".join([*dict.fromkeys(output.error_lines), f"(log: {log})"])
    task = re.search(r"failed: \S*?'([\w-]+)'", error)
    exceptions = re.findall(r"^\s*([\w.]+(?:Error|Exception|Interrupt|Exit)\b.*)$", log.read_text(), re.MULTILINE)
    reason = exceptions[-1] if exceptions else "its process ended without an error message, perhaps for lack of memory"
    return f"{task.group(1) if task else 'a task'} failed: {reason} (log: {log})"


def gather(folder: Path, work: Path, seconds: float, mlflow: str, *, deploys: bool = True) -> RunSummary:
    """Return the summary of a run, from the outputs of its tasks.

    Args:
        seconds: Wall time of the whole pipeline.
        mlflow: URI of MLflow's store.
        deploys: Whether the run deploys an approved model.

    Raises:
        RunError: The branch that ran contradicts the verdict.
    """
    ended = sorted((path.parent.name, path.parent, read_json(path)) for path in folder.rglob(OUTPUTS))
    tasks = [task for task in ended if "artifacts" in task[2]]  # an exit handler makes none
    folders = {name: task_folder for name, task_folder, _ in tasks}
    metrics = {name: _metrics(outputs) for name, _, outputs in tasks}
    verdict_folder.check(folders["evaluate"] / "verdict")
    verdict = verdicts.read(folders["evaluate"] / "verdict" / VERDICT)
    check_branch(verdict.approved, set(folders), deploys)
    return RunSummary.of(
        verdict,
        model_version=metrics["push"]["model_version"] if verdict.approved else None,
        lineage=read_json(folders["evaluate"] / "verdict" / LINEAGE),
        stages=_in_order({_label(name, _metrics(outputs)): _metrics(outputs)["seconds"] for name, _, outputs in tasks})
        | {"pipeline": seconds},
        paths=RunPaths(
            verdict=str(folders["evaluate"] / "verdict" / VERDICT),
            predictions=str(folders["evaluate"] / "verdict" / PREDICTIONS),
            checkpoint=str(folders["evaluate"] / "candidate"),
            corpus=str(folders["preprocess"] / "corpus"),
            report=str(work / REPORT),
            log=str(folder / "log.txt"),
            package=str(folders["push"] / "package") if verdict.approved else None,
            serving=str(work / "serving") if verdict.approved and deploys else None,
        ),
        mlflow=mlflow,
    )


def check_branch(approved: bool | None, ran: set[str], deploys: bool = True) -> None:
    """Check the tasks that ran against the verdict, as kfp silently skips a branch whose condition it cannot read.

    Raises:
        RunError: They contradict each other.
    """
    branches = ran & (APPROVED | REJECTED)
    expected: dict[bool | None, set[str]] = {True: APPROVED if deploys else {"push"}, False: REJECTED}
    if branches != expected.get(approved):
        raise RunError(
            f"the verdict is approved={approved}, but {sorted(branches) or 'nothing'} ran after it: "
            "the run counts as failed, and its model must not be used"
        )


def _metrics(outputs: dict[str, Any]) -> dict[str, Any]:
    return outputs["artifacts"]["metrics"]["artifacts"][0]["metadata"]


def _in_order(stages: dict[str, float]) -> dict[str, float]:
    """Return the stages in the order of the pipeline; kfp's folders are in no order."""

    def position(label: str) -> tuple[int, int]:
        stage, _, seed = label.partition(" seed ")
        return STAGES.index(stage) if stage in STAGES else len(STAGES), int(seed or 0)

    return {label: stages[label] for label in sorted(stages, key=position)}


def _label(task: str, metrics: dict[str, Any]) -> str:
    return f"train seed {metrics['seed']:.0f}" if task == "train" else task


def _publish(summary: RunSummary, folder: Path, work: Path, with_audio: bool) -> None:
    """Write the report and then the summary into the work folder, each in one step."""
    paths = summary.paths
    verdict, candidate, corpus = Path(paths.verdict).parent, Path(paths.checkpoint), Path(paths.corpus)
    report, version = work / REPORT, summary.model_version
    write_local_report(verdict, candidate, corpus, report, with_audio=with_audio, version=version)
    for place in (folder, work):
        write_json(place / SUMMARY, summary.model_dump(mode="json"))
