"""Request bodies of the largest size that need much memory, and the memory that the server has for them."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable

import numpy as np
import soundfile

from tests.support.server_process import V1, V2, v1, v2, v2_binary
from tests.support.server_requests import wav

MAX_BYTES = 32 * 2**20
CONTAINER_BYTES = 2**30
"""Memory limit of the container in ``manifests/base/serving/runtime.yaml``, which has one thread."""


def filled(head: bytes, part: bytes, tail: bytes) -> bytes:
    """Return a body of the largest size that repeats a part."""
    return head + part * ((MAX_BYTES - len(head) - len(tail)) // len(part)) + tail


def pcm(seconds: float, rate: int, channels: int, dtype: str) -> bytes:
    """Return a loud WAV file."""
    noise = np.random.default_rng(0).integers(0, 200, (int(seconds * rate), channels))
    return wav(noise.astype(dtype), rate)


def flac(seconds: float, rate: int) -> bytes:
    """Return a loud FLAC file."""
    file = io.BytesIO()
    soundfile.write(file, np.tile([0.25, 0.0, 0.0, 0.0], int(seconds * rate) // 4), rate, format="FLAC")
    return file.getvalue()


GZIP = {"Content_Encoding": "gzip"}

LARGE_BODIES: dict[str, Callable[[], tuple[str, bytes, dict[str, str]]]] = {
    "objects": lambda: (V1, filled(b'{"instances":[', b"{},", b"{}]}"), {}),
    "lists": lambda: (V1, filled(b'{"instances":[', b"[],", b"[]]}"), {}),
    "named values": lambda: (V1, filled(b'{"instances":[', b'{"a":1},', b"{}]}"), {}),
    "strings": lambda: (V1, filled(b'{"instances":[', b'"ab",', b"1]}"), {}),
    "numbers": lambda: (V1, filled(b'{"instances":[', b"1,", b"1]}"), {}),
    "wide numbers": lambda: (V1, filled(b'{"instances":[', b"1234567,", b"1]}"), {}),
    "fractions": lambda: (V1, filled(b'{"instances":[', b"1.23456,", b"1]}"), {}),
    "as many numbers as allowed": lambda: (V2, v2("UINT8", [200] * 4_000_000), {}),
    "text that is not ASCII": lambda: (V1, filled('{"a":"\U0001f600'.encode(), b"a", b'"}'), {}),
    "base64": lambda: (V1, v1(bytes(MAX_BYTES * 3 // 4 - 100)), {}),
    "8-bit samples": lambda: (V1, v1(pcm(60, 192_000, 2, "u1")), {}),
    "8-bit samples of 64 channels": lambda: (V1, v1(pcm(8, 48_000, 60, "u1")), {}),
    "a long recording": lambda: (V1, v1(pcm(119, 192_000, 1, "u1")), {}),
    "a long recording in FLAC": lambda: (V1, v1(flac(119, 384_000)), {}),
    "binary": lambda: v2_request("UINT8", pcm(119, 192_000, 1, "u1")),
    "gzip of objects": lambda: (V1, gzip.compress(filled(b'{"instances":[', b"{},", b"{}]}"), 1), GZIP),
    "gzip of a recording": lambda: (V1, gzip.compress(v1(pcm(119, 192_000, 1, "u1")), 1), GZIP),
    "gzip of zeros": lambda: (V1, gzip.compress(bytes(2**30), 1), GZIP),
}


def v2_request(datatype: str, raw: bytes) -> tuple[str, bytes, dict[str, str]]:
    body, headers = v2_binary(datatype, raw)
    return V2, body, headers
