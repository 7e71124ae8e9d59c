"""The console: what goes to standard output, what goes to the person, and how errors end a command."""

from __future__ import annotations

import json
import signal
from datetime import UTC, datetime
from typing import Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from spira.cli.common.extras import explain_missing
from spira.errors import SpiraError
from spira.files import disk_problem

out, err = Console(), Console(stderr=True)


class ErrorHandlingGroup(TyperGroup):
    """A group of commands whose :class:`SpiraError` becomes one line on standard error and exit code 2.

    Ctrl-C becomes one line and exit code 130. An error of a disk that is full or cannot be written, and a module of an
    extra that is not installed, become one line and exit code 2.
    """

    loading = ""
    """Name of the group whose module is being imported."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SpiraError as error:
            if not error.logged:  # a stage has logged it already
                err.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            err.print("interrupted")
            raise typer.Exit(128 + signal.SIGINT) from None
        except OSError as error:
            if not (problem := disk_problem(error)):
                raise
            err.print(f"error: {problem}", style="red", markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(2) from None
        except ModuleNotFoundError as error:
            line = explain_missing(error, ctx.invoked_subcommand or self.loading)
            if line is None:
                raise
            err.print(f"error: {line}", style="red", markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(2) from None


def is_live(console: Console) -> bool:
    """Return whether a console can show a display that is drawn again: a terminal that can move its cursor."""
    return console.file.isatty() and console.is_terminal and not console.is_dumb_terminal


def say(line: str) -> None:
    """Print a line for the person, on standard error, so that it never goes into a pipe."""
    err.print(line, markup=False, highlight=False, soft_wrap=True)


def say_json(line: str) -> None:
    """Print a line for a program, on standard output: JSON with ``at`` (ISO 8601) and ``said``."""
    print(json.dumps({"at": datetime.now(UTC).isoformat(timespec="seconds"), "said": line}), flush=True)


def print_json(value: Any) -> None:
    """Print a value on standard output as indented JSON."""
    print(json.dumps(value, indent=1))


def print_line(line: str) -> None:
    """Print a line on standard output as it is, without markup or wrapping."""
    out.print(line, markup=False, highlight=False, soft_wrap=True)


def print_rows(rows: list[tuple[str, str]]) -> None:
    """Print names and texts on standard output, the texts aligned."""
    width = max((len(name) for name, _ in rows), default=0)
    for name, text in rows:
        print_line(f"{name:{width}}  {text}")
