"""Tests of the compiled pipeline on a real cluster: every component in its image, in a pod, up to the served model.

    make e2e

Recordings come from an emulated bucket. The model goes through MLflow and the object store of manifests/kind to KServe.
The training runs on a node with a simulated GPU. Kubeflow's driver and launcher are replaced by tests/support/tasks.py,
its order of tasks by kfp's local runner; on a cluster with Kubeflow, test_on_kubeflow.py submits to it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from kfp import local as kfp_local
from kfp.local import subprocess_task_handler
from kubernetes import client, config

from pipelines import local
from pipelines.kubeflow.delivery import compile_delivery, pipeline
from pipelines.kubeflow.pods import Pods
from pipelines.kubeflow.settings import KubeflowSettings
from pipelines.kubeflow.versions import PipelineVersion
from pipelines.parameters import OPTIONAL, STATE
from pipelines.training import CompileOptions, compile_pipeline
from spira import config as configuration
from spira.delivery.training_request import TrainingRequest
from spira.deployment.targets import KServeTarget
from spira.evaluation import gate as gates
from spira.inference.model import Model
from spira.registry import Registry
from tests.support import ROOT, gpu
from tests.support.bucket import IMAGE as GCS
from tests.support.bucket import BucketEmulator, PortForward
from tests.support.cluster_fixture import ClusterNamespace, LoadGenerator, load_image
from tests.support.gatefiles import LENIENT, STRICT
from tests.support.packages import VERDICT, make_package, wrong
from tests.support.tasks import ARTIFACTS, PodRunner

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(os.environ.get("SPIRA_E2E") != "1", reason="needs a cluster with KServe: set SPIRA_E2E=1"),
]

IMAGE, BASE = "spira/train:dev", "spira/base:dev"
SERVING = "spira-serving"
TARGET = KServeTarget(kind="kserve", namespace=SERVING, artifacts={"mlflow-artifacts:/": "s3://mlflow/"})
ORDER = ["preprocess", "train", "train", "evaluate", "push", "deploy", "notify"]


@dataclass(frozen=True)
class FinishedRun:
    """A finished run of the pipeline."""

    runner: PodRunner
    summary: dict[str, Any]
    node: str
    """Name of the node with the simulated GPU."""
    data: Path
    """The data set on this machine."""


@pytest.fixture(scope="module")
def namespace(spira_on_kind: str) -> Iterator[ClusterNamespace]:
    """Create a namespace for the tasks, with an account that may deploy, and delete it afterwards."""
    subprocess.run(["docker", "build", "--quiet", "--tag", GCS, ROOT / "tests/e2e/images/gcs"], check=True, timeout=600)
    for image in (IMAGE, GCS):
        load_image(spira_on_kind, image)
    namespace = ClusterNamespace(spira_on_kind, f"spira-e2e-{uuid.uuid4().hex[:8]}")
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "spira-deployer"}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": namespace.name, "namespace": SERVING},
        "roleRef": role,
        "subjects": [{"kind": "ServiceAccount", "name": "runner", "namespace": namespace.name}],
    }
    try:
        namespace.create_restricted({"spira.internal/uses-mlflow": "true", "spira.internal/asks": "true"})
        namespace.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "runner"}})
        ClusterNamespace(spira_on_kind, SERVING).apply(binding)
        yield namespace
    finally:
        namespace.delete()


@pytest.fixture(scope="module")
def buckets(namespace: ClusterNamespace, demo: Path) -> Iterator[BucketEmulator]:
    """Start the emulator with a bucket of recordings and an empty bucket for artifacts."""
    buckets = BucketEmulator(namespace)
    try:
        buckets.create("voices")
        buckets.upload("voices", demo)
        buckets.create(ARTIFACTS)
        yield buckets
    finally:
        buckets.close()


@pytest.fixture(scope="module")
def finished_run(namespace: ClusterNamespace, buckets: BucketEmulator, demo: Path) -> Iterator[FinishedRun]:
    """Run the pipeline with the settings for a GPU; the GPU is simulated, so training computes on the CPU."""
    with gpu.fake_gpu_node(namespace.context) as node, tempfile.TemporaryDirectory(dir="/tmp") as temporary:
        cluster = cluster_of(gpu_count=1, node_selector={gpu.LABEL: "faked"}, target=TARGET)
        values = arguments("e2e", LENIENT, cluster)
        values |= {"seeds": [1, 2], "device": "cpu", "require_gpu": False}
        file = compiled(Path(temporary), replace(cluster.compile_options(), run_name="e2e"))
        runner = PodRunner(namespace, buckets, file, values, {"deploy": "runner"})
        run(runner, lambda folder: local.execute(folder, values, print))
        summary = local.gather(Path(temporary), Path(temporary), 0.0, cluster.registry_uri)
        yield FinishedRun(runner, summary, node, demo)


def compiled(folder: Path, options: CompileOptions) -> Path:
    """Compile the pipeline into the file that ``pipelines.local`` runs in a folder."""
    compile_pipeline(folder / "training.yaml", IMAGE, options)
    return folder / "training.yaml"


def cluster_of(**more: Any) -> KubeflowSettings:
    """Return the settings of the cluster; the notice of each run goes to an address where nothing listens."""
    return KubeflowSettings(cpu="500m", memory="2Gi", notify_url="http://127.0.0.1:9/", **more)


def arguments(name: str, gate: Path, cluster: KubeflowSettings) -> dict[str, Any]:
    """Return the arguments of a run on a cluster."""
    request = TrainingRequest(name=name, data="gs://voices", config=configuration.smoke(), gate=gates.load(gate))
    parameters = frozenset(name for name in OPTIONAL if getattr(cluster, name))
    return cluster.arguments(request, PipelineVersion("e2e", "", "", parameters=parameters, cached=False))


def run(runner: PodRunner, start: Callable[[Path], None]) -> None:
    """Run a compiled file with kfp's local runner, each task in a pod; artifacts are stored in its folder."""
    folder = runner.compiled.parent
    kfp_local.init(runner=kfp_local.SubprocessRunner(use_venv=False), pipeline_root=str(folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess_task_handler, "SubprocessTaskHandler", runner.handler)
        start(folder)


def test_components_run_in_order(finished_run: FinishedRun):
    """Each task is a pod that succeeds; with one GPU the pods run one after another. The result is version 1."""
    pods = sorted((pod for pods in finished_run.runner.pods.values() for pod in pods), key=start_time)
    names = [pod["metadata"]["annotations"]["workflows.argoproj.io/node-name"] for pod in pods]
    assert [name.split(".")[-2].removesuffix("(0)") for name in names] == ORDER
    assert {pod["status"]["phase"] for pod in pods} == {"Succeeded"}
    assert {pod["spec"]["containers"][0]["image"] for pod in pods} == {IMAGE}
    assert all(end_time(before) <= start_time(after) for before, after in pairwise(pods))
    assert (finished_run.summary.approved, finished_run.summary.model_version) == (True, 1)


def test_the_namespace_admits_restricted_pods_only(finished_run: FinishedRun):
    """The tasks ran there with a read-only root file system; a pod without a security context is refused."""
    containers = [pod["spec"]["containers"][0] for pods in finished_run.runner.pods.values() for pod in pods]
    assert all(container["securityContext"]["readOnlyRootFilesystem"] for container in containers)
    command = ["kubectl", "--context", finished_run.runner.namespace.context, "-n", finished_run.runner.namespace.name]
    result = subprocess.run([*command, "run", "root", f"--image={IMAGE}"], capture_output=True, text=True)
    assert result.returncode != 0
    assert 'violates PodSecurity "restricted' in result.stderr


def test_only_trainings_run_on_the_gpu_node(finished_run: FinishedRun):
    """They have its selector, toleration and resource; with one GPU the second waits for the first."""
    first, second = sorted(finished_run.runner.pods["train"], key=start_time)
    for pod in (first, second):
        assert pod["spec"]["nodeName"] == finished_run.node
        assert pod["spec"]["nodeSelector"] == {gpu.LABEL: "faked"}
        assert pod["spec"]["containers"][0]["resources"]["limits"][gpu.RESOURCE] == "1"
        assert any(toleration.get("key") == gpu.RESOURCE for toleration in pod["spec"]["tolerations"])
    assert end_time(first) <= start_time(second)
    others = [pod for task, pods in finished_run.runner.pods.items() if task != "train" for pod in pods]
    assert finished_run.node not in {pod["spec"]["nodeName"] for pod in others}


def test_status_explains_a_missing_gpu(finished_run: FinishedRun):
    """The pod stays Pending, and the status contains the reason and what to do."""
    namespace = finished_run.runner.namespace
    manifest = finished_run.runner.pod("train", "{}", ["true"])
    manifest["spec"]["containers"][0]["resources"]["limits"][gpu.RESOURCE] = "2"
    manifest["metadata"]["labels"] = {"pipeline/runid": "greedy"}
    namespace.apply(manifest)
    name = manifest["metadata"]["name"]
    try:
        namespace.kubectl("wait", "--for=condition=PodScheduled=False", f"pod/{name}", "--timeout=60s")
        api = config.new_client_from_config(context=namespace.context)
        (cause,) = Pods(client.CoreV1Api(api), namespace.name).report("greedy").waiting
        assert (cause.task, cause.text.startswith("waiting: 0/")) == ("train", True)
        assert "Insufficient nvidia.com/gpu" in cause.text
        assert "gpu_count=0" in cause.text
        assert namespace.kubectl("get", "pod", name, "-o", "jsonpath={.status.phase}") == "Pending"
    finally:
        namespace.kubectl("delete", "pod", name, "--wait=false")


def test_a_rejected_run_is_logged_without_a_gpu(namespace: ClusterNamespace, buckets: BucketEmulator):
    """It runs on nodes without GPU; the verdict is in MLflow, and no version is registered."""
    cluster = cluster_of()
    with tempfile.TemporaryDirectory(dir="/tmp") as temporary:
        file = compiled(Path(temporary), replace(cluster.compile_options(), run_name="rejected"))
        runner = PodRunner(namespace, buckets, file, arguments("rejected", STRICT, cluster))
        runner.arguments["seeds"] = [1]
        run(runner, lambda folder: local.execute(folder, runner.arguments, print))
    assert list(runner.pods) == ["preprocess", "train", "evaluate", "reject", "notify"]
    assert gpu.RESOURCE not in runner.pods["train"][0]["spec"]["containers"][0]["resources"]["limits"]
    forward = PortForward(ClusterNamespace(namespace.context, "mlflow"), "service/mlflow", 5000)
    try:
        outcome = Registry(forward.address).outcome("rejected")
    finally:
        forward.close()
    assert (outcome.approved, outcome.model_version) == (False, None)


def test_a_tick_runs_as_a_component(finished_run: FinishedRun, namespace: ClusterNamespace, buckets: BucketEmulator):
    """The image without torch can observe the recordings, MLflow and KServe."""
    watched = {"data": "gs://voices", "ledger": f"gs://{ARTIFACTS}/ledger", "work": "/tmp/work", "quiet_seconds": 86400}
    settings = {**watched, "registry": "http://mlflow.mlflow:5000", "targets": [TARGET.model_dump()]}
    with tempfile.TemporaryDirectory(dir="/tmp") as temporary:
        compile_delivery(Path(temporary) / "delivery.yaml", BASE)
        runner = PodRunner(namespace, buckets, Path(temporary) / "delivery.yaml", {}, {"tick": "runner"})
        run(runner, lambda folder: pipeline("")(settings=json.dumps(settings), cluster=""))
        (file,) = Path(temporary).rglob("status")
        status = json.loads(file.read_text())
    assert status["troubles"] == []
    assert status["observed"]["fingerprint"]
    assert (status["champion"], status["serving"]["kserve"]["version"]) == ("1", "1")


def test_a_killed_training_resumes_in_another_pod(finished_run: FinishedRun, tmp_path: Path):
    """A pod is deleted without grace period; the same task in another pod resumes from the claim."""
    namespace, first = finished_run.runner.namespace, finished_run.runner
    size = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    namespace.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "state"}, "spec": size})
    options = cluster_of(claim="state").compile_options()
    runner = PodRunner(namespace, first.buckets, compiled(tmp_path, options), first.arguments)
    executor_input = json.loads(first.executor_inputs["train"])
    longer = ["training.max_epochs=200", "training.patience_epochs=200"]
    settings = configuration.from_dict(json.loads(executor_input["inputs"]["parameterValues"]["config"]), longer)
    changed = {"config": settings.model_dump_json(exclude={"preprocess"}), "state_uri": STATE}
    executor_input["inputs"]["parameterValues"] |= changed
    task = json.dumps(executor_input)
    command = [*runner.containers["exec-train"]["command"], "--executor_input", task]
    pods = [runner.pod("train", task, [*command, "--function_to_execute", "train"]) for _ in range(2)]
    names = [pod["metadata"]["name"] for pod in pods]
    namespace.apply(pods[0])
    namespace.wait_for_log(names[0], "epoch   5/200", 120)
    namespace.kubectl("delete", "pod", names[0], "--grace-period=0", "--force")
    namespace.apply(pods[1])
    namespace.wait_for_end(names[1], 300)
    log = namespace.kubectl("logs", names[1])
    resumed = int(re.search(r"resumes after epoch (\d+)", log)[1])
    assert 4 <= resumed < 200
    assert "best at epoch" in log


def test_the_model_gives_the_probability_of_the_evaluation(finished_run: FinishedRun):
    """Through KServe, a recording of the test split without noise has the same probability."""
    wav, probability = recording(finished_run)
    load = LoadGenerator(finished_run.runner.namespace, HOST, wav, {"1": probability})
    try:
        result = load.wait_for_answers(load.result())
    finally:
        load.stop()
    assert result.answered["1"] > 20
    assert result.failed == []


@pytest.fixture(scope="module")
def settings(finished_run: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Write a delivery.yaml for this machine and register version 2 and a broken version 3 in MLflow."""
    folder = tmp_path_factory.mktemp("settings")
    forward = PortForward(ClusterNamespace(finished_run.runner.namespace.context, "mlflow"), "service/mlflow", 5000)
    target = TARGET.model_dump() | {"context": finished_run.runner.namespace.context, "timeout_seconds": 90}
    file = folder / "delivery.yaml"
    (folder / "smoke.yaml").write_text(configuration.smoke().model_dump_json())
    watched = {"data": str(finished_run.data), "config": "smoke.yaml", "gate": str(LENIENT), "quiet_seconds": 0}
    file.write_text(json.dumps({**watched, "registry": forward.address, "targets": [target]}))
    registry = Registry(forward.address)
    package = make_package(folder / "2", seed=2)
    for version in (package, wrong(package, folder / "3")):
        run = registry.log_run(version.name, {}, {}, VERDICT, {}, {})
        registry.register(version, run, VERDICT, {})
    yield file
    forward.close()


def test_one_command_deploys_and_one_rolls_back(finished_run: FinishedRun, settings: Path):
    """Under load, version 2 is deployed, a broken one is refused, version 1 is restored; no request fails."""
    wav, probability = recording(finished_run)
    second = Model.load(settings.parent / "2" / "package" / "data").probability(wav)
    load = LoadGenerator(finished_run.runner.namespace, HOST, wav, {"1": probability, "2": second})
    try:
        assert spira(settings, "plan", "2")[0]["serving"] == "1"
        assert spira(settings, "apply", "2")[0]["version"] == "2"
        assert spira(settings, "verify")[0]["largest_difference"] <= 1e-5
        assert "must not be served" in spira(settings, "apply", "3", code=1)[0]["error"]
        assert spira(settings, "status")[0]["version"] == "2"
        result = load.wait_for_answers(load.result())
        status = spira(settings, "rollback", "--reason", "too many false alarms")[0]
        assert (status["version"], status["ready"], status["history"][-1]["action"]) == ("1", True, "rollback")
        later = load.wait_for_answers(load.result())
    finally:
        load.stop()
    assert result.answered["2"] > 10
    assert later.answered["1"] > result.answered["1"]
    assert later.failed == []


def test_continuous_delivery_serves_through_kserve(finished_run: FinishedRun, settings: Path):
    """A tick trains on this machine and serves on the cluster; the next one repairs a manual change."""
    done = deliver(settings, "tick", "--wait")
    assert "version 4 is champion and serves: approved by its gate" in done
    edit = json.dumps({"spec": {"predictor": {"minReplicas": 2}}})
    ClusterNamespace(finished_run.runner.namespace.context, SERVING).kubectl(
        "patch", "isvc", "spira", "--type=merge", "-p", edit
    )
    assert spira(settings, "status")[0]["drifted"]
    assert "repaired: version 4 applied to kserve again" in deliver(settings, "tick")
    status = spira(settings, "status")[0]
    assert (status["version"], status["ready"], status["drifted"]) == ("4", True, False)


HOST = f"spira-predictor.{SERVING}"


def spira(settings: Path, verb: str, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
    """Run ``spira deploy`` and return its JSON."""
    return run_json("deploy", settings, verb, *arguments, code=code)


def deliver(settings: Path, verb: str, *arguments: str) -> list[str]:
    """Run ``spira deliver`` and return its effects."""
    return run_json("deliver", settings, verb, *arguments)["done"]


def run_json(group: str, settings: Path, verb: str, *arguments: str, code: int = 0) -> Any:
    """Run a command of ``spira``, check its exit code and return its JSON."""
    command = [sys.executable, "-m", "spira", group, verb, *arguments, "--settings", str(settings), "--json"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert result.returncode == code, result.stderr + result.stdout
    return json.loads(result.stdout)


def recording(finished_run: FinishedRun) -> tuple[bytes, float]:
    """Return a recording of the test split and its probability without noise in the evaluation."""
    predictions = pd.read_parquet(finished_run.summary.paths.predictions)
    row = predictions[predictions["condition"] == "clean"].iloc[0]
    return (finished_run.data / row["file_path"]).read_bytes(), float(row["probability"])


def start_time(pod: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(terminated(pod)["startedAt"])


def end_time(pod: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(terminated(pod)["finishedAt"])


def terminated(pod: dict[str, Any]) -> dict[str, str]:
    return pod["status"]["containerStatuses"][0]["state"]["terminated"]
