"""Kill -9 of real processes after every effect and at every stage, outages, two at once: it comes out the same."""

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
from spira.delivery.ledger import Ledger
from spira.deployment.local import Local
from spira.registry import Registry, local_uri
from tests.support import ROOT
from tests.support.gatefiles import LENIENT

MORTAL = ROOT / "tests" / "support" / "kill_after_effects.py"
STAGES = ("preprocess: done", "train: done", "evaluate: done", "push: done")
MOST_TICKS = 200


class Delivery:
    """A settings file on small settings, and ``spira deliver`` as processes of their own."""

    def __init__(self, folder: Path, data: Path, **more: Any) -> None:
        self.folder, self.work, self.deaths = folder, folder / "work", folder / "deaths"
        (folder / "model.yaml").write_text(yaml.safe_dump(smoke().model_dump(mode="json")))
        told = {"data": str(data), "config": "model.yaml", "gate": str(LENIENT), **more}
        (folder / "delivery.yaml").write_text(yaml.safe_dump(told))

    def command(self, *arguments: str, mortal: bool = False) -> list[str]:
        program = [str(MORTAL)] if mortal else ["-m", "spira"]
        return [sys.executable, *program, "deliver", *arguments, "--settings", str(self.folder / "delivery.yaml")]

    def run(self, *arguments: str, mortal: bool = False) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "DEATHS": str(self.deaths)}
        command = self.command(*arguments, mortal=mortal)
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
    """One run, one version, one promotion; it serves and is champion."""
    assert len(delivery.runs) == 1
    versions = Registry(local_uri(delivery.work)).list_versions()
    assert [(version.version, version.aliases) for version in versions] == [(1, ("champion",))]
    assert Local(delivery.work / "serving").status().version == "1"
    assert [delivery.kinds.count(kind) for kind in ("claimed", "finished", "promoting", "promoted")] == [1, 1, 1, 1]


def test_killed_after_every_effect_and_at_every_stage(demo: Path, tmp_path: Path) -> None:
    """The reconciler dies after each thing it does, the run after each of its stages: delivered once, all the same."""
    delivery, stages = Delivery(tmp_path, demo), list(STAGES)
    for _ in range(MOST_TICKS):
        done = delivery.run("tick", mortal=True)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        if stages and stages[0] in delivery.log:
            kill_run(delivery.runs[0])
            stages.pop(0)
        if done.returncode == 0 and "promoted" in delivery.kinds:
            break
    died = [line.split()[0] for line in delivery.deaths.read_text().splitlines()]
    assert not stages
    assert Counter(died) == {
        "Ledger.keep": 1,
        "Ledger.append": 5,  # observed, claimed, finished, promoting, promoted
        "LocalRunner.start": 1,
        "Local.apply": 1,
        "MLflowRepository.promote": 1,
    }
    assert_delivered_once(delivery)
    assert "nothing to do" in delivery.run("tick").stderr


def kill_run(folder: Path) -> None:
    """The run's process and all that it started, as when its machine dies."""
    for process in psutil.process_iter(["cmdline"]):
        if str(folder) in (process.info["cmdline"] or []):
            everyone = [process, *process.children(recursive=True)]
            for each in everyone:
                each.kill()
            psutil.wait_procs(everyone, timeout=10)


def test_two_reconcilers_deliver_once(demo: Path, tmp_path: Path) -> None:
    """Started together and never told of each other."""
    delivery = Delivery(tmp_path, demo)
    both = [subprocess.Popen(delivery.command("tick", "--wait"), stderr=subprocess.DEVNULL) for _ in range(2)]
    for process in both:
        process.wait(timeout=300)
    assert delivery.run("tick").returncode == 0
    assert_delivered_once(delivery)


def test_an_outage_of_mlflow_heals(demo: Path, tmp_path: Path) -> None:
    """Down before the first run, and after it: said, nothing lost, and it goes on when the server is back."""
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
    """A real server on SQLite that hands out artifacts itself."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    stores = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "kept")]
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
        with socket.socket() as caller:
            if caller.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail(f"no MLflow server: {log.read_text()[-2000:]}")
