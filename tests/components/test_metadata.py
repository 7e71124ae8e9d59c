"""The components' metadata follows the components and the kfp of pyproject.toml."""

from __future__ import annotations

import re
from datetime import date

from components import metadata
from tests.support import ROOT


def test_every_component_has_metadata():
    """And nothing else has."""
    modules = {path.stem for path in (ROOT / "components").glob("*.py")} - {"__init__", "metadata"}
    assert set(metadata.load()) == modules


def test_every_component_was_verified_with_the_kfp_in_use():
    """A new kfp asks for a new run on a cluster, and then for a new line."""
    (kfp,) = re.findall(r'"kfp==([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert {name: entry.kfp for name, entry in metadata.load().items()} == dict.fromkeys(metadata.load(), kfp)
    assert all(date(2026, 1, 1) <= entry.verified <= date.today() for entry in metadata.load().values())


def test_every_input_and_output_is_described():
    """The catalogue and the dashboard show the descriptions."""
    for name in metadata.load():
        spec = metadata.component(name).component_spec
        assert spec.description, name
        for part, value in {**(spec.inputs or {}), **(spec.outputs or {})}.items():
            # kfp fills in the input that an exit handler gets, and the single output of a return value
            assert value.description or part in ("Output", "status"), f"{name}: {part}"
