"""Connections to Kubeflow that fail: each is one line with the remedy, within seconds."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import urllib3

from pipelines.kubeflow import server as servers
from pipelines.kubeflow.overview import runs
from pipelines.kubeflow.runner import list_runs
from pipelines.kubeflow.server import Server, connect
from spira.delivery.runner import RunnerError
from tests.support.kfp_server import ServerState

pytestmark = pytest.mark.integration

MAX_SECONDS = 5


@pytest.fixture(autouse=True)
def _in_time() -> Iterator[None]:
    """Every refusal comes within seconds."""
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < MAX_SECONDS


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def refusal(host: str) -> str:
    """Return the message of a connection that is refused; it is one line."""
    with pytest.raises(RunnerError) as error:
        connect(host)
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("host", ["", "ml-pipeline:8888", "file:///etc"])
def test_a_server_without_a_url_is_refused(host: str):
    """The message names the option and the environment variable."""
    assert "--host or KF_PIPELINES_ENDPOINT" in refusal(host)


def test_an_absent_server_is_refused():
    """Nothing listens at the port."""
    message = refusal(f"http://127.0.0.1:{free_port()}")
    assert "cannot be reached: Failed to establish a new connection: " in message
    assert message.endswith("refused: is it up, and is --host right? The port of Kubeflow's API is 8888")


def test_an_unknown_host_is_refused():
    """Names of the cluster's own are known only there."""
    message = refusal("http://ml-pipeline.kubeflow.invalid:8888")
    assert "Failed to resolve 'ml-pipeline.kubeflow.invalid'" in message
    assert "kubectl -n kubeflow port-forward service/ml-pipeline 8888" in message


@pytest.mark.parametrize(
    "host", ["http://", "http://[::1", "http://a b", "http://127.0.0.1:99999", f"http://{'a' * 70}.org"]
)
def test_a_url_that_is_none_is_refused(host: str):
    """The libraries print no traceback."""
    assert "is --host right?" in refusal(host)


def test_tls_to_a_server_without_is_refused(server: Server):
    """The message names the other scheme."""
    assert "is --host http:// instead of https://" in refusal(server.host.replace("http://", "https://"))


def test_another_program_at_the_port_is_refused():
    """It does not speak HTTP."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def answer() -> None:
            for _ in range(3):
                connection, _ = listener.accept()
                connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")
                connection.close()

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        assert "is --host right?" in refusal(f"http://127.0.0.1:{listener.getsockname()[1]}")


FAULTS = {
    "expired": "returned 401: token has expired: the token has expired or is missing: write a new one into the file of "
    "KF_PIPELINES_SA_TOKEN_PATH",
    "login": "most likely a proxy's login page: connect past the proxy: kubectl -n kubeflow port-forward",
    "redirect": "returned 302: Found: a proxy redirects to its login page: connect past the proxy",
    "busy": "too many 503 error responses",
}
"""Part of the expected message by fault of the server."""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_does_not_accept_the_login_is_refused(kfp: tuple[str, ServerState], fault: str):
    """Neither an expired token nor a login page looks like a server without runs."""
    kfp[1].trouble = lambda request: fault
    assert FAULTS[fault] in refusal(kfp[0])


@pytest.mark.parametrize("fault", FAULTS)
def test_a_login_that_ends_during_a_session_is_an_error(server: Server, state: ServerState, fault: str):
    """A login page is no empty listing."""
    state.trouble = lambda request: fault
    with pytest.raises(RunnerError, match="runs cannot be listed: ") as error:
        runs(server, [])
    assert FAULTS[fault] in str(error.value)
    assert "\n" not in str(error.value)


def test_the_token_of_a_file_is_sent(kfp: tuple[str, ServerState], tmp_path, monkeypatch: pytest.MonkeyPatch):
    """It is read for every request, as the kubelet renews it."""
    (tmp_path / "token").write_text("secret-1")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    server = connect(kfp[0])
    assert kfp[1].authorizations[-1] == "Bearer secret-1"
    (tmp_path / "token").write_text("secret-2")
    list_runs(server)
    assert kfp[1].authorizations[-1] == "Bearer secret-2"


@pytest.mark.parametrize(
    ("health", "message"),
    [
        ({"tag_name": "3.0.0", "multi_user": False}, "is Kubeflow Pipelines 3.0.0: version 2 is needed"),
        ({"status": "ok"}, "the answer is not that of Kubeflow Pipelines: is --host its API's URL?"),
        (["ok"], "the answer is not that of Kubeflow Pipelines: is --host its API's URL?"),
    ],
)
def test_a_server_of_another_version_is_refused(kfp: tuple[str, ServerState], health: dict, message: str):
    """A server of another kind is refused too."""
    kfp[1].healthz = health
    assert message in refusal(kfp[0])


def test_a_server_of_version_1_is_refused(kfp: tuple[str, ServerState]):
    """It does not have the API of version 2."""
    kfp[1].healthz = {"tag_name": "1.8.5", "multi_user": False}
    kfp[1].trouble = lambda request: "absent" if request == "GET /healthz" else None
    assert "is Kubeflow Pipelines 1.8.5: version 2 is needed, upgrade it" in refusal(kfp[0])


def test_a_refusal_by_another_minor_version_names_both(kfp: tuple[str, ServerState]):
    """Version 2.4 has the same API, but does not know all that is compiled; it may be the cause."""
    kfp[1].healthz = {"tag_name": "2.4.1", "multi_user": False}
    server = connect(kfp[0])
    assert runs(server, []) == []
    kfp[1].trouble = lambda request: "absent"
    with pytest.raises(
        RunnerError, match=r"404: Not Found \(the server is Kubeflow Pipelines 2\.4\.1, and .* for 2\.17\)"
    ):
        runs(server, [])


def test_a_server_that_disappears_is_an_error_of_one_line(server: Server, monkeypatch: pytest.MonkeyPatch):
    """After the connection was made."""
    monkeypatch.setattr(servers, "SECONDS", 1)
    server.client.runs.api_client.configuration.host = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(RunnerError, match=r"runs cannot be listed: Kubeflow at .* cannot be reached") as error:
        runs(server, [])
    assert "\n" not in str(error.value)


def test_a_server_that_never_responds_causes_a_timeout(monkeypatch: pytest.MonkeyPatch):
    """It accepts connections, but sends nothing."""
    monkeypatch.setattr(servers, "SECONDS", 1)
    monkeypatch.setattr(servers, "RETRIES", urllib3.Retry(total=1))
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert "timed out" in refusal(f"http://127.0.0.1:{silent.getsockname()[1]}")


def test_a_request_to_a_busy_server_is_repeated(server: Server, state: ServerState):
    """Only requests that read are repeated, and only a few times."""
    busy = iter([True, True])
    state.trouble = lambda request: "busy" if request == "GET /experiments" and next(busy, False) else None
    assert list_runs(server) == []
    assert state.requests.count("GET /experiments") == 3
