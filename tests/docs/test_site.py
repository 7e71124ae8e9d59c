"""The documentation site builds without a warning, and its generated pages are complete."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from pipelines import catalogue
from spira.cli.main import app
from spira.config import Config
from spira.delivery.settings import Settings
from spira.evaluation.gate import load
from tests.support import ROOT

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site; a broken link, anchor or navigation entry fails the build."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def test_every_page_is_in_the_navigation(site: Path):
    """A page that the navigation leaves out is a warning, and so a failed build; here the other way round."""
    pages = [*_pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])]
    assert [page for page in pages if not (site / page).with_suffix(".html").is_file()] == []


def test_the_configuration_page_has_every_setting(site: Path):
    """The page has each section and key of training, gate and delivery, with its meaning."""
    page = (site / "configuration.html").read_text()
    keys = {key for section in Config().model_dump().values() for key in section}
    keys |= {key for section in load().model_dump().values() if isinstance(section, dict) for key in section}
    keys |= set(Settings.model_fields)
    assert {key for key in keys if f"<code>{key}</code>" not in page} == set()
    assert "<td></td>\n</tr>" not in page  # a setting without a meaning


def test_the_components_page_has_every_component(site: Path):
    """The page has the inputs and outputs of each."""
    page = (site / "components.html").read_text()
    for name in catalogue.load():
        spec = catalogue.component(name).component_spec
        parts = {name, *(spec.inputs or {}), *(spec.outputs or {})}
        assert {part for part in parts if f"<code>{part}</code>" not in page} == set()


def test_the_command_page_has_every_command_and_option(site: Path):
    """Walks the commands that typer builds."""
    page = (site / "cli.html").read_text()
    missing = [name for name, command in _commands(typer.main.get_command(app), "spira") if name not in page]
    options = {
        option
        for _, command in _commands(typer.main.get_command(app), "spira")
        for parameter in command.params
        if parameter.param_type_name == "option"
        for option in parameter.opts
    } - {"--help", "--install-completion", "--show-completion", "--version"}
    assert missing == []
    assert {option for option in options if option not in page} == set()


def test_the_picture_of_the_flow_is_that_of_the_compiled_pipeline():
    """Drawn again it has the same stages and labels; else: python docs/flow.py."""
    namespace: dict = {"__file__": str(ROOT / "docs" / "flow.py"), "__name__": "flow"}
    exec((ROOT / "docs" / "flow.py").read_text(), namespace)
    stages = namespace["tasks"](namespace["compiled"]())
    picture = (ROOT / "docs" / "images" / "flow.svg").read_text()
    assert set(stages) == set(namespace["OUTPUTS"])
    assert [stage for stage in stages if f">{stage}<" not in picture] == []


def _pages(nav: list) -> list[str]:
    for entry in nav:
        value = next(iter(entry.values()))
        if isinstance(value, list):
            yield from _pages(value)
        else:
            yield value


def _commands(group: object, name: str) -> list:
    context = group.make_context(name, [], resilient_parsing=True)
    for verb in group.list_commands(context):
        command = group.get_command(context, verb)
        if command.hidden:
            continue
        yield f"{name} {verb}", command
        if hasattr(command, "commands"):
            yield from _commands(command, f"{name} {verb}")
