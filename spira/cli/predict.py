"""``spira predict``: a model's answers for recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spira.cli.common.console import print_json, print_line
from spira.cli.common.options import DEFAULT_WORK, Json, MLflow, Work
from spira.cli.models import fetch_package
from spira.evaluation.numbers import number


def predict(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Recordings.")],
    model: Annotated[str, typer.Option("--model", help="Version, alias or package folder.")] = "champion",
    work: Work = DEFAULT_WORK,
    mlflow: MLflow = "",
    as_json: Json = False,
) -> None:
    """Print a model's probability and diagnosis for recordings; exit code 2 if it refuses one."""
    from spira.packaging import attestation
    from spira.packaging.verify import predict_with_package

    package = Path(model) if Path(model).is_dir() else fetch_package(model, work, mlflow)
    attestation.check(package)
    answers = predict_with_package(package, files)
    if as_json:
        print_json(answers)
    else:
        for answer in answers:
            result = answer.get("error") or f"{number(answer['probability'])}  {answer['diagnosis']}"
            print_line(f"{answer['file']}  {result}")
    if any("error" in answer for answer in answers):
        raise typer.Exit(2)
