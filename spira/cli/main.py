"""The ``spira`` command: every verb in its group.

    spira run --demo
    spira run --data DIR --set training.max_epochs=30 --seed 1 --seed 2
    spira predict RECORDING.wav
    spira data check DIR
    spira models list
    spira deliver watch
    spira deploy status
    spira clean --keep 3
    spira pipeline submit --data gs://...

Exit code 0 for a finished run whatever its verdict, 2 for what is refused. A group's module is imported when the group
is used, and a verb imports what is heavy itself, so that ``spira --help`` stays fast.
"""

from __future__ import annotations

import io
import sys
from importlib import import_module
from typing import Annotated, Any

import typer

from spira.cli import clean, config, experiments, predict, run, stages
from spira.cli.common.console import ErrorHandlingGroup

HELP = """SPIRA's detector of respiratory insufficiency: train, judge, keep and serve it.

Exit code 0 for a finished run whatever its verdict, 2 for what is refused."""
GROUPED, SINGLE = "Data, models and delivery", "Single stages"
GROUPS = {
    "data": "Check a data set before training, upload it, and remove a person's recordings.",
    "models": "List, show, compare, fetch and push versions in the model repository.",
    "deliver": "Continuous delivery: train, judge and serve when data, settings or code change.",
    "deploy": "Move versions on and off the targets by hand.",
    "pipeline": "The pipeline on Kubeflow: compile, submit, schedule, status.",
}
"""The groups and their help; each is ``spira.cli.<name>.app``."""


class LazyGroup(ErrorHandlingGroup):
    """The top-level group. It imports the module of a group in ``GROUPS`` when the group is used."""

    _shows_help = False

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *GROUPS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in GROUPS:
            return super().get_command(ctx, cmd_name)
        if self._shows_help:  # one line of help is no reason to import the module
            return typer.core.TyperGroup(name=cmd_name, help=GROUPS[cmd_name], rich_help_panel=GROUPED)
        self.loading = cmd_name
        return typer.main.get_group(import_module(f"spira.cli.{cmd_name}").app)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self._shows_help = True
        super().format_help(ctx, formatter)


app = typer.Typer(cls=LazyGroup, no_args_is_help=True, pretty_exceptions_enable=False, help=HELP)


def print_version(asked: bool) -> None:
    """Print the version and end."""
    if asked:
        from importlib.metadata import version

        typer.echo(f"spira {version('spira')}")
        raise typer.Exit


@app.callback()
def spira(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Take the options that stand before a verb."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name with an accent is no error where the locale has none
            stream.reconfigure(errors="backslashreplace")


app.command("run")(run.run)
app.command("predict")(predict.predict)
app.command("config")(config.config)
app.command("clean")(clean.clean)
app.command("experiments")(experiments.experiments)
app.command("demo", rich_help_panel=SINGLE)(stages.demo)
app.command("preprocess", rich_help_panel=SINGLE)(stages.preprocess)
app.command("train", rich_help_panel=SINGLE)(stages.train)
app.command("evaluate", rich_help_panel=SINGLE)(stages.evaluate)
app.command("import-checkpoint", rich_help_panel=SINGLE)(stages.import_checkpoint)
