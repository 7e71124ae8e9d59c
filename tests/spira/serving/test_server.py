"""Tests of the server as a process, over HTTP: predictions, refusals, behaviour under load, shutdown."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spira.packaging import verify
from tests.support.packages import signal
from tests.support.server_process import V1, V2, Reply, Server, prefixed, v1, v2, v2_base64, v2_binary
from tests.support.server_requests import RATE, metrics, refusal, voice, wav

pytestmark = pytest.mark.integration

TOLERANCE = 1e-5


def golden(package: Path) -> list[tuple[bytes, float]]:
    """Return the content of each golden recording and torch's probability."""
    data = package / "data"
    return [((data / entry["file"]).read_bytes(), entry["probability"]) for entry in golden_entries(package)]


def golden_entries(package: Path) -> list[dict[str, Any]]:
    return json.loads((package / "data" / "golden.json").read_text())


def post_v1(server: Server, content: bytes) -> Reply:
    return server.post(V1, v1(content))


def post_v2_base64(server: Server, content: bytes) -> Reply:
    return server.post(V2, v2_base64(content))


def post_v2_bytes(server: Server, content: bytes) -> Reply:
    return server.post(V2, v2("UINT8", list(content)))


def post_v2_binary_uint8(server: Server, content: bytes) -> Reply:
    body, headers = v2_binary("UINT8", content)
    return server.post(V2, body, **headers)


def post_v2_binary_bytes(server: Server, content: bytes) -> Reply:
    body, headers = v2_binary("BYTES", prefixed(content))
    return server.post(V2, body, **headers)


PROTOCOLS = [post_v1, post_v2_base64, post_v2_bytes, post_v2_binary_uint8, post_v2_binary_bytes]


def probability(reply: Reply) -> float:
    assert reply.status == 200, reply.content
    if "predictions" in reply.json:
        return reply.json["predictions"][0]["probability"]
    return reply.json["outputs"][0]["data"][0]


@pytest.mark.parametrize("post", PROTOCOLS)
def test_every_protocol_gives_torchs_probabilities(server: Server, package: Path, post: Callable) -> None:
    """Every golden recording is within 1e-5 of torch."""
    recordings = [(content, expected) for content, expected in golden(package) if len(content) < 2**20]
    assert len(recordings) >= 5
    for content, expected in recordings:
        assert abs(probability(post(server, content)) - expected) <= TOLERANCE


def test_a_response_has_diagnosis_and_version(server: Server) -> None:
    """Both protocols return them; v2 also returns the id of the request."""
    first, second = post_v1(server, voice()).json, post_v2_base64(server, voice()).json
    assert (first["model_name"], first["model_version"]) == ("spira", "7")
    assert (second["model_name"], second["model_version"], second["id"]) == ("spira", "7", "a-1")
    assert first["predictions"][0]["diagnosis"] == second["outputs"][1]["data"][0]
    assert first["predictions"][0]["diagnosis"] in ("positive", "negative", "inconclusive")


def test_an_unknown_version_is_omitted(start: Callable[..., Server], package: Path) -> None:
    """The response has no ``model_version``."""
    assert "model_version" not in post_v1(start(package).wait(), voice()).json


def test_a_request_can_have_several_recordings(server: Server) -> None:
    """Predictions are in the order of the recordings."""
    contents = [voice(4.5), voice(6)]
    alone = [probability(post_v1(server, content)) for content in contents]
    together = server.post(V1, v1(*contents)).json["predictions"]
    assert [prediction["probability"] for prediction in together] == alone
    assert server.post(V2, v2_base64(*contents)).json["outputs"][0]["data"] == alone


def test_the_server_describes_its_model(server: Server) -> None:
    """Metadata and liveness are available in both protocols."""
    assert server.get("/v2/models/spira").json["inputs"] == [{"name": "audio", "datatype": "BYTES", "shape": [-1]}]
    assert server.get("/v2/models").json == {"models": ["spira"]}
    assert server.get("/v1/models/spira").json == {"name": "spira", "ready": True}
    assert server.get("/v2/health/live").json == {"live": True}


def header(size: int, rate: int = RATE, code: int = 1, bits: int = 16) -> bytes:
    """Return a WAV header that promises ``size`` bytes of samples."""
    layout = struct.pack("<HHIIHH", code, 1, rate, rate * bits // 8, bits // 8, bits)
    riff = b"RIFF" + struct.pack("<I", (36 + size) % 2**32) + b"WAVE"
    return riff + b"fmt " + struct.pack("<I", 16) + layout + b"data" + struct.pack("<I", size)


NOT_FINITE = signal(5).astype(np.float32)
NOT_FINITE[100] = np.nan
BAD_AUDIO = {
    "text": (b"I am no WAV", 422, "is text, not a recording"),
    "no MP3": (b"ID3" + bytes(1000), 422, "cannot be decoded"),
    "a header alone": (header(0), 422, "no samples"),
    "a header that promises 1 GB": (header(2**30), 422, "promises"),
    "cut short": (voice()[:-1000], 422, "promises"),
    "too long": (header(121 * 4000, rate=4000, bits=8) + bytes(121 * 4000), 422, "120 s"),
    "too short": (voice(0.3), 422, "less than"),
    "silent": (wav(np.zeros(5 * RATE, np.int16)), 422, "silent"),
    "NaN": (wav(NOT_FINITE), 422, "finite"),
    "an unknown encoding": (header(1000, code=0x1234) + bytes(1000), 422, "cannot be decoded"),
    "a dead microphone": (wav(np.full(5 * RATE, 9830, np.int16)), 422, "silent"),
    "an absurd rate": (header(1000, rate=2_000_000) + bytes(1000), 422, "sample rate"),
    "empty": (b"", 400, "empty|no recording"),
}


@pytest.mark.parametrize("post", PROTOCOLS)
@pytest.mark.parametrize("bad", BAD_AUDIO)
def test_unusable_audio_is_refused(server: Server, post: Callable, bad: str) -> None:
    """Every protocol refuses it and names the broken rule."""
    content, status, message = BAD_AUDIO[bad]
    refusal(post(server, content), status, message)


def instance(audio: Any) -> bytes:
    return json.dumps({"instances": [audio]}).encode()


TEXT = base64.b64encode(voice()).decode()
BAD_BODIES = {
    "v1 no JSON": (V1, b"{", "not_json"),
    "v1 bytes": (V1, bytes(100), "not_json"),
    "v1 empty": (V1, b"", "not_json"),
    "v1 a list": (V1, b"[1]", "not_json"),
    "v1 JSON's NaN": (V1, b'{"instances": [NaN]}', "not_json"),
    "v1 a deep list": (V1, b"[" * 1000, "not_json"),
    "v1 nothing": (V1, b"{}", "no_audio"),
    "v1 no list": (V1, b'{"instances": {}}', "no_audio"),
    "v1 no instance": (V1, b'{"instances": []}', "no_audio"),
    "v1 no audio": (V1, instance({"text": "a"}), "no_audio"),
    "v1 audio as text": (V1, instance({"audio": TEXT}), "no_audio"),
    "v1 a number": (V1, instance(3), "no_audio"),
    "v1 b64 is a number": (V1, instance({"audio": {"b64": 3}}), "base64"),
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
def test_a_malformed_body_is_refused(server: Server, bad: str) -> None:
    """The response has a code for programs and a message for people."""
    path, body, code = BAD_BODIES[bad]
    assert refusal(server.post(path, body), 400)["code"] == code


@pytest.mark.parametrize("raw", [prefixed(voice())[:-1], b"\x01\x00"])
def test_a_truncated_binary_tensor_is_refused(server: Server, raw: bytes) -> None:
    """The server does not read beyond its end."""
    body, headers = v2_binary("BYTES", raw)
    assert refusal(server.post(V2, body, **headers), 400)["code"] == "no_bytes"


def test_an_invalid_binary_header_is_refused(server: Server) -> None:
    """KServe alone answers 500."""
    refusal(server.post(V2, v2_base64(voice()), Inference_Header_Content_Length="-1"), 400, "whole number")


def test_a_large_body_is_refused(server: Server) -> None:
    """With and without Content-Length, before the whole body is in memory."""
    assert refusal(server.post(V1, bytes(5 * 2**20)), 413)["code"] == "too_large"
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
    """No client can unload the model."""
    refusal(server.post(path, b"{}"), status)
    assert server.readiness() == 200


def test_the_log_contains_no_audio(server: Server) -> None:
    """An invalid request leaves no traceback."""
    server.post(V1, instance({"audio": {"b64": "c2VjcmV0IHZvaWNl"}}))
    body, headers = v2_binary("BYTES", prefixed(b"secret voice"))
    server.post(V2, body, **headers)
    log = server.log.read_text()
    assert "secret" not in log
    assert "c2VjcmV0" not in log
    assert "Traceback" not in log


def test_metrics_count_requests_and_refusals(server: Server) -> None:
    """They count requests by status, refusals by code, and seconds."""
    before = metrics(server)
    post_v1(server, voice())
    server.post(V1, b"{")
    after = metrics(server)
    for name in ('spira_requests_total{status="200"}', 'spira_requests_total{status="400"}'):
        assert after[name] == before.get(name, 0) + 1
    assert after['spira_errors_total{code="not_json"}'] == before.get('spira_errors_total{code="not_json"}', 0) + 1
    assert after["spira_request_seconds_count"] == before["spira_request_seconds_count"] + 2
    assert after["spira_requests_inside"] == 0


def changed_copy(package: Path, folder: Path, edit: Callable[[Path], None]) -> Path:
    """Copy a package, edit the copy and update its digests."""
    changed = Path(shutil.copytree(package, folder))
    edit(changed)
    contents = json.loads((changed / "package.json").read_text()) | {"files": verify.digests(changed)}
    (changed / "package.json").write_text(json.dumps(contents))
    return changed


def rewrite_golden(edit: Callable[[list[dict]], list[dict]]) -> Callable[[Path], None]:
    """Return an edit of a package that changes the entries of ``golden.json``."""

    def edit_package(package: Path) -> None:
        (package / "data" / "golden.json").write_text(json.dumps(edit(golden_entries(package))))

    return edit_package


def test_the_server_is_ready_after_the_package_is_checked(
    start: Callable[..., Server], package: Path, tmp_path: Path
) -> None:
    """Until then it listens, is alive, and refuses predictions."""
    started = start(changed_copy(package, tmp_path / "slow", rewrite_golden(lambda entries: entries * 30)))
    while started.get("/v2/health/live") is None:
        time.sleep(0.01)
    refusal(started.get("/v2/models/spira/ready"), 503)
    assert refusal(post_v1(started, voice()), 503)["code"] == "model_not_ready"
    assert started.get("/v2/health/live").status == 200
    assert post_v1(started.wait(), voice()).status == 200


def shift(entries: list[dict]) -> list[dict]:
    return [entry | {"probability": entry["probability"] + 2e-5} for entry in entries]


def remove_windows(package: Path) -> None:
    config = json.loads((package / "data" / "config.json").read_text())
    (package / "data" / "config.json").write_text(json.dumps(config | {"windows": {}}))


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "golden recordings differ by 2e-5": (rewrite_golden(shift), "must not be served"),
    "no golden recording": (rewrite_golden(lambda entries: []), "no golden recording"),
    "settings without windows": (remove_windows, "cannot be computed"),
    "weights missing": (lambda package: (package / "data" / "weights.npz").unlink(), "no valid model"),
}


@pytest.mark.parametrize("damage_name", BROKEN)
def test_a_broken_package_is_never_ready(
    start: Callable[..., Server], package: Path, tmp_path: Path, damage_name: str
) -> None:
    """The process ends, and its last line is the reason, so that Kubernetes shows it."""
    edit, message = BROKEN[damage_name]
    started = start(changed_copy(package, tmp_path / "broken", edit))
    statuses = set()
    while started.process.poll() is None:
        statuses.add(started.readiness())
        time.sleep(0.01)
    assert 200 not in statuses
    assert started.process.returncode == 1
    assert message in started.log.read_text().splitlines()[-1]


def test_a_package_with_a_changed_file_is_not_served(
    start: Callable[..., Server], package: Path, tmp_path: Path
) -> None:
    """The digests in ``package.json`` must match."""
    changed = Path(shutil.copytree(package, tmp_path / "changed"))
    with (changed / "data" / "config.json").open("a") as file:
        file.write(" ")
    started = start(changed)
    assert started.process.wait(30) == 1
    assert "data/config.json was changed" in started.log.read_text()


def test_the_registered_folder_of_format_1_is_served(
    start: Callable[..., Server], package: Path, tmp_path: Path
) -> None:
    """MLflow stores the data of a package in ``data/data``, beside its own files."""
    artifacts = Path(shutil.copytree(package, tmp_path / "artifacts"))
    (artifacts / "data").rename(artifacts / "moved")
    (artifacts / "data").mkdir()
    (artifacts / "moved").rename(artifacts / "data" / "data")
    contents = json.loads((artifacts / "package.json").read_text())
    files = {name: digest for name, digest in contents["files"].items() if name.startswith(("data/", "code/"))}
    (artifacts / "package.json").write_text(json.dumps(contents | {"format": 1, "files": files}))
    (artifacts / "MLmodel").write_text("flavors: {}")
    content, expected = golden(package)[0]
    assert abs(probability(post_v1(start(artifacts).wait(), content)) - expected) <= TOLERANCE


def test_probes_answer_while_all_threads_compute(server: Server) -> None:
    """During long recordings of many clients each probe is answered in less than half of its timeout."""
    content = voice(60)
    with ThreadPoolExecutor(8) as clients:
        pending = [clients.submit(post_v1, server, content) for _ in range(8)]
        probes = []
        while not all(future.done() for future in pending):
            probes.append(server.get("/v2/models/spira/ready"))
            time.sleep(0.02)
    assert {reply.status for reply in probes} == {200}
    assert len(probes) > 10
    assert max(reply.seconds for reply in probes) < 0.5
    assert len({probability(future.result()) for future in pending}) == 1


def test_an_overloaded_server_refuses_at_once(start: Callable[..., Server], package: Path) -> None:
    """Admitted requests are answered, the rest get 429 in a fraction of the time; then the server recovers."""
    started = start(package, "--threads", "1", "--queue", "2").wait()
    content = voice(60)
    with ThreadPoolExecutor(12) as clients:
        replies = list(clients.map(lambda _: post_v1(started, content), range(12)))
    answered = [reply for reply in replies if reply.status == 200]
    rejected = [reply for reply in replies if reply.status == 429]
    assert len(answered) >= 3
    assert len(answered) + len(rejected) == 12
    assert all(refusal(reply, 429)["code"] == "saturated" and reply.headers["retry-after"] for reply in rejected)
    assert max(reply.seconds for reply in rejected) < min(1.0, max(reply.seconds for reply in answered))
    assert post_v1(started, content).status == 200


def test_a_slow_client_does_not_block_others(start: Callable[..., Server], package: Path) -> None:
    """An unfinished body counts as one request, and only until it times out or its connection closes."""
    started = start(package, "--threads", "1", "--queue", "1").wait()
    with socket.create_connection(("127.0.0.1", started.port)) as slow:
        slow.sendall(f"POST {V1} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{{".encode())
        time.sleep(0.2)
        assert post_v1(started, voice()).status == 200
    time.sleep(0.2)
    assert metrics(started)["spira_requests_inside"] == 0


def test_shutdown_loses_no_request(start: Callable[..., Server], package: Path) -> None:
    """After SIGTERM the server answers for a while longer and then ends."""
    started = start(package, "--drain-seconds", "1.5").wait()
    replies: list[Reply | None] = []
    stopped = threading.Event()

    def post() -> None:
        while not stopped.is_set():
            replies.append(post_v1(started, voice()))

    with ThreadPoolExecutor(2) as clients:
        running = [clients.submit(post) for _ in range(2)]
        time.sleep(0.3)
        started.terminate()
        time.sleep(1.0)
        stopped.set()
        for future in running:
            future.result()
    assert {reply.status for reply in replies if reply} == {200}
    assert None not in replies
    started.process.wait(10)


def test_responses_close_their_connections_during_shutdown(start: Callable[..., Server], package: Path) -> None:
    """Clients with an open connection therefore change to another server in time."""
    started = start(package, "--drain-seconds", "2").wait()
    with socket.create_connection(("127.0.0.1", started.port)) as client:
        for closing in (False, True):
            client.sendall(b"GET /v2/models/spira/ready HTTP/1.1\r\nHost: a\r\n\r\n")
            response = b""
            while not response.endswith(b"}"):
                response += client.recv(4096)
            assert response.startswith(b"HTTP/1.1 200")
            assert (b"connection: close" in response) == closing
            started.terminate()
            time.sleep(0.2)
