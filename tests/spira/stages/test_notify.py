"""The notice at the end of a run, from a pipeline with exit handler as on a cluster, run by kfp.local."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipelines import local
from pipelines.kubeflow.settings import KubeflowSettings
from pipelines.kubeflow.versions import PipelineVersion
from pipelines.training import compile_pipeline
from spira import config
from spira.delivery.training_request import TrainingRequest
from spira.evaluation import gate
from spira.stages.notify import notify
from tests.support.gatefiles import STRICT

pytestmark = pytest.mark.integration


class NoticeHandler(BaseHTTPRequestHandler):
    """HTTP handler that records the notices it receives."""

    notices: list[Any]

    def do_POST(self) -> None:
        self.notices.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[Any]]]:
    """URL of a running server, and the notices that it received."""
    handler = type("Handler", (NoticeHandler,), {"notices": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler.notices
    server.shutdown()
    thread.join()
    server.server_close()


def execute(data: Path, folder: Path, url: str) -> list[str]:
    """Run a cluster's pipeline on this machine with a cluster's parameters, and return the lines it logged."""
    cluster, lines = KubeflowSettings(registry_uri="http://mlflow:5000", notify_url=url), []
    request = TrainingRequest(name="run-1", data="gs://data", config=config.smoke(), gate=gate.load(STRICT))
    arguments = cluster.arguments(request, PipelineVersion("v1", "", "")) | {
        "data": str(data),
        "registry_uri": str(folder),
    }
    compile_pipeline(folder / "training.yaml", options=cluster.compile_options())
    local.execute(folder, arguments, lines.append)
    return lines


def test_a_finished_run_is_reported(demo: Path, tmp_path: Path, receiver: tuple[str, list[Any]]):
    """Loop, collection and condition work inside the exit handler as they do outside, and the right branch runs."""
    url, notices = receiver
    lines = execute(demo, tmp_path, url)
    ran = {path.parent.name for path in tmp_path.rglob(local.OUTPUTS)}
    assert ran == {"preprocess", "train", "evaluate", "reject", "notify"}
    local.check_branch(False, ran)
    assert notices == [{"run": "run-1", "state": "SUCCEEDED", "message": ""}]
    assert "notify: run-1 succeeded" in lines


def test_a_failed_run_is_reported_and_fails(tmp_path: Path, receiver: tuple[str, list[Any]]):
    """The error is that of the failed task, not of the notice after it."""
    url, notices = receiver
    with pytest.raises(local.RunError, match="nowhere") as failure:
        execute(tmp_path / "nowhere", tmp_path, url)
    assert "notify" not in str(failure.value)
    (notice,) = notices
    assert (notice["run"], notice["state"]) == ("run-1", "FAILED")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "no url", "http://[", ""])
def test_an_undelivered_notice_does_not_fail_the_run(url: str, capfd: pytest.CaptureFixture[str]):
    """The log has the notice in any case, and a warning."""
    assert set(notify("run-1", "FAILED", "train: diverged", url)) == {"seconds"}
    log = capfd.readouterr().err
    assert "spira: notify: run-1 failed: train: diverged" in log
    assert ("the notice was not delivered" in log) == bool(url)
