"""The single stages: ``demo``, ``preprocess``, ``train``, ``evaluate`` and ``import-checkpoint``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spira.cli.common.console import say
from spira.cli.common.options import (
    DEFAULT_WORK,
    ConfigFile,
    ConfigValues,
    Corpus,
    Data,
    Device,
    GateFile,
    MLflow,
    Out,
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
from spira.cli.run import make_demo


def demo(folder: Annotated[Path, typer.Argument(help="Folder to make.")]) -> None:
    """Make the synthetic data set, and no more."""
    say(f"demo: {make_demo(folder)}")


def preprocess(
    data: Data,
    to: Out,
    config: ConfigFile = None,
    setting: ConfigValues = [],  # noqa: B006 (typer makes a new list)
    skip_bad: SkipBad = False,
) -> None:
    """Check and decode a data set into a corpus."""
    from spira.stages.preprocess import preprocess

    resolved = resolve_config(config, setting, [])
    preprocess(absolute(data), resolved.preprocess, to, data_digest="", skip_bad=skip_bad, state=None)


def train(
    corpus: Corpus,
    to: Out,
    config: ConfigFile = None,
    setting: ConfigValues = [],  # noqa: B006
    seed: Seeds = [],  # noqa: B006
    device: Device = "auto",
    require_gpu: RequireGpu = False,
) -> None:
    """Train one checkpoint a seed, in OUT/SEED; resume where an earlier run stopped."""
    from spira.stages.train import train

    resolved = resolve_config(config, setting, seed)
    for number in resolved.training.seeds:
        train(corpus, resolved, number, to / str(number), device=device, require_gpu=require_gpu, state=None)


def evaluate(
    checkpoints: Annotated[list[Path], typer.Argument(help="Checkpoint folders, one a seed.")],
    corpus: Corpus,
    to: Out,
    gate: GateFile = None,
    work: Work = DEFAULT_WORK,
    mlflow: MLflow = "",
    with_audio: WithAudio = False,
    language: ReportLanguage = None,
) -> None:
    """Judge checkpoints by the gate and write report.html; compare with the champion of --work or --mlflow, if any."""
    from spira.data import pseudonyms
    from spira.evaluation.gate import load
    from spira.stages.evaluate import evaluate, write_local_report

    outputs = to, to / "shared" / "report.html", to / "candidate"
    project = resolve_project(None, None, work, language)
    registry = mlflow or str(work)
    with pseudonyms.exported(work):
        evaluate(corpus, checkpoints, load(gate), *outputs, registry_uri=registry, pipeline_run="", project=project)
    write_local_report(to, to / "candidate", corpus, to / "report.html", with_audio=with_audio)


def import_checkpoint(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint file of the paper's code.")],
    to: Out,
    setting: ConfigValues = [],  # noqa: B006
) -> None:
    """Turn a checkpoint of the paper's code into a checkpoint folder; nothing in the file is executed."""
    from spira.paper.checkpoint import convert

    imported = convert(checkpoint, to, setting)
    windows = imported.config.windows
    say(f"{imported.config.model.architecture}, windows of {windows.window_seconds:g} s: {to}")
