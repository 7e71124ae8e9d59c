"""``spira models``: the versions in the model repository."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spira.cli.common.console import out, print_json, print_line, say
from spira.cli.common.options import DEFAULT_WORK, Json, MLflow, Out, Work
from spira.cli.dossier import dossier
from spira.cli.push import push
from spira.errors import SpiraError

if TYPE_CHECKING:
    from spira.registry import RegisteredVersion, Registry

app = typer.Typer(no_args_is_help=True, help="List, show, compare, fetch and push versions in the model repository.")

VersionName = Annotated[str, typer.Argument(metavar="VERSION", help="Number of a version, or an alias: champion.")]


class NoRepositoryError(SpiraError):
    """A work folder without a model repository."""


def check_repository(uri: str) -> None:
    """Refuse a folder without a model repository: opening it would create an empty one.

    Args:
        uri: MLflow URL, or a work folder.

    Raises:
        NoRepositoryError: the folder has no MLflow database.
    """
    if "://" not in uri and not (Path(uri) / "mlflow.db").is_file():
        raise NoRepositoryError(
            f"no model repository in {uri} (versions: none yet): run `spira run --work {shlex.quote(uri)}` first, "
            "or name another folder with --work"
        )


def open_registry(work: Path, mlflow: str) -> Registry:
    """Open the model repository of the options; create nothing.

    Raises:
        NoRepositoryError: the work folder has no MLflow database.
    """
    uri = mlflow or str(work)
    check_repository(uri)
    from spira.registry import open_at

    return open_at(uri)


def fetch_package(version: str, work: Path, mlflow: str) -> Path:
    """Return the package folder of a version, fetched once into the work folder."""
    from spira.delivery.repository import MLflowRepository

    uri = mlflow or str(work)
    check_repository(uri)
    return MLflowRepository(uri, work / "models").package(version)


@app.command("list")
def list_models(work: Work = DEFAULT_WORK, mlflow: MLflow = "", as_json: Json = False) -> None:
    """List all versions, newest first."""
    try:
        versions = open_registry(work, mlflow).list_versions()
    except NoRepositoryError:
        versions = []
    if as_json:
        print_json([to_json(version) for version in versions])
    elif versions:
        _print_table(versions)
    else:
        print_line(f"no versions yet: spira run --work {shlex.quote(str(work))}")


def _print_table(versions: list[RegisteredVersion]) -> None:
    from rich.table import Table

    table = Table("version", "aliases", "approved", "noisy accuracy", "created")
    for version in versions:
        accuracy = version.metrics.get("noisy/accuracy")
        table.add_row(
            str(version.version),
            ", ".join(version.aliases),
            "yes" if version.approved else "no",
            "" if accuracy is None else f"{accuracy:.3f}",
            f"{version.created:%Y-%m-%d %H:%M}",
        )
    out.print(table)


def to_json(version: RegisteredVersion) -> dict[str, Any]:
    """Return a version as a JSON object; ``created`` is ISO 8601."""
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
    out.print(table if table.row_count else "no differences")


@app.command()
def keygen(
    private: Annotated[Path, typer.Argument(metavar="PRIVATE", help="New file with the private key.")],
    public: Annotated[Path, typer.Argument(metavar="PUBLIC", help="New file with the public key.")],
) -> None:
    """Write a pair of keys: SPIRA_SIGNING_KEY names the private one, SPIRA_VERIFY_KEY the public one."""
    from spira.packaging.attestation import make_keys

    print_line(f"key {make_keys(private, public)}: {private} signs, {public} verifies")


app.command()(push)
app.command()(dossier)


ANY_ARGUMENTS = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command(hidden=True, context_settings=ANY_ARGUMENTS)
def promote() -> None:
    """Refuse, and name the replacement."""
    raise SpiraError("`spira models promote` was removed: use spira deploy apply VERSION --work W")


@app.command(hidden=True, context_settings=ANY_ARGUMENTS)
def rollback() -> None:
    """Refuse, and name the replacement."""
    raise SpiraError("`spira models rollback` was removed: use spira deploy rollback --reason R --work W")
