"""The compiled pipeline on a real cluster: every component in its image, in a pod, in order, up to what users ask.

    make e2e

Recordings come from an emulated bucket, the model goes through MLflow and the store of manifests/kind to KServe, the
training's node pretends to have a GPU. What Kubeflow itself does (its driver, its launcher, its order) is done by
tasks.py and kfp's local runner; where the cluster has Kubeflow, test_on_kubeflow.py submits to it.
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
from dataclasses import dataclass
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
from pipelines.training import STATE, CompileOptions, compile_pipeline
from spira import config as configuration
from spira.delivery.training_request import TrainingRequest
from spira.deployment.targets import KServeTarget
from spira.evaluation import gate as gates
from spira.inference.model import Model
from spira.registry import Registry
from tests.support import ROOT, gpu
from tests.support.bucket import IMAGE as GCS
from tests.support.bucket import Buckets, Forward
from tests.support.cluster_fixture import Load, Place, loaded
from tests.support.gatefiles import LENIENT, STRICT
from tests.support.packages import VERDICT, make_package, wrong
from tests.support.tasks import ARTIFACTS, Field

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(os.environ.get("SPIRA_E2E") != "1", reason="needs a cluster with KServe: set SPIRA_E2E=1"),
]

IMAGE, BASE = "spira/train:dev", "spira/base:dev"
SERVING = "spira-serving"
TARGET = KServeTarget(kind="kserve", namespace=SERVING, artifacts={"mlflow-artifacts:/": "s3://mlflow/"})
FORM = CompileOptions(notified=True)
ORDER = ["preprocess", "train", "train", "evaluate", "push", "deploy", "notify"]


@dataclass(frozen=True)
class Delivered:
    """A run that has ended, and where it ran."""

    field: Field
    summary: dict[str, Any]
    node: str
    """The one with the GPU."""
    data: Path
    """The data set, here too."""


@pytest.fixture(scope="module")
def place(spira_on_kind: str) -> Iterator[Place]:
    """A namespace for the tasks, with an account that may deploy; gone afterwards, whatever happens."""
    subprocess.run(["docker", "build", "--quiet", "--tag", GCS, ROOT / "tests/e2e/images/gcs"], check=True, timeout=600)
    for image in (IMAGE, GCS):
        loaded(spira_on_kind, image)
    made = Place(spira_on_kind, f"spira-e2e-{uuid.uuid4().hex[:8]}")
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "spira-deployer"}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": made.name, "namespace": SERVING},
        "roleRef": role,
        "subjects": [{"kind": "ServiceAccount", "name": "runner", "namespace": made.name}],
    }
    try:
        made.make_restricted({"spira.internal/uses-mlflow": "true", "spira.internal/asks": "true"})
        made.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "runner"}})
        Place(spira_on_kind, SERVING).create(binding)
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="module")
def buckets(place: Place, demo: Path) -> Iterator[Buckets]:
    """The recordings, and room for artifacts."""
    made = Buckets(place)
    try:
        made.make("voices")
        made.put("voices", demo)
        made.make(ARTIFACTS)
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def delivered(place: Place, buckets: Buckets, demo: Path) -> Iterator[Delivered]:
    """One run of the pipeline, told what a cluster with a GPU is told; but it is no real one, and not insisted on."""
    with gpu.faked(place.context) as node, tempfile.TemporaryDirectory(dir="/tmp") as temporary:
        told = arguments("e2e", LENIENT, gpu_count=1, node_selector={gpu.LABEL: "faked"}, target=TARGET)
        told |= {"seeds": [1, 2], "device": "cpu", "require_gpu": False}
        field = Field(place, buckets, compiled(Path(temporary), FORM), told, account={"deploy": "runner"})
        run(field, lambda folder: local.execute(folder, told, print))
        yield Delivered(field, local.gather(Path(temporary), Path(temporary), 0.0), node, demo)


def compiled(folder: Path, form: CompileOptions) -> Path:
    """The file that ``pipelines.local`` runs in a folder."""
    compile_pipeline(folder / "training.yaml", IMAGE, form)
    return folder / "training.yaml"


def arguments(name: str, gate: Path, **cluster: Any) -> dict[str, Any]:
    """Of a run, as they are made for a cluster."""
    there = KubeflowSettings(registry_uri="http://mlflow.mlflow:5000", cpu="500m", memory="2Gi", **cluster)
    request = TrainingRequest(name=name, data="gs://voices", config=configuration.smoke(), gate=gates.load(gate))
    return there.arguments(request, PipelineVersion("e2e", "", "", ""))


def run(field: Field, start: Callable[[Path], None]) -> None:
    """Have kfp's local runner run a compiled file, each task in a pod; artifacts come to its folder."""
    folder = field.compiled.parent
    kfp_local.init(runner=kfp_local.SubprocessRunner(use_venv=False), pipeline_root=str(folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess_task_handler, "SubprocessTaskHandler", field.handler)
        start(folder)


def test_every_component_ran_in_order(delivered: Delivered):
    """Each as a pod of its image that ended well, one after another as there is one GPU; a version came out."""
    pods = sorted((pod for pods in delivered.field.pods.values() for pod in pods), key=began)
    assert [pod["metadata"]["annotations"]["pipelines.kubeflow.org/task_name"] for pod in pods] == ORDER
    assert {pod["status"]["phase"] for pod in pods} == {"Succeeded"}
    assert {pod["spec"]["containers"][0]["image"] for pod in pods} == {IMAGE}
    assert all(ended(before) <= began(after) for before, after in pairwise(pods))
    assert (delivered.summary["approved"], delivered.summary["model_version"]) == (True, 1)


def test_the_namespace_takes_restricted_pods_only(delivered: Delivered):
    """They ran there as a number that isn't root, with nothing writable but volumes; another pod is refused."""
    containers = [pod["spec"]["containers"][0] for pods in delivered.field.pods.values() for pod in pods]
    assert all(container["securityContext"]["readOnlyRootFilesystem"] for container in containers)
    command = ["kubectl", "--context", delivered.field.place.context, "-n", delivered.field.place.name]
    run = subprocess.run([*command, "run", "root", f"--image={IMAGE}"], capture_output=True, text=True)
    assert run.returncode != 0
    assert 'violates PodSecurity "restricted' in run.stderr


def test_trainings_ran_on_the_gpu(delivered: Delivered):
    """By selector, toleration and resource; with one GPU the second waited for the first. Nothing else ran there."""
    one, other = sorted(delivered.field.pods["train"], key=began)
    for pod in (one, other):
        assert pod["spec"]["nodeName"] == delivered.node
        assert pod["spec"]["nodeSelector"] == {gpu.LABEL: "faked"}
        assert pod["spec"]["containers"][0]["resources"]["limits"][gpu.RESOURCE] == "1"
        assert any(toleration.get("key") == gpu.RESOURCE for toleration in pod["spec"]["tolerations"])
    assert ended(one) <= began(other)
    others = [pod for task, pods in delivered.field.pods.items() if task != "train" for pod in pods]
    assert delivered.node not in {pod["spec"]["nodeName"] for pod in others}


def test_a_gpu_that_no_node_has_is_explained(delivered: Delivered):
    """The pod is Pending, and status tells why and what to do."""
    place = delivered.field.place
    body = delivered.field.pod("train", "{}", ["true"])
    body["spec"]["containers"][0]["resources"]["limits"][gpu.RESOURCE] = "2"
    body["metadata"]["labels"] = {"pipeline/runid": "greedy"}
    place.create(body)
    name = body["metadata"]["name"]
    try:
        place.kubectl("wait", "--for=condition=PodScheduled=False", f"pod/{name}", "--timeout=60s")
        api = config.new_client_from_config(context=place.context)
        said = Pods(client.CoreV1Api(api), place.name).waiting("greedy")
        assert said.startswith("train waits: 0/")
        assert "Insufficient nvidia.com/gpu" in said
        assert "gpu_count=0" in said
        assert place.kubectl("get", "pod", name, "-o", "jsonpath={.status.phase}") == "Pending"
    finally:
        place.kubectl("delete", "pod", name, "--wait=false")


def test_what_is_rejected_is_logged_without_a_gpu(place: Place, buckets: Buckets):
    """The same file on nodes without one; the verdict is in MLflow, and nothing was pushed."""
    with tempfile.TemporaryDirectory(dir="/tmp") as temporary:
        field = Field(place, buckets, compiled(Path(temporary), FORM), arguments("rejected", STRICT))
        field.arguments["seeds"] = [1]
        run(field, lambda folder: local.execute(folder, field.arguments, print))
    assert list(field.pods) == ["preprocess", "train", "evaluate", "reject", "notify"]
    assert gpu.RESOURCE not in field.pods["train"][0]["spec"]["containers"][0]["resources"]["limits"]
    forward = Forward(Place(place.context, "mlflow"), "service/mlflow", 5000)
    try:
        outcome = Registry(forward.address).outcome("rejected")
    finally:
        forward.close()
    assert (outcome.approved, outcome.model_version) == (False, None)


def test_a_tick_looks(delivered: Delivered, place: Place, buckets: Buckets, tmp_path_factory: pytest.TempPathFactory):
    """Continuous delivery as a component, in the image without torch: it sees the recordings, MLflow and KServe."""
    watched = {"data": "gs://voices", "ledger": f"gs://{ARTIFACTS}/ledger", "work": "/tmp/work", "quiet_seconds": 86400}
    settings = {**watched, "registry": "http://mlflow.mlflow:5000", "targets": [TARGET.model_dump()]}
    with tempfile.TemporaryDirectory(dir="/tmp") as temporary:
        compile_delivery(Path(temporary) / "delivery.yaml", BASE)
        field = Field(place, buckets, Path(temporary) / "delivery.yaml", {}, account={"tick": "runner"})
        run(field, lambda folder: pipeline("")(settings=json.dumps(settings), cluster=""))
        (said,) = Path(temporary).rglob("status")
        status = json.loads(said.read_text())
    assert status["troubles"] == []
    assert status["observed"]["fingerprint"]
    assert (status["champion"], status["serving"]["kserve"]["version"]) == ("1", "1")


def test_a_training_that_lost_its_node_goes_on(delivered: Delivered, tmp_path: Path):
    """Killed without a word in the middle; the same task in another pod goes on from the claim."""
    place, first = delivered.field.place, delivered.field
    size = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    place.create({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "state"}, "spec": size})
    field = Field(
        place, first.buckets, compiled(tmp_path, CompileOptions(claim="state", notified=True)), first.arguments
    )
    told = json.loads(first.told["train"])
    longer = ["training.max_epochs=200", "training.patience_epochs=200"]
    settings = configuration.from_dict(json.loads(told["inputs"]["parameterValues"]["config"]), longer)
    told["inputs"]["parameterValues"] |= {"config": settings.model_dump_json(), "state_uri": STATE}
    command = [*field.containers["exec-train"]["command"], "--executor_input", json.dumps(told)]
    bodies = [field.pod("train", json.dumps(told), [*command, "--function_to_execute", "train"]) for _ in range(2)]
    names = [body["metadata"]["name"] for body in bodies]
    place.create(bodies[0])
    place.wait_for_words(names[0], "epoch   5/200", 120)
    place.kubectl("delete", "pod", names[0], "--grace-period=0", "--force")
    place.create(bodies[1])
    place.wait_for_end(names[1], 300)
    log = place.kubectl("logs", names[1])
    resumed = int(re.search(r"resumes after epoch (\d+)", log)[1])
    assert 4 <= resumed < 200
    assert "best at epoch" in log


def test_it_answers_what_evaluation_computed(delivered: Delivered):
    """A recording of the test, clean: the same probability, through KServe."""
    wav, probability = recording(delivered)
    load = Load(delivered.field.place, HOST, wav, {"1": probability})
    try:
        heard = load.heard_more(load.heard())
    finally:
        load.stop()
    assert heard.answered["1"] > 20
    assert heard.failed == []


@pytest.fixture(scope="module")
def settings(delivered: Delivered, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A delivery.yaml of this machine, MLflow at a forwarded port. Versions 2 and 3 are there; 3 is broken."""
    folder = tmp_path_factory.mktemp("settings")
    forward = Forward(Place(delivered.field.place.context, "mlflow"), "service/mlflow", 5000)
    target = TARGET.model_dump() | {"context": delivered.field.place.context, "timeout_seconds": 90}
    file = folder / "delivery.yaml"
    (folder / "smoke.yaml").write_text(configuration.smoke().model_dump_json())
    watched = {"data": str(delivered.data), "config": "smoke.yaml", "gate": str(LENIENT), "quiet_seconds": 0}
    file.write_text(json.dumps({**watched, "registry": forward.address, "targets": [target]}))
    registry = Registry(forward.address)
    package = make_package(folder / "2", seed=2)
    for made in (package, wrong(package, folder / "3")):
        run = registry.log_run(made.name, {}, {}, VERDICT, {}, {})
        registry.register(made, run, VERDICT, {})
    yield file
    forward.close()


def test_replaced_and_rolled_back_by_one_command(delivered: Delivered, settings: Path):
    """While users ask: version 2 comes, a broken one doesn't, version 1 comes back; no request fails."""
    wav, probability = recording(delivered)
    second = Model.load(settings.parent / "2" / "package" / "data").probability(wav)
    load = Load(delivered.field.place, HOST, wav, {"1": probability, "2": second})
    try:
        assert spira(settings, "plan", "2")[0]["serving"] == "1"
        assert spira(settings, "apply", "2")[0]["version"] == "2"
        assert spira(settings, "verify")[0]["largest_difference"] <= 1e-5
        assert "must not be served" in spira(settings, "apply", "3", code=1)[0]["error"]
        assert spira(settings, "status")[0]["version"] == "2"
        heard = load.heard_more(load.heard())
        back = spira(settings, "rollback", "--reason", "the ward hears false alarms")[0]
        assert (back["version"], back["ready"], back["history"][-1]["action"]) == ("1", True, "rollback")
        later = load.heard_more(load.heard())
    finally:
        load.stop()
    assert heard.answered["2"] > 10
    assert later.answered["1"] > heard.answered["1"]
    assert later.failed == []


def test_continuous_delivery_serves_through_kserve(delivered: Delivered, settings: Path):
    """A tick trains here, and serves there; the next one puts right what somebody has changed by hand."""
    done = deliver(settings, "tick", "--wait")
    assert "version 4 is champion and serves: approved by its gate" in done
    edit = json.dumps({"spec": {"predictor": {"minReplicas": 2}}})
    Place(delivered.field.place.context, SERVING).kubectl("patch", "isvc", "spira", "--type=merge", "-p", edit)
    assert spira(settings, "status")[0]["drifted"]
    assert "repaired: version 4 applied to kserve again" in deliver(settings, "tick")
    status = spira(settings, "status")[0]
    assert (status["version"], status["ready"], status["drifted"]) == ("4", True, False)


HOST = f"spira-predictor.{SERVING}"


def spira(settings: Path, verb: str, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
    """What ``spira deploy`` says to a program."""
    return said("deploy", settings, verb, *arguments, code=code)


def deliver(settings: Path, verb: str, *arguments: str) -> list[str]:
    """What a tick of ``spira deliver`` did."""
    return said("deliver", settings, verb, *arguments)["done"]


def said(group: str, settings: Path, verb: str, *arguments: str, code: int = 0) -> Any:
    command = [sys.executable, "-m", "spira", group, verb, *arguments, "--settings", str(settings), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == code, done.stderr + done.stdout
    return json.loads(done.stdout)


def recording(delivered: Delivered) -> tuple[bytes, float]:
    """A recording of the test, and the probability that evaluation computed for it without noise."""
    predictions = pd.read_parquet(delivered.summary["paths"]["predictions"])
    row = predictions[predictions["condition"] == "clean"].iloc[0]
    return (delivered.data / row["file_path"]).read_bytes(), float(row["probability"])


def began(pod: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(terminated(pod)["startedAt"])


def ended(pod: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(terminated(pod)["finishedAt"])


def terminated(pod: dict[str, Any]) -> dict[str, str]:
    return pod["status"]["containerStatuses"][0]["state"]["terminated"]
