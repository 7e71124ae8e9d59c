"""The components' metadata follows the components and the kfp of pyproject.toml."""

from __future__ import annotations

import re
from datetime import date

import pytest

from pipelines import catalogue
from spira import lineage
from tests.support import ROOT


def test_every_component_has_metadata():
    """Nothing else has an entry."""
    modules = {path.stem for path in (ROOT / "components").glob("*.py")} - {"__init__"}
    assert set(catalogue.load()) == modules


def test_every_component_was_verified_with_the_kfp_in_use():
    """A new kfp asks for a new run on a cluster, and then for a new line."""
    (kfp,) = re.findall(r'"kfp==([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert {name: entry.kfp for name, entry in catalogue.load().items()} == dict.fromkeys(catalogue.load(), kfp)
    assert all(date(2026, 1, 1) <= entry.verified <= date.today() for entry in catalogue.load().values())


@pytest.mark.integration
def test_the_metadata_is_no_source():
    """A new day of verification is no change of code, which would train again."""
    assert catalogue.FILE.relative_to(ROOT).as_posix() not in lineage.sources()
