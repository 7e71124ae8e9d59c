"""The form of a cluster, with its exit handler, through kfp.local: how a run ended is told, however it ended."""

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


class Listener(BaseHTTPRequestHandler):
    """Keeps what it is told."""

    told: list[Any]

    def do_POST(self) -> None:
        self.told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def listener() -> Iterator[tuple[str, list[Any]]]:
    """A URL, and what it was told."""
    handler = type("Handler", (Listener,), {"told": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler.told
    server.shutdown()
    thread.join()
    server.server_close()


def execute(data: Path, folder: Path, url: str) -> list[str]:
    """Run a cluster's pipeline here, with a cluster's parameters where they mean something; the lines it told."""
    cluster, told = KubeflowSettings(registry_uri="http://mlflow:5000", notify_url=url), []
    request = TrainingRequest(name="run-1", data="gs://data", config=config.smoke(), gate=gate.load(STRICT))
    arguments = cluster.arguments(request, PipelineVersion("v1", "", "")) | {
        "data": str(data),
        "registry_uri": str(folder),
    }
    compile_pipeline(folder / "training.yaml", form=cluster.form())
    local.execute(folder, arguments, told.append)
    return told


def test_an_end_is_told_and_the_right_branch_ran(demo: Path, tmp_path: Path, listener: tuple[str, list[Any]]):
    """Loop, collection and condition work inside of the handler as outside."""
    url, heard = listener
    told = execute(demo, tmp_path, url)
    ran = {path.parent.name for path in tmp_path.rglob(local.OUTPUTS)}
    assert ran == {"preprocess", "train", "evaluate", "reject", "notify"}
    local.check_branch({"approved": False}, ran)
    assert heard == [{"run": "run-1", "state": "SUCCEEDED", "message": ""}]
    assert "notify: run-1 succeeded" in told


def test_a_failure_is_told_and_stays_one(tmp_path: Path, listener: tuple[str, list[Any]]):
    """The cause is the task's refusal, not the notice after it."""
    url, heard = listener
    with pytest.raises(local.RunError, match="nowhere") as failure:
        execute(tmp_path / "nowhere", tmp_path, url)
    assert "notify" not in str(failure.value)
    (notice,) = heard
    assert (notice["run"], notice["state"]) == ("run-1", "FAILED")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "no url", "http://[", ""])
def test_a_notice_that_is_not_heard_fails_no_run(url: str, capfd: pytest.CaptureFixture[str]):
    """It is a warning in the log, which has the notice in any case."""
    assert set(notify("run-1", "FAILED", "train: diverged", url)) == {"seconds"}
    said = capfd.readouterr().err
    assert "spira: notify: run-1 failed: train: diverged" in said
    assert ("can't be told" in said) == bool(url)
