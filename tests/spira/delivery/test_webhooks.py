"""Wake-ups by HTTP: genuine calls wake, everything else is refused, and nothing hinders anybody else."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow.webhooks.delivery import _generate_hmac_signature

from spira.delivery import webhooks
from spira.errors import SpiraError

SECRET = "s3cret"
BODY = b'{"entity": "model_version_alias", "action": "created"}'


@dataclass
class Bell:
    """A listener, and how often it was woken."""

    port: int
    rings: int = 0

    def post(self, path: str, body: bytes = BODY, headers: dict[str, str] | None = None) -> int:
        """The status of the answer."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request("POST", path, body, headers or {})
            return connection.getresponse().status

    def raw(self, request: bytes) -> bytes:
        """The answer to bytes that may be no request."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as caller:
            caller.sendall(request)
            return caller.makefile("rb").read()


@pytest.fixture(scope="module")
def listener() -> Iterator[Bell]:
    """One for all tests."""
    bell = Bell(0)

    def ring() -> None:
        bell.rings += 1

    server = webhooks.serve("127.0.0.1:0", ring)
    bell.port = server.server_address[1]
    yield bell
    server.shutdown()
    server.server_close()


@pytest.fixture
def bell(listener: Bell, monkeypatch: pytest.MonkeyPatch) -> Bell:
    """A listener all of whose paths have a secret."""
    for variable in webhooks.SECRETS.values():
        monkeypatch.setenv(variable, SECRET)
    listener.rings = 0
    return listener


def mlflows(body: bytes = BODY, at: float | None = None, secret: str = SECRET) -> dict[str, str]:
    """Headers as MLflow's own function signs them."""
    told = str(int(time.time() if at is None else at))
    signature = _generate_hmac_signature(secret, "delivery-1", told, body.decode())
    return {"X-MLflow-Delivery-Id": "delivery-1", "X-MLflow-Timestamp": told, "X-MLflow-Signature": signature}


def gits(body: bytes = BODY, secret: str = SECRET) -> dict[str, str]:
    """Headers as GitHub signs a push."""
    return {"X-Hub-Signature-256": f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"}


def test_a_call_that_mlflow_signed_wakes(bell: Bell) -> None:
    """By MLflow's own signing function, be the body ASCII or not."""
    for body in (BODY, '{"model": "síndrome"}'.encode()):
        assert bell.post("/wake/mlflow", body, mlflows(body)) == 202
    assert bell.rings == 2


def test_a_push_that_github_signed_wakes(bell: Bell) -> None:
    """GitHub's own example of its documentation, and a body of ours."""
    told = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert gits(b"Hello, World!", "It's a Secret to Everybody") == {"X-Hub-Signature-256": f"sha256={told}"}
    assert bell.post("/wake/git", b"Hello, World!", gits(b"Hello, World!")) == 202
    assert bell.rings == 1


def test_a_notification_that_pubsub_pushes_wakes(bell: Bell) -> None:
    """Pub/Sub's push form, its secret in the address it was given; another path than that closes it."""
    message = {"message": {"data": "e30=", "attributes": {"eventType": "OBJECT_FINALIZE"}}, "subscription": "s"}
    body = json.dumps(message).encode()
    assert bell.post(f"/wake/storage?token={SECRET}", body) == 202
    assert bell.post("/wake/storage?token=guessed", body) == 401
    assert bell.post("/wake/storage", body) == 401
    assert bell.rings == 1


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/wake/mlflow", mlflows(secret="another")),
        ("/wake/mlflow", mlflows(b"another body")),
        ("/wake/mlflow", {**mlflows(), "X-MLflow-Delivery-Id": "delivery-2"}),
        ("/wake/mlflow", {}),
        ("/wake/git", gits(secret="another")),
        ("/wake/git", gits(b"another body")),
        ("/wake/git", {"X-Hub-Signature-256": "sha256=\xe9"}),
        ("/wake/git", {}),
        ("/wake/git", mlflows()),
    ],
)
def test_a_forged_call_is_refused(bell: Bell, path: str, headers: dict[str, str]) -> None:
    """Another secret, another body, another delivery, another path's signature, or none."""
    assert bell.post(path, BODY, headers) == 401
    assert bell.rings == 0


@pytest.mark.parametrize("seconds", [-3600, -webhooks.OLDEST_SECONDS - 5, webhooks.OLDEST_SECONDS + 5])
def test_a_call_replayed_later_is_refused(bell: Bell, seconds: float) -> None:
    """Rightly signed, but of another time, past or to come."""
    assert bell.post("/wake/mlflow", BODY, mlflows(at=time.time() + seconds)) == 401
    assert bell.rings == 0


def test_a_call_that_comes_twice_wakes_twice(bell: Bell) -> None:
    """Which does no harm: senders repeat what they think was lost."""
    headers = mlflows()
    assert [bell.post("/wake/mlflow", BODY, headers) for _ in range(2)] == [202, 202]


@pytest.mark.parametrize("at", ["", "soon", "-1", "1e9", "\xb2", "9" * 400, "9" * 5000])
def test_a_time_that_is_none_is_refused(bell: Bell, at: str) -> None:
    """Whatever stands there, it is answered, not stumbled over."""
    assert bell.post("/wake/mlflow", BODY, {**mlflows(), "X-MLflow-Timestamp": at}) == 401


@pytest.mark.parametrize("length", [str(webhooks.MOST_BYTES + 1), "9" * 5000, "-1", "x", "\xb2", ""])
def test_a_body_that_is_too_long_is_not_read(bell: Bell, length: str) -> None:
    """Refused by what its header says, or doesn't."""
    request = f"POST /wake/git HTTP/1.1\r\nContent-Length: {length}\r\n\r\n".encode("latin-1")
    assert bell.raw(request).split()[1] == b"413"
    assert bell.raw(b"POST /wake/git HTTP/1.1\r\n\r\n").split()[1] == b"413"


def test_the_longest_body_wakes(bell: Bell) -> None:
    """Up to the limit."""
    body = b"x" * webhooks.MOST_BYTES
    assert bell.post("/wake/git", body, gits(body)) == 202


def test_a_path_without_a_secret_is_closed(bell: Bell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even for who signs with the empty one."""
    monkeypatch.setenv("SPIRA_WAKE_GIT", "")
    assert bell.post("/wake/git", BODY, gits(secret="")) == 404
    monkeypatch.delenv("SPIRA_WAKE_STORAGE")
    assert bell.post("/wake/storage?token=", BODY) == 404
    assert bell.rings == 0


@pytest.mark.parametrize("path", ["/", "/wake", "/wake/", "/wake/other", "/wake/git/", "/git", "/health"])
def test_an_unknown_path_is_not_found(bell: Bell, path: str) -> None:
    """With a good signature too."""
    assert bell.post(path, BODY, gits()) == 404
    assert bell.rings == 0


def test_it_tells_that_it_listens(bell: Bell) -> None:
    """For probes: and nothing else is there to get."""
    with urllib.request.urlopen(f"http://127.0.0.1:{bell.port}/health", timeout=30) as answer:
        assert (answer.status, answer.read()) == (200, b"")
    assert bell.raw(b"GET /wake/git HTTP/1.1\r\n\r\n").split()[1] == b"404"


@pytest.mark.parametrize(
    ("garbage", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n", b"400"),  # the beginning of TLS
        (b"GARBAGE\r\n\r\n", b"400"),
        (b"POST /wake/git HTTP/9.9\r\n\r\n", b"505"),
        (b"BREW /wake/git HTTP/1.1\r\n\r\n", b"501"),
        (b"POST /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"POST /wake/git HTTP/1.1\r\n" + b"".join(b"H%d: x\r\n" % n for n in range(200)) + b"\r\n", b"431"),
    ],
)
def test_garbage_is_answered_and_forgotten(
    bell: Bell, garbage: bytes, status: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    """Told off where it can be, nothing on the console, and the next genuine call wakes."""
    assert status in bell.raw(garbage)
    assert bell.post("/wake/git", BODY, gits()) == 202
    assert (bell.rings, capfd.readouterr().err) == (1, "")


def test_who_hangs_up_is_nobodys_trouble(bell: Bell, capfd: pytest.CaptureFixture[str]) -> None:
    """In the middle of a body, by a reset: nothing on the console, and the next genuine call wakes."""
    with socket.create_connection(("127.0.0.1", bell.port)) as caller:
        caller.sendall(b"POST /wake/git HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf")
        time.sleep(0.2)
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    time.sleep(0.2)
    assert bell.post("/wake/git", BODY, gits()) == 202
    assert (bell.rings, capfd.readouterr().err) == (1, "")


def test_a_slow_caller_keeps_nobody_waiting_and_is_hung_up_on(bell: Bell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty that never end their request: a genuine call wakes meanwhile, and they are let go after a while."""
    monkeypatch.setattr(webhooks._Handler, "timeout", 1.0)
    callers = [socket.create_connection(("127.0.0.1", bell.port), timeout=30) for _ in range(20)]
    for caller in callers:
        caller.sendall(b"POST /wake/git HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf")
    assert bell.post("/wake/git", BODY, gits()) == 202
    assert [caller.recv(100) for caller in callers] == [b""] * 20
    assert bell.rings == 1
    for caller in callers:
        caller.close()


@pytest.mark.parametrize("listen", ["8090x", "127.0.0.1", "127.0.0.1:99999999", "127.0.0.1:-1", "nowhere.invalid:1"])
def test_an_address_that_is_none_is_refused(listen: str) -> None:
    """By name, with the form to write."""
    with pytest.raises(SpiraError, match=rf"--listen {listen}: can't listen there .*write HOST:PORT"):
        webhooks.serve(listen, lambda: None)


def test_an_address_that_is_taken_is_refused(bell: Bell) -> None:
    """At the beginning, not when the first call is lost."""
    with pytest.raises(SpiraError, match="can't listen there"):
        webhooks.serve(f"127.0.0.1:{bell.port}", lambda: None)


MLFLOW = """
import os, sys, uvicorn
import mlflow.server as settings
os.environ[settings.BACKEND_STORE_URI_ENV_VAR] = f"sqlite:///{sys.argv[1]}/mlflow.db"
os.environ[settings.ARTIFACT_ROOT_ENV_VAR] = sys.argv[1]
uvicorn.run("mlflow.server.fastapi_app:app", host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
"""
SWITCHES = {"MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http", "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true"}
"""MLflow sends to https and public addresses only, unless it is told to."""


@pytest.fixture(scope="module")
def mlflow_server(new_mlflow: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """MLflow's own server in a process of its own."""
    work = tmp_path_factory.mktemp("server")
    shutil.copy(new_mlflow, work)
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-c", MLFLOW, str(work), str(port)]
    server = subprocess.Popen(command, env=os.environ | SWITCHES, stderr=subprocess.DEVNULL)
    try:
        assert _within(90, lambda: _is_up(port)), "the MLflow server did not become ready"
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def test_a_champion_by_hand_in_mlflow_wakes(bell: Bell, mlflow_server: str) -> None:
    """A real server, its own webhook for an alias, and an alias that is moved there."""
    from mlflow import MlflowClient
    from mlflow.entities.webhook import WebhookEvent

    client = MlflowClient(mlflow_server, mlflow_server)
    event, address = WebhookEvent("model_version_alias", "created"), f"http://127.0.0.1:{bell.port}/wake/mlflow"
    client.create_webhook("spira", address, [event], secret=SECRET)
    client.create_registered_model("spira")
    version = client.create_model_version("spira", "s3://models/spira").version
    assert bell.rings == 0
    client.set_registered_model_alias("spira", "champion", version)
    assert _within(30, lambda: bell.rings == 1)


def test_what_mlflow_signs_with_another_secret_does_not_wake(bell: Bell, mlflow_server: str) -> None:
    """The real server's delivery is refused: MLflow tells its status."""
    from mlflow import MlflowClient
    from mlflow.entities.webhook import WebhookEvent

    client = MlflowClient(mlflow_server, mlflow_server)
    event, address = WebhookEvent("model_version_alias", "created"), f"http://127.0.0.1:{bell.port}/wake/mlflow"
    created = client.create_webhook("spira", address, [event], secret="another")
    assert client.test_webhook(created.webhook_id).response_status == 401
    assert bell.rings == 0


def _is_up(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            return True
    except OSError:
        return False


def _within(seconds: float, happens: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not happens():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
