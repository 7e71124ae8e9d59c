"""A package for all tests of the server, and servers of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.packages import make_package
from tests.support.server_process import Server


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a package, shared by the tests: do not change it."""
    return make_package(tmp_path_factory.mktemp("serving"), seed=1)


@pytest.fixture(scope="module")
def server(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server of the package as version 7 and wait until it is ready."""
    log = tmp_path_factory.mktemp("log") / "log"
    server = Server(package, log, "--model-version", "7", "--max-bytes", str(4 * 2**20), "--threads", "2")
    yield server.wait()
    server.stop()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Return a function that starts further servers; they are stopped after the test."""
    servers: list[Server] = []

    def start_server(package: Path, *options: str) -> Server:
        servers.append(Server(package, tmp_path / f"log-{len(servers)}", *options))
        return servers[-1]

    yield start_server
    for server in servers:
        server.stop()
