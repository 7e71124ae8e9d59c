"""The predictor, as a process that clients ask over HTTP: right answers, clear refusals, and never out of breath."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import wavfile

from spira.packaging import verify
from tests.support.packages import make_package, signal
from tests.support.server_process import V1, V2, Reply, Server, prefixed, v1, v2, v2_base64, v2_binary

TOLERANCE = 1e-5
RATE = 16_000


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package; to read only."""
    return make_package(tmp_path_factory.mktemp("serving"), seed=1)


@pytest.fixture(scope="module")
def server(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of it that is ready and calls it version 7."""
    log = tmp_path_factory.mktemp("log") / "log"
    served = Server(package, log, "--model-version", "7", "--max-bytes", str(4 * 2**20), "--threads", "2")
    yield served.wait()
    served.stop()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start more servers; they end with the test."""
    started: list[Server] = []

    def begin(package: Path, *options: str) -> Server:
        started.append(Server(package, tmp_path / f"log-{len(started)}", *options))
        return started[-1]

    yield begin
    for served in started:
        served.stop()


def wav(samples: np.ndarray, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    wavfile.write(file, rate, samples)
    return file.getvalue()


def voice(seconds: float = 5.0) -> bytes:
    return wav((signal(seconds) * 32767).astype(np.int16))


def golden(package: Path) -> list[tuple[bytes, float]]:
    """The package's golden recordings and torch's probability of each."""
    data = package / "data"
    return [((data / one["file"]).read_bytes(), one["probability"]) for one in listing(package)]


def listing(package: Path) -> list[dict[str, Any]]:
    return json.loads((package / "data" / "golden.json").read_text())


def ask_v1(server: Server, content: bytes) -> Reply:
    return server.post(V1, v1(content))


def ask_v2_base64(server: Server, content: bytes) -> Reply:
    return server.post(V2, v2_base64(content))


def ask_v2_bytes(server: Server, content: bytes) -> Reply:
    return server.post(V2, v2("UINT8", list(content)))


def ask_v2_binary_uint8(server: Server, content: bytes) -> Reply:
    body, headers = v2_binary("UINT8", content)
    return server.post(V2, body, **headers)


def ask_v2_binary_bytes(server: Server, content: bytes) -> Reply:
    body, headers = v2_binary("BYTES", prefixed(content))
    return server.post(V2, body, **headers)


WAYS = [ask_v1, ask_v2_base64, ask_v2_bytes, ask_v2_binary_uint8, ask_v2_binary_bytes]


def probability(reply: Reply) -> float:
    assert reply.status == 200, reply.content
    if "predictions" in reply.json:
        return reply.json["predictions"][0]["probability"]
    return reply.json["outputs"][0]["data"][0]


@pytest.mark.parametrize("ask", WAYS)
def test_every_protocol_gives_torchs_probabilities(server: Server, package: Path, ask: Callable) -> None:
    """Of every golden recording, at most 1e-5 away."""
    recordings = [one for one in golden(package) if len(one[0]) < 2**20]
    assert len(recordings) >= 5
    for content, expected in recordings:
        assert abs(probability(ask(server, content)) - expected) <= TOLERANCE


def test_an_answer_tells_diagnosis_and_version(server: Server) -> None:
    """In either protocol; v2 gives the request's id back."""
    first, second = ask_v1(server, voice()).json, ask_v2_base64(server, voice()).json
    assert (first["model_name"], first["model_version"]) == ("spira", "7")
    assert (second["model_name"], second["model_version"], second["id"]) == ("spira", "7", "a-1")
    assert first["predictions"][0]["diagnosis"] == second["outputs"][1]["data"][0]
    assert first["predictions"][0]["diagnosis"] in ("positive", "negative", "inconclusive")


def test_an_unknown_version_is_not_told(start: Callable[..., Server], package: Path) -> None:
    """Rather than made up."""
    assert "model_version" not in ask_v1(start(package).wait(), voice()).json


def test_several_recordings_in_one_request(server: Server) -> None:
    """Answers come in their order."""
    contents = [voice(4.5), voice(6)]
    alone = [probability(ask_v1(server, content)) for content in contents]
    together = server.post(V1, v1(*contents)).json["predictions"]
    assert [one["probability"] for one in together] == alone
    assert server.post(V2, v2_base64(*contents)).json["outputs"][0]["data"] == alone


def test_the_server_tells_what_it_takes(server: Server) -> None:
    """Metadata and liveness, of both protocols."""
    assert server.get("/v2/models/spira").json["inputs"] == [{"name": "audio", "datatype": "BYTES", "shape": [-1]}]
    assert server.get("/v2/models").json == {"models": ["spira"]}
    assert server.get("/v1/models/spira").json == {"name": "spira", "ready": True}
    assert server.get("/v2/health/live").json == {"live": True}


def header(size: int, rate: int = RATE, code: int = 1, bits: int = 16) -> bytes:
    """A WAV's header that promises ``size`` bytes of samples."""
    layout = struct.pack("<HHIIHH", code, 1, rate, rate * bits // 8, bits // 8, bits)
    riff = b"RIFF" + struct.pack("<I", (36 + size) % 2**32) + b"WAVE"
    return riff + b"fmt " + struct.pack("<I", 16) + layout + b"data" + struct.pack("<I", size)


NOT_FINITE = signal(5).astype(np.float32)
NOT_FINITE[100] = np.nan
BAD_AUDIO = {
    "text": (b"I am no WAV", 422, "RIFF"),
    "MP3": (b"ID3" + bytes(1000), 422, "RIFF"),
    "a header alone": (header(0), 422, "no samples"),
    "a header that promises 4 GB": (header(2**32 - 16), 422, "promises"),
    "cut short": (voice()[:-1000], 422, "promises"),
    "too long": (header(121 * 4000, rate=4000, bits=8) + bytes(121 * 4000), 422, "120 s"),
    "too short": (voice(0.3), 422, "less than"),
    "silent": (wav(np.zeros(5 * RATE, np.int16)), 422, "silent"),
    "NaN": (wav(NOT_FINITE), 422, "finite"),
    "compressed": (header(1000, code=0x55) + bytes(1000), 422, "not read"),
    "an absurd rate": (header(1000, rate=2_000_000) + bytes(1000), 422, "sample rate"),
    "empty": (b"", 400, "empty|no recording"),
}


@pytest.mark.parametrize("ask", WAYS)
@pytest.mark.parametrize("bad", BAD_AUDIO)
def test_bad_audio_is_refused(server: Server, ask: Callable, bad: str) -> None:
    """By every protocol, with the rule that it breaks."""
    content, status, words = BAD_AUDIO[bad]
    refused(ask(server, content), status, words)


def instance(audio: Any) -> bytes:
    return json.dumps({"instances": [audio]}).encode()


TEXT = base64.b64encode(voice()).decode()
BAD_BODIES = {
    "v1 no JSON": (V1, b"{", "not_json"),
    "v1 bytes": (V1, bytes(100), "not_json"),
    "v1 empty": (V1, b"", "not_json"),
    "v1 a list": (V1, b"[1]", "not_json"),
    "v1 JSON's NaN": (V1, b'{"instances": [NaN]}', "not_json"),
    "v1 a deep list": (V1, b"[" * 100_000, "not_json"),
    "v1 nothing": (V1, b"{}", "no_audio"),
    "v1 no list": (V1, b'{"instances": {}}', "no_audio"),
    "v1 no instance": (V1, b'{"instances": []}', "no_audio"),
    "v1 no audio": (V1, instance({"text": "a"}), "no_audio"),
    "v1 audio as text": (V1, instance({"audio": TEXT}), "no_audio"),
    "v1 a number": (V1, instance(3), "no_audio"),
    "v1 b64 a number": (V1, instance({"audio": {"b64": 3}}), "base64"),
    "v1 bad base64": (V1, instance({"audio": {"b64": TEXT[:-5] + "?" + TEXT[-4:]}}), "base64"),
    "v1 not ASCII": (V1, instance({"audio": {"b64": "é"}}), "base64"),
    "v1 too many": (V1, json.dumps({"instances": [{"audio": {"b64": "AAAA"}}] * 17}).encode(), "too_many"),
    "v2 no JSON": (V2, b"{", "not_json"),
    "v2 empty": (V2, b"", "not_json"),
    "v2 nothing": (V2, b"{}", "no_audio"),
    "v2 no input": (V2, b'{"inputs": []}', "no_audio"),
    "v2 no data": (V2, v2("BYTES", None), "no_audio"),
    "v2 no element": (V2, v2("BYTES", []), "no_audio"),
    "v2 bad base64": (V2, v2("BYTES", ["?"]), "base64"),
    "v2 floats": (V2, v2("FP32", [0.5]), "datatype"),
    "v2 no datatype": (V2, v2(None, [TEXT]), "datatype"),
    "v2 bytes that are none": (V2, v2("UINT8", [256]), "no_bytes"),
    "v2 fractions": (V2, v2("UINT8", [0.5]), "no_bytes"),
}


@pytest.mark.parametrize("bad", BAD_BODIES)
def test_a_bad_body_is_refused(server: Server, bad: str) -> None:
    """With a code for programs and a message for people."""
    path, body, code = BAD_BODIES[bad]
    assert refused(server.post(path, body), 400)["code"] == code


@pytest.mark.parametrize("raw", [prefixed(voice())[:-1], b"\x01\x00"])
def test_a_binary_tensor_that_is_cut_short_is_refused(server: Server, raw: bytes) -> None:
    """Not read beyond its end."""
    body, headers = v2_binary("BYTES", raw)
    assert refused(server.post(V2, body, **headers), 400)["code"] == "no_bytes"


def test_a_binary_header_that_is_no_number_is_refused(server: Server) -> None:
    """KServe would answer 500."""
    refused(server.post(V2, v2_base64(voice()), Inference_Header_Content_Length="-1"), 400, "whole number")


def test_a_body_that_is_too_large_is_refused(server: Server) -> None:
    """Whether its size is announced or not, and before it is kept."""
    assert refused(server.post(V1, bytes(5 * 2**20)), 413)["code"] == "too_large"
    chunk = b"100000\r\n" + bytes(2**20) + b"\r\n"
    request = f"POST {V1} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + 5 * chunk + b"0\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(request)
        assert client.recv(4096).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/models/other:predict", 404),
        ("/v2/models/other/infer", 404),
        ("/nowhere", 404),
        ("/v2/repository/models/spira/unload", 403),
        ("/v2/repository/models/spira/load", 403),
        ("/v1/models/spira:explain", 501),
        ("/v2/models/spira/ready", 405),
    ],
)
def test_other_paths_are_refused(server: Server, path: str, status: int) -> None:
    """Nobody unloads the model over HTTP."""
    refused(server.post(path, b"{}"), status)
    assert server.readiness() == 200


def refused(reply: Reply | None, status: int, words: str = "") -> dict[str, str]:
    """The refusal, which must have this status, a code and a message of these words."""
    assert reply is not None
    assert reply.status == status, reply.content
    assert reply.json.keys() == {"code", "error"}
    assert re.search(words, reply.json["error"]), reply.json
    assert len(reply.content) < 500, "what was sent must not come back"
    return reply.json


def test_no_audio_stands_in_the_log(server: Server) -> None:
    """Nor a traceback of what clients do wrong."""
    server.post(V1, instance({"audio": {"b64": "c2VjcmV0IHZvaWNl"}}))
    body, headers = v2_binary("BYTES", prefixed(b"secret voice"))
    server.post(V2, body, **headers)
    log = server.log.read_text()
    assert "secret" not in log
    assert "c2VjcmV0" not in log
    assert "Traceback" not in log


def test_metrics_count(server: Server) -> None:
    """Requests by status, refusals by code, seconds."""
    before = metrics(server)
    ask_v1(server, voice())
    server.post(V1, b"{")
    after = metrics(server)
    for name in ('spira_requests_total{status="200"}', 'spira_requests_total{status="400"}'):
        assert after[name] == before.get(name, 0) + 1
    assert after['spira_errors_total{code="not_json"}'] == before.get('spira_errors_total{code="not_json"}', 0) + 1
    assert after["spira_request_seconds_count"] == before["spira_request_seconds_count"] + 2
    assert after["spira_requests_inside"] == 0


def metrics(server: Server) -> dict[str, float]:
    lines = server.get("/metrics").content.decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


def change(package: Path, folder: Path, edit: Callable[[Path], None]) -> Path:
    """A copy of a package, changed and listed anew."""
    changed = Path(shutil.copytree(package, folder))
    edit(changed)
    described = json.loads((changed / "package.json").read_text()) | {"files": verify.digests(changed)}
    (changed / "package.json").write_text(json.dumps(described))
    return changed


def rewrite_golden(edit: Callable[[list[dict]], list[dict]]) -> Callable[[Path], None]:
    return lambda package: (package / "data" / "golden.json").write_text(json.dumps(edit(listing(package)))) and None


def test_ready_only_once_it_is_checked(start: Callable[..., Server], package: Path, tmp_path: Path) -> None:
    """Until then it listens, is alive, and refuses to answer."""
    served = start(change(package, tmp_path / "slow", rewrite_golden(lambda entries: entries * 30)))
    while served.get("/v2/health/live") is None:
        time.sleep(0.01)
    refused(served.get("/v2/models/spira/ready"), 503)
    assert refused(ask_v1(served, voice()), 503)["code"] == "model_not_ready"
    assert served.get("/v2/health/live").status == 200
    assert ask_v1(served.wait(), voice()).status == 200


def off(entries: list[dict]) -> list[dict]:
    return [entry | {"probability": entry["probability"] + 2e-5} for entry in entries]


def damage(package: Path) -> None:
    (package / "code" / "spira_inference" / "network.py").write_text("raise ValueError('broken code')")


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "golden recordings off by 2e-5": (rewrite_golden(off), "must not be served"),
    "no golden recording": (rewrite_golden(lambda entries: []), "no golden recording"),
    "code that fails": (damage, "broken code"),
    "weights missing": (lambda package: (package / "data" / "weights.npz").unlink(), "no model"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_package_is_never_ready(start: Callable[..., Server], package: Path, tmp_path: Path, how: str) -> None:
    """The process ends and says why, for Kubernetes to show."""
    edit, words = BROKEN[how]
    served = start(change(package, tmp_path / "broken", edit))
    seen = set()
    while served.process.poll() is None:
        seen.add(served.readiness())
        time.sleep(0.01)
    assert 200 not in seen
    assert served.process.returncode == 1
    assert words in served.log.read_text().splitlines()[-1]


def test_a_changed_file_is_never_served(start: Callable[..., Server], package: Path, tmp_path: Path) -> None:
    """Files must be those that the package lists."""
    changed = Path(shutil.copytree(package, tmp_path / "changed"))
    with (changed / "data" / "config.json").open("a") as file:
        file.write(" ")
    served = start(changed)
    assert served.process.wait(30) == 1
    assert "data/config.json was changed" in served.log.read_text()


def test_mlflows_layout_is_served(start: Callable[..., Server], package: Path, tmp_path: Path) -> None:
    """MLflow keeps a package's data in ``data/data``, among files of its own."""
    artifacts = Path(shutil.copytree(package, tmp_path / "artifacts"))
    (artifacts / "data").rename(artifacts / "moved")
    (artifacts / "data").mkdir()
    (artifacts / "moved").rename(artifacts / "data" / "data")
    (artifacts / "MLmodel").write_text("flavors: {}")
    content, expected = golden(package)[0]
    assert abs(probability(ask_v1(start(artifacts).wait(), content)) - expected) <= TOLERANCE


def test_probes_answer_while_all_threads_compute(server: Server) -> None:
    """Long recordings from many clients at once; each probe comes back in far less than a probe's second."""
    content = voice(60)
    with ThreadPoolExecutor(8) as clients:
        asked = [clients.submit(ask_v1, server, content) for _ in range(8)]
        probes = []
        while not all(one.done() for one in asked):
            probes.append(server.get("/v2/models/spira/ready"))
            time.sleep(0.02)
    assert {reply.status for reply in probes} == {200}
    assert len(probes) > 10
    assert max(reply.seconds for reply in probes) < 0.5
    assert len({probability(one.result()) for one in asked}) == 1


def test_past_saturation_it_refuses_at_once(start: Callable[..., Server], package: Path) -> None:
    """What has a place is answered, the rest gets 429 in a fraction of the time; then all is as before."""
    served = start(package, "--threads", "1", "--queue", "2").wait()
    content = voice(60)
    with ThreadPoolExecutor(12) as clients:
        replies = list(clients.map(lambda _: ask_v1(served, content), range(12)))
    answered = [reply for reply in replies if reply.status == 200]
    told = [reply for reply in replies if reply.status == 429]
    assert len(answered) >= 3
    assert len(answered) + len(told) == 12
    assert all(refused(reply, 429)["code"] == "saturated" and reply.headers["retry-after"] for reply in told)
    assert max(reply.seconds for reply in told) < min(1.0, max(reply.seconds for reply in answered))
    assert ask_v1(served, content).status == 200


def test_a_slow_client_keeps_nobody_out(start: Callable[..., Server], package: Path) -> None:
    """An unfinished body holds its own place only, and not for ever."""
    served = start(package, "--threads", "1", "--queue", "1").wait()
    with socket.create_connection(("127.0.0.1", served.port)) as slow:
        slow.sendall(f"POST {V1} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{{".encode())
        time.sleep(0.2)
        assert ask_v1(served, voice()).status == 200
    time.sleep(0.2)
    assert metrics(served)["spira_requests_inside"] == 0


def test_told_to_end_it_loses_no_request(start: Callable[..., Server], package: Path) -> None:
    """It answers for a while longer, asks clients to go elsewhere, and ends by itself."""
    served = start(package, "--drain-seconds", "1.5").wait()
    replies: list[Reply | None] = []
    asking = threading.Event()

    def ask() -> None:
        while not asking.is_set():
            replies.append(ask_v1(served, voice()))

    with ThreadPoolExecutor(2) as clients:
        running = [clients.submit(ask) for _ in range(2)]
        time.sleep(0.3)
        served.terminate()
        time.sleep(1.0)
        asking.set()
        for one in running:
            one.result()
    assert {reply.status for reply in replies if reply} == {200}
    assert None not in replies
    served.process.wait(10)


def test_answers_close_their_connections_once_it_ends(start: Callable[..., Server], package: Path) -> None:
    """So that clients that keep one open find another server in time."""
    served = start(package, "--drain-seconds", "2").wait()
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        for closing in (False, True):
            client.sendall(b"GET /v2/models/spira/ready HTTP/1.1\r\nHost: a\r\n\r\n")
            answer = b""
            while not answer.endswith(b"}"):
                answer += client.recv(4096)
            assert answer.startswith(b"HTTP/1.1 200")
            assert (b"connection: close" in answer) == closing
            served.terminate()
            time.sleep(0.2)
