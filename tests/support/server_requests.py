"""Recordings for requests to the server, and checks of its responses."""

from __future__ import annotations

import io
import re

import numpy as np
from scipy.io import wavfile

from tests.support.packages import signal
from tests.support.server_process import Reply, Server

RATE = 16_000


def wav(samples: np.ndarray, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    wavfile.write(file, rate, samples)
    return file.getvalue()


def voice(seconds: float = 5.0) -> bytes:
    return wav((signal(seconds) * 32767).astype(np.int16))


def refusal(reply: Reply | None, status: int, message: str = "") -> dict[str, str]:
    """Check status, code and message of a refusal, and return its content."""
    assert reply is not None
    assert reply.status == status, reply.content
    assert reply.json.keys() == {"code", "error"}
    assert re.search(message, reply.json["error"]), reply.json
    assert len(reply.content) < 500, "the response must not repeat the request"
    return reply.json


def metrics(server: Server) -> dict[str, float]:
    lines = server.get("/metrics").content.decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}
