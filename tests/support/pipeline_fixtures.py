"""Fixtures of the pipeline: finished runs, and a stand-in of Kubeflow's server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines import local
from pipelines.kubeflow.server import Server, connect
from pipelines.summary import RunSummary
from spira import config
from spira.delivery.training_request import TrainingRequest
from spira.evaluation import gate as gates
from tests.support.gatefiles import LENIENT, STRICT
from tests.support.kfp_server import ServerState, serving


@dataclass(frozen=True)
class Runs:
    """Summaries of an approved run and of a later rejected run in the same work folder."""

    work: Path
    approved: RunSummary
    rejected: RunSummary
    progress: list[str]
    """Progress lines of both runs."""


@pytest.fixture(scope="session")
def runs(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Run the whole pipeline through both branches; the second run reuses the corpus and networks of the first."""
    work, progress = tmp_path_factory.mktemp("runs") / "work", []

    def run(gate: Path) -> RunSummary:
        request = TrainingRequest(data=str(demo), config=config.smoke(), gate=gates.load(gate))
        return local.run(request, work, progress=progress.append)

    return Runs(work, run(LENIENT), run(STRICT), progress)


@pytest.fixture
def kfp() -> Iterator[tuple[str, ServerState]]:
    """URL and state of a running stand-in server."""
    with serving() as running:
        yield running


@pytest.fixture
def state(kfp: tuple[str, ServerState]) -> ServerState:
    """State of the stand-in server."""
    return kfp[1]


@pytest.fixture
def server(kfp: tuple[str, ServerState]) -> Server:
    """Connection to the stand-in server."""
    return connect(kfp[0])
