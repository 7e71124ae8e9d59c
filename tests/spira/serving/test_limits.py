"""Tests of what requests and connections may cost: memory, CPU time, file descriptors."""

from __future__ import annotations

import os
import re
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import uvicorn

from spira.config import Preprocess
from spira.data import decoding
from spira.inference.wav import AudioError
from spira.serving import connections, detector, messages
from spira.serving.errors import RequestError
from tests.support.large_bodies import CONTAINER_BYTES, LARGE_BODIES, MAX_BYTES, pcm
from tests.support.packages import signal
from tests.support.server_process import V1, Server, free_port, v1
from tests.support.server_requests import metrics, refusal, voice, wav

pytestmark = pytest.mark.integration

DESCRIPTORS = 1024


def peak_bytes(server: Server) -> int:
    """Return the largest memory that a server has had."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1])


def send_large_bodies(server: Server) -> None:
    """Send every kind of body of the largest size alone, and those that need most memory four at a time."""
    requests = {name: make() for name, make in LARGE_BODIES.items()}
    for name, (path, body, headers) in requests.items():
        assert len(body) <= MAX_BYTES, name
        assert server.post(path, body, **headers).status in (200, 400, 413, 422), name
        assert peak_bytes(server) < CONTAINER_BYTES, name
    hardest = [
        requests[name] for name in ("wide numbers", "text that is not ASCII", "binary", "a long recording in FLAC")
    ]
    with ThreadPoolExecutor(4) as clients:
        for path, body, headers in hardest:
            replies = [clients.submit(server.post, path, body, **headers) for _ in range(4)]
            assert {reply.result().status for reply in replies} <= {200, 400, 413, 422, 429}


def test_the_memory_of_any_body_fits_the_container(start: Callable[..., Server], package: Path) -> None:
    """The peak memory of the server process is below the limit of its container."""
    started = start(package, "--threads", "1").wait()
    send_large_bodies(started)
    assert peak_bytes(started) < CONTAINER_BYTES


@pytest.mark.slow
def test_the_server_works_with_the_memory_of_its_container(start: Callable[..., Server], package: Path) -> None:
    """A limit of the system on its data: what needs more fails, as in a container of this size."""
    started = start(package, "--threads", "1").wait()
    resource.prlimit(started.process.pid, resource.RLIMIT_DATA, (CONTAINER_BYTES, CONTAINER_BYTES))
    send_large_bodies(started)
    assert started.post(V1, v1(voice())).status == 200


@pytest.mark.parametrize("rate", [383_999, 95_999, 48_001])
def test_a_rate_that_is_costly_to_resample_is_refused(server: Server, rate: int) -> None:
    """The filter for 383,999 Hz has 7.7 million coefficients."""
    before = cpu_seconds(server)
    refusal(server.post(V1, v1(*[pcm(0.55, rate, 1, "<i2")] * 4)), 422, f"{rate} Hz.*multiple of 100 Hz")
    assert cpu_seconds(server) - before < 1


@pytest.mark.parametrize("rate", [383_999, 95_999, 48_001])
def test_training_refuses_the_same_rates(tmp_path: Path, rate: int) -> None:
    """A recording that the server cannot answer is not trained on."""
    file = tmp_path / "recording.wav"
    file.write_bytes(pcm(0.55, rate, 1, "<i2"))
    with pytest.raises(AudioError, match=f"has a sample rate of {rate} Hz, which is too costly to resample"):
        decoding.decode(file, Preprocess(), 120.0)


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 44_100, 44_101, 47_999, 96_000, 176_400, 352_800, 384_000])
def test_a_rate_of_a_recorder_is_answered(server: Server, rate: int) -> None:
    """This holds for every rate up to 48 kHz, and for the multiples of 44.1 and 48 kHz."""
    samples = np.interp(np.arange(0, 2, 1 / rate), np.arange(5 * 16_000) / 16_000, signal(5))
    assert server.post(V1, v1(wav((samples * 32767).astype(np.int16), rate))).status == 200


def cpu_seconds(server: Server) -> float:
    """Return the CPU time that a server has used."""
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_request_that_costs_too_much_is_refused(monkeypatch: pytest.MonkeyPatch, package: Path) -> None:
    """The limit is checked between the recordings of a request; a single recording is always answered."""
    monkeypatch.setattr(detector, "MAX_CPU_SECONDS", 0.01)
    served = detector.Detector("spira", package, "1", 1)
    monkeypatch.setattr(served, "predict_one", lambda wav, number: spend(0.02))
    assert served.predict_body(messages.Body(v1(b"a"), v2=False))["predictions"]
    with pytest.raises(RequestError, match=r"1 of the 3 recordings .* send fewer or shorter") as refused:
        served.predict_body(messages.Body(v1(b"a", b"b", b"c"), v2=False))
    assert refused.value.status == 413


def spend(seconds: float) -> messages.Prediction:
    began = time.thread_time()
    while time.thread_time() - began < seconds:
        pass
    return messages.Prediction(0.5, "inconclusive")


SLOW_BEGINNINGS = [
    b"",
    b"GET /v2/mo",
    b"GET /v2/models/spira/ready HTTP/1.1\r\nHost: a\r\n",
    f"POST {V1} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{{".encode(),
    f"POST {V1} HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n".encode(),
    f"POST {V1} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n".encode(),
]


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """Let new processes have 1,024 file descriptors, the usual limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 2 * DESCRIPTORS:
        pytest.skip("this process cannot open enough connections: raise its limit of open files (ulimit -n)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def small_server(few_descriptors: None, start: Callable[..., Server], package: Path) -> Server:
    """Start a server with few file descriptors, and allow more to this process."""
    started = start(package, "--threads", "1").wait()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (2 * DESCRIPTORS, hard))
    return started


def test_slow_connections_do_not_stop_the_server(small_server: Server) -> None:
    """Clients that open 1,200 connections and never end their requests block nobody."""
    with ExitStack() as stack:
        for number in range(1200):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", small_server.port), timeout=10))
            with suppress(ConnectionError):
                slow.sendall(SLOW_BEGINNINGS[number % len(SLOW_BEGINNINGS)])
        for _ in range(5):
            assert small_server.readiness() == 200
            reply = small_server.post(V1, v1(voice()))
            assert (reply.status, reply.seconds < 2) == (200, True)
        assert len(os.listdir(f"/proc/{small_server.process.pid}/fd")) < DESCRIPTORS * 3 // 4
    log = small_server.log.read_text()
    assert "Traceback" not in log
    assert "out of system resource" not in log


@contextmanager
def in_process_server() -> Iterator[int]:
    """Run an application that is never reached, with limited connections; yield its port."""
    port = free_port()
    config = uvicorn.Config(
        lambda *_: None, port=port, http=connections.LimitedConnection, log_config=None, lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield port
    server.should_exit = True
    thread.join()


def test_a_slow_head_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte of a slow client does not give it more time."""
    monkeypatch.setattr(connections, "IDLE_SECONDS", 0.3)
    began = time.monotonic()
    with in_process_server() as port, socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        with suppress(ConnectionError):
            while time.monotonic() - began < 5:
                client.sendall(b"G" if time.monotonic() - began < 0.1 else b"E")
                time.sleep(0.05)
        assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 10**6,
        b"GET / HTTP/1.1\r\nA: " + b"a" * 10**6,
        b"GET / HTTP/1.1\r\n" + b"A: a\r\n" * 200_000,
        f"POST {V1} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{{\r\n0\r\nA: ".encode() + b"a" * 10**6,
    ],
)
def test_large_headers_are_refused(server: Server, head: bytes) -> None:
    """Before a body and after it, whose size does not limit them."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        with suppress(ConnectionError):
            client.sendall(head)
        with suppress(ConnectionError):
            assert client.recv(4096).startswith(b"HTTP/1.1 400")


def test_slow_bodies_take_no_place(start: Callable[..., Server], package: Path) -> None:
    """There are more slow clients than places: other clients are answered."""
    started = start(package, "--threads", "1", "--queue", "1").wait()
    with ExitStack() as stack:
        for _ in range(10):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", started.port)))
            slow.sendall(SLOW_BEGINNINGS[3])
        assert [started.post(V1, v1(voice())).status for _ in range(3)] == [200] * 3
        assert metrics(started)["spira_requests_inside"] == 0
