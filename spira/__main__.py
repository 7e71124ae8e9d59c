"""``spira``: the whole pipeline in one command, its stages one by one, and the model repository.

    spira run --demo
    spira run --data DIR --set training.max_epochs=30 --seed 1 --seed 2
    spira predict RECORDING.wav
    spira models list
    spira deliver watch
    spira deploy status

Exit code 0 for a finished run whatever its verdict, 2 for what is refused. Heavy modules are imported by the
verbs that need them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from spira import config as configuration
from spira.delivery.commands import app as deliver
from spira.delivery.deploy import app as deploy
from spira.errors import SpiraError

out, err = Console(), Console(stderr=True)


class Refusing(TyperGroup):
    """Commands whose refusals are a message and exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SpiraError as error:
            if not error.told:
                err.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(2) from None


app = typer.Typer(cls=Refusing, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
models = typer.Typer(no_args_is_help=True, help="The model repository: versions and their aliases.")
app.add_typer(models, name="models")
app.add_typer(deliver, name="deliver")
app.add_typer(deploy, name="deploy")

ConfigFile = Annotated[Path | None, typer.Option("--config", help="Partial YAML over the defaults.")]
Settings = Annotated[list[str], typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Over the file.")]
Seeds = Annotated[list[int], typer.Option("--seed", help="One network a seed; repeatable.")]
Work = Annotated[Path, typer.Option("--work", help="Folder of runs, models and MLflow.")]
GateFile = Annotated[Path | None, typer.Option("--gate", help="Gate file; the project's own if not given.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Report bad recordings and go on.")]
MLflow = Annotated[str, typer.Option("--mlflow", metavar="URL", help="MLflow server; SQLite in --work if not given.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
RequireGpu = Annotated[bool, typer.Option("--require-gpu", help="Refuse to train on a CPU.")]
Corpus = Annotated[Path, typer.Option("--corpus", help="What preprocess made.")]
Out = Annotated[Path, typer.Option("--out", help="Folder to make.")]
Json = Annotated[bool, typer.Option("--json", help="For programs.")]
DEFAULT_WORK = Path("work")
DEMO = "the data is SYNTHETIC, made by a computer: its figures say nothing about patients"


def settings_of(config: Path | None, setting: list[str], seed: list[int]) -> configuration.Config:
    """The resolved configuration of the options."""
    seeds = [f"training.seeds={seed}"] if seed else []
    return configuration.load(config, [*setting, *seeds])


@app.command()
def run(
    data: Annotated[str, typer.Option("--data", help="Data set: folder or gs:// prefix.")] = "",
    demo: Annotated[bool, typer.Option("--demo", help="Make a synthetic data set and run on it.")] = False,
    config: ConfigFile = None,
    setting: Settings = [],  # noqa: B006 (typer makes a new list)
    seed: Seeds = [],  # noqa: B006
    work: Work = DEFAULT_WORK,
    gate: GateFile = None,
    skip_bad: SkipBad = False,
    mlflow: MLflow = "",
    device: Device = "auto",
    require_gpu: RequireGpu = False,
) -> None:
    """Preprocess, train, evaluate, push and deploy: the whole pipeline on this machine."""
    from spira import gates, summary

    resolved, judge = settings_of(config, setting, seed), gates.load(gate)
    if demo == bool(data):
        raise SpiraError("give --data DIR, or --demo: one of the two")
    from pipelines import local

    result = local.run(
        str(make_demo(work / "demo-data")) if demo else absolute(data),
        resolved,
        judge,
        work,
        skip_bad=skip_bad,
        device=device,
        require_gpu=require_gpu,
        registry_uri=mlflow,
        tell=tell,
    )
    summary.show(result, str(work), out)
    if demo:
        tell(f"Remember: {DEMO}")


def tell(line: str) -> None:
    """A line of progress, to the person rather than into a pipe."""
    err.print(line, markup=False, highlight=False, soft_wrap=True)


def absolute(data: str) -> str:
    """A data set's place as every process and every later reader finds it."""
    return data if "://" in data else str(Path(data).resolve())


def make_demo(folder: Path) -> Path:
    """The synthetic data set, told as such."""
    from spira import demo

    tell(f"demo: {DEMO}")
    return demo.make_demo(folder)


@app.command("demo")
def demo_set(folder: Annotated[Path, typer.Argument(help="Folder to make.")]) -> None:
    """Make the synthetic data set, and no more."""
    tell(f"demo: {make_demo(folder)}")


@app.command("config")
def show_config(
    config: ConfigFile = None,
    setting: Settings = [],  # noqa: B006
    seed: Seeds = [],  # noqa: B006
    paper: Annotated[bool, typer.Option("--paper", help="The paper's best experiment, 3.6, instead.")] = False,
) -> None:
    """Print the resolved configuration, as YAML that --config takes."""
    resolved = configuration.paper() if paper else settings_of(config, setting, seed)
    print(yaml.safe_dump(resolved.model_dump(mode="json"), sort_keys=False), end="")


@app.command()
def preprocess(
    data: Annotated[str, typer.Option("--data", help="Data set: folder or gs:// prefix.")],
    to: Out,
    config: ConfigFile = None,
    setting: Settings = [],  # noqa: B006
    skip_bad: SkipBad = False,
) -> None:
    """Data set -> corpus."""
    from spira import stages

    resolved = settings_of(config, setting, [])
    stages.preprocess(absolute(data), resolved, to, data_digest="", skip_bad=skip_bad, state=None)


@app.command()
def train(
    corpus: Corpus,
    to: Out,
    config: ConfigFile = None,
    setting: Settings = [],  # noqa: B006
    seed: Seeds = [],  # noqa: B006
    device: Device = "auto",
    require_gpu: RequireGpu = False,
) -> None:
    """Corpus -> a checkpoint a seed, in OUT/SEED; resumes where it was stopped."""
    from spira import stages

    resolved = settings_of(config, setting, seed)
    for each in resolved.training.seeds:
        stages.train(corpus, resolved, each, to / str(each), device=device, require_gpu=require_gpu, state=None)


@app.command()
def evaluate(
    checkpoints: Annotated[list[Path], typer.Argument(help="Checkpoint folders, one a seed.")],
    corpus: Corpus,
    to: Out,
    gate: GateFile = None,
    work: Work = DEFAULT_WORK,
    mlflow: MLflow = "",
) -> None:
    """Checkpoints -> verdict and report.html; compared with the champion of --work or --mlflow, if any."""
    from spira import gates, stages

    judge, registry = gates.load(gate).model_dump_json(), mlflow or str(work)
    places = to, to / "report.html", to / "candidate"
    stages.evaluate(corpus, checkpoints, judge, *places, registry_uri=registry, pipeline_run="")


@app.command()
def predict(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Recordings.")],
    model: Annotated[str, typer.Option("--model", help="Version, alias or package folder.")] = "champion",
    work: Work = DEFAULT_WORK,
    mlflow: MLflow = "",
    as_json: Json = False,
) -> None:
    """Ask a model about recordings; exit code 2 if it refuses one."""
    from spira import proof

    package = Path(model) if Path(model).is_dir() else fetched(model, work, mlflow)
    answers = proof.predict_files(package, files)
    if as_json:
        print(json.dumps(answers, indent=1))
    else:
        for answer in answers:
            told = answer.get("error") or f"{answer['probability']:.3f}  {answer['diagnosis']}"
            out.print(f"{answer['file']}  {told}", markup=False, highlight=False, soft_wrap=True)
    if any("error" in answer for answer in answers):
        raise typer.Exit(2)


def registry_of(work: Path, mlflow: str) -> Any:
    """The model repository of the options."""
    from spira import stages

    return stages.open_registry(mlflow or str(work))


def fetched(version: str, work: Path, mlflow: str) -> Path:
    """The package of a version, kept in the work folder."""
    registry = registry_of(work, mlflow)
    number = registry.show(version).version
    return registry.fetch(number, work / "models" / str(number))


@models.command("list")
def list_models(work: Work = DEFAULT_WORK, mlflow: MLflow = "", as_json: Json = False) -> None:
    """All versions, newest first."""
    versions = registry_of(work, mlflow).list_versions()
    if as_json:
        print(json.dumps([describe(version) for version in versions], indent=1))
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


def describe(version: Any) -> dict[str, Any]:
    """A version as JSON."""
    return {name: value for name, value in vars(version).items() if name != "created"} | {
        "created": version.created.isoformat()
    }


@models.command()
def show(version: str, work: Work = DEFAULT_WORK, mlflow: MLflow = "") -> None:
    """A version's aliases, metrics and lineage, as JSON."""
    print(json.dumps(describe(registry_of(work, mlflow).show(version)), indent=1))


@models.command()
def fetch(version: str, to: Out, work: Work = DEFAULT_WORK, mlflow: MLflow = "") -> None:
    """Download a version's package."""
    tell(f"fetched: {registry_of(work, mlflow).fetch(version, to)}")


@models.command()
def compare(a: str, b: str, work: Work = DEFAULT_WORK, mlflow: MLflow = "") -> None:
    """The metrics and parameters in which two versions differ."""
    table = Table("", "name", a, b)
    for difference in registry_of(work, mlflow).compare(a, b):
        table.add_row(difference.kind, difference.name, str(difference.a), str(difference.b))
    out.print(table if table.row_count else "they don't differ")


@models.command()
def promote(
    version: str,
    force: Annotated[str, typer.Option("--force", metavar="REASON", help="Though it isn't approved.")] = "",
    work: Work = DEFAULT_WORK,
    mlflow: MLflow = "",
) -> None:
    """Serve a version, check it there, and make it champion."""
    from spira import stages
    from spira.deployment.targets import LocalTarget

    package = fetched(version, work, mlflow)
    target = LocalTarget(serving=str(work / "serving")).model_dump_json()
    stages.deploy(package, int(package.name), target, registry_uri=mlflow or str(work), force_reason=force)


@models.command()
def rollback(
    reason: Annotated[str, typer.Option("--reason", help="Kept with the version that is left.")],
    work: Work = DEFAULT_WORK,
    mlflow: MLflow = "",
) -> None:
    """Make the previous version champion again, and serve it."""
    from spira.deployment import Release
    from spira.deployment.local import Local

    champion = registry_of(work, mlflow).rollback(reason)
    Local(work / "serving").apply(Release(str(champion.version), fetched(str(champion.version), work, mlflow)))
    tell(f"version {champion.version} serves and is champion again")


@app.command("import-checkpoint")
def import_checkpoint(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint file of the paper's code.")],
    to: Out,
    setting: Settings = [],  # noqa: B006
) -> None:
    """Turn a checkpoint of the paper's code into a checkpoint folder; nothing in it is executed."""
    from spira import paper_checkpoint

    imported = paper_checkpoint.convert(checkpoint, to, setting)
    windows = imported.config.windows
    tell(f"{imported.config.model.architecture}, windows of {windows.window_seconds:g} s: {to}")


@app.command("experiments")
def run_experiments(
    data: Annotated[str, typer.Option("--data", help="Data set: folder or gs:// prefix.")],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NUMBER]...", help="Such as 1.1 3.6; all 18 if none.")
    ] = None,
    seed: Seeds = [],  # noqa: B006
    setting: Settings = [],  # noqa: B006
    work: Work = DEFAULT_WORK,
    device: Device = "auto",
) -> None:
    """Train and test the paper's experiments, and print the table beside the published figures."""
    from spira import experiments, stages
    from spira.corpus import Corpus as Voices

    place = work / "experiments"
    preprocess(data, place / "corpus")
    with stages.telling():
        table = experiments.run(Voices.open(place / "corpus"), place, names or (), seed, setting, device)
    print(experiments.text(table))


if __name__ == "__main__":
    app()
