"""Options that several commands share, and what they resolve to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spira.language import Language

if TYPE_CHECKING:
    from spira.config import Config
    from spira.project import Project


def parse_folder(name: str) -> Path:
    """Return the folder that an option names. An empty name, as of an unset variable, is not the current folder."""
    if not str(name):
        raise typer.BadParameter("the name of the folder is empty: give a folder, or . for the current one")
    return Path(name)


ConfigFile = Annotated[Path | None, typer.Option("--config", help="Partial YAML file over the default settings.")]
ConfigValues = Annotated[
    list[str], typer.Option("--set", metavar="SECTION.KEY=VALUE", help="One setting over the file; repeatable.")
]
Seeds = Annotated[list[int], typer.Option("--seed", help="Train one network for this seed; repeatable.")]
Work = Annotated[
    Path,
    typer.Option("--work", parser=parse_folder, metavar="PATH", help="Folder of runs, models and MLflow's database."),
]
GateFile = Annotated[Path | None, typer.Option("--gate", help="Gate file; the project's own by default.")]
ProjectFile = Annotated[
    Path | None,
    typer.Option("--project", help="Owner, contact and licence; project.yaml beside --config or in --work by default."),
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave bad recordings out and list them.")]
MLflow = Annotated[str, typer.Option("--mlflow", metavar="URL", help="MLflow server; SQLite in --work by default.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
RequireGpu = Annotated[bool, typer.Option("--require-gpu", help="Refuse to train on a CPU.")]
Data = Annotated[str, typer.Option("--data", help="Data set: folder, gs:// or s3:// prefix.")]
Corpus = Annotated[Path, typer.Option("--corpus", help="Corpus folder, as preprocess makes it.")]
Out = Annotated[Path, typer.Option("--out", parser=parse_folder, metavar="PATH", help="Folder to make.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
WithAudio = Annotated[
    bool, typer.Option("--with-audio", help="Put audio and spectrograms of mistakes into the local report: voices.")
]
ReportLanguage = Annotated[
    Language | None, typer.Option("--language", help="Language of the report; that of the project file by default.")
]
PageLanguage = Annotated[
    Language | None, typer.Option("--language", help="Language of the page; that of the project file by default.")
]
DEFAULT_WORK = Path("work")


def resolve_config(file: Path | None, values: list[str], seeds: list[int]) -> Config:
    """Return the configuration that the options resolve to.

    Raises:
        ConfigError: a file, key or value is refused.
    """
    from spira import config

    return config.load(file, [*values, *([f"training.seeds={seeds}"] if seeds else [])])


def resolve_project(
    given: Path | None, config: Path | None, work: Path | None = None, language: Language | None = None
) -> Project:
    """Return the content of the project file: the given one, that beside the settings, or that in the work folder.

    Args:
        language: takes the place of the file's, if it is given.

    Raises:
        ConfigError: the file cannot be read, or a key or value is refused.
    """
    from spira import project

    folders = [*([config.parent] if config else []), *([work] if work else [])]
    found = project.load(project.find(given, *folders))
    return found.model_copy(update={"language": language}) if language else found


def absolute(data: str) -> str:
    """Return a data set's place as every process finds it: a URL as it is, a folder by its whole path."""
    return data if "://" in data else str(Path(data).resolve())
