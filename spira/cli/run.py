"""``spira run``: preprocess, train, evaluate, push and deploy on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spira.cli.common import preflight
from spira.cli.common.console import out, say
from spira.cli.common.interrupts import ending_everything
from spira.cli.common.options import (
    DEFAULT_WORK,
    ConfigFile,
    ConfigValues,
    Device,
    GateFile,
    MLflow,
    ReportLanguage,
    RequireGpu,
    Seeds,
    SkipBad,
    WithAudio,
    Work,
    absolute,
    resolve_config,
)
from spira.errors import SpiraError
from spira.language import Language

DEMO_NOTICE = "the data is SYNTHETIC, made by a computer: its figures say nothing about patients"


def run(
    data: Annotated[str, typer.Option("--data", help="Data set: folder, gs:// or s3:// prefix.")] = "",
    demo: Annotated[bool, typer.Option("--demo", help="Make a synthetic data set and run on it.")] = False,
    config: ConfigFile = None,
    setting: ConfigValues = [],  # noqa: B006 (typer makes a new list)
    seed: Seeds = [],  # noqa: B006
    work: Work = DEFAULT_WORK,
    gate: GateFile = None,
    skip_bad: SkipBad = False,
    mlflow: MLflow = "",
    device: Device = "auto",
    require_gpu: RequireGpu = False,
    with_audio: WithAudio = False,
    language: ReportLanguage = Language.ENGLISH,
) -> None:
    """Run the whole pipeline on this machine: preprocess, train, evaluate, push, deploy."""
    from spira.cli.common import summary
    from spira.delivery.training_request import TrainingRequest
    from spira.evaluation.gate import load

    resolved, rules = resolve_config(config, setting, seed), load(gate)
    if demo == bool(data):
        raise SpiraError("give --data DIR, or --demo: one of the two")
    preflight.check_run(data, work, device, require_gpu, mlflow)
    from pipelines import local

    with ending_everything("finished stages and epochs are kept: run the same command again to resume"):
        result = local.run(
            TrainingRequest(
                data=str(make_demo(work / "demo-data")) if demo else absolute(data),
                config=resolved,
                gate=rules,
                skip_bad=skip_bad,
                language=language,
            ),
            work,
            device=device,
            require_gpu=require_gpu,
            registry_uri=mlflow,
            with_audio=with_audio or demo,  # synthetic voices are nobody's
            progress=say,
        )
    summary.show(result, str(work), out)
    if demo:
        say(f"Remember: {DEMO_NOTICE}")


def make_demo(folder: Path) -> Path:
    """Make the synthetic data set and say that it is synthetic."""
    from spira.data import demo

    say(f"demo: {DEMO_NOTICE}")
    return demo.make_demo(folder)
