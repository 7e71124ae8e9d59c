"""``spira models``: verbs that read create nothing, and removed verbs name their replacements."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from spira.cli.main import app


def spira(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_listing_an_empty_folder_creates_nothing(tmp_path: Path) -> None:
    """The output names the command that makes the first version."""
    result = spira("models", "list", "--work", tmp_path)
    assert (result.exit_code, result.stdout) == (0, f"no versions yet: spira run --work {tmp_path}\n")
    assert json.loads(spira("models", "list", "--work", tmp_path, "--json").stdout) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "verb",
    [("models", "show", "1"), ("models", "compare", "1", "2"), ("models", "fetch", "1", "--out"), ("predict", "a.wav")],
)
def test_reading_a_folder_without_a_repository_is_refused_and_creates_nothing(
    tmp_path: Path, verb: tuple[str, ...]
) -> None:
    """The message names the folder and the remedy; a missing folder is not created either."""
    for folder in (tmp_path, tmp_path / "missing"):
        arguments = [*verb, *([tmp_path / "package"] if verb[-1] == "--out" else [])]
        result = spira(*arguments, "--work", folder)
        assert result.exit_code == 2
        assert f"no model repository in {folder} (versions: none yet): run `spira run --work {folder}`" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "replacement"),
    [
        (("promote", "3", "--force", "to compare"), "spira deploy apply VERSION --work W"),
        (("rollback", "--reason", "r", "--work", "w"), "spira deploy rollback --reason R --work W"),
    ],
)
def test_a_removed_verb_names_its_replacement(arguments: tuple[str, ...], replacement: str) -> None:
    """It exits with 2 and one line, and the help does not list it."""
    result = spira("models", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"error: `spira models {arguments[0]}` was removed: use {replacement}\n"
    assert f" {arguments[0]} " not in spira("models", "--help").stdout
