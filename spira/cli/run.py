"""``spira run``: preprocess, train, evaluate, push and deploy on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spira.cli.common import preflight
from spira.cli.common.console import err, is_live, out, say
from spira.cli.common.interrupts import ending_everything
from spira.cli.common.options import (
    DEFAULT_WORK,
    ConfigFile,
    ConfigValues,
    Device,
    GateFile,
    MLflow,
    ProjectFile,
    ReportLanguage,
    RequireGpu,
    Seeds,
    SkipBad,
    WithAudio,
    Work,
    absolute,
    resolve_config,
    resolve_project,
)
from spira.errors import SpiraError

if TYPE_CHECKING:
    from spira.progress import Record

DEMO_NOTICE = "the data is SYNTHETIC, made by a computer: its figures say nothing about patients"
PROGRESS_SECONDS = 5.0
"""Shortest time between two lines of progress where there is no display."""


def run(
    data: Annotated[str, typer.Option("--data", help="Data set: folder, gs:// or s3:// prefix.")] = "",
    demo: Annotated[bool, typer.Option("--demo", help="Make a synthetic data set and run on it.")] = False,
    config: ConfigFile = None,
    setting: ConfigValues = [],  # noqa: B006 (typer makes a new list)
    seed: Seeds = [],  # noqa: B006
    work: Work = DEFAULT_WORK,
    gate: GateFile = None,
    project: ProjectFile = None,
    skip_bad: SkipBad = False,
    mlflow: MLflow = "",
    device: Device = "auto",
    require_gpu: RequireGpu = False,
    with_audio: WithAudio = False,
    folds: Annotated[
        int, typer.Option("--folds", metavar="K", help="Cross-validate train and eval in K folds; register nothing.")
    ] = 0,
    language: ReportLanguage = None,
) -> None:
    """Run the whole pipeline on this machine: preprocess, train, evaluate, push, deploy."""
    from spira.cli.common import summary
    from spira.cli.common.run_display import RunDisplay
    from spira.cli.common.run_state import RunState
    from spira.delivery.training_request import TrainingRequest
    from spira.evaluation.gate import load

    resolved, rules = resolve_config(config, setting, seed), load(gate)
    owner = resolve_project(project, config, work, language)
    if demo == bool(data):
        raise SpiraError("give --data DIR, or --demo: one of the two")
    if folds:
        from spira.cli import folds as cross_validation

        unused = {"--gate": gate is not None, "--mlflow": bool(mlflow), "--with-audio": with_audio}
        cross_validation.check(folds, work, data, device, require_gpu, unused)
        place = str(make_demo(work / "demo-data")) if demo else absolute(data)
        measured = cross_validation.run(
            place, resolved, folds, work, skip_bad=skip_bad, device=device, require_gpu=require_gpu
        )
        cross_validation.show(measured, work, out)
        return
    advice = "finished stages and epochs are kept: run the same command again to resume"
    with ExitStack() as stack:
        display = None
        if is_live(err):
            display = stack.enter_context(RunDisplay(err, RunState.new(resolved.training.seeds, makes_data=demo)))
        stack.enter_context(ending_everything(advice, display.stop if display else None))
        receive = display.receive if display else None
        with _shown_stage("check", receive):
            preflight.check_run(data, work, device, require_gpu, mlflow)
        source = str(make_demo(work / "demo-data", receive)) if demo else absolute(data)
        from pipelines import local  # takes seconds, which the display shows

        result = local.run(
            TrainingRequest(data=source, config=resolved, gate=rules, skip_bad=skip_bad, project=owner),
            work,
            device=device,
            require_gpu=require_gpu,
            registry_uri=mlflow,
            with_audio=with_audio or demo,  # synthetic voices are nobody's
            progress=_ignore if display else say,
            records=receive,
        )
    summary.show(result, str(work), out)
    if demo:
        say(f"Remember: {DEMO_NOTICE}")


def make_demo(folder: Path, receive: Callable[[Record], None] | None = None) -> Path:
    """Make the synthetic data set and say that it is synthetic.

    Args:
        receive: function of a display that gets the progress; without it, lines are printed.
    """
    from spira.data import demo
    from spira.progress import Steps, Throttle

    say(f"demo: {DEMO_NOTICE}")
    throttle = Throttle(PROGRESS_SECONDS)

    def report(done: int, total: int) -> None:
        if receive:
            receive(Steps(stage="data", done=done, total=total, unit="files"))
        elif throttle.is_due():
            say(f"demo: {done} of {total} files")

    with _shown_stage("data", receive):
        return demo.make_demo(folder, progress=report)


@contextmanager
def _shown_stage(name: str, receive: Callable[[Record], None] | None) -> Iterator[None]:
    """Show work of this process as a stage, where there is a display."""
    from spira.progress import StageBegan, StageEnded

    show = receive or (lambda record: None)
    show(StageBegan(stage=name))
    try:
        yield
    except BaseException:
        show(StageEnded(stage=name, failed=True))
        raise
    show(StageEnded(stage=name))


def _ignore(line: str) -> None:
    """Drop a line that the display shows in another form."""
