"""``spira models``: the versions in the model repository."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spira.cli.console import out, print_json, say
from spira.cli.options import DEFAULT_WORK, Json, MLflow, Out, Work

if TYPE_CHECKING:
    from spira.registry import RegisteredVersion, Registry

app = typer.Typer(no_args_is_help=True, help="List, show, compare and fetch versions in the model repository.")

VersionName = Annotated[str, typer.Argument(metavar="VERSION", help="Number of a version, or an alias: champion.")]


def open_registry(work: Path, mlflow: str) -> Registry:
    """Open the model repository of the options."""
    from spira.registry import open_at

    return open_at(mlflow or str(work))


def fetch_package(version: str, work: Path, mlflow: str) -> Path:
    """Return the package folder of a version, fetched once into the work folder."""
    registry = open_registry(work, mlflow)
    number = registry.show(version).version
    return registry.fetch(number, work / "models" / str(number))


@app.command("list")
def list_models(work: Work = DEFAULT_WORK, mlflow: MLflow = "", as_json: Json = False) -> None:
    """List all versions, newest first."""
    from rich.table import Table

    versions = open_registry(work, mlflow).list_versions()
    if as_json:
        print_json([to_json(version) for version in versions])
        return
    table = Table("version", "aliases", "approved", "noisy accuracy", "created")
    for version in versions:
        accuracy = version.metrics.get("noisy.by_file.accuracy")
        table.add_row(
            str(version.version),
            ", ".join(version.aliases),
            "yes" if version.approved else "no",
            "" if accuracy is None else f"{accuracy:.3f}",
            f"{version.created:%Y-%m-%d %H:%M}",
        )
    out.print(table if versions else "no versions yet: spira run")


def to_json(version: RegisteredVersion) -> dict[str, Any]:
    """Return a version as JSON holds it; ``created`` is ISO 8601."""
    return {**vars(version), "created": version.created.isoformat()}


@app.command()
def show(version: VersionName, work: Work = DEFAULT_WORK, mlflow: MLflow = "") -> None:
    """Print a version's aliases, metrics and lineage as JSON."""
    print_json(to_json(open_registry(work, mlflow).show(version)))


@app.command()
def fetch(version: VersionName, to: Out, work: Work = DEFAULT_WORK, mlflow: MLflow = "") -> None:
    """Download a version's package."""
    say(f"fetched: {open_registry(work, mlflow).fetch(version, to)}")


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="VERSION", help="Number or alias.")],
    b: Annotated[str, typer.Argument(metavar="OTHER", help="Number or alias.")],
    work: Work = DEFAULT_WORK,
    mlflow: MLflow = "",
) -> None:
    """Print the metrics and parameters in which two versions differ."""
    from rich.table import Table

    table = Table("", "name", a, b)
    for difference in open_registry(work, mlflow).compare(a, b):
        table.add_row(difference.kind, difference.name, str(difference.a), str(difference.b))
    out.print(table if table.row_count else "they don't differ")


@app.command()
def promote(
    version: str,
    force: Annotated[str, typer.Option("--force", metavar="REASON", help="Though it isn't approved.")] = "",
    work: Work = DEFAULT_WORK,
    mlflow: MLflow = "",
) -> None:
    """Serve a version, check it there, and make it champion."""
    from spira.deployment.targets import LocalTarget
    from spira.stages.deploy import deploy

    package = fetch_package(version, work, mlflow)
    target = LocalTarget(serving=str(work / "serving")).model_dump_json()
    deploy(package, int(package.name), target, registry_uri=mlflow or str(work), force_reason=force)


@app.command()
def rollback(
    reason: Annotated[str, typer.Option("--reason", help="Kept with the version that is left.")],
    work: Work = DEFAULT_WORK,
    mlflow: MLflow = "",
) -> None:
    """Make the previous version champion again, and serve it."""
    from spira.deployment.local import Local
    from spira.deployment.target import Release

    champion = open_registry(work, mlflow).rollback(reason)
    number = str(champion.version)
    Local(work / "serving").apply(Release(number, fetch_package(number, work, mlflow)))
    say(f"version {number} serves and is champion again")
