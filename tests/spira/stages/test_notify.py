"""The notice at the end of a run, from a pipeline with exit handler as on a cluster, run by kfp.local."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
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
from spira.registry import Registry, local_uri
from spira.stages.notify import notify
from tests.support.gatefiles import STRICT
from tests.support.packages import make_package
from tests.support.verdicts import make_verdict

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


def execute(data: Path, folder: Path, url: str, gate_file: Path = STRICT) -> list[str]:
    """Run a cluster's pipeline on this machine with a cluster's parameters, and return the lines it logged."""
    cluster, lines = KubeflowSettings(registry_uri="http://mlflow:5000", notify_url=url), []
    request = TrainingRequest(name="run-1", data="gs://data", config=config.smoke(), gate=gate.load(gate_file))
    version = PipelineVersion("v1", "", "", parameters=frozenset(["notify_url"]), cached=False)
    arguments = cluster.arguments(request, version) | {"data": str(data), "registry_uri": str(folder)}
    compile_pipeline(folder / "training.yaml", options=replace(cluster.compile_options(), run_name="run-1"))
    local.execute(folder, arguments, lines.append)
    return lines


def test_a_finished_run_is_reported_with_its_verdict(demo: Path, tmp_path: Path, receiver: tuple[str, list[Any]]):
    """Loop, collection and condition work inside the exit handler as they do outside, and the right branch runs."""
    url, notices = receiver
    lines = execute(demo, tmp_path, url)
    ran = {path.parent.name for path in tmp_path.rglob(local.OUTPUTS)}
    assert ran == {"preprocess", "train", "evaluate", "reject", "notify"}
    local.check_branch(False, ran)
    (notice,) = notices
    assert (notice["run"], notice["state"]) == ("run-1", "REJECTED")
    assert notice["message"].startswith("rejected: ")
    assert f"notify: run-1 rejected: {notice['message'].removeprefix('rejected: ')}" in lines


def test_a_failed_run_is_reported_and_fails(tmp_path: Path, receiver: tuple[str, list[Any]]):
    """The error is that of the failed task, not of the notice after it."""
    url, notices = receiver
    with pytest.raises(local.RunError, match="nowhere") as failure:
        execute(tmp_path / "nowhere", tmp_path, url)
    assert "notify" not in str(failure.value)
    (notice,) = notices
    assert (notice["run"], notice["state"]) == ("run-1", "FAILED")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of MLflow with an approved and a rejected run."""
    folder = tmp_path_factory.mktemp("registry")
    models = Registry(local_uri(folder))
    approved, rejected = make_verdict(), make_verdict(approved=False, reasons=["accuracy 0.6", "AUROC 0.5"])
    package = make_package(folder / "package", seed=1)
    tags = {"pipeline_run": "good"}
    models.register(package, models.log_run("good", {}, {}, approved, {}, tags), approved, tags)
    models.log_run("bad", {}, {}, rejected, {}, {"pipeline_run": "bad"})
    return folder


@pytest.mark.parametrize(
    ("run", "state", "message", "expected"),
    [
        ("good", "COMPLETE", "", ("SUCCEEDED", "approved, version 1")),
        ("good", "SUCCEEDED", "", ("SUCCEEDED", "approved, version 1")),
        ("good", "RUNNING", "", ("SUCCEEDED", "approved, version 1")),
        ("good", "FAILED", "deploy failed", ("FAILED", "deploy failed (approved, version 1)")),
        ("bad", "COMPLETE", "", ("REJECTED", "rejected: accuracy 0.6; AUROC 0.5")),
        ("lost", "FAILED", "", ("FAILED", "Kubeflow gives no reason; see spira pipeline status")),
        ("lost", "COMPLETE", "", ("FAILED", "the run ended without a verdict")),
        ("lost", "RUNNING", "", ("FAILED", "the run ended without a verdict")),
        ('it\'s "new"', "COMPLETE", "", ("ENDED", "the verdict cannot be read: ")),
    ],
)
def test_the_notice_has_the_state_that_the_run_ended_in(
    registry: Path, receiver: tuple[str, list[Any]], run: str, state: str, message: str, expected: tuple[str, str]
):
    """Kubeflow reports COMPLETE, or RUNNING where the cache answered the trainings, and never SUCCEEDED."""
    url, notices = receiver
    notify(run, state, message, url, registry_uri=str(registry))
    (notice,) = notices
    assert (notice["run"], notice["state"]) == (run, expected[0])
    assert notice["message"].startswith(expected[1])


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "no url", "http://[", ""])
def test_an_undelivered_notice_does_not_fail_the_run(registry: Path, url: str, capfd: pytest.CaptureFixture[str]):
    """The log has the notice in any case, and a warning."""
    notify("run-1", "FAILED", "train: diverged", url, registry_uri=str(registry))
    log = capfd.readouterr().err
    assert "spira: notify: run-1 failed: train: diverged" in log
    assert ("the notice was not delivered" in log) == bool(url)
