"""``spira --help`` and what it costs, the groups, and ``--version``."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version

import pytest
import typer
from typer.testing import CliRunner

from spira.cli.main import GROUPED, GROUPS, SINGLE, app

HEAVY = ("kfp", "kubernetes", "matplotlib", "mlflow", "numba", "numpy", "pandas", "scipy", "torch", "yaml")
"""Not pydantic: typer itself imports it for some commands."""


def test_the_help_has_its_groups():
    """Every command stands in one of three."""
    printed = CliRunner().invoke(app, ["--help"]).stdout
    for text in ("Commands", SINGLE, GROUPED, *GROUPS, "run", "predict", "experiments", "config", "import-checkpoint"):
        assert text in printed


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["models", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]):
    """Its time is that of typer and rich."""
    code = (
        "import sys, json\n"
        "from spira.cli.main import app\n"
        "try:\n    app(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout.splitlines()[-1])) & set(HEAVY) == set()


def test_version_is_that_of_the_package():
    """One line, exit code 0."""
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"spira {version('spira')}\n")


@pytest.mark.parametrize("name", sorted(GROUPS))
def test_a_group_shows_its_own_verbs(name: str):
    """The module behind a name is the group that the help promises."""
    result = CliRunner().invoke(app, [name, "--help"])
    group = typer.main.get_group(import_module(f"spira.cli.{name}").app)
    assert result.exit_code == 0
    assert [verb for verb, command in group.commands.items() if not command.hidden and verb not in result.stdout] == []


def test_every_argument_and_option_has_help():
    """A reader of ``--help`` never meets a bare name."""
    assert [f"{name}: {parameter.name}" for name, command in _commands(typer.main.get_command(app), "spira")
            for parameter in command.params if not getattr(parameter, "help", None)] == []  # fmt: skip


def _commands(group, name):
    context = group.make_context(name, [], resilient_parsing=True)
    for verb in group.list_commands(context):
        command = group.get_command(context, verb)
        if not command.hidden:
            yield f"{name} {verb}", command
        if hasattr(command, "commands"):
            yield from _commands(command, f"{name} {verb}")
