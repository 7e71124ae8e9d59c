"""A real predictor in its own process, and requests to it in the forms that clients send."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

V1, V2 = "/v1/models/spira:predict", "/v2/models/spira/infer"
START_SECONDS = 60


@dataclass(frozen=True)
class Reply:
    """An HTTP response."""

    status: int
    content: bytes
    headers: dict[str, str]
    seconds: float

    @property
    def json(self) -> Any:
        return json.loads(self.content)


class Server:
    """``python -m spira.serving`` on a free port of 127.0.0.1."""

    def __init__(self, package: Path, log: Path, *options: str) -> None:
        self.port, self.log = free_port(), log
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "spira.serving",
                "--model-dir",
                str(package),
                "--http-port",
                str(self.port),
                *options,
            ],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stderr=log.open("w"),
        )

    def get(self, path: str) -> Reply | None:
        """Send a GET request; return None if no server listens."""
        return self.send(urllib.request.Request(self.url(path)))

    def post(self, path: str, body: bytes, **headers: str) -> Reply | None:
        """Send a POST request; header names have ``_`` in place of ``-``. Return None if no server listens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.send(urllib.request.Request(self.url(path), body, {"Content-Type": "application/json"} | named))

    def send(self, request: urllib.request.Request) -> Reply | None:
        began = time.monotonic()
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return Reply(response.status, response.read(), dict(response.headers), time.monotonic() - began)
        except urllib.error.HTTPError as error:
            return Reply(error.code, error.read(), dict(error.headers), time.monotonic() - began)
        except urllib.error.URLError:
            return None

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def readiness(self) -> int | None:
        """Return the status of the model's readiness; None if no server listens or the server is just ending."""
        try:
            reply = self.get("/v2/models/spira/ready")
        except ConnectionError:
            return None
        return reply.status if reply else None

    def wait(self) -> Server:
        """Wait until the model is ready."""
        deadline = time.monotonic() + START_SECONDS
        while self.readiness() != 200:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)
        return self

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def v1(*wavs: bytes) -> bytes:
    return json.dumps({"instances": [{"audio": {"b64": base64.b64encode(wav).decode()}} for wav in wavs]}).encode()


def v2_base64(*wavs: bytes) -> bytes:
    return v2("BYTES", [base64.b64encode(wav).decode() for wav in wavs])


def v2(datatype: str | None, data: list[Any] | None) -> bytes:
    tensor = {"name": "audio", "datatype": datatype, "shape": [len(data or ())], "data": data}
    return json.dumps({"id": "a-1", "inputs": [tensor]}).encode()


def v2_binary(datatype: str, raw: bytes, shape: list[int] | None = None) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of a request with binary data; by default it declares one recording."""
    shape = shape or ([1] if datatype == "BYTES" else [len(raw)])
    tensor = {"name": "audio", "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(raw)}}
    header = json.dumps({"id": "a-1", "inputs": [tensor]}).encode()
    headers = {"Inference_Header_Content_Length": str(len(header)), "Content_Type": "application/octet-stream"}
    return header + raw, headers


def prefixed(*wavs: bytes) -> bytes:
    """Return a binary BYTES tensor: each element with its length before it."""
    return b"".join(struct.pack("<I", len(wav)) + wav for wav in wavs)
