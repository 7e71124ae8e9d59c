"""Runs on a cluster by name, through the real kfp.Client, against a stand-in server on loopback."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import urllib3
from kubernetes import client

from pipelines.kubeflow import server as servers
from pipelines.kubeflow import versions
from pipelines.kubeflow.pods import Pods
from pipelines.kubeflow.runner import Kubeflow, runs_of
from pipelines.kubeflow.server import Server, connect
from pipelines.kubeflow.settings import GPU_TAINT, KubeflowSettings, load
from pipelines.kubeflow.versions import PipelineVersion
from pipelines.training import CompileOptions
from spira import config
from spira.config import ConfigError
from spira.delivery.runner import Run, Runner, RunnerError
from spira.delivery.training_request import TrainingRequest
from spira.deployment import targets
from spira.evaluation import gate
from spira.registry import Outcome, RegistryError
from tests.support.kfp_server import ServerState

IMAGE = "registry.example/spira-train@sha256:" + "0" * 64
CLUSTER = KubeflowSettings(registry_uri="http://mlflow:5000", claim="spira-state")
FORM = CLUSTER.form()
VERSION = PipelineVersion("v1", "id", "pipeline")
APPROVED = Outcome(
    True,
    (),
    7,
    {"noisy.by_file.accuracy": 0.9, "noisy.by_file.accuracy.low": 0.8, "seed_42.train_loss": 0.1},
)


def request(name: str = "spira-1-a1", data_digest: str = "d" * 64) -> TrainingRequest:
    return TrainingRequest(
        name=name, data="gs://bucket/data", data_digest=data_digest, config=config.smoke(), gate=gate.load()
    )


@pytest.fixture
def pods(kfp: tuple[str, ServerState]) -> Pods:
    configuration = client.Configuration(host=kfp[0])
    return Pods(client.CoreV1Api(client.ApiClient(configuration)))


def runner(server: Server, outcome: Outcome | None = APPROVED, pods: Pods | None = None) -> Kubeflow:
    version = versions.upload(server, IMAGE, FORM)
    return Kubeflow(server, CLUSTER, lambda: version, {"spira-1-a1": outcome}.get, pods)


def begun(held: ServerState, server: Server, **more: Any) -> dict:
    """A run that was ordered, moved on as the server would."""
    runner(server).start(request())
    (run,) = held.runs.values()
    run.update(more)
    return run


def test_an_order_is_a_run_with_all_that_the_pipeline_takes(server: Server, state: ServerState):
    """It has the order's name, the version by its id, and parameters that the server accepts."""
    runs: Runner = runner(server)
    assert runs.find("spira-1-a1") is None
    runs.start(request())
    (run,) = state.runs.values()
    (version,) = state.versions.values()
    given = run["runtime_config"]["parameters"]
    assert run["display_name"] == given["run_name"] == "spira-1-a1"
    assert run["pipeline_version_reference"]["pipeline_version_id"] == version["pipeline_version_id"]
    assert given["code_digest"] == version["display_name"]
    assert (given["state_uri"], given["registry_uri"], given["target"]) == ("/state", "http://mlflow:5000", "")
    assert given["seeds"] == [42]
    assert runs.find("spira-1-a1") == Run("running", "pending")


def test_to_look_makes_nothing(server: Server, state: ServerState):
    """No experiment comes of a question."""
    assert runner(server).find("spira-1-a1") is None
    assert state.experiments == {}


def test_an_order_given_again_is_the_same_run(server: Server, state: ServerState):
    """While it runs, and when it has ended, whoever gives it."""
    run = begun(state, server)
    runner(connect(server.host)).start(request())
    run["state"] = "FAILED"
    runner(server).start(request())
    assert list(state.runs) == [run["run_id"]]


def test_orders_of_other_names_are_other_runs(server: Server, state: ServerState):
    """Each is found by its own."""
    runs = runner(server)
    for name in ("a", "b"):
        runs.start(request(name))
    assert [run["display_name"] for run in state.runs.values()] == ["a", "b"]
    assert runs.find("c") is None


def test_two_that_order_at_once_leave_one_run(server: Server, state: ServerState):
    """Both look, both find nothing, both create: the first run stays."""
    both = [runner(connect(server.host)) for _ in range(2)]
    server.made_experiment_id()
    looked, count = threading.Barrier(2), iter(range(100))

    def trouble(request: str) -> None:
        if request == "GET /runs" and next(count) < 2:
            looked.wait(10)

    state.trouble = trouble
    threads = [threading.Thread(target=each.start, args=[request()]) for each in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert state.asked.count("POST /runs") == 2
    assert len(state.runs) == 1
    assert both[0].find("spira-1-a1") == Run("running", "pending")


def test_of_several_runs_the_first_is_the_order(server: Server, state: ServerState):
    """By the time of its creation, then by its id; the rest are deleted when the order is given again."""
    first = begun(state, server, state="SUCCEEDED")
    late = state.add("runs", first | {"state": "FAILED"})
    late["created_at"] = "2099-01-01T00:00:00Z"
    assert runner(server).find("spira-1-a1").state == "succeeded"
    runner(server).start(request())
    assert list(state.runs) == [first["run_id"]]


def test_a_lost_answer_makes_no_second_run(server: Server, state: ServerState):
    """The server has created it and its answer never came: it is looked for before anything else."""
    runs = runner(server)
    state.trouble = lambda request: "lost" if request == "POST /runs" else None
    runs.start(request())
    assert state.asked.count("POST /runs") == len(state.runs) == 1


def test_a_run_that_may_not_have_begun_is_said_to(server: Server, state: ServerState):
    """The request got lost: to order again is right."""
    runs = runner(server)

    def trouble(request: str) -> str | None:
        if request == "POST /runs":
            state.runs.clear()
            return "lost"
        if request == "GET /runs":
            state.runs.clear()  # what was lost came to nothing
        return None

    state.trouble = trouble
    with pytest.raises(RunnerError, match="may not have begun, order it again"):
        runs.start(request())


def test_a_run_is_found_among_many(server: Server, state: ServerState, monkeypatch: pytest.MonkeyPatch):
    """The server gives a page at a time."""
    monkeypatch.setattr(servers, "PAGE", 2)
    runs = runner(server)
    for number in range(5):
        runs.start(request(f"run-{number}"))
    asked = state.asked.count("GET /runs")
    assert {run.display_name for run in runs_of(server)} == {f"run-{number}" for number in range(5)}
    assert state.asked.count("GET /runs") == asked + 3
    assert runs.find("run-0") == Run("running", "pending")


@pytest.mark.parametrize("said", ["PENDING", "RUNNING", "CANCELING", "PAUSED", "RUNTIME_STATE_UNSPECIFIED"])
def test_a_run_that_has_not_ended_runs(server: Server, state: ServerState, said: str):
    """Whatever Kubeflow calls it."""
    begun(state, server, state=said)
    assert runner(server).find("spira-1-a1") == Run("running", said.lower())


def test_a_success_has_its_verdict(server: Server, state: ServerState):
    """From the model repository, by the run's name; of the metrics those of the paper's test."""
    begun(state, server, state="SUCCEEDED")
    assert runner(server).find("spira-1-a1") == Run(
        "succeeded", approved=True, model_version=7, metrics={"accuracy": 0.9}
    )
    rejected = runner(server, Outcome(False, ("accuracy 0.6 is below 0.8",), None, {}))
    assert rejected.find("spira-1-a1") == Run("succeeded", reasons=("accuracy 0.6 is below 0.8",))


def test_a_success_without_a_verdict_has_failed(server: Server, state: ServerState):
    """Kubeflow skips a branch whose condition it can't read, and is content."""
    begun(state, server, state="SUCCEEDED")
    found = runner(server, None).find("spira-1-a1")
    assert (found.state, found.approved) == ("failed", False)
    assert "no verdict" in found.message


def test_a_verdict_that_can_not_be_asked_for_is_no_verdict(server: Server, state: ServerState):
    """MLflow is away for the moment: nothing is decided, and the runner can't be asked now."""
    begun(state, server, state="SUCCEEDED")

    def away(name: str) -> None:
        raise RegistryError("the MLflow store can't be used")

    runs = runner(server)
    runs.verdict = away
    with pytest.raises(RunnerError, match="verdict of run spira-1-a1 can't be asked for: the MLflow store"):
        runs.find("spira-1-a1")


def test_a_failure_tells_the_task_and_its_error(server: Server, state: ServerState):
    """Of tasks within tasks the innermost, by the name that it has in the pipeline."""
    details = [
        task("root", "spira-training-x7k", children=["loop"]),
        task("loop", "seeds", children=["train"]),
        task("train", "Train", children=["pod-1"]),
        task("pod", "executor", pod_name="pod-1", error={"code": 2, "message": "main: Error\n (exit code 1)"}),
        task("fine", "Preprocess", state="SUCCEEDED"),
    ]
    begun(state, server, state="FAILED", run_details={"task_details": details})
    assert runner(server).find("spira-1-a1") == Run("failed", "Train failed: main: Error (exit code 1)")


def test_a_failure_of_no_task_tells_that_of_the_run(server: Server, state: ServerState):
    """One that never got on was ended by its deadline; one that was cancelled says at least that."""
    history = [{"state": "FAILED", "error": {"code": 2, "message": "Workflow exceeded its deadline"}}]
    run = begun(state, server, state="FAILED", state_history=history)
    assert runner(server).find("spira-1-a1") == Run("failed", "Workflow exceeded its deadline")
    run.update(state="CANCELED", state_history=[])
    assert runner(server).find("spira-1-a1") == Run("failed", "Kubeflow says CANCELED, and no more")


def task(id: str, name: str, state: str = "FAILED", children: tuple[str, ...] | list[str] = (), **more: Any) -> dict:
    links = [{"pod_name": child} if child.startswith("pod") else {"task_id": child} for child in children]
    return {"task_id": id, "display_name": name, "state": state, "child_tasks": links} | more


def pod(run_id: str, phase: str, **status: Any) -> dict:
    metadata = {
        "name": "spira-train-1",
        "labels": {"pipeline/runid": run_id},
        "annotations": {"pipelines.kubeflow.org/task_name": "train"},
    }
    return {"metadata": metadata, "spec": {"containers": [{"name": "main"}]}, "status": {"phase": phase} | status}


NO_HELP = "preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
UNCLAIMED = f"no new claims to deallocate, {NO_HELP}"
SELECTOR = "node(s) didn't match Pod's node affinity/selector"
SAID = {
    f"0/2 nodes are available: 1 Insufficient nvidia.com/gpu, 1 {SELECTOR}. {UNCLAIMED}": "gpu_count=0",
    f"0/2 nodes are available: 2 Insufficient cpu. {NO_HELP}": "ask for less cpu",
    f"0/2 nodes are available: 1 node(s) had untolerated taint {{gpu: x}}, 1 {SELECTOR}. {NO_HELP}": "tolerations",
    f"0/2 nodes are available: 2 {SELECTOR}. {NO_HELP}": "node_selector",
}
"""What a scheduler says, and a word of what is to be done."""


@pytest.mark.parametrize("why", SAID)
def test_a_pod_that_no_node_takes_is_explained(server: Server, state: ServerState, pods: Pods, why: str):
    """Kubeflow would call the run RUNNING for ever."""
    run = begun(state, server, state="RUNNING")
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why}
    state.pods = [pod(run["run_id"], "Pending", conditions=[unscheduled]), pod("another", "Pending")]
    found = runner(server, pods=pods).find("spira-1-a1")
    assert found is not None
    assert found.message.startswith("train waits: 0/")
    assert SAID[why] in found.message
    assert "preempt" not in found.message.lower()


def test_an_image_that_can_not_be_pulled_is_explained(server: Server, state: ServerState, pods: Pods):
    """Scheduled, and still waiting; one that is only being started is no news."""
    run = begun(state, server, state="RUNNING")
    held = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}
    starting = {"waiting": {"reason": "ContainerCreating"}}
    statuses = [
        {"name": name, "state": each, "image": "", "imageID": "", "ready": False, "restartCount": 0}
        for name, each in (("main", held), ("wait", starting))
    ]
    state.pods = [pod(run["run_id"], "Pending", containerStatuses=statuses)]
    found = runner(server, pods=pods).find("spira-1-a1")
    assert found == Run("running", "train waits: ImagePullBackOff: Back-off pulling image")


def test_a_refusal_is_told_in_the_stages_own_words(server: Server, state: ServerState, pods: Pods):
    """Kubeflow knows an exit code only; the pod's log has the line."""
    run = begun(state, server, state="FAILED", state_history=[])
    state.pods = [pod(run["run_id"], "Failed")]
    state.logs["spira-train-1"] = "I0101 launcher\nspira: train: seed 42\n  spira error: a GPU is asked for\nTraceback"
    assert runner(server, pods=pods).find("spira-1-a1") == Run("failed", "a GPU is asked for")


def test_pods_that_can_not_be_asked_are_no_trouble(server: Server, state: ServerState):
    """The answer says so, and is an answer."""
    begun(state, server, state="RUNNING")
    configuration = client.Configuration(host=f"http://127.0.0.1:{free_port()}")
    configuration.retries = False
    found = runner(server, pods=Pods(client.CoreV1Api(client.ApiClient(configuration)))).find("spira-1-a1")
    assert found.state == "running"
    assert "can't be asked about its pods" in found.message
    assert "\n" not in found.message


def test_a_server_that_is_not_there_is_said_quickly():
    """One line, with what to do."""
    began = time.monotonic()
    with pytest.raises(RunnerError, match=r"can't be reached: .*refused.*: is it up, and --host right\?$") as refusal:
        connect(f"http://127.0.0.1:{free_port()}")
    assert "\n" not in str(refusal.value)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("host", ["", "ml-pipeline:8888", "file:///etc"])
def test_a_server_without_a_url_is_refused(host: str):
    """The option and the variable stand in the message."""
    with pytest.raises(RunnerError, match="--host or KF_PIPELINES_ENDPOINT"):
        connect(host)


def test_a_server_that_goes_away_is_an_error_of_one_line(kfp: tuple[str, ServerState], monkeypatch: pytest.MonkeyPatch):
    """In the middle of things; found out in seconds."""
    monkeypatch.setattr(servers, "SECONDS", 1)
    server = connect(kfp[0])
    runs = runner(server)
    server.client.runs.api_client.configuration.host = f"http://127.0.0.1:{free_port()}"
    began = time.monotonic()
    for ask in (lambda: runs.find("a"), lambda: runs.start(request())):
        with pytest.raises(
            RunnerError, match=r"can't be (looked up|begun): Kubeflow at .* can't be reached"
        ) as refusal:
            ask()
        assert "\n" not in str(refusal.value)
    assert time.monotonic() - began < 10


def test_a_server_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    """It takes connections, and says nothing."""
    monkeypatch.setattr(servers, "SECONDS", 1)
    monkeypatch.setattr(servers, "PATIENCE", urllib3.Retry(total=1))
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        with pytest.raises(RunnerError, match="timed out"):
            connect(f"http://127.0.0.1:{deaf.getsockname()[1]}")


def test_a_busy_server_is_asked_again(server: Server, state: ServerState):
    """What was only asked; for a while."""
    runs = runner(server)
    busy = iter([True, True])
    state.trouble = lambda request: "busy" if request == "GET /experiments" and next(busy, False) else None
    assert runs.find("a") is None
    state.trouble = lambda request: "busy"
    with pytest.raises(RunnerError, match="too many 503 error responses"):
        runs.find("a")


def test_what_the_server_refuses_is_told_without_its_stack(server: Server, state: ServerState):
    """The first line of what it says."""
    runs = runner(server)
    state.versions.clear()
    with pytest.raises(RunnerError, match=r"says 404: no such experiment or version$"):
        runs.start(request())
    assert state.runs == {}


def test_a_version_is_uploaded_once(server: Server, state: ServerState):
    """By the digest of its content; another image or form is another version, and the latest is known."""
    first = versions.upload(server, IMAGE, CompileOptions())
    assert versions.upload(connect(server.host), IMAGE, CompileOptions()) == first
    second = versions.upload(server, IMAGE, CompileOptions(claim="spira-state", cached=False))
    assert second.name.endswith("-uncached")
    assert [each["display_name"] for each in state.versions.values()] == [first.name, second.name]
    assert versions.latest(server) == second


def test_two_that_upload_at_once_have_one_version(server: Server, state: ServerState):
    """The one that comes late takes what is there."""
    version = versions.upload(server, IMAGE, CompileOptions())
    unseen, listed = {"pipelines", "pipeline_versions"}, server.all

    def late(call: Any, what: str, *arguments: Any, **query: Any) -> list[Any]:
        if what in unseen:
            unseen.remove(what)
            return []
        return listed(call, what, *arguments, **query)

    server.all = late
    assert versions.upload(server, IMAGE, CompileOptions()) == version
    assert len(state.versions) == len(state.pipelines) == 1


def test_without_a_version_there_is_no_latest(server: Server):
    """The message says how one comes there."""
    with pytest.raises(RunnerError, match="no version of spira-training: upload one with --image"):
        versions.latest(server)


def test_an_image_by_tag_is_a_version_of_these_sources(monkeypatch: pytest.MonkeyPatch):
    """A tag says nothing of what the image holds: the code's digest stands in."""
    names = set()
    for code in ("1", "2"):
        monkeypatch.setenv("SPIRA_IMAGE_DIGEST", code)
        names.add(versions.content("spira-train:dev", CompileOptions())[0])
        names.add(versions.content(IMAGE, CompileOptions())[0])
    assert len(names) == 3


def test_results_are_reused_only_of_the_same_pinned_data():
    """Where the data isn't pinned, the code's digest is the run's own."""
    pinned, loose = request(), request(data_digest="")
    assert CLUSTER.arguments(pinned, VERSION)["code_digest"] == "v1"
    assert CLUSTER.arguments(loose, VERSION)["code_digest"] == "v1 spira-1-a1"


def test_a_gpu_is_three_parameters():
    """The resource, its nodes, and the taint that such nodes usually have; with it, no training without."""
    labels = {"cloud.google.com/gke-accelerator": "nvidia-tesla-t4"}
    cluster = CLUSTER.model_copy(update={"gpu_count": 1, "node_selector": labels})
    given = cluster.arguments(request(), VERSION)
    assert (given["gpu_count"], given["node_selector"], given["tolerations"]) == ("1", labels, [GPU_TAINT])
    assert (given["device"], given["require_gpu"]) == ("cuda", True)
    bare = CLUSTER.arguments(request(), VERSION)
    assert (bare["gpu_count"], bare["node_selector"], bare["tolerations"]) == ("0", {}, [])
    assert (bare["device"], bare["require_gpu"]) == ("auto", False)


def test_what_pods_can_not_reach_is_refused():
    """A folder of this machine, an MLflow that is a file."""
    here = request("a", data_digest="").model_copy(update={"data": "/home/me/data"})
    with pytest.raises(RunnerError, match="pods don't see this machine"):
        CLUSTER.arguments(here, VERSION)
    with pytest.raises(RunnerError, match="URL of MLflow for pods"):
        KubeflowSettings(registry_uri="sqlite:///mlflow.db").arguments(request(), VERSION)


def test_a_version_for_another_volume_is_refused(server: Server):
    """ServerState that is written where no volume is would be gone with the pod."""
    version = versions.upload(server, IMAGE, CompileOptions(claim="another"))
    with pytest.raises(RunnerError, match="mounts claim another, and the cluster's is spira-state: upload"):
        CLUSTER.arguments(request(), version)
    assert versions.upload(server, IMAGE, CompileOptions()).claim == ""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_a_run_deploys_by_itself_only_where_the_cluster_says_so(tmp_path: Path):
    """As the stage reads it; a place that is no pod's is refused."""
    (tmp_path / "cluster.yaml").write_text(
        "registry_uri: http://mlflow:5000\ntarget: {kind: kserve, namespace: spira-serving}\n"
    )
    told = load(tmp_path / "cluster.yaml").arguments(request(), VERSION)["target"]
    assert targets.read(told) == targets.KServeTarget(kind="kserve", namespace="spira-serving")
    assert CLUSTER.arguments(request(), VERSION)["target"] == ""
    with pytest.raises(ConfigError, match=r"target.*namespace"):
        load(None, ["target={kind: local, serving: /state/serving}"])
