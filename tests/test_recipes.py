"""CONTRIBUTING.md names files that exist."""

from __future__ import annotations

import re

import pytest

from tests.support import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text()
RECIPES = dict(re.findall(r"^### (.+)\n((?:(?!^##).*\n?)*)", TEXT, flags=re.MULTILINE))
PATH = re.compile(r"`((?:spira|components|pipelines|tests|docs)/[\w./-]+\.(?:py|yaml|md))`")
EXPECTED = {
    "Add a metric to the gate",
    "Add a network",
    "Add a deployment target",
    "Add a pipeline component",
    "Add a pipeline parameter",
    "Add a data store",
    "Change a text of a page",
}


def test_there_is_a_recipe_for_each_change():
    """A recipe that is removed or renamed is missed."""
    assert set(RECIPES) == EXPECTED


@pytest.mark.parametrize("title", sorted(EXPECTED))
def test_a_recipe_names_files_that_exist(title: str):
    """NAME stands for a file that the reader makes; every other path is there."""
    paths = [path for path in PATH.findall(RECIPES[title]) if "NAME" not in path]
    assert paths
    assert [path for path in paths if not (ROOT / path).is_file()] == []


def test_links_lead_to_files():
    """Relative links in the pages at the top of the repository."""
    for page in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"):
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / page).read_text()):
            assert (ROOT / link).exists(), f"{page}: {link}"
