"""Finished runs that several tests look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from gatefiles import LENIENT, STRICT

from pipelines import local
from spira import config, gates


@dataclass(frozen=True)
class Runs:
    """An approved run, then one with a gate that nothing passes, in the same work folder."""

    work: Path
    approved: dict[str, Any]
    rejected: dict[str, Any]
    told: list[str]
    """Progress lines of both."""


@pytest.fixture(scope="session")
def runs(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """The whole pipeline through both branches; the second run finds corpus and networks of the first."""
    work, told = tmp_path_factory.mktemp("runs") / "work", []

    def run(gate: Path) -> dict[str, Any]:
        return local.run(str(demo), config.smoke(), gates.load(gate), work, tell=told.append)

    return Runs(work, run(LENIENT), run(STRICT), told)
