"""Benchmark of the server under load, compared with the package without a server on the same cores.

    python -m benchmarks.serving_load [--seconds 120] [--cores 1] [--package DIR] [--json FILE]

Both alternate, so that they meet the same state of the machine:

1. The package's own code computes one recording again and again, in one process per core ("bare").
2. ``python -m spira.serving`` on the same cores answers it over HTTP. One request in ten is invalid.

The clients run on the other cores. At the end they send three times as many requests as the server can answer.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from spira.serving import memory

PATH = "/v2/models/spira/infer"
ROUNDS = 4
BAD_EVERY = 10
OVERLOAD = 3
UNLOADED_SECONDS = 3.0
MIN_THROUGHPUT_RATIO, MAX_LATENCY_RATIO = 0.8, 1.5
"""Requirements: requests per second and unloaded p50, relative to the bare package."""

RETAIN_MEMORY = {
    "MALLOC_TRIM_THRESHOLD_": str(memory.TRIM_THRESHOLD_BYTES),
    "MALLOC_MMAP_THRESHOLD_": str(memory.MMAP_THRESHOLD_BYTES),
}
"""The allocator settings of the server (:mod:`spira.serving.memory`), as environment of the bare package."""

BARE_SCRIPT = """
import json, sys, time
from spira_inference.model import Model
model, content, end = Model.load(sys.argv[1]), open(sys.argv[2], "rb").read(), float(sys.argv[3])
model.probability(content)
seconds, end, cpu = [], time.monotonic() + end, time.process_time()
while time.monotonic() < end:
    start = time.monotonic()
    model.probability(content)
    seconds.append(time.monotonic() - start)
print(json.dumps({"seconds": seconds, "cpu_seconds": time.process_time() - cpu}))
"""


@dataclass
class Responses:
    """Responses to the clients."""

    good: list[float] = field(default_factory=list)
    """Latencies of successful responses, s."""
    refused: list[float] = field(default_factory=list)
    """Latencies of responses with status 429, s."""
    bad: Counter[int] = field(default_factory=Counter)
    """Responses to invalid requests, by status."""
    errors: Counter[str] = field(default_factory=Counter)
    """All other results, by error."""


@dataclass
class BareRun:
    """Measurements of the bare package."""

    latencies: list[float] = field(default_factory=list)
    """Latency of each computation, s."""
    cpu_seconds: float = 0.0


@dataclass(frozen=True)
class ServerProcess:
    """A running server."""

    port: int
    pid: int

    def memory_mb(self) -> float:
        """Return the resident memory in MB."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024

    def cpu_seconds(self) -> float:
        """Return the CPU time so far in s."""
        user, system = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


class Client:
    """A client that keeps its connection open."""

    def __init__(self, port: int, responses: Responses) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.responses = responses

    def send(self, body: bytes, good: bool = True) -> None:
        """Send a request and record the response."""
        start = time.monotonic()
        try:
            self.connection.request("POST", PATH, body, {"Content-Type": "application/json"})
            response = self.connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException) as error:
            self.connection.close()
            self.responses.errors[type(error).__name__] += 1
            return
        seconds = time.monotonic() - start
        if good and response.status == 200:
            self.responses.good.append(seconds)
        elif response.status == 429:
            self.responses.refused.append(seconds)
        elif not good and 400 <= response.status < 500:
            self.responses.bad[response.status] += 1
        else:
            self.responses.errors[f"status {response.status}"] += 1


def main() -> None:
    """Run the benchmark and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving_load", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120.0, help="duration of the load")
    parser.add_argument("--cores", type=int, default=max(1, (os.cpu_count() or 2) - 1), help="cores for the server")
    parser.add_argument("--package", type=Path, help="package; default: the default architecture with random weights")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        figures = measure(Path(temporary), options.package, options.seconds, options.cores)
    show(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


def measure(work: Path, package: Path | None, seconds: float, cores: int) -> dict[str, Any]:
    """Return all figures; times in ms, memory in MB."""
    all_cores = sorted(os.sched_getaffinity(0))
    measured, others = set(all_cores[:cores]), set(all_cores[cores:]) or set(all_cores)
    package, recording = package or make_package(work), make_recording(work)
    body = request(recording.read_bytes())
    with serving(package, measured) as server:
        os.sched_setaffinity(0, others)
        bare_idle, bare_loaded, bare_retaining = BareRun(), BareRun(), BareRun()
        idle, loaded = Responses(), Responses()
        bare_rates, rates, sizes, cpu_seconds = [], [], [], 0.0
        for _ in range(ROUNDS):
            run_bare(bare_idle, package, recording, UNLOADED_SECONDS, measured, 1)
            repeat(server, idle, body, UNLOADED_SECONDS, clients=1)
            before = len(bare_loaded.latencies), len(loaded.good)
            run_bare(bare_loaded, package, recording, seconds / ROUNDS / 4, measured, cores)
            run_bare(bare_retaining, package, recording, seconds / ROUNDS / 4, measured, cores, **RETAIN_MEMORY)
            cpu_before = server.cpu_seconds()
            sizes += repeat(server, loaded, body, seconds / ROUNDS, clients=2 * cores, bad_every=BAD_EVERY)
            cpu_seconds += server.cpu_seconds() - cpu_before
            bare_rates.append((len(bare_loaded.latencies) - before[0]) / (seconds / ROUNDS / 4))
            rates.append((len(loaded.good) - before[1]) / (seconds / ROUNDS))
        overloaded = Responses()
        overload_memory = overload(server, overloaded, body, 10, OVERLOAD * float(np.mean(rates)))
    return {
        "cores": {"measured": sorted(measured), "clients": sorted(others), "load": os.getloadavg()[0]},
        "bare": {
            "rps": bare_rates,
            "unloaded_ms": percentiles(bare_idle.latencies),
            "cpu_ms": 1000 * bare_loaded.cpu_seconds / len(bare_loaded.latencies),
            "rps_keeping_memory": len(bare_retaining.latencies) / (seconds / 4),
        },
        "served": {
            "rps": rates,
            "unloaded_ms": percentiles(idle.good),
            "loaded_ms": percentiles(loaded.good),
            "cpu_ms": 1000 * cpu_seconds / len(loaded.good),
        },
        "share": float(np.mean(rates) / np.mean(bare_rates)),
        "latency": float(np.median(idle.good) / np.median(bare_idle.latencies)),
        "seconds": seconds,
        "bad": dict(loaded.bad),
        "errors": dict(loaded.errors + idle.errors + overloaded.errors),
        "refused_below_saturation": len(loaded.refused),
        "memory_mb": [float(np.mean(part)) for part in np.array_split(sizes, ROUNDS)],
        "overload": {
            "asked_rps": OVERLOAD * float(np.mean(rates)),
            "answered_rps": len(overloaded.good) / 10,
            "answered_ms": percentiles(overloaded.good),
            "refused": len(overloaded.refused),
            "refused_ms": percentiles(overloaded.refused),
            "memory_mb": max(overload_memory),
        },
    }


def run_bare(
    run: BareRun,
    package: Path,
    recording: Path,
    seconds: float,
    cores: set[int],
    processes: int,
    **environment: str,
) -> None:
    """Compute a recording again and again with the package's own code, in several processes, and add to ``run``.

    Args:
        run: the measurements.
        package: the package.
        recording: a WAV file.
        seconds: duration.
        cores: cores of the processes.
        processes: number of processes.
        environment: further environment variables of the processes.
    """
    command = [sys.executable, "-c", BARE_SCRIPT, str(package / "data"), str(recording), str(seconds)]
    variables = os.environ | {"PYTHONPATH": str(package / "code"), "OMP_NUM_THREADS": "1"} | environment
    running = [
        subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True, preexec_fn=pin(cores))
        for _ in range(processes)
    ]
    for process in running:
        output = json.loads(process.communicate()[0])
        run.latencies += output["seconds"]
        run.cpu_seconds += output["cpu_seconds"]


@contextmanager
def serving(package: Path, cores: set[int]) -> Iterator[ServerProcess]:
    """Run a server on some cores and a free port of this machine for the duration of the block."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    command = [sys.executable, "-m", "spira.serving", "--model-dir", str(package), "--http-port", str(port)]
    process = subprocess.Popen(
        [*command, "--threads", str(len(cores))], stderr=subprocess.DEVNULL, preexec_fn=pin(cores)
    )
    try:
        while not is_ready(port):
            assert process.poll() is None, "the server ended: run it by hand to see the reason"
            time.sleep(0.1)
        yield ServerProcess(port, process.pid)
    finally:
        process.kill()
        process.wait()


def pin(cores: set[int]) -> Callable[[], None]:
    """Return a function that limits its process to some cores."""
    return lambda: os.sched_setaffinity(0, cores)


def is_ready(port: int) -> bool:
    """Return whether the server on a port is ready."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/v2/models/spira/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False


def repeat(
    server: ServerProcess, responses: Responses, body: bytes, seconds: float, clients: int, bad_every: int = 0
) -> list[float]:
    """Send requests from several clients, each as soon as its last one is answered.

    Returns:
        The memory of the server in MB, twice a second.
    """
    bodies = bad_bodies(body)

    def run(client: Client, stop: threading.Event) -> None:
        sent = 0
        while not stop.is_set():
            sent += 1
            bad = bool(bad_every) and sent % bad_every == 0
            client.send(bodies[sent // bad_every % len(bodies)] if bad else body, not bad)

    return run_clients(server, responses, seconds, clients, run)


def overload(server: ServerProcess, responses: Responses, body: bytes, seconds: float, rate: float) -> list[float]:
    """Send requests at a fixed rate, whatever the responses are; return as :func:`repeat`."""
    clients = 64

    def run(client: Client, stop: threading.Event) -> None:
        while not stop.wait(clients / rate):
            client.send(body)

    return run_clients(server, responses, seconds, clients, run)


def run_clients(
    server: ServerProcess,
    responses: Responses,
    seconds: float,
    clients: int,
    run: Callable[[Client, threading.Event], None],
) -> list[float]:
    """Run clients in threads and return the memory of the server in MB, twice a second."""
    stop = threading.Event()
    threads = [threading.Thread(target=run, args=(Client(server.port, responses), stop)) for _ in range(clients)]
    for thread in threads:
        thread.start()
    sizes, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        sizes.append(server.memory_mb())
        time.sleep(0.5)
    stop.set()
    for thread in threads:
        thread.join()
    return sizes


def request(wav: bytes) -> bytes:
    """Return the body of a v2 request."""
    tensor = {"name": "audio", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(wav).decode()]}
    return json.dumps({"inputs": [tensor]}).encode()


def bad_bodies(good: bytes) -> list[bytes]:
    """Return invalid bodies: no JSON, truncated, bad base64, no WAV, empty, a header that promises 4 GB, no input."""
    promise = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01\0\x80>\0\0\0}\0\0\x02\0\x10\0data\xf0\xff\xff\xff"
    bad_base64 = good.replace(b"UklG", b"Ukl?", 1)
    return [b"{", good[:-1], bad_base64, request(b"I am no WAV"), request(b""), request(promise), b'{"inputs": []}']


def make_package(work: Path) -> Path:
    """Write a package of the default architecture with random weights."""
    from benchmarks import __main__  # imported here: it imports torch
    from spira.config import Config

    return __main__.make_package(work, Config())


def make_recording(work: Path) -> Path:
    """Write a recording of 8 s."""
    from benchmarks import recordings

    file = work / "eight-seconds.wav"
    recordings.write(file, recordings.syllables(8, np.random.default_rng(0)))
    return file


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Return p50, p95 and p99 in ms."""
    if not seconds:
        return {}
    return {f"p{q}": 1000 * float(np.percentile(seconds, q)) for q in (50, 95, 99)}


def show(figures: dict[str, Any]) -> None:
    """Print all figures, with the requirements."""
    bare, served, overloaded = (figures[key] for key in ("bare", "served", "overload"))
    line("cores", figures["cores"])
    line("bare package, recordings/s by round", rounded(bare["rps"]))
    line("the same, retaining freed memory", f"{bare['rps_keeping_memory']:.1f}")
    line("server, responses/s by round", rounded(served["rps"]))
    line(
        "server relative to bare",
        f"{figures['share']:.0%} (at least {MIN_THROUGHPUT_RATIO:.0%}) over {figures['seconds']:g} s",
    )
    line("CPU ms per response: bare, server", f"{bare['cpu_ms']:.1f}, {served['cpu_ms']:.1f} (with invalid requests)")
    line("unloaded ms, bare", rounded(bare["unloaded_ms"]))
    line("unloaded ms, server", rounded(served["unloaded_ms"]))
    line("unloaded p50, server relative to bare", f"{figures['latency']:.2f} x (at most {MAX_LATENCY_RATIO:g} x)")
    line("loaded ms, server", rounded(served["loaded_ms"]))
    line("invalid requests by status", figures["bad"])
    line("errors, 429 below saturation", f"{figures['errors'] or 'none'}, {figures['refused_below_saturation']}")
    line("memory by round, MB", rounded(figures["memory_mb"]))
    line("overload: requests/s, responses/s", f"{overloaded['asked_rps']:.1f}, {overloaded['answered_rps']:.1f}")
    line("overload: response ms", rounded(overloaded["answered_ms"]))
    line(f"overload: ms of {overloaded['refused']} responses 429", rounded(overloaded["refused_ms"]))
    line("overload: memory, MB", f"{overloaded['memory_mb']:.0f}")


def line(name: str, value: object) -> None:
    """Print one figure."""
    print(f"{name:40} {value}")


def rounded(values: dict[str, float] | list[float]) -> str:
    """Return values as text with one decimal."""
    if isinstance(values, dict):
        return ", ".join(f"{name} {value:.1f}" for name, value in values.items())
    return ", ".join(f"{value:.1f}" for value in values)


if __name__ == "__main__":
    main()
