"""Causes of failures and of waiting, from the tasks and pods as Kubeflow Pipelines 2.17 and Argo 4 show them."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import yaml
from kubernetes import client

from pipelines.kubeflow.failures import APPROVED_TASK, REJECTED_TASK, Cause, to_text
from pipelines.kubeflow.overview import runs
from pipelines.kubeflow.pods import Pods
from pipelines.kubeflow.runner import ORPHAN, to_run
from pipelines.kubeflow.server import Server
from pipelines.training import COMPILED
from spira.delivery.runner import Run
from tests.support.argo_workflow import Workflow, container
from tests.support.kfp_server import ServerState

pytestmark = pytest.mark.integration

LOOP = "for-loop-2(0)"
GPU_ERROR = "spira: train: seed 42, lstm\nspira error: a GPU is required, and torch finds none\nTraceback"


@pytest.fixture
def pods(kfp: tuple[str, ServerState]) -> Pods:
    """Pods of the stand-in."""
    return Pods(client.CoreV1Api(client.ApiClient(client.Configuration(host=kfp[0]))))


@pytest.fixture
def workflow(state: ServerState) -> Workflow:
    """Workflow of a run on the server, after preprocess."""
    experiment = state.add("experiments", {"display_name": "spira"})["experiment_id"]
    run = state.add("runs", {"display_name": "spira-1-a1", "experiment_id": experiment, "state": "RUNNING"})
    started = Workflow(run["run_id"])
    started.task("preprocess", inputs={"data": "gs://bucket/data"})
    return started


def found(server: Server, pods: Pods | None) -> Run:
    """Return the only run on the server as the runner returns it."""
    (line,) = runs(server, [])
    (listed,) = server.client.runs.run_service_list_runs(page_size=10, experiment_id=server.experiment_id()).runs
    run = to_run(server.client.runs.run_service_get_run(run_id=listed.run_id), lambda name: None, pods)
    assert line.state == run.state
    return run


def training(workflow: Workflow, seed: int, phase: str, **more: Any) -> None:
    """Add the training of a seed in its iteration of the loop."""
    iteration = f"{LOOP}.iteration-item({seed - 42})"
    workflow.driver(f"iteration-item({seed - 42})-driver", within=LOOP)
    workflow.task("train", phase, within=iteration, inputs={"seed": seed, "device": "auto"}, **more)


def failed(state: ServerState, workflow: Workflow) -> None:
    """End a run after the loop failed: what follows is left out, and the groups fail with it."""
    workflow.group("for-loop-2", "Failed")
    for name in ("evaluate", "condition-branches-3"):
        workflow.omitted(name)
    workflow.end("Failed")
    state.show(workflow, state="FAILED", state_history=[{"state": "FAILED"}])


def test_one_failure_has_one_cause(server: Server, state: ServerState, workflow: Workflow, pods: Pods):
    """The groups around the failed training, and the tasks after it, are not listed: 17 tasks, one line."""
    training(workflow, 42, "Failed", log=GPU_ERROR)
    failed(state, workflow)
    assert len(workflow.details()) >= 17
    assert found(server, pods) == Run("failed", "train, seed 42: a GPU is required, and torch finds none")


def test_trainings_with_the_same_cause_share_a_line(server: Server, state: ServerState, workflow: Workflow, pods: Pods):
    """Another cause has its own line."""
    for seed in (42, 43):
        training(workflow, seed, "Failed", log=GPU_ERROR)
    training(workflow, 44, "Failed", log="spira error: the loss of seed 44 is not finite")
    failed(state, workflow)
    assert found(server, pods).message.splitlines() == [
        "train, seeds 42, 43: a GPU is required, and torch finds none",
        "train, seed 44: the loss of seed 44 is not finite",
    ]


def test_a_task_that_failed_as_a_consequence_is_not_listed(
    server: Server, state: ServerState, workflow: Workflow, pods: Pods
):
    """It began after the first failure ended, and lacks the input that the failed task should have made."""
    training(workflow, 42, "Failed", log=GPU_ERROR)
    workflow.driver("evaluate-driver", "Failed", log="F1125 KFP driver: driver.Container(task) failed: no checkpoint")
    failed(state, workflow)
    assert found(server, pods).message == "train, seed 42: a GPU is required, and torch finds none"


def test_a_try_that_was_repeated_is_no_failure(server: Server, state: ServerState, workflow: Workflow, pods: Pods):
    """Argo repeats a deleted pod as executor(1); here it went on, and a later task failed."""
    training(workflow, 42, "Error", log=GPU_ERROR)
    again = Workflow(workflow.run_id)
    training(again, 42, "Succeeded", attempt=1)
    workflow.pods += again.pods
    workflow.driver(
        "evaluate-driver", "Failed", log="F1125 KFP driver: driver.Container(x) failed: no parameter gpu_count"
    )
    failed(state, workflow)
    assert found(server, pods).message == "driver of evaluate: no parameter gpu_count"


LIMIT = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
CODE_2 = {"terminated": {"exitCode": 2, "reason": "Error"}}
ENDS = {
    "evicted": (
        {"reason": "Evicted", "message": "The node was low on resource: memory. "},
        GPU_ERROR,
        "Evicted: The node was low on resource: memory (the node ran short",
    ),
    "deadline": (
        {"reason": "DeadlineExceeded", "message": "Pod was active too long"},
        "",
        "(the task reached its time limit",
    ),
    "memory": ({"containerStatuses": [container("main", LIMIT)]}, "", "out of memory (OOMKilled), its limit was 4Gi"),
    "killed": (
        {},
        "failed to execute component: signal: killed",
        "its process was killed, most likely for lack of memory",
    ),
    "python": ({}, "Traceback\nModuleNotFoundError: No module named 'x'", "ModuleNotFoundError: No module named 'x'"),
    "code": (
        {"containerStatuses": [container("main", CODE_2)]},
        "nothing",
        "exit code 2, no error in its log; see kubectl",
    ),
    "sidecar": ({"containerStatuses": [container("wait", CODE_2)]}, "", "exit code 2 of its container wait"),
    "many": ({}, "\n".join(f"spira error: row {row}" for row in range(90)), "row 0; row 1; row 2; and 87 more lines"),
}
"""Status of the pod, log and expected cause."""


@pytest.mark.parametrize(("status", "log", "cause"), ENDS.values(), ids=ENDS)
def test_the_end_of_a_pod_is_explained(
    server: Server, state: ServerState, workflow: Workflow, pods: Pods, status: dict, log: str, cause: str
):
    """As Kubernetes ended it, else as its log says, else by its exit code."""
    training(workflow, 42, "Failed", log=log, status=status)
    failed(state, workflow)
    message = found(server, pods).message
    assert message.startswith(f"train, seed 42: {cause}") or cause in message
    assert "\n" not in message


def test_a_log_that_is_gone_leaves_the_exit_code(server: Server, state: ServerState, workflow: Workflow, pods: Pods):
    """Kubernetes answers 404; the other failures are listed all the same."""
    training(workflow, 42, "Failed", log=GPU_ERROR)
    failed(state, workflow)
    state.logs.clear()
    assert found(server, pods).message.startswith("train, seed 42: exit code 1, no error in its log")


def test_failed_tasks_are_named_when_the_pods_are_gone(
    server: Server, state: ServerState, workflow: Workflow, pods: Pods
):
    """Stock Kubeflow deletes the workflow an hour after its end; groups and executors are not named."""
    training(workflow, 42, "Failed")
    failed(state, workflow)
    state.pods = []
    assert found(server, pods) == Run("failed", "train: failed; its pods, which have the cause, are gone")
    assert found(server, None).message == "train: failed; its pods, which have the cause, cannot be read from here"


def test_a_deadline_of_the_run_is_its_own_cause(server: Server, state: ServerState, workflow: Workflow):
    """No task has failed."""
    error = {"code": 2, "message": "Workflow exceeded its\n deadline"}
    state.show(workflow, state="FAILED", state_history=[{"state": "FAILED", "error": error}])
    assert found(server, None) == Run("failed", "Workflow exceeded its deadline")
    state.runs[workflow.run_id].update(state_history=[])
    assert found(server, None) == Run("failed", "Kubeflow gives no reason for state FAILED")
    state.runs[workflow.run_id].update(state="CANCELED")
    assert found(server, None) == Run("failed", "a person terminated the run in Kubeflow")


NO_HELP = "preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
UNCLAIMED = f"no new claims to deallocate, {NO_HELP}"
SELECTOR = "node(s) didn't match Pod's node affinity/selector"
ADVICE = {
    f"0/2 nodes are available: 1 Insufficient nvidia.com/gpu, 1 {SELECTOR}. {UNCLAIMED}": "gpu_count=0",
    f"0/2 nodes are available: 2 Insufficient cpu. {NO_HELP}": "request less cpu",
    f"0/2 nodes are available: 1 node(s) had untolerated taint {{gpu: x}}, 1 {SELECTOR}. {NO_HELP}": "tolerations",
    f"0/2 nodes are available: 2 {SELECTOR}. {NO_HELP}": "node_selector",
}
"""Part of the expected advice, by message of the scheduler."""


@pytest.mark.parametrize("message", ADVICE)
def test_a_pod_that_fits_on_no_node_is_explained(
    server: Server, state: ServerState, workflow: Workflow, pods: Pods, message: str
):
    """Kubeflow's own state of the run stays RUNNING; both seeds wait for the same."""
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    for seed in (42, 43):
        training(workflow, seed, "Running", status={"phase": "Pending", "conditions": [unscheduled]})
    state.show(workflow)
    text = found(server, pods).message
    assert text.startswith("train, seeds 42, 43: waiting: 0/")
    assert ADVICE[message] in text
    assert "preempt" not in text.lower()


def test_an_image_that_cannot_be_pulled_is_explained(
    server: Server, state: ServerState, workflow: Workflow, pods: Pods
):
    """The pod is scheduled and waits; a container that is being started is left out."""
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}
    starting = {"waiting": {"reason": "ContainerCreating"}}
    statuses = [container("wait", starting), container("main", waiting)]
    training(workflow, 42, "Running", status={"phase": "Pending", "containerStatuses": statuses})
    state.show(workflow)
    assert found(server, pods).message.startswith(
        "train, seed 42: waiting: ImagePullBackOff: Back-off pulling image (check the image's name and digest"
    )


def test_a_running_run_names_its_tasks(server: Server, state: ServerState, workflow: Workflow, pods: Pods):
    """The name is that of the pipeline, without groups and executors."""
    training(workflow, 42, "Running")
    workflow.end("Running")
    state.show(workflow)
    assert found(server, pods) == Run("running", "running: train")


def test_a_run_that_lost_its_workflow_is_explained(server: Server, state: ServerState, pods: Pods):
    """A deleted schedule takes its running workflow with it, and the run stays RUNNING for ever."""
    experiment = state.add("experiments", {"display_name": "spira"})["experiment_id"]
    reference = {"pipeline_id": "p", "pipeline_version_id": "v"}
    body = {"display_name": "nightly", "experiment_id": experiment, "pipeline_version_reference": reference}
    schedule = state.add("recurring_runs", body | {"runtime_config": {"parameters": {}}})
    run = state.fire(schedule["recurring_run_id"])
    started = Workflow(run["run_id"])
    started.task("preprocess", "Running")
    started.end("Running")
    state.show(started, created_at="2026-01-01T00:00:00Z")
    assert found(server, pods).message == "running: preprocess"
    server.client.recurring_runs.recurring_run_service_delete_recurring_run(schedule["recurring_run_id"])
    assert (state.runs[run["run_id"]]["state"], state.pods) == ("RUNNING", [])
    assert found(server, pods).message == f"running: preprocess {ORPHAN}"
    state.runs[run["run_id"]]["created_at"] = "2999-01-01T00:00:00Z"  # a new run has no pod yet
    assert found(server, pods).message == "running: preprocess"


def test_a_kubernetes_that_cannot_be_reached_fails_no_lookup(server: Server, state: ServerState, workflow: Workflow):
    """The message has a note, and the next lookup does not try again."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        configuration = client.Configuration(host=f"http://127.0.0.1:{closed.getsockname()[1]}")
        configuration.retries = False
        away = Pods(client.CoreV1Api(client.ApiClient(configuration)))
        run = found(server, away)
        assert run.state == "running"
        assert "the pods on Kubernetes cannot be read" in run.message
        assert "\n" not in run.message
        assert found(server, away) == run


def test_a_message_is_limited():
    """Twenty causes of a thousand characters take six lines that fit on a screen."""
    text = to_text(Cause(f"train, seed {seed}", f"{seed} " * 400) for seed in range(20))
    assert text.count("\n") == 5
    assert text.endswith("\nand 15 more")
    assert max(map(len, text.splitlines())) <= 280


def test_the_branches_have_the_tasks_that_tell_the_verdict():
    """The verdict of a run whose MLflow cannot be reached depends on their names."""
    compiled = next(yaml.safe_load_all(COMPILED.read_text()))
    dags = [compiled["root"], *compiled["components"].values()]
    names = {task for dag in dags for task in dag.get("dag", {}).get("tasks", {})}
    assert {APPROVED_TASK, REJECTED_TASK} <= names
