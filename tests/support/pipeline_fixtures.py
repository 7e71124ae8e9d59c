"""What several tests look at: finished runs, and a stand-in of Kubeflow's server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipelines import local
from pipelines.kubeflow.server import Server, connect
from spira import config
from spira.delivery.training_request import TrainingRequest
from spira.evaluation import gate as gates
from tests.support.gatefiles import LENIENT, STRICT
from tests.support.kfp_server import ServerState, serving


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
        return local.run(
            TrainingRequest(data=str(demo), config=config.smoke(), gate=gates.load(gate)), work, tell=told.append
        )

    return Runs(work, run(LENIENT), run(STRICT), told)


@pytest.fixture
def kfp() -> Iterator[tuple[str, ServerState]]:
    """The address of the server, and what it holds."""
    with serving() as served:
        yield served


@pytest.fixture
def state(kfp: tuple[str, ServerState]) -> ServerState:
    """What it holds."""
    return kfp[1]


@pytest.fixture
def server(kfp: tuple[str, ServerState]) -> Server:
    """The way to it."""
    return connect(kfp[0])
