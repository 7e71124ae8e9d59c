"""Real processes: killed by SIGKILL after every effect and at every stage, with outages, and two at the same time."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from spira.config import smoke
from spira.data.storage import open_store
from spira.delivery.history.ledger import Ledger
from spira.deployment.local import Local
from spira.registry import Registry, local_uri
from tests.support import ROOT
from tests.support.gatefiles import LENIENT

pytestmark = pytest.mark.slow

KILLED_PROGRAM = ROOT / "tests" / "support" / "kill_after_effects.py"
STAGES = ("preprocess: done", "train: done", "evaluate: done", "push: done")
MAX_TICKS = 200


class Delivery:
    """A settings file with a small training, and ``spira deliver`` in processes of its own."""

    def __init__(self, folder: Path, data: Path, **settings: Any) -> None:
        self.folder, self.work, self.kills = folder, folder / "work", folder / "kills"
        (folder / "model.yaml").write_text(yaml.safe_dump(smoke().model_dump(mode="json")))
        body = {"data": str(data), "config": "model.yaml", "gate": str(LENIENT), **settings}
        (folder / "delivery.yaml").write_text(yaml.safe_dump(body))

    def command(self, *arguments: str, kill_after_effects: bool = False) -> list[str]:
        program = [str(KILLED_PROGRAM)] if kill_after_effects else ["-m", "spira"]
        return [sys.executable, *program, "deliver", *arguments, "--settings", str(self.folder / "delivery.yaml")]

    def run(self, *arguments: str, kill_after_effects: bool = False) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "KILLS": str(self.kills)}
        command = self.command(*arguments, kill_after_effects=kill_after_effects)
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)

    def status(self) -> dict[str, Any]:
        return json.loads(self.run("status", "--json").stdout)

    @property
    def kinds(self) -> list[str]:
        return [record.kind for record in Ledger(open_store(self.work / "ledger")).read()]

    @property
    def runs(self) -> list[Path]:
        return list((self.work / "runs").glob("*")) if self.work.exists() else []

    @property
    def log(self) -> str:
        return "".join((run / "log.txt").read_text() for run in self.runs if (run / "log.txt").exists())


def assert_delivered_once(delivery: Delivery) -> None:
    """Check that there is one run, one version and one promotion, and that the version serves and is champion."""
    assert len(delivery.runs) == 1
    versions = Registry(local_uri(delivery.work)).list_versions()
    assert [(version.version, version.aliases) for version in versions] == [(1, ("champion",))]
    assert Local(delivery.work / "serving").status().version == "1"
    assert [delivery.kinds.count(kind) for kind in ("claimed", "finished", "promoting", "promoted")] == [1, 1, 1, 1]


def test_killed_after_every_effect_and_at_every_stage(demo: Path, tmp_path: Path) -> None:
    """The version is delivered exactly once all the same."""
    delivery, stages = Delivery(tmp_path, demo), list(STAGES)
    for _ in range(MAX_TICKS):
        result = delivery.run("tick", kill_after_effects=True)
        assert result.returncode in (0, -signal.SIGKILL), result.stderr
        if stages and stages[0] in delivery.log:
            kill_run(delivery.runs[0])
            stages.pop(0)
        if result.returncode == 0 and "promoted" in delivery.kinds:
            break
    kills = [line.split()[0] for line in delivery.kills.read_text().splitlines()]
    assert not stages
    assert Counter(kills) == {
        "Ledger.save_axes": 1,
        "Ledger.append": 5,  # observed, claimed, finished, promoting, promoted
        "LocalRunner.start": 1,
        "Local.apply": 1,
        "MLflowRepository.promote": 1,
    }
    assert_delivered_once(delivery)
    assert "nothing to do" in delivery.run("tick").stderr


def kill_run(folder: Path) -> None:
    """Kill the process of a run and all its children, as a failure of the machine would."""
    for process in psutil.process_iter(["cmdline"]):
        if str(folder) in (process.info["cmdline"] or []):
            family = [process, *process.children(recursive=True)]
            for member in family:
                member.kill()
            psutil.wait_procs(family, timeout=10)


def test_two_reconcilers_deliver_once(demo: Path, tmp_path: Path) -> None:
    """They start together and share only the ledger."""
    delivery = Delivery(tmp_path, demo)
    both = [subprocess.Popen(delivery.command("tick", "--wait"), stderr=subprocess.DEVNULL) for _ in range(2)]
    for process in both:
        process.wait(timeout=300)
    assert delivery.run("tick").returncode == 0
    assert_delivered_once(delivery)


def test_an_outage_of_mlflow_loses_nothing(demo: Path, tmp_path: Path) -> None:
    """It is reported, nothing is lost, and delivery continues when the server is back."""
    port = free_port()
    delivery = Delivery(tmp_path, demo, registry=f"http://127.0.0.1:{port}")
    down = delivery.run("tick")
    assert (down.returncode, delivery.kinds) == (1, ["observed"])
    assert "model repository" in down.stderr
    with mlflow_server(tmp_path / "mlflow", port):
        assert delivery.run("tick", "--wait").returncode == 0
        assert delivery.status()["champion"] == "1"
    down = delivery.run("tick")
    assert down.returncode == 1
    assert Local(delivery.work / "serving").status().version == "1"
    with mlflow_server(tmp_path / "mlflow", port):
        again = delivery.run("tick")
    assert (again.returncode, delivery.kinds.count("claimed")) == (0, 1)


@contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[None]:
    """Run a real MLflow server on SQLite that serves the artifacts itself."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    stores = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    stores += ["--artifacts-destination", str(folder / "artifacts")]
    with (folder / "log.txt").open("a") as log:
        server = subprocess.Popen([*command, *stores], stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for_port(port, folder / "log.txt")
        yield
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for_port(port: int, log: Path) -> None:
    for _ in range(600):
        with socket.socket() as connection:
            if connection.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail(f"the MLflow server did not start: {log.read_text()[-2000:]}")
