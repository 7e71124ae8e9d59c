"""``python -m pipelines compile [--out FILE] [--image IMAGE]``, and ``run``, which is ``spira run``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from components import IMAGE
from pipelines.training import COMPILED, compile_pipeline
from spira.__main__ import Refusing, run

app = typer.Typer(cls=Refusing, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
app.command("run")(run)


@app.command("compile")
def compile_(
    out: Annotated[Path, typer.Option("--out", help="YAML file to write.")] = COMPILED,
    image: Annotated[str, typer.Option("--image", help="Of the components: name@sha256:…")] = IMAGE,
) -> None:
    """Write the pipeline for Kubeflow; the same sources give the same bytes."""
    compile_pipeline(out, image)
    typer.echo(out)


if __name__ == "__main__":
    app()
