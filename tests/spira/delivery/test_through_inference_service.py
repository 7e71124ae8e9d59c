"""Continuous delivery to the Inference Service, with NATS, an S3 emulator and processes of a stand-in service."""

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
from spira.deployment.inference_service.contract import version_of
from spira.deployment.inference_service.processes import Process
from tests.support.ledger_builder import THIRD, LocalDelivery

pytestmark = pytest.mark.integration

Verb = Callable[..., Any]


class Service:
    """The service's processes in the work folder of a delivery."""

    def __init__(self, local_delivery: LocalDelivery) -> None:
        self.root = local_delivery.folder / "work" / "inference-service" / "processes"

    @property
    def running(self) -> list[Process]:
        return [process for process in processes.find_all(self.root) if process.is_alive]

    @property
    def serves(self) -> list[str]:
        """Version in the environment of each running process."""
        return [version_of(process.running_environment) for process in self.running]

    def kill(self) -> None:
        for process in self.running:
            os.killpg(process.pid, signal.SIGKILL)
        while self.running:
            pass


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """URLs of NATS and S3."""
    from tests.support.service_world import both_servers

    with both_servers(tmp_path_factory.mktemp("nats")) as addresses:
        yield addresses


@pytest.fixture
def service(
    local_delivery: LocalDelivery, servers: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Service]:
    """The only target of the settings."""
    from tests.support.service_world import KEYS, STAND_IN

    target = {
        "kind": "inference-service",
        "command": [sys.executable, str(STAND_IN)],
        "nats_url": servers[0],
        "minio": servers[1],
        "variables": {"MLFLOW_TRACKING_URI": str(local_delivery.folder / "mlflow")},
    }
    with (local_delivery.folder / "delivery.yaml").open("a") as file:
        yaml.safe_dump({"targets": [target]}, file)
    monkeypatch.setenv("MINIO_ACCESS_KEY", KEYS["access_key"])
    monkeypatch.setenv("MINIO_SECRET_KEY", KEYS["secret_key"])
    started = Service(local_delivery)
    yield started
    started.kill()


def test_each_tick_brings_the_service_to_the_wanted_version(
    deliver: Verb, deploy: Verb, local_delivery: LocalDelivery, service: Service
) -> None:
    """The wanted version, a newly approved one, the one after a rollback, and a killed process take one tick each."""
    assert "inference-service serves version 2 (was nothing)" in deliver("tick").stderr
    assert service.serves == ["2"]

    local_delivery.ledger_builder.run(local_delivery.ledger_builder.observe(THIRD), "approved", "3")
    result = deliver("tick")
    assert result.exit_code == 0, result.output
    assert "version 3 is champion and serves: approved by its gate" in result.stderr
    assert (service.serves, local_delivery.registry.champion().version) == (["3"], 3)

    assert deliver("rollback", "--reason", "false alarms").exit_code == 0
    assert (service.serves, local_delivery.registry.champion().version) == (["2"], 2)

    service.kill()
    (status,) = json.loads(deploy("status", "--json").stdout)
    assert (status["version"], status["ready"]) == ("2", False)
    assert "has ended: apply it again" in status["message"]
    message = "repaired: version 2 applied to inference-service again"
    assert message in deliver("tick").stderr
    assert message in deliver("history").stdout
    assert service.serves == ["2"]
    assert deploy("verify").exit_code == 0
    assert json.loads(deliver("tick", "--json").stdout)["done"] == []
