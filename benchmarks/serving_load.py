"""The predictor under load, against the bare package on the same cores in the same run.

    python -m benchmarks.serving_load [--seconds 120] [--cores 1] [--package DIR] [--json FILE]

In turn, so that both meet the machine in the same state: the package's own code answers one recording over and over
(a process a core), then ``python -m spira.serving`` on the same cores answers it over HTTP, one request in ten being a
bad one. Clients run here, on the other cores. Then three times as much is asked as it can answer.
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
SHARE, LATENCY = 0.8, 1.5
"""What is demanded: requests a second, and unloaded p50, in terms of the bare package's."""

KEEPING = {"MALLOC_TRIM_THRESHOLD_": str(memory.KEPT_BYTES), "MALLOC_MMAP_THRESHOLD_": str(memory.MAPPED_BYTES)}
"""What the predictor sets for itself (:mod:`spira.serving.memory`), for the bare package to be compared with too."""

BARE = """
import json, sys, time
from spira_inference.model import Model
model, content, end = Model.load(sys.argv[1]), open(sys.argv[2], "rb").read(), float(sys.argv[3])
model.probability(content)
took, end, cpu = [], time.monotonic() + end, time.process_time()
while time.monotonic() < end:
    began = time.monotonic()
    model.probability(content)
    took.append(time.monotonic() - began)
print(json.dumps({"took": took, "cpu_seconds": time.process_time() - cpu}))
"""


@dataclass
class Heard:
    """What clients got."""

    good: list[float] = field(default_factory=list)
    """Seconds of right answers."""
    refused: list[float] = field(default_factory=list)
    """Seconds of 429."""
    bad: Counter[int] = field(default_factory=Counter)
    """Statuses of bad requests."""
    errors: Counter[str] = field(default_factory=Counter)
    """Anything else."""


@dataclass
class Bare:
    """What the package's own code did."""

    took: list[float] = field(default_factory=list)
    """Seconds of its answers."""
    cpu_seconds: float = 0.0


@dataclass(frozen=True)
class Server:
    """A predictor that runs."""

    port: int
    pid: int

    def memory_mb(self) -> float:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024

    def cpu_seconds(self) -> float:
        user, system = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


class Client:
    """One that keeps its connection."""

    def __init__(self, port: int, heard: Heard) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.heard = heard

    def ask(self, body: bytes, good: bool = True) -> None:
        """Send a request and note what came of it."""
        began = time.monotonic()
        try:
            self.connection.request("POST", PATH, body, {"Content-Type": "application/json"})
            response = self.connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException) as error:
            self.connection.close()
            self.heard.errors[type(error).__name__] += 1
            return
        seconds = time.monotonic() - began
        if good and response.status == 200:
            self.heard.good.append(seconds)
        elif response.status == 429:
            self.heard.refused.append(seconds)
        elif not good and 400 <= response.status < 500:
            self.heard.bad[response.status] += 1
        else:
            self.heard.errors[f"status {response.status}"] += 1


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving_load", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120.0, help="of sustained load")
    parser.add_argument("--cores", type=int, default=max(1, (os.cpu_count() or 2) - 1), help="for what is measured")
    parser.add_argument("--package", type=Path, help="one of the default architecture with fresh weights if not given")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        figures = measure(Path(temporary), given.package, given.seconds, given.cores)
    show(figures)
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1))


def measure(work: Path, package: Path | None, seconds: float, cores: int) -> dict[str, Any]:
    """All figures; times in ms, memory in MB."""
    everything = sorted(os.sched_getaffinity(0))
    measured, others = set(everything[:cores]), set(everything[cores:]) or set(everything)
    package, recording = package or fresh_package(work), fresh_recording(work)
    body = request(recording.read_bytes())
    with serving(package, measured) as server:
        os.sched_setaffinity(0, others)
        alone, idle, heard = Bare(), Heard(), Heard()
        bare_rates, rates, sizes, crowd, tuned, cpu_seconds = [], [], [], Bare(), Bare(), 0.0
        for _ in range(ROUNDS):
            bare(alone, package, recording, UNLOADED_SECONDS, measured, 1)
            repeat(server, idle, body, UNLOADED_SECONDS, clients=1)
            before = len(crowd.took), len(heard.good)
            bare(crowd, package, recording, seconds / ROUNDS / 4, measured, cores)
            bare(tuned, package, recording, seconds / ROUNDS / 4, measured, cores, **KEEPING)
            cpu_before = server.cpu_seconds()
            sizes += repeat(server, heard, body, seconds / ROUNDS, clients=2 * cores, bad_every=BAD_EVERY)
            cpu_seconds += server.cpu_seconds() - cpu_before
            bare_rates.append((len(crowd.took) - before[0]) / (seconds / ROUNDS / 4))
            rates.append((len(heard.good) - before[1]) / (seconds / ROUNDS))
        flood = Heard()
        flooded_memory = overload(server, flood, body, 10, OVERLOAD * float(np.mean(rates)))
    return {
        "cores": {"measured": sorted(measured), "clients": sorted(others), "load": os.getloadavg()[0]},
        "bare": {
            "rps": bare_rates,
            "unloaded_ms": percentiles(alone.took),
            "cpu_ms": 1000 * crowd.cpu_seconds / len(crowd.took),
            "rps_keeping_memory": len(tuned.took) / (seconds / 4),
        },
        "served": {
            "rps": rates,
            "unloaded_ms": percentiles(idle.good),
            "loaded_ms": percentiles(heard.good),
            "cpu_ms": 1000 * cpu_seconds / len(heard.good),
        },
        "share": float(np.mean(rates) / np.mean(bare_rates)),
        "latency": float(np.median(idle.good) / np.median(alone.took)),
        "seconds": seconds,
        "bad": dict(heard.bad),
        "errors": dict(heard.errors + idle.errors + flood.errors),
        "refused_below_saturation": len(heard.refused),
        "memory_mb": [float(np.mean(part)) for part in np.array_split(sizes, ROUNDS)],
        "overload": {
            "asked_rps": OVERLOAD * float(np.mean(rates)),
            "answered_rps": len(flood.good) / 10,
            "answered_ms": percentiles(flood.good),
            "refused": len(flood.refused),
            "refused_ms": percentiles(flood.refused),
            "memory_mb": max(flooded_memory),
        },
    }


def bare(
    into: Bare, package: Path, recording: Path, seconds: float, cores: set[int], processes: int, **more: str
) -> None:
    """Let the package's own code answer again and again, in so many processes at once; ``more`` is environment."""
    command = [sys.executable, "-c", BARE, str(package / "data"), str(recording), str(seconds)]
    environment = os.environ | {"PYTHONPATH": str(package / "code"), "OMP_NUM_THREADS": "1"} | more
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, preexec_fn=pin(cores))
        for _ in range(processes)
    ]
    for process in running:
        told = json.loads(process.communicate()[0])
        into.took += told["took"]
        into.cpu_seconds += told["cpu_seconds"]


@contextmanager
def serving(package: Path, cores: set[int]) -> Iterator[Server]:
    """A predictor on these cores, on a free port of this machine, until the block ends."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    command = [sys.executable, "-m", "spira.serving", "--model-dir", str(package), "--http-port", str(port)]
    process = subprocess.Popen(
        [*command, "--threads", str(len(cores))], stderr=subprocess.DEVNULL, preexec_fn=pin(cores)
    )
    try:
        while not is_ready(port):
            assert process.poll() is None, "the predictor ended: run it by hand to see why"
            time.sleep(0.1)
        yield Server(port, process.pid)
    finally:
        process.kill()
        process.wait()


def pin(cores: set[int]) -> Callable[[], None]:
    return lambda: os.sched_setaffinity(0, cores)


def is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/v2/models/spira/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False


def repeat(server: Server, heard: Heard, body: bytes, seconds: float, clients: int, bad_every: int = 0) -> list[float]:
    """Clients that each ask again once they are answered; gives the server's memory, twice a second."""
    bodies = bad_bodies(body)

    def run(client: Client, stop: threading.Event) -> None:
        asked = 0
        while not stop.is_set():
            asked += 1
            bad = bool(bad_every) and asked % bad_every == 0
            client.ask(bodies[asked // bad_every % len(bodies)] if bad else body, not bad)

    return together(server, heard, seconds, clients, run)


def overload(server: Server, heard: Heard, body: bytes, seconds: float, rate: float) -> list[float]:
    """Clients that ask at a rate, whatever they are told."""
    clients = 64

    def run(client: Client, stop: threading.Event) -> None:
        while not stop.wait(clients / rate):
            client.ask(body)

    return together(server, heard, seconds, clients, run)


def together(
    server: Server, heard: Heard, seconds: float, clients: int, run: Callable[[Client, threading.Event], None]
) -> list[float]:
    stop = threading.Event()
    threads = [threading.Thread(target=run, args=(Client(server.port, heard), stop)) for _ in range(clients)]
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
    tensor = {"name": "audio", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(wav).decode()]}
    return json.dumps({"inputs": [tensor]}).encode()


def bad_bodies(good: bytes) -> list[bytes]:
    """No JSON, cut short, bad base64, no WAV, an empty one, and a header that promises 4 GB."""
    promise = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01\0\x80>\0\0\0}\0\0\x02\0\x10\0data\xf0\xff\xff\xff"
    bad_base64 = good.replace(b"UklG", b"Ukl?", 1)
    return [b"{", good[:-1], bad_base64, request(b"I am no WAV"), request(b""), request(promise), b'{"inputs": []}']


def fresh_package(work: Path) -> Path:
    """A package of the default architecture."""
    from benchmarks.__main__ import serve
    from spira.config import Config

    config = Config()
    serve(work, config)
    return work / config.model.architecture / "package"


def fresh_recording(work: Path) -> Path:
    from benchmarks import recordings

    file = work / "eight-seconds.wav"
    recordings.write(file, recordings.syllables(8, np.random.default_rng(0)))
    return file


def percentiles(seconds: list[float]) -> dict[str, float]:
    """In ms."""
    if not seconds:
        return {}
    return {f"p{q}": 1000 * float(np.percentile(seconds, q)) for q in (50, 95, 99)}


def show(figures: dict[str, Any]) -> None:
    """Everything in lines, and what is demanded beside it."""
    bare_, served, flood = (figures[key] for key in ("bare", "served", "overload"))
    line("cores", figures["cores"])
    line("bare package, answers/s by round", rounded(bare_["rps"]))
    line("the same, keeping freed memory", f"{bare_['rps_keeping_memory']:.1f}")
    line("served, answers/s by round", rounded(served["rps"]))
    line("served of bare", f"{figures['share']:.0%} (at least {SHARE:.0%}) over {figures['seconds']:g} s")
    line("CPU ms an answer: bare, served", f"{bare_['cpu_ms']:.1f}, {served['cpu_ms']:.1f} (with bad requests)")
    line("unloaded ms, bare", rounded(bare_["unloaded_ms"]))
    line("unloaded ms, served", rounded(served["unloaded_ms"]))
    line("unloaded p50, served of bare", f"{figures['latency']:.2f} x (at most {LATENCY:g} x)")
    line("loaded ms, served", rounded(served["loaded_ms"]))
    line("bad requests by status", figures["bad"])
    line("errors, refusals below saturation", f"{figures['errors'] or 'none'}, {figures['refused_below_saturation']}")
    line("memory by round, MB", rounded(figures["memory_mb"]))
    line("overload: asked/s, answered/s", f"{flood['asked_rps']:.1f}, {flood['answered_rps']:.1f}")
    line("overload: answered ms", rounded(flood["answered_ms"]))
    line(f"overload: {flood['refused']} refused (429) in ms", rounded(flood["refused_ms"]))
    line("overload: memory, MB", f"{flood['memory_mb']:.0f}")


def line(name: str, value: object) -> None:
    print(f"{name:40} {value}")


def rounded(values: dict[str, float] | list[float]) -> str:
    if isinstance(values, dict):
        return ", ".join(f"{name} {value:.1f}" for name, value in values.items())
    return ", ".join(f"{value:.1f}" for value in values)


if __name__ == "__main__":
    main()
