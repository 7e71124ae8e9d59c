"""The compiled pipeline: the same bytes again, and none of the shapes that a runner gets wrong."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.parameters import STATE, Parameters
from pipelines.training import COMPILED, HOUR, CompileOptions, compile_pipeline

IMAGE = "registry.example/spira@sha256:0123"
FORMS = {
    "one machine": CompileOptions(),
    "cluster": CompileOptions(claim="spira-state", notified=True),
}


def compiled(form: CompileOptions, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pipeline, and what Kubernetes is told beside it."""
    compile_pipeline(folder / "training.yaml", IMAGE, form)
    spec, platform = yaml.safe_load_all((folder / "training.yaml").read_text())
    return spec, platform["platforms"]["kubernetes"]


@pytest.fixture(scope="module", params=FORMS)
def both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The two documents of each form, of an image of one's own."""
    return compiled(FORMS[request.param], tmp_path_factory.mktemp("compiled"))


@pytest.fixture
def spec(both: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, Any]:
    """The compiled pipeline."""
    return both[0]


@pytest.fixture
def platform(both: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, Any]:
    """What Kubernetes is told: deploymentSpec and pipelineConfig."""
    return both[1]


def dags(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The root and every sub-DAG, each with inputDefinitions and dag."""
    yield spec["root"]
    yield from (component for component in spec["components"].values() if "dag" in component)


def tasks(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every task of every DAG, by name."""
    return {name: task for dag in dags(spec) for name, task in dag["dag"]["tasks"].items()}


def components_of(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Those tasks that are a pod, by name; the others are DAGs."""
    is_pod = {name: "executorLabel" in component for name, component in spec["components"].items()}
    return {name: task for name, task in tasks(spec).items() if is_pod[task["componentRef"]["name"]]}


def container(spec: dict[str, Any], name: str) -> dict[str, Any]:
    """What a component runs in."""
    return spec["deploymentSpec"]["executors"][f"exec-{name}"]["container"]


def pod(platform: dict[str, Any], name: str) -> dict[str, Any]:
    """What Kubernetes is told of a component's pod."""
    return platform["deploymentSpec"]["executors"][f"exec-{name}"]


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_compiling_gives_the_golden_file_byte_for_byte(hash_seed: str, tmp_path: Path):
    """In a process of its own, whatever the order of its hashes; else: spira pipeline compile."""
    command = [sys.executable, "-m", "spira", "pipeline", "compile", "--out", str(tmp_path / "training.yaml")]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONHASHSEED": hash_seed}, cwd=COMPILED.parents[1])
    assert (tmp_path / "training.yaml").read_bytes() == COMPILED.read_bytes()


def test_the_image_is_that_of_the_deployment(spec: dict[str, Any]):
    """Every executor's; on a cluster by digest."""
    executors = spec["deploymentSpec"]["executors"]
    assert {executor["container"]["image"] for executor in executors.values()} == {IMAGE}
    assert {"preprocess", "train", "evaluate", "push", "deploy", "reject"} <= {name[5:] for name in executors}


def test_the_gate_is_read_from_a_single_return_value_and_has_both_branches(spec: dict[str, Any]):
    """A named output can't be read locally, and without an else an unread condition would pass for an end."""
    policies = [task.get("triggerPolicy", {}) for task in tasks(spec).values()]
    conditions = {policy["condition"] for policy in policies if "condition" in policy}
    value = "inputs.parameter_values['pipelinechannel--evaluate-Output'] == true"
    assert conditions == {value, f"!({value})"}
    assert list(spec["components"]["comp-evaluate"]["outputDefinitions"]["parameters"]) == ["Output"]


def test_no_branch_ends_in_one_of(spec: dict[str, Any]):
    """OneOf fails on a cache hit, and for artifacts locally."""
    assert "OneOf" not in yaml.safe_dump(spec)
    assert [dag["dag"]["outputs"] for dag in dags(spec) if "condition" in str(dag) and "outputs" in dag["dag"]] == []


@pytest.mark.parametrize("name", ["evaluate", "push", "deploy", "reject"])
def test_what_has_effects_or_reads_the_registry_is_never_cached(spec: dict[str, Any], name: str):
    """A client's enable_caching=False reaches root tasks only: it is set on the tasks."""
    assert tasks(spec)[name]["cachingOptions"] == {}


@pytest.mark.parametrize("name", ["preprocess", "train"])
def test_what_follows_from_its_inputs_alone_is_cached(spec: dict[str, Any], name: str):
    """What the data and the code are is among the inputs: a cache looks at no content, and at an image's name only."""
    assert tasks(spec)[name]["cachingOptions"] == {"enableCache": True}
    assert "data_digest" in tasks(spec)["preprocess"]["inputs"]["parameters"]
    digest = tasks(spec)[name]["inputs"]["parameters"]["code_digest"]["componentInputParameter"]
    assert digest.removeprefix("pipelinechannel--") == "code_digest"


def test_where_data_is_not_pinned_nothing_is_cached(tmp_path: Path):
    """A schedule's parameters are the same every night, whatever became of the data."""
    spec, _ = compiled(CompileOptions(cached=False), tmp_path)
    assert [task["cachingOptions"] for task in components_of(spec).values()] == [{}] * 6


def test_seeds_are_whole_numbers(spec: dict[str, Any]):
    """With a bare list a cluster hands a seed over as a string."""
    (loop,) = (task for task in tasks(spec).values() if "parameterIterator" in task)
    item = loop["parameterIterator"]["itemInput"]
    inner = spec["components"][loop["componentRef"]["name"]]["inputDefinitions"]["parameters"]
    assert inner[item]["parameterType"] == "NUMBER_INTEGER"
    assert spec["components"]["comp-train"]["inputDefinitions"]["parameters"]["seed"] == {
        "description": "Decides initial weights, order, noise and dropout.",
        "parameterType": "NUMBER_INTEGER",
    }


def test_settings_travel_as_text(spec: dict[str, Any]):
    """In a dictionary a 40 would arrive as 40.0; only labels of nodes are one, which are text themselves."""
    types = {name: each["parameterType"] for name, each in spec["root"]["inputDefinitions"]["parameters"].items()}
    assert (types["config"], types["gate"]) == ("STRING", "STRING")
    assert [name for name, kind in types.items() if kind == "STRUCT"] == ["node_selector"]


def test_every_parameter_that_a_sub_dag_reads_is_handed_down(spec: dict[str, Any]):
    """A pipeline parameter that is no task's input doesn't reach a sub-DAG."""
    for dag in dags(spec):
        known = set(dag.get("inputDefinitions", {}).get("parameters", {}))
        for name, task in dag["dag"]["tasks"].items():
            read = task.get("inputs", {}).get("parameters", {}).values()
            missing = {each["componentInputParameter"] for each in read if "componentInputParameter" in each} - known
            assert not missing, name


def test_what_a_pod_needs_is_handed_down_to_it(spec: dict[str, Any], platform: dict[str, Any]):
    """Resources and placement name parameters too, and the driver finds only those that its DAG was handed."""
    for dag in dags(spec):
        known = set(dag.get("inputDefinitions", {}).get("parameters", {}))
        for name, task in dag["dag"]["tasks"].items():
            if name not in components_of(spec):
                continue
            placeholders = re.findall(r"inputs\.parameters\['(.+?)'\]", str(container(spec, name).get("resources")))
            assert set(placeholders) <= set(task["inputs"]["parameters"]), name
            assert {task["inputs"]["parameters"][each]["componentInputParameter"] for each in placeholders} <= known
            assert set(re.findall(r"'componentInputParameter': '(.+?)'", str(pod(platform, name)))) <= known, name


def test_a_gpu_is_decided_when_a_run_begins(spec: dict[str, Any], platform: dict[str, Any]):
    """Number, nodes and taints are parameters, of the training alone; the type is the resource's name."""
    accelerator = container(spec, "train")["resources"]["accelerator"]
    assert accelerator["resourceType"] == "nvidia.com/gpu"
    assert "gpu_count" in accelerator["resourceCount"]
    assert "node_selector" in str(pod(platform, "train")["nodeSelector"])
    assert "tolerations" in str(pod(platform, "train")["tolerations"])
    others = [name for name in components_of(spec) if name != "train"]
    assert [name for name in others if "accelerator" in str(container(spec, name))] == []
    assert [name for name in others if "nodeSelector" in pod(platform, name)] == []


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_torch_gets_room(spec: dict[str, Any], platform: dict[str, Any], name: str):
    """CPU and memory by parameter, and shared memory beyond a container's 64 MB."""
    resources = container(spec, name)["resources"]
    assert "cpu" in resources["resourceCpuRequest"]
    assert "memory" in resources["resourceMemoryRequest"]
    assert resources["resourceMemoryLimit"] == resources["resourceMemoryRequest"]
    shared = {"medium": "Memory", "mountPath": "/dev/shm", "volumeName": "shm"}
    assert pod(platform, name)["emptyDirMounts"] == [shared]


def test_preprocess_is_not_done_again_for_another_size_of_pod(spec: dict[str, Any]):
    """Parameters are part of the cache's key, and a new corpus would have every network trained anew."""
    assert "inputs.parameters" not in str(container(spec, "preprocess")["resources"])


def test_nothing_lasts_for_ever(spec: dict[str, Any], platform: dict[str, Any]):
    """Every pod has a time limit, and the run one for pods that no node takes; what is done is cleared away."""
    limits = {name: int(pod(platform, name)["activeDeadlineSeconds"]) for name in components_of(spec)}
    assert all(HOUR <= limit <= 24 * HOUR for limit in limits.values())
    assert platform["pipelineConfig"] == {"activeDeadlineSeconds": 48 * HOUR, "resourceTtlOnCompletion": 168 * HOUR}


def test_no_task_sets_a_retry(spec: dict[str, Any]):
    """A stock Kubeflow ignores it, and one machine would repeat a refusal: what failed is ordered again."""
    assert "retryPolicy" not in str(spec)


def test_every_task_has_a_name_to_show(spec: dict[str, Any]):
    """In the dashboard, as a person would call it."""
    shown = {name: task["taskInfo"]["name"] for name, task in components_of(spec).items()}
    assert shown == {name: name.capitalize() for name in shown}
    assert spec["pipelineInfo"]["displayName"] == "SPIRA training"


def test_nothing_of_a_node_and_no_secret_is_in_it(spec: dict[str, Any], platform: dict[str, Any]):
    """It runs on any install: artifacts through Kubeflow, MLflow by its URL."""
    text = yaml.safe_dump([spec, platform]).lower()
    assert [word for word in ("hostpath", "secret", "password", "token", "s3://", "minio") if word in text] == []


def test_only_what_can_go_on_keeps_its_state(platform: dict[str, Any], tmp_path: Path):
    """The volume of the trainings, where one is named: Kubeflow refuses an empty name, so no parameter can say it."""
    _, cluster = compiled(FORMS["cluster"], tmp_path)
    executors = cluster["deploymentSpec"]["executors"]
    mounts = {name: executor["pvcMount"][0] for name, executor in executors.items() if "pvcMount" in executor}
    assert set(mounts) == {"exec-preprocess", "exec-train"}
    assert {(mount["constant"], mount["mountPath"]) for mount in mounts.values()} == {("spira-state", STATE)}
    assert "pvcMount" not in str(compiled(CompileOptions(), tmp_path)[1])


def test_an_exit_handler_tells_of_everything(tmp_path: Path):
    """All tasks are inside of it; what it says is never answered from the cache of an earlier run."""
    spec, _ = compiled(FORMS["cluster"], tmp_path)
    root = spec["root"]["dag"]["tasks"]
    assert set(root) == {"exit-handler-1", "notify"}
    assert root["notify"]["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    assert root["notify"]["cachingOptions"] == {}
    status = root["notify"]["inputs"]["parameters"]["status"]
    assert status == {"taskFinalStatus": {"producerTask": "exit-handler-1"}}


def test_a_run_of_a_schedule_has_a_name(spec: dict[str, Any]):
    """Its parameters are always the same: Kubeflow's name of the run comes in their place."""
    job = tasks(spec)["evaluate"]["inputs"]["parameters"]["job"]
    assert job == {"runtimeValue": {"constant": "{{$.pipeline_job_name}}"}}


def test_no_default_is_repeated(spec: dict[str, Any]):
    """Defaults stand in spira.config alone."""
    assert "defaultValue" not in yaml.safe_dump(spec)


def test_the_parameters_are_those_of_the_compiled_pipeline():
    """One list: a parameter that only one side has would fail at the start of a run."""
    (spec, *_) = yaml.safe_load_all(COMPILED.read_text())
    assert set(spec["root"]["inputDefinitions"]["parameters"]) == set(Parameters.model_fields)
