"""``spira models``: the versions in the model repository."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spira.cli.common.console import out, print_json, print_line, say
from spira.cli.common.options import DEFAULT_WORK, Json, MLflow, Out, Work
from spira.cli.models.dossier import dossier
from spira.cli.models.push import push
from spira.errors import SpiraError
from spira.evaluation.numbers import number

if TYPE_CHECKING:
    from spira.cli.common.model_pages import Named
    from spira.registry import Difference, RegisteredVersion, Registry

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
            number(accuracy, missing=""),
            f"{version.created:%Y-%m-%d %H:%M}",
        )
    out.print(table)


def to_json(version: RegisteredVersion) -> dict[str, Any]:
    """Return a version as a JSON object; ``created`` is ISO 8601."""
    return {**vars(version), "created": version.created.isoformat()}


@app.command()
def show(version: VersionName, work: Work = DEFAULT_WORK, mlflow: MLflow = "", as_json: Json = False) -> None:
    """Show a version: verdict, numbers with intervals, origin, where it serves, its history and its pages."""
    registry = open_registry(work, mlflow)
    shown = registry.show(version)
    if as_json:
        print_json(to_json(shown))
        return
    from spira.cli.common import model_pages

    named = model_pages.Named(shown, registry.evaluation(shown))
    serving, history = ([], []) if mlflow else (_serving(shown, work), _history(shown, work))
    out.print(model_pages.version_page(named, serving, history), highlight=False)
    for line in model_pages.link_lines(_links(registry, named)):
        out.print(line, soft_wrap=True)


def _serving(version: RegisteredVersion, work: Path) -> list[tuple[str, str]]:
    """Return what the local target of a work folder serves; nothing if it has none."""
    from spira.deployment.local import Local

    folder = work.resolve() / "serving"
    if not folder.is_dir():
        return []
    status = Local(folder).status()
    is_this = status.version == str(version.version) and status.digest in ("", version.digest)
    served = "this version" if is_this else f"version {status.version}" if status.version else "nothing"
    return [("local", f"{served}{'' if status.ready else f', not ready: {status.message}'} ({folder})")]


def _history(version: RegisteredVersion, work: Path) -> list[str]:
    """Return what the ledger of a work folder records of a version, oldest first: times, people and reasons."""
    from spira.cli.common.compose import ledger
    from spira.delivery.explain import describe_record
    from spira.delivery.history.events import Finished, VersionEvent, VersionId
    from spira.delivery.settings import Settings

    root = work.resolve()
    if not (root / "ledger").is_dir():
        return []
    this = VersionId(str(version.version), version.digest)

    def concerns(event: object) -> bool:
        if isinstance(event, Finished):
            return bool(event.version) and this.is_same(VersionId(event.version or "", event.digest))
        return isinstance(event, VersionEvent) and this.is_same(event.version_id)

    settings = Settings(data="", work=str(root), ledger=str(root / "ledger"), registry=str(root), targets=())
    records = ledger(settings).read()
    return [f"{record.at:%Y-%m-%d %H:%M} {describe_record(record)}" for record in records if concerns(record.event)]


def _links(registry: Registry, named: Named) -> dict[str, str]:
    """Return the pages and files of a version."""
    version, evaluation = named.version, named.evaluation
    pages = {"version page": registry.version_page(version.version)}
    if version.run_id:
        pages["run page"] = registry.run_page(version.run_id)
    if evaluation and evaluation.has_report:
        pages["report"] = f"{evaluation.artifacts}/report.html"
    return {name: page for name, page in {**pages, "files": version.uri}.items() if page}


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
    everything: Annotated[
        bool, typer.Option("--all", help="List every logged metric and parameter that differs.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the numbers that matter of two versions, and a paired test where both answered the same recordings."""
    registry = open_registry(work, mlflow)
    from spira.cli.common import model_pages

    first, second = (
        model_pages.Named(version, None if everything else registry.evaluation(version))
        for version in (registry.show(a), registry.show(b))
    )
    if first.verdict is None or second.verdict is None:  # of another program: only what it logged can be compared
        _print_differences(registry.compare(a, b), a, b, as_json)
        return
    comparison = model_pages.compare(first, second)
    if as_json:
        print_json({"a": first.version.version, "b": second.version.version, **comparison.to_json()})
    else:
        out.print(model_pages.comparison_page(first, second, comparison), highlight=False)


def _print_differences(differences: list[Difference], a: str, b: str, as_json: bool) -> None:
    from rich.table import Table

    if as_json:
        print_json([vars(difference) for difference in differences])
        return
    table = Table("", "name", a, b)
    for difference in differences:
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
