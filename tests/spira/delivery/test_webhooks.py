"""Webhooks: authentic calls wake, all others are refused, and no caller blocks another one."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.webhooks.delivery import _generate_hmac_signature

from spira.delivery import webhooks
from spira.delivery.webhooks import PageSlot
from spira.errors import SpiraError

pytestmark = pytest.mark.integration

SECRET = "s3cret"
TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=12)
BODY = b'{"entity": "model_version_alias", "action": "created"}'


@dataclass
class Listener:
    """A server of the webhooks, and the number of wake-ups."""

    port: int
    wake_ups: int = 0

    def post(self, path: str, body: bytes = BODY, headers: dict[str, str] | None = None) -> int:
        """Return the status of the response."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request("POST", path, body, headers or {})
            return connection.getresponse().status

    def raw(self, request: bytes) -> bytes:
        """Return the response to bytes that may be no valid request."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(request)
            return connection.makefile("rb").read()


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    """One server for all tests."""
    listener = Listener(0)

    def wake() -> None:
        listener.wake_ups += 1

    server = webhooks.serve("127.0.0.1:0", wake)
    listener.port = server.server_address[1]
    yield listener
    server.shutdown()
    server.server_close()


@pytest.fixture
def webhook(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> Listener:
    """The server with a secret for every path."""
    for variable in webhooks.SECRETS.values():
        monkeypatch.setenv(variable, SECRET)
    listener.wake_ups = 0
    return listener


def mlflow_headers(body: bytes = BODY, at: float | None = None, secret: str = SECRET) -> dict[str, str]:
    """Return headers that MLflow's own function has signed."""
    timestamp = str(int(time.time() if at is None else at))
    signature = _generate_hmac_signature(secret, "delivery-1", timestamp, body.decode())
    return {"X-MLflow-Delivery-Id": "delivery-1", "X-MLflow-Timestamp": timestamp, "X-MLflow-Signature": signature}


def git_headers(body: bytes = BODY, secret: str = SECRET) -> dict[str, str]:
    """Return headers signed as GitHub signs a push."""
    return {"X-Hub-Signature-256": f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"}


def test_a_call_that_mlflow_signed_wakes(webhook: Listener) -> None:
    """The body may contain non-ASCII text."""
    for body in (BODY, '{"model": "síndrome"}'.encode()):
        assert webhook.post("/wake/mlflow", body, mlflow_headers(body)) == 202
    assert webhook.wake_ups == 2


def test_a_push_that_github_signed_wakes(webhook: Listener) -> None:
    """Both the example of GitHub's documentation and a body of this project wake."""
    expected = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert git_headers(b"Hello, World!", "It's a Secret to Everybody") == {"X-Hub-Signature-256": f"sha256={expected}"}
    assert webhook.post("/wake/git", b"Hello, World!", git_headers(b"Hello, World!")) == 202
    assert webhook.wake_ups == 1


def test_a_notification_that_pubsub_pushes_wakes(webhook: Listener) -> None:
    """The secret is part of the URL; a wrong or missing one is refused."""
    message = {"message": {"data": "e30=", "attributes": {"eventType": "OBJECT_FINALIZE"}}, "subscription": "s"}
    body = json.dumps(message).encode()
    assert webhook.post(f"/wake/storage?token={SECRET}", body) == 202
    assert webhook.post("/wake/storage?token=guessed", body) == 401
    assert webhook.post("/wake/storage", body) == 401
    assert webhook.wake_ups == 1


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/wake/mlflow", mlflow_headers(secret="another")),
        ("/wake/mlflow", mlflow_headers(b"another body")),
        ("/wake/mlflow", {**mlflow_headers(), "X-MLflow-Delivery-Id": "delivery-2"}),
        ("/wake/mlflow", {}),
        ("/wake/git", git_headers(secret="another")),
        ("/wake/git", git_headers(b"another body")),
        ("/wake/git", {"X-Hub-Signature-256": "sha256=\xe9"}),
        ("/wake/git", {}),
        ("/wake/git", mlflow_headers()),
    ],
)
def test_a_forged_call_is_refused(webhook: Listener, path: str, headers: dict[str, str]) -> None:
    """The secret, the body, the delivery or the scheme of the signature is wrong, or there is no signature."""
    assert webhook.post(path, BODY, headers) == 401
    assert webhook.wake_ups == 0


@pytest.mark.parametrize("seconds", [-3600, -webhooks.MAX_AGE_SECONDS - 5, webhooks.MAX_AGE_SECONDS + 5])
def test_a_signed_call_of_another_time_is_refused(webhook: Listener, seconds: float) -> None:
    """A replay has a time in the past; a wrong clock may give one in the future."""
    assert webhook.post("/wake/mlflow", BODY, mlflow_headers(at=time.time() + seconds)) == 401
    assert webhook.wake_ups == 0


def test_a_repeated_call_wakes_again(webhook: Listener) -> None:
    """Senders repeat a call whose response was lost; an additional tick does no harm."""
    headers = mlflow_headers()
    assert [webhook.post("/wake/mlflow", BODY, headers) for _ in range(2)] == [202, 202]


@pytest.mark.parametrize("at", ["", "soon", "-1", "1e9", "\xb2", "9" * 400, "9" * 5000])
def test_an_invalid_timestamp_is_refused(webhook: Listener, at: str) -> None:
    """The server responds to any content of the header."""
    assert webhook.post("/wake/mlflow", BODY, {**mlflow_headers(), "X-MLflow-Timestamp": at}) == 401


@pytest.mark.parametrize("length", [str(webhooks.MAX_BODY_BYTES + 1), "9" * 5000, "-1", "x", "\xb2", ""])
def test_a_body_that_is_too_long_is_not_read(webhook: Listener, length: str) -> None:
    """The length in the header, or its absence, decides."""
    request = f"POST /wake/git HTTP/1.1\r\nContent-Length: {length}\r\n\r\n".encode("latin-1")
    assert webhook.raw(request).split()[1] == b"413"
    assert webhook.raw(b"POST /wake/git HTTP/1.1\r\n\r\n").split()[1] == b"413"


def test_a_body_of_the_maximum_size_wakes(webhook: Listener) -> None:
    body = b"x" * webhooks.MAX_BODY_BYTES
    assert webhook.post("/wake/git", body, git_headers(body)) == 202


def test_a_path_without_a_secret_is_closed(webhook: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signature with an empty secret does not help."""
    monkeypatch.setenv("SPIRA_WAKE_GIT", "")
    assert webhook.post("/wake/git", BODY, git_headers(secret="")) == 404
    monkeypatch.delenv("SPIRA_WAKE_STORAGE")
    assert webhook.post("/wake/storage?token=", BODY) == 404
    assert webhook.wake_ups == 0


@pytest.mark.parametrize("path", ["/", "/wake", "/wake/", "/wake/other", "/wake/git/", "/git", "/health"])
def test_an_unknown_path_is_not_found(webhook: Listener, path: str) -> None:
    """The signature does not matter."""
    assert webhook.post(path, BODY, git_headers()) == 404
    assert webhook.wake_ups == 0


def test_the_health_path_responds(webhook: Listener) -> None:
    """It is for probes; no other path accepts GET."""
    with urllib.request.urlopen(f"http://127.0.0.1:{webhook.port}/health", timeout=30) as response:
        assert (response.status, response.read()) == (200, b"")
    assert webhook.raw(b"GET /wake/git HTTP/1.1\r\n\r\n").split()[1] == b"404"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n", b"400"),  # the beginning of TLS
        (b"GARBAGE\r\n\r\n", b"400"),
        (b"POST /wake/git HTTP/9.9\r\n\r\n", b"505"),
        (b"BREW /wake/git HTTP/1.1\r\n\r\n", b"501"),
        (b"POST /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"POST /wake/git HTTP/1.1\r\n" + b"".join(b"H%d: x\r\n" % n for n in range(200)) + b"\r\n", b"431"),
    ],
)
def test_an_invalid_request_does_no_harm(
    webhook: Listener, request_bytes: bytes, status: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    """It gets an error status, nothing is printed, and the next authentic call wakes."""
    assert status in webhook.raw(request_bytes)
    assert webhook.post("/wake/git", BODY, git_headers()) == 202
    assert (webhook.wake_ups, capfd.readouterr().err) == (1, "")


def test_a_closed_connection_does_no_harm(webhook: Listener, capfd: pytest.CaptureFixture[str]) -> None:
    """A reset in the middle of a body prints nothing, and the next authentic call wakes."""
    with socket.create_connection(("127.0.0.1", webhook.port)) as connection:
        connection.sendall(b"POST /wake/git HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf")
        time.sleep(0.2)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    time.sleep(0.2)
    assert webhook.post("/wake/git", BODY, git_headers()) == 202
    assert (webhook.wake_ups, capfd.readouterr().err) == (1, "")


def test_slow_callers_do_not_block_others_and_are_disconnected(
    webhook: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty callers never end their requests; an authentic call wakes meanwhile."""
    monkeypatch.setattr(webhooks._Handler, "timeout", 1.0)
    callers = [socket.create_connection(("127.0.0.1", webhook.port), timeout=30) for _ in range(20)]
    for caller in callers:
        caller.sendall(b"POST /wake/git HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf")
    assert webhook.post("/wake/git", BODY, git_headers()) == 202
    assert [caller.recv(100) for caller in callers] == [b""] * 20
    assert webhook.wake_ups == 1
    for caller in callers:
        caller.close()


def test_connections_are_limited(webhook: Listener) -> None:
    """A thousand callers that send nothing, or slowly, neither block an authentic call nor use up the descriptors."""
    before = len(os.listdir("/proc/self/fd"))
    callers = []
    for number in range(500):
        caller = socket.create_connection(("127.0.0.1", webhook.port), timeout=30)
        with suppress(ConnectionError):
            caller.sendall([b"", b"POST /wake/git HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf"][number % 2])
        callers.append(caller)
    assert webhook.post("/wake/git", BODY, git_headers()) == 202
    served = len(os.listdir("/proc/self/fd")) - before - len(callers)
    assert served <= webhooks.MAX_CONNECTIONS + 5
    for caller in callers:
        caller.close()


WATCHED = """
import resource, sys, time
from spira.delivery import webhooks
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
server = webhooks.serve("127.0.0.1:0", lambda: None)
print(server.server_address[1], flush=True)
for line in sys.stdin:
    open(sys.argv[0]).close()
    print(time.process_time(), flush=True)
"""


def test_callers_leave_the_descriptors_to_the_watcher(tmp_path: Path) -> None:
    """A process with 128 descriptors and 300 callers opens files, is idle, and prints no error."""
    script = tmp_path / "watched.py"
    script.write_text(WATCHED)
    command = [sys.executable, str(script)]
    process = subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, text=True, env=os.environ | {"PYTHONPATH": "."})
    with process, ExitStack() as stack:
        port = int(process.stdout.readline())
        for _ in range(300):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
        used = []
        for pause in (0.5, 1.0):
            time.sleep(pause)
            process.stdin.write("go\n")
            process.stdin.flush()
            used.append(float(process.stdout.readline()))
        assert used[1] - used[0] < 0.3
        process.stdin.close()
        assert process.stderr.read() == ""


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(["/wake/git", "http://[", "//[::1", "/wake/storage?token=%ff", "/wake/git?\xe9", "*", "a b"])
    | TEXT,
    header=st.sampled_from(
        ["Content-Length", "X-MLflow-Timestamp", "X-Hub-Signature-256", "Transfer-Encoding", "Expect"]
    ),
    value=TEXT,
)
def test_any_request_gets_an_answer(
    webhook: Listener, capfd: pytest.CaptureFixture[str], path: str, header: str, value: str
) -> None:
    """Any path and any header: a status below 500 or 501 for a method, nothing printed, and nobody is woken."""
    request = f"POST {path} HTTP/1.1\r\n{header}: {value}\r\n\r\n".encode("latin-1")
    with socket.create_connection(("127.0.0.1", webhook.port), timeout=30) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        response = connection.makefile("rb").read()
    assert re.match(rb"HTTP/1.[01] 4|<!DOCTYPE|$", response), response
    assert (webhook.wake_ups, capfd.readouterr().err) == (0, "")


@pytest.mark.parametrize("listen", ["8090x", "127.0.0.1", "127.0.0.1:99999999", "127.0.0.1:-1", "nowhere.invalid:1"])
def test_an_invalid_address_is_refused(listen: str) -> None:
    with pytest.raises(SpiraError, match=rf"--listen {listen}: cannot listen on this address .*write HOST:PORT"):
        webhooks.serve(listen, lambda: None)


def test_an_address_in_use_is_refused(webhook: Listener) -> None:
    """The error comes at the start, not with the first lost call."""
    with pytest.raises(SpiraError, match="cannot listen on this address"):
        webhooks.serve(f"127.0.0.1:{webhook.port}", lambda: None)


MLFLOW = """
import os, sys, uvicorn
import mlflow.server as settings
os.environ[settings.BACKEND_STORE_URI_ENV_VAR] = f"sqlite:///{sys.argv[1]}/mlflow.db"
os.environ[settings.ARTIFACT_ROOT_ENV_VAR] = sys.argv[1]
uvicorn.run("mlflow.server.fastapi_app:app", host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
"""
SWITCHES = {"MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http", "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true"}
"""MLflow is allowed to send to http and to private addresses here."""


@pytest.fixture(scope="module")
def mlflow_server(new_mlflow: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server in another process."""
    work = tmp_path_factory.mktemp("server")
    shutil.copy(new_mlflow, work)
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-c", MLFLOW, str(work), str(port)]
    server = subprocess.Popen(command, env=os.environ | SWITCHES, stderr=subprocess.DEVNULL)
    try:
        assert _is_true_within(90, lambda: _is_up(port)), "the MLflow server did not become ready"
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def test_moving_an_alias_in_mlflow_wakes(webhook: Listener, mlflow_server: str) -> None:
    """The real server sends its webhook."""
    from mlflow import MlflowClient
    from mlflow.entities.webhook import WebhookEvent

    client = MlflowClient(mlflow_server, mlflow_server)
    event, address = WebhookEvent("model_version_alias", "created"), f"http://127.0.0.1:{webhook.port}/wake/mlflow"
    client.create_webhook("spira", address, [event], secret=SECRET)
    client.create_registered_model("spira")
    version = client.create_model_version("spira", "s3://models/spira").version
    assert webhook.wake_ups == 0
    client.set_registered_model_alias("spira", "champion", version)
    assert _is_true_within(30, lambda: webhook.wake_ups == 1)


def test_a_webhook_of_mlflow_with_another_secret_is_refused(webhook: Listener, mlflow_server: str) -> None:
    """MLflow reports the status of its call."""
    from mlflow import MlflowClient
    from mlflow.entities.webhook import WebhookEvent

    client = MlflowClient(mlflow_server, mlflow_server)
    event, address = WebhookEvent("model_version_alias", "created"), f"http://127.0.0.1:{webhook.port}/wake/mlflow"
    created = client.create_webhook("spira", address, [event], secret="another")
    assert client.test_webhook(created.webhook_id).response_status == 401
    assert webhook.wake_ups == 0


def _is_up(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            return True
    except OSError:
        return False


def _is_true_within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.fixture
def page_server() -> Iterator[tuple[PageSlot, int]]:
    """A server of the status page alone, and its port."""
    page = PageSlot()
    server = webhooks.serve("127.0.0.1:0", page=page)
    yield page, server.server_address[1]
    server.shutdown()
    server.server_close()


def get(port: int, path: str) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of a response."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()


def test_the_page_is_shown_after_the_first_tick(page_server: tuple[PageSlot, int]) -> None:
    """Nothing may be loaded for it, and no browser keeps it."""
    page, port = page_server
    assert get(port, "/")[0] == 503
    page.replace("<p>Versão 3</p>")
    status, headers, body = get(port, "/?source=chat")
    assert (status, body.decode()) == (200, "<p>Versão 3</p>")
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert get(port, "/other")[0] == 404
    assert get(port, "/health")[0] == 200


@pytest.mark.parametrize("path", webhooks.SECRETS)
def test_a_server_of_the_page_alone_has_no_webhooks(
    page_server: tuple[PageSlot, int], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if it has their secrets."""
    monkeypatch.setenv(webhooks.SECRETS[path], SECRET)
    assert Listener(page_server[1]).post(f"/wake/{path}?token={SECRET}", headers=git_headers()) == 404


def test_a_server_without_a_page_has_none(listener: Listener) -> None:
    assert get(listener.port, "/")[0] == 404
