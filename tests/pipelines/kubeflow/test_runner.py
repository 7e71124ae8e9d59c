"""Runs on Kubeflow by name, through the real kfp.Client, against a stand-in server on loopback."""

from __future__ import annotations

import getpass
import threading
from pathlib import Path
from typing import Any

import pytest

from pipelines.kubeflow import server as servers
from pipelines.kubeflow import versions
from pipelines.kubeflow.runner import Kubeflow, list_runs
from pipelines.kubeflow.server import Server, connect
from pipelines.kubeflow.settings import KubeflowSettings, load
from pipelines.kubeflow.versions import PipelineVersion
from pipelines.parameters import GPU_TAINT
from pipelines.training import CompileOptions
from spira import config
from spira.config import ConfigError
from spira.delivery import operator_commands
from spira.delivery.runner import Run, Runner, RunnerError
from spira.delivery.training_request import TrainingRequest
from spira.deployment import targets
from spira.evaluation import gate
from spira.registry import Outcome, RegistryError
from tests.support.in_memory_world import InMemoryWorld
from tests.support.kfp_server import ServerState

pytestmark = pytest.mark.integration

IMAGE = "registry.example/spira-train@sha256:" + "0" * 64
CLUSTER = KubeflowSettings(registry_uri="http://mlflow:5000", claim="spira-state")
OPTIONS = CLUSTER.compile_options()
VERSION = PipelineVersion("v1", "id", "pipeline")
APPROVED = Outcome(
    True,
    (),
    7,
    {"accuracy": 0.9},
)


def request(name: str = "spira-1-a1", data_digest: str = "d" * 64) -> TrainingRequest:
    return TrainingRequest(
        name=name, data="gs://bucket/data", data_digest=data_digest, config=config.smoke(), gate=gate.load()
    )


def runner(server: Server, outcome: Outcome | None = APPROVED) -> Kubeflow:
    version = versions.upload(server, IMAGE, OPTIONS)
    return Kubeflow(server, CLUSTER, lambda: version, {"spira-1-a1": outcome}.get)


def begun(held: ServerState, server: Server, **more: Any) -> dict:
    """A run that was ordered, moved on as the server would."""
    runner(server).start(request())
    (run,) = held.runs.values()
    run.update(more)
    return run


def test_a_started_run_has_name_version_and_parameters(server: Server, state: ServerState):
    """The server accepts exactly the parameters of the pipeline."""
    runs: Runner = runner(server)
    assert runs.find("spira-1-a1") is None
    runs.start(request())
    (run,) = state.runs.values()
    (version,) = state.versions.values()
    parameters = run["runtime_config"]["parameters"]
    assert run["display_name"] == "spira-1-a1"
    assert run["description"].startswith("Data gs://bucket/data (pinned by dddddddddddd); ")
    assert run["pipeline_version_reference"]["pipeline_version_id"] == version["pipeline_version_id"]
    assert "spira-1-a1" not in parameters.values(), "a clone keeps all parameters"
    assert parameters["state_uri"] == "/state"
    assert parameters["registry_uri"] == "http://mlflow:5000"
    assert parameters["seeds"] == [42]
    assert runs.find("spira-1-a1") == Run("running", "pending")


def test_a_lookup_creates_nothing(server: Server, state: ServerState):
    """In particular, it does not create the experiment."""
    assert runner(server).find("spira-1-a1") is None
    assert state.experiments == {}


def test_a_request_that_is_started_again_is_the_same_run(server: Server, state: ServerState):
    """While it runs and after its end, from any client."""
    run = begun(state, server)
    runner(connect(server.host)).start(request())
    run["state"] = "FAILED"
    runner(server).start(request())
    assert list(state.runs) == [run["run_id"]]


def test_requests_of_different_names_are_different_runs(server: Server, state: ServerState):
    """An unknown name has no run."""
    runs = runner(server)
    for name in ("a", "b"):
        runs.start(request(name))
    assert [run["display_name"] for run in state.runs.values()] == ["a", "b"]
    assert runs.find("c") is None


def test_two_clients_that_start_at_once_leave_one_run(server: Server, state: ServerState):
    """Both find no run and create one; the first run stays."""
    both = [runner(connect(server.host)) for _ in range(2)]
    server.get_or_create_experiment_id()
    first_listings, count = threading.Barrier(2), iter(range(100))

    def trouble(request: str) -> None:
        if request == "GET /runs" and next(count) < 2:
            first_listings.wait(10)

    state.trouble = trouble
    threads = [threading.Thread(target=each.start, args=[request()]) for each in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert state.requests.count("POST /runs") == 2
    assert len(state.runs) == 1
    assert both[0].find("spira-1-a1") == Run("running", "pending")


def test_a_cancelled_run_is_terminated_once(server: Server, state: ServerState):
    """Every run of the name; again only if it has not ended, and nothing for a name without a run."""
    run = begun(state, server, state="RUNNING")
    second = state.add("runs", run | {"state": "PENDING"})
    second["created_at"] = "2099-01-01T00:00:00Z"
    runs = runner(server)
    for _ in range(2):
        runs.cancel("spira-1-a1")
    runs.cancel("another")
    assert (run["state"], second["state"]) == ("CANCELING", "CANCELING")
    assert runs.find("spira-1-a1") == Run("running", "canceling")
    assert len([request for request in state.requests if request.endswith(":terminate")]) == 2
    run["state"] = "CANCELED"
    runs.cancel("spira-1-a1")
    runs.start(request())
    assert runs.find("spira-1-a1").state == "failed"


def test_continuous_delivery_cancels_a_run(server: Server, state: ServerState):
    """It waits until Kubeflow has ended the run, which has then failed for the operator's reason."""
    world = InMemoryWorld()
    world.runner = runner(server)  # type: ignore[assignment]
    world.reconciler().tick()
    (run,) = state.runs.values()
    operator_commands.cancel(world.ledger, "wrong bucket")
    for _ in range(2):
        assert "waiting for its end" in " ".join(world.reconciler().tick().decision.notes)
    assert run["state"] == "CANCELING"
    run["state"] = "CANCELED"
    (done,) = world.reconciler().tick().done
    assert done == f"run {run['display_name']} failed: cancelled by {getpass.getuser()}: wrong bucket"
    assert world.reconciler().tick().done == ()


def test_a_run_that_ends_while_it_is_cancelled_keeps_its_end(server: Server, state: ServerState):
    """Kubeflow refuses to terminate it; a refusal for another reason is an error."""
    run = begun(state, server, state="RUNNING")
    runs = runner(server)

    def end(request: str) -> None:
        if request.endswith(":terminate"):
            run["state"] = "SUCCEEDED"

    state.trouble = end
    runs.cancel("spira-1-a1")
    assert run["state"] == "SUCCEEDED"
    run["state"] = "RUNNING"
    state.trouble = lambda request: "expired" if request.endswith(":terminate") else None
    with pytest.raises(RunnerError, match=r"run spira-1-a1 cannot be terminated: .*token has expired"):
        runs.cancel("spira-1-a1")


def test_the_first_of_several_runs_counts(server: Server, state: ServerState):
    """It is the first by creation time, then by id; a repeated start deletes the others."""
    first = begun(state, server, state="SUCCEEDED")
    late = state.add("runs", first | {"state": "FAILED"})
    late["created_at"] = "2099-01-01T00:00:00Z"
    assert runner(server).find("spira-1-a1").state == "succeeded"
    runner(server).start(request())
    assert list(state.runs) == [first["run_id"]]


def test_a_lost_response_causes_no_second_run(server: Server, state: ServerState):
    """The server has created the run, so the runner finds it."""
    runs = runner(server)
    state.trouble = lambda request: "lost" if request == "POST /runs" else None
    runs.start(request())
    assert state.requests.count("POST /runs") == len(state.runs) == 1


def test_a_lost_request_is_an_error_that_advises_a_retry(server: Server, state: ServerState):
    """The run does not exist after the failed request."""
    runs = runner(server)

    def trouble(request: str) -> str | None:
        if request == "POST /runs":
            state.runs.clear()
            return "lost"
        if request == "GET /runs":
            state.runs.clear()  # the lost request has had no effect
        return None

    state.trouble = trouble
    with pytest.raises(RunnerError, match="may not have started; submit it again"):
        runs.start(request())


def test_a_run_is_found_among_many(server: Server, state: ServerState, monkeypatch: pytest.MonkeyPatch):
    """The listing has three pages."""
    monkeypatch.setattr(servers, "PAGE_SIZE", 2)
    runs = runner(server)
    for number in range(5):
        runs.start(request(f"run-{number}"))
    before = state.requests.count("GET /runs")
    assert {run.display_name for run in list_runs(server)} == {f"run-{number}" for number in range(5)}
    assert state.requests.count("GET /runs") == before + 3
    assert runs.find("run-0") == Run("running", "pending")


@pytest.mark.parametrize("name", ["PENDING", "RUNNING", "CANCELING", "PAUSED", "RUNTIME_STATE_UNSPECIFIED"])
def test_a_run_that_has_not_ended_is_running(server: Server, state: ServerState, name: str):
    """The message has Kubeflow's name of the state."""
    begun(state, server, state=name)
    assert runner(server).find("spira-1-a1") == Run("running", name.lower())


def test_a_success_has_its_verdict(server: Server, state: ServerState):
    """MLflow has the verdict by the run's name; the metrics are those of the paper's test."""
    begun(state, server, state="SUCCEEDED")
    assert runner(server).find("spira-1-a1") == Run(
        "succeeded", approved=True, model_version=7, metrics={"accuracy": 0.9}
    )
    rejected = runner(server, Outcome(False, ("accuracy 0.6 is below 0.8",), None, {}))
    assert rejected.find("spira-1-a1") == Run("succeeded", reasons=("accuracy 0.6 is below 0.8",))


def test_a_success_without_a_verdict_has_failed(server: Server, state: ServerState):
    """Kubeflow skips a branch whose condition it cannot read, and reports success."""
    begun(state, server, state="SUCCEEDED")
    run = runner(server, None).find("spira-1-a1")
    assert (run.state, run.approved) == ("failed", False)
    assert "no verdict" in run.message


def test_a_verdict_that_cannot_be_read_is_a_runner_error(server: Server, state: ServerState):
    """MLflow is unreachable, so it is not known whether the run has a verdict."""
    begun(state, server, state="SUCCEEDED")

    def unreachable(name: str) -> None:
        raise RegistryError("the MLflow store cannot be used")

    runs = runner(server)
    runs.find_outcome = unreachable
    with pytest.raises(RunnerError, match="verdict of run spira-1-a1 cannot be read: the MLflow store"):
        runs.find("spira-1-a1")


def test_an_error_of_the_server_has_no_stack_trace(server: Server, state: ServerState):
    """The message has its first line."""
    runs = runner(server)
    state.versions.clear()
    with pytest.raises(RunnerError, match=r"returned 404: no such experiment or version$"):
        runs.start(request())
    assert state.runs == {}


def test_a_version_is_uploaded_once(server: Server, state: ServerState):
    """Its name has the digest of its content: another image, or other options, make another version."""
    first = versions.upload(server, IMAGE, CompileOptions())
    assert versions.upload(connect(server.host), IMAGE, CompileOptions()) == first
    second = versions.upload(server, IMAGE, CompileOptions(claim="spira-state"))
    assert [version["display_name"] for version in state.versions.values()] == [first.name, second.name]
    assert versions.latest(server) == second


def test_two_clients_that_upload_at_once_make_one_version(server: Server, state: ServerState):
    """The second client gets empty listings first, and then finds what the first has created."""
    version = versions.upload(server, IMAGE, CompileOptions())
    empty_first, list_all = {"pipelines", "pipeline_versions"}, server.list_all

    def list_late(call: Any, field: str, *arguments: Any, **query: Any) -> list[Any]:
        if field in empty_first:
            empty_first.remove(field)
            return []
        return list_all(call, field, *arguments, **query)

    server.list_all = list_late
    assert versions.upload(server, IMAGE, CompileOptions()) == version
    assert len(state.versions) == len(state.pipelines) == 1


def test_without_a_version_there_is_no_latest(server: Server):
    """The message has the option that uploads one."""
    with pytest.raises(RunnerError, match="no version of spira-training: upload one with --image"):
        versions.latest(server)


def test_a_version_with_an_image_by_tag_depends_on_these_sources(monkeypatch: pytest.MonkeyPatch):
    """A tag does not identify the code of an image, so the digest of the sources is added."""
    names = set()
    for code in ("1", "2"):
        monkeypatch.setattr("spira.lineage.code_digest", lambda code=code: code)
        names.add(versions.content("spira-train:dev", CompileOptions())[0])
        names.add(versions.content(IMAGE, CompileOptions())[0])
    assert len(names) == 3


def test_gpu_settings_become_parameters():
    """Node selector and the usual toleration; training then fails where there is no GPU."""
    labels = {"cloud.google.com/gke-accelerator": "nvidia-tesla-t4"}
    cluster = CLUSTER.model_copy(update={"gpu_count": 1, "node_selector": labels})
    given = cluster.arguments(request(), VERSION)
    assert (given["node_selector"], given["tolerations"]) == (labels, [GPU_TAINT])
    assert (given["device"], given["require_gpu"]) == ("cuda", True)
    bare = CLUSTER.arguments(request(), VERSION)
    assert (bare["node_selector"], bare["tolerations"]) == ({}, [])
    assert (bare["device"], bare["require_gpu"]) == ("auto", False)


def test_addresses_that_pods_cannot_reach_are_refused():
    """A folder of this machine, an MLflow that is a file."""
    here = request("a", data_digest="").model_copy(update={"data": "/home/me/data"})
    with pytest.raises(RunnerError, match="pods cannot reach this machine"):
        CLUSTER.arguments(here, VERSION)
    with pytest.raises(RunnerError, match="URL of MLflow for pods"):
        KubeflowSettings(registry_uri="sqlite:///mlflow.db").arguments(request(), VERSION)


def test_a_version_with_another_claim_is_refused(server: Server):
    """State that is written without the mounted volume would be lost with the pod."""
    version = versions.upload(server, IMAGE, CompileOptions(claim="another"))
    with pytest.raises(RunnerError, match="compiled for claim another, and the cluster's is spira-state: upload"):
        CLUSTER.arguments(request(), version)


def test_a_run_deploys_only_if_the_cluster_file_has_a_target(tmp_path: Path):
    """The stage can read the parameter; a target that pods cannot reach is refused."""
    (tmp_path / "cluster.yaml").write_text(
        "registry_uri: http://mlflow:5000\ntarget: {kind: kserve, namespace: spira-serving}\n"
    )
    deploys = PipelineVersion("v1", "id", "pipeline", parameters=frozenset(["target"]))
    cluster = load(tmp_path / "cluster.yaml")
    target = targets.KServeTarget(kind="kserve", namespace="spira-serving")
    assert targets.read(cluster.arguments(request(), deploys)["target"]) == target
    assert targets.read(cluster.compile_options().target) == target
    assert CLUSTER.arguments(request(), deploys)["target"] == ""
    assert "target" not in CLUSTER.arguments(request(), VERSION)
    with pytest.raises(RunnerError, match="v1 was compiled without target, and the cluster has one: upload"):
        cluster.arguments(request(), VERSION)
    with pytest.raises(ConfigError, match=r"target.*namespace"):
        load(None, ["target={kind: local, serving: /state/serving}"])
