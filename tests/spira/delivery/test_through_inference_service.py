"""Continuous delivery through the Inference Service, for real: NATS, an S3 emulator, processes of a stand-in."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from spira.deployment.inference_service import processes
from spira.deployment.inference_service.processes import Process
from tests.support.ledger_builder import THIRD, World

Verb = Callable[..., Any]


class Service:
    """The processes of the world's service."""

    def __init__(self, world: World) -> None:
        self.root = world.folder / "work" / "inference-service" / "processes"

    @property
    def running(self) -> list[Process]:
        return [process for process in processes.find_all(self.root) if process.is_alive]

    @property
    def serves(self) -> list[str]:
        """What each of them was really started with."""
        return [process.running_environment["model_path"] for process in self.running]

    def kill(self) -> None:
        for process in self.running:
            os.killpg(process.pid, signal.SIGKILL)
        while self.running:
            pass


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """NATS and S3."""
    from tests.support.service_world import both_servers

    with both_servers(tmp_path_factory.mktemp("nats")) as addresses:
        yield addresses


@pytest.fixture
def service(world: World, servers: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """The settings' one target; the stand-in finds each version in a folder, where the real one would ask MLflow."""
    from tests.support.service_world import KEYS, STAND_IN

    for version in ("1", "2", "3"):
        world.registry.fetch(version, world.folder / "mlflow" / "spira" / version / "package")
    target = {
        "kind": "inference-service",
        "command": [sys.executable, str(STAND_IN)],
        "nats_url": servers[0],
        "minio": servers[1],
        "variables": {"MLFLOW_TRACKING_URI": str(world.folder / "mlflow")},
    }
    with (world.folder / "delivery.yaml").open("a") as file:
        yaml.safe_dump({"targets": [target]}, file)
    monkeypatch.setenv("MINIO_ACCESS_KEY", KEYS["access_key"])
    monkeypatch.setenv("MINIO_SECRET_KEY", KEYS["secret_key"])
    started = Service(world)
    yield started
    started.kill()


def test_versions_come_and_go_and_what_dies_is_started_again(
    deliver: Verb, deploy: Verb, world: World, service: Service
) -> None:
    """Each by one tick: what is wanted, what was approved since, the way back, and a process that was killed."""
    assert "inference-service serves version 2, instead of nothing" in deliver("tick").stderr
    assert service.serves == ["models:/spira/2"]

    world.book.run(world.book.observe(THIRD), "approved", "3")
    told = deliver("tick")
    assert told.exit_code == 0, told.output
    assert "version 3 serves and is champion: approved by its gate" in told.stderr
    assert (service.serves, world.registry.champion().version) == (["models:/spira/3"], 3)

    assert deliver("rollback", "--reason", "false alarms").exit_code == 0
    assert (service.serves, world.registry.champion().version) == (["models:/spira/2"], 2)

    service.kill()
    (status,) = json.loads(deploy("status", "--json").stdout)
    assert (status["version"], status["ready"]) == ("2", False)
    assert "has ended: apply it again" in status["message"]
    told = deliver("tick")
    assert "inference-service serves version 2 as it should again" in told.stderr
    assert "put right: inference-service serves version 2 as it should again" in deliver("history").stdout
    assert service.serves == ["models:/spira/2"]
    assert deploy("verify").exit_code == 0
    assert json.loads(deliver("tick", "--json").stdout)["done"] == []
