"""MLflow servers that cannot be used are refused before anything is logged; answers as recorded from real servers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from spira.registry import Registry, RegistryError

pytestmark = pytest.mark.integration

NOT_FOUND = (404, "text/html", "<!doctype html>\n<html lang=en>\n<title>404 Not Found</title>\n<h1>Not Found</h1>\n")
MLFLOW_1_28 = {
    "/version": NOT_FOUND,
    "/health": (200, "text/html", "OK"),
    "/api/2.0/mlflow/experiments/get-by-name": (
        404,
        "application/json",
        '{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "Could not find experiment with name \'spira\'"}',
    ),
}
"""Path -> status, type and body, as ``mlflow server`` of 1.28.0 answers on an empty SQLite store."""


def experiment(location: str) -> str:
    return json.dumps({"experiment": {"experiment_id": "1", "name": "spira", "artifact_location": location}})


def answers(version: str, location: str = "mlflow-artifacts:/1") -> dict[str, tuple[int, str, str]]:
    """Return the answers of a later server."""
    found = (200, "application/json", experiment(location))
    return {"/version": (200, "text/html", version), "/api/2.0/mlflow/experiments/get-by-name": found}


@contextmanager
def serving(recorded: dict[str, tuple[int, str, str]]) -> Iterator[tuple[str, list[str]]]:
    """Serve recorded answers; give the URL and the list of the requests."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(f"{self.command} {self.path}")
            status, kind, body = recorded.get(self.path.partition("?")[0], NOT_FOUND)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(body.encode())

        do_POST = do_GET  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("recorded", "message"),
    [
        (MLFLOW_1_28, "404 at /version, as MLflow 1.28 answers): MLflow 2.22.0 or later is required"),
        (answers("2.4.0"), "it is MLflow 2.4.0, and 2.22.0 or later is required"),
        (answers("<html>Welcome to nginx!"), "this is no MLflow server; check the URL"),
        ({"/version": (401, "text/html", "no")}, "its /version answers 401: check the URL and the credentials"),
    ],
)
def test_a_server_that_cannot_be_used_is_refused(recorded: dict[str, tuple[int, str, str]], message: str) -> None:
    """By its first answer; no experiment is created on it."""
    with serving(recorded) as (url, requests), pytest.raises(RegistryError) as refused:
        Registry(url)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert requests == ["GET /version"]


@pytest.mark.parametrize("location", ["/var/mlflow/art/1", "file:///art/1", "./mlruns/1"])
def test_artifacts_that_are_not_proxied_are_refused(location: str) -> None:
    """A client would write them to a folder of its own machine, where the Inference Service does not find them."""
    with serving(answers("3.17.2", location)) as (url, _), pytest.raises(RegistryError) as refused:
        Registry(url)
    assert f"belong in {location}, a folder of the server" in str(refused.value)
    assert "--artifacts-destination" in str(refused.value)


@pytest.mark.parametrize("location", ["mlflow-artifacts:/1", "s3://bucket/1", "gs://bucket/1"])
@pytest.mark.parametrize("version", ["2.22.0", "3.17.2", "4.0.0rc1"])
def test_a_server_that_can_be_used_is_opened(version: str, location: str) -> None:
    """Any later version, with artifacts that are proxied or in a bucket."""
    with serving(answers(version, location)) as (url, _):
        assert Registry(url).tracking_uri == url
