"""Continuous delivery to the Inference Service, with NATS, an S3 emulator and processes of a stand-in service."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import nats
import pytest
import yaml

from spira.deployment.inference_service import processes
from spira.deployment.inference_service.contract import request, version_of
from spira.deployment.inference_service.processes import Process
from tests.support.ledger_builder import THIRD, LocalDelivery
from tests.support.service_world import RGH

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
        """Kill all processes and their supervisors, as a restart of the machine does."""
        for process in processes.find_all(self.root):
            process.supervisor.stop(5)
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


@pytest.mark.slow
def test_a_record_number_stays_in_the_log(
    deliver: Verb, deploy: Verb, local_delivery: LocalDelivery, service: Service, servers: tuple[str, str]
) -> None:
    """The service logs every inference whole. No command, no record and no status has anything of it."""
    printed = [deliver("tick").output]
    asyncio.run(send_without_recordings(servers[0]))
    (process,) = service.running
    while "could not answer" not in process.log.read_text():
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    printed += [
        verb(*arguments).output for verb in (deploy, deliver) for arguments in (["status"], ["status", "--json"])
    ]
    while not (process.folder / "log.1").exists():  # written when the service is started again
        time.sleep(0.05)
    assert RGH in (process.folder / "log.1").read_text()
    service.kill()
    printed += [
        verb(*arguments).output for verb in (deploy, deliver) for arguments in (["status"], ["status", "--json"])
    ]
    assert "Known lines of" in printed[-1]
    faults = local_delivery.folder / "mlflow" / "spira" / "3" / "faults.json"
    faults.parent.mkdir(parents=True, exist_ok=True)
    faults.write_text(json.dumps({"fault": "dies after an answer", "on": "spira-topic"}))
    local_delivery.ledger_builder.run(local_delivery.ledger_builder.observe(THIRD), "approved", "3")
    result = deliver("tick")
    assert "version 3 was not deployed" in result.output
    assert "MemoryError" in result.output
    printed += [result.output, deliver("history").output, deliver("history", "--json").output]
    ledger = [path.read_text() for path in (local_delivery.folder / "work" / "ledger").rglob("*.json")]
    state = [path.read_text() for path in service.root.parent.glob("*.json")]
    for text in (*printed, *ledger, *state):
        assert RGH not in text
        assert "deployment check, synthetic" not in text


async def send_without_recordings(nats_url: str) -> None:
    """Send an inference that the service cannot answer, so it logs an error too."""
    client = await nats.connect(nats_url)
    message = json.loads(request("patient", "spira")) | {"rgh": RGH}
    await client.publish("spira-topic", json.dumps(message).encode())
    await client.flush()
    await client.close()


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
