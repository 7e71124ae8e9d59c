"""``spira models push``: a checkpoint from elsewhere, judged and registered like one that was trained here."""

from __future__ import annotations

import shlex
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from spira.cli.common import preflight
from spira.cli.common.console import print_line
from spira.cli.common.options import (
    DEFAULT_WORK,
    ConfigValues,
    Data,
    GateFile,
    MLflow,
    ProjectFile,
    ReportLanguage,
    SkipBad,
    WithAudio,
    Work,
    absolute,
    resolve_project,
)
from spira.errors import SpiraError


def push(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint file of the paper's code, or a checkpoint folder.")],
    data: Data,
    setting: ConfigValues = [],  # noqa: B006 (typer makes a new list)
    work: Work = DEFAULT_WORK,
    gate: GateFile = None,
    project: ProjectFile = None,
    skip_bad: SkipBad = False,
    mlflow: MLflow = "",
    with_audio: WithAudio = False,
    language: ReportLanguage = None,
) -> None:
    """Judge a checkpoint on a data set's test split by the gate; package and register it if it is approved."""
    from spira.data import pseudonyms
    from spira.evaluation.gate import load
    from spira.models.checkpoint import load as load_checkpoint
    from spira.stages.evaluate import evaluate, write_local_report
    from spira.stages.preprocess import preprocess
    from spira.stages.push import push as register
    from spira.stages.push import reject

    rules, owner = load(gate), resolve_project(project, None, work, language)
    preflight.check_run(data, work, "auto", False, mlflow)
    began = datetime.now().strftime("%Y-%m-%d-%H-%M-%S-%f")
    folder = work.resolve() / "pushed" / began
    imported = import_checkpoint(checkpoint, folder / "checkpoint", setting)
    config, registry = load_checkpoint(imported).config, mlflow or str(work)
    corpus, verdict, report, candidate = (
        folder / name for name in ("corpus", "verdict", "shared-report.html", "candidate")
    )
    state = work.resolve() / "state"
    preprocess(absolute(data), config.preprocess, corpus, data_digest="", skip_bad=skip_bad, state=state)
    with pseudonyms.exported(work.resolve()):
        decision = evaluate(
            corpus,
            [imported],
            rules,
            verdict,
            report,
            candidate,
            registry_uri=registry,
            pipeline_run=f"spira-push-{began}",
            project=owner,
        ).verdict
    number = None
    if decision.approved:
        version = register(corpus, candidate, verdict, report, folder / "package", registry_uri=registry)
        number, place = version.model_version, f"--work {shlex.quote(str(work))}"
        serve = f"spira deploy apply {number} {place}" + (f" --mlflow {mlflow}" if mlflow else "")
        print_line(f"APPROVED: version {number} is challenger; to serve it: {serve}")
    else:
        reject(corpus, candidate, verdict, report, registry_uri=registry)
        print_line("NOT APPROVED, no version registered. Reasons:")
        for reason in decision.reasons:
            print_line(f"  - {reason}")
    local_report = folder / "report.html"
    write_local_report(verdict, candidate, corpus, local_report, with_audio=with_audio, version=number)
    for warning in decision.warnings:
        print_line(f"warning: {warning}")
    print_line(f"report: {local_report}")


def import_checkpoint(source: Path, out: Path, settings: list[str]) -> Path:
    """Return a checkpoint folder as it is, or the folder ``out`` made from a file of the paper's code.

    Raises:
        SpiraError: the file is refused, or settings are given for a folder, which has its own.
    """
    from spira.paper.checkpoint import convert

    if not source.is_dir():
        convert(source, out, settings)
        return out
    if settings:
        raise SpiraError(f"{source} has its own settings: leave --set out, which is for a file of the paper's code")
    return source
