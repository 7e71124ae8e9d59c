"""The compiled pipeline: reproducible bytes, and none of the structures that a runner handles wrongly."""

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
from pipelines.training import COMPILED, HOUR, STORE_VARIABLES, CompileOptions, compile_pipeline

pytestmark = pytest.mark.integration

IMAGE = "registry.example/spira@sha256:0123"
OPTIONS = {
    "one machine": CompileOptions(),
    "cluster": CompileOptions(claim="spira-state", notifies=True),
}


def compiled(options: CompileOptions, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compile the pipeline; return its two documents, the pipeline and the options for Kubernetes."""
    compile_pipeline(folder / "training.yaml", IMAGE, options)
    spec, platform = yaml.safe_load_all((folder / "training.yaml").read_text())
    return spec, platform["platforms"]["kubernetes"]


@pytest.fixture(scope="module", params=OPTIONS)
def documents(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both documents, for each of the options."""
    return compiled(OPTIONS[request.param], tmp_path_factory.mktemp("compiled"))


@pytest.fixture
def spec(documents: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, Any]:
    """The compiled pipeline."""
    return documents[0]


@pytest.fixture
def platform(documents: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, Any]:
    """The options for Kubernetes: deploymentSpec and pipelineConfig."""
    return documents[1]


def dags(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the root and every sub-DAG, each with inputDefinitions and dag."""
    yield spec["root"]
    yield from (component for component in spec["components"].values() if "dag" in component)


def tasks(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return every task of every DAG, by name."""
    return {name: task for dag in dags(spec) for name, task in dag["dag"]["tasks"].items()}


def components_of(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the tasks that run in a pod, by name; the others are DAGs."""
    is_pod = {name: "executorLabel" in component for name, component in spec["components"].items()}
    return {name: task for name, task in tasks(spec).items() if is_pod[task["componentRef"]["name"]]}


def container(spec: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the container of a component."""
    return spec["deploymentSpec"]["executors"][f"exec-{name}"]["container"]


def pod(platform: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the options for Kubernetes of a component's pod."""
    return platform["deploymentSpec"]["executors"][f"exec-{name}"]


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_compiling_gives_the_golden_file_byte_for_byte(hash_seed: str, tmp_path: Path):
    """In a process of its own, for every seed of its hashes. To renew the golden file: ``spira pipeline compile``."""
    command = [sys.executable, "-m", "spira", "pipeline", "compile", "--out", str(tmp_path / "training.yaml")]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONHASHSEED": hash_seed}, cwd=COMPILED.parents[1])
    assert (tmp_path / "training.yaml").read_bytes() == COMPILED.read_bytes()


def test_every_executor_has_the_given_image(spec: dict[str, Any]):
    """On a cluster, the image of the deployment, by its digest."""
    executors = spec["deploymentSpec"]["executors"]
    assert {executor["container"]["image"] for executor in executors.values()} == {IMAGE}
    assert {"preprocess", "train", "evaluate", "push", "deploy", "reject"} <= {name[5:] for name in executors}


def test_the_gate_is_read_from_a_single_return_value_and_has_both_branches(spec: dict[str, Any]):
    """kfp's local runner cannot read a named output; without an else, an unread condition looks like a finished run."""
    policies = [task.get("triggerPolicy", {}) for task in tasks(spec).values()]
    conditions = {policy["condition"] for policy in policies if "condition" in policy}
    value = "inputs.parameter_values['pipelinechannel--evaluate-Output'] == true"
    assert conditions == {value, f"!({value})"}
    assert list(spec["components"]["comp-evaluate"]["outputDefinitions"]["parameters"]) == ["Output"]


def test_no_branch_ends_in_one_of(spec: dict[str, Any]):
    """OneOf fails on a cache hit and, with the local runner, for artifacts."""
    assert "OneOf" not in yaml.safe_dump(spec)
    assert [dag["dag"]["outputs"] for dag in dags(spec) if "condition" in str(dag) and "outputs" in dag["dag"]] == []


@pytest.mark.parametrize("name", ["evaluate", "push", "deploy", "reject"])
def test_tasks_with_effects_or_that_read_the_registry_are_never_cached(spec: dict[str, Any], name: str):
    """The option is set on each task, as a client's enable_caching=False applies to root tasks only."""
    assert tasks(spec)[name]["cachingOptions"] == {}


@pytest.mark.parametrize("name", ["preprocess", "train"])
def test_tasks_whose_outputs_follow_from_their_inputs_are_cached(spec: dict[str, Any], name: str):
    """The digests of data and code are inputs, as the cache compares neither files nor the content of an image."""
    assert tasks(spec)[name]["cachingOptions"] == {"enableCache": True}
    assert "data_digest" in tasks(spec)["preprocess"]["inputs"]["parameters"]
    digest = tasks(spec)[name]["inputs"]["parameters"]["code_digest"]["componentInputParameter"]
    assert digest.removeprefix("pipelinechannel--") == "code_digest"


def test_nothing_is_cached_where_no_digest_pins_the_data(tmp_path: Path):
    """The parameters of a schedule are the same every night, even if the data has changed."""
    spec, _ = compiled(CompileOptions(cached=False), tmp_path)
    assert [task["cachingOptions"] for task in components_of(spec).values()] == [{}] * 6


def test_seeds_are_whole_numbers(spec: dict[str, Any]):
    """From a bare list, a cluster passes a seed as a string."""
    (loop,) = (task for task in tasks(spec).values() if "parameterIterator" in task)
    item = loop["parameterIterator"]["itemInput"]
    inner = spec["components"][loop["componentRef"]["name"]]["inputDefinitions"]["parameters"]
    assert inner[item]["parameterType"] == "NUMBER_INTEGER"
    assert spec["components"]["comp-train"]["inputDefinitions"]["parameters"]["seed"] == {
        "description": "Seed of initial weights, order of recordings, noise and dropout, such as 42.",
        "parameterType": "NUMBER_INTEGER",
    }


def test_settings_are_passed_as_text(spec: dict[str, Any]):
    """In a dictionary, 40 would arrive as 40.0. Only labels of nodes are a dictionary, as their values are text."""
    definitions = spec["root"]["inputDefinitions"]["parameters"]
    types = {name: definition["parameterType"] for name, definition in definitions.items()}
    assert (types["config"], types["gate"]) == ("STRING", "STRING")
    assert [name for name, type_ in types.items() if type_ == "STRUCT"] == ["node_selector"]


def test_every_parameter_that_a_sub_dag_reads_is_passed_to_it(spec: dict[str, Any]):
    """Kubeflow passes a pipeline parameter to a sub-DAG only if a task inside declares it as an input."""
    for dag in dags(spec):
        known = set(dag.get("inputDefinitions", {}).get("parameters", {}))
        for name, task in dag["dag"]["tasks"].items():
            inputs = task.get("inputs", {}).get("parameters", {}).values()
            missing = {item["componentInputParameter"] for item in inputs if "componentInputParameter" in item} - known
            assert not missing, name


def test_every_parameter_that_a_pod_refers_to_is_passed_to_its_dag(spec: dict[str, Any], platform: dict[str, Any]):
    """Resources and placement refer to parameters too, and the driver has only those of its DAG."""
    for dag in dags(spec):
        known = set(dag.get("inputDefinitions", {}).get("parameters", {}))
        for name, task in dag["dag"]["tasks"].items():
            if name not in components_of(spec):
                continue
            placeholders = re.findall(r"inputs\.parameters\['(.+?)'\]", str(container(spec, name).get("resources")))
            assert set(placeholders) <= set(task["inputs"]["parameters"]), name
            inputs = task["inputs"]["parameters"]
            assert {inputs[placeholder]["componentInputParameter"] for placeholder in placeholders} <= known
            assert set(re.findall(r"'componentInputParameter': '(.+?)'", str(pod(platform, name)))) <= known, name


def test_gpus_are_parameters_of_a_run(spec: dict[str, Any], platform: dict[str, Any]):
    """Number, nodes and tolerations are parameters, for training alone; the type is the name of the resource."""
    accelerator = container(spec, "train")["resources"]["accelerator"]
    assert accelerator["resourceType"] == "nvidia.com/gpu"
    assert "gpu_count" in accelerator["resourceCount"]
    assert "node_selector" in str(pod(platform, "train")["nodeSelector"])
    assert "tolerations" in str(pod(platform, "train")["tolerations"])
    others = [name for name in components_of(spec) if name != "train"]
    assert [name for name in others if "accelerator" in str(container(spec, name))] == []
    assert [name for name in others if "nodeSelector" in pod(platform, name)] == []


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_tasks_that_use_torch_have_resources_and_shared_memory(
    spec: dict[str, Any], platform: dict[str, Any], name: str
):
    """CPU and memory are parameters; a volume gives more than a container's 64 MB of shared memory."""
    resources = container(spec, name)["resources"]
    assert "cpu" in resources["resourceCpuRequest"]
    assert "memory" in resources["resourceMemoryRequest"]
    assert resources["resourceMemoryLimit"] == resources["resourceMemoryRequest"]
    shared_memory = {"medium": "Memory", "mountPath": "/dev/shm", "volumeName": "shm"}
    assert pod(platform, name)["emptyDirMounts"] == [shared_memory]


def test_the_size_of_pods_is_no_part_of_the_cache_key_of_preprocess(spec: dict[str, Any]):
    """Parameters are part of the key, and a new corpus would cause every network to be trained again."""
    assert "inputs.parameters" not in str(container(spec, "preprocess")["resources"])


def test_pods_and_runs_have_time_limits(spec: dict[str, Any], platform: dict[str, Any]):
    """The limit of a run is for pods that fit on no node; finished pods are deleted after a week."""
    limits = {name: int(pod(platform, name)["activeDeadlineSeconds"]) for name in components_of(spec)}
    assert all(HOUR <= limit <= 24 * HOUR for limit in limits.values())
    assert platform["pipelineConfig"] == {"activeDeadlineSeconds": 48 * HOUR, "resourceTtlOnCompletion": 168 * HOUR}


def test_no_task_has_a_retry_policy(spec: dict[str, Any]):
    """A stock Kubeflow ignores it, and on one machine it would only repeat a refusal."""
    assert "retryPolicy" not in str(spec)


def test_every_task_has_a_display_name(spec: dict[str, Any]):
    """The dashboard shows it."""
    display_names = {name: task["taskInfo"]["name"] for name, task in components_of(spec).items()}
    assert display_names == {name: name.capitalize() for name in display_names}
    assert spec["pipelineInfo"]["displayName"] == "SPIRA training"


def test_the_file_has_no_secret_and_no_path_of_a_node(spec: dict[str, Any], platform: dict[str, Any]):
    """It runs on any installation: Kubeflow stores artifacts, and MLflow is a URL."""
    text = yaml.safe_dump([spec, platform]).lower()
    assert [word for word in ("hostpath", "secret", "password", "token", "minio") if word in text] == []
    assert not re.search(r"s3://\w", text)


def test_only_preprocess_has_the_keys_of_the_store(tmp_path: Path):
    """From a Secret, as environment variables; keys that it lacks are left out."""
    compile_pipeline(tmp_path / "out.yaml", options=CompileOptions(secret="spira-data"))
    _, platform = yaml.safe_load_all((tmp_path / "out.yaml").read_text())
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    secrets = {name: executor["secretAsEnv"] for name, executor in executors.items() if "secretAsEnv" in executor}
    assert list(secrets) == ["exec-preprocess"]
    ((secret,),) = secrets.values()
    assert (secret["secretName"], secret["optional"]) == ("spira-data", True)
    assert {entry["envVar"]: entry["secretKey"] for entry in secret["keyToEnv"]} == {n: n for n in STORE_VARIABLES}


def test_only_tasks_that_can_resume_mount_the_claim(platform: dict[str, Any], tmp_path: Path):
    """Kubeflow refuses an empty name of a claim, so the claim is a compile-time option and not a parameter."""
    _, cluster = compiled(OPTIONS["cluster"], tmp_path)
    executors = cluster["deploymentSpec"]["executors"]
    mounts = {name: executor["pvcMount"][0] for name, executor in executors.items() if "pvcMount" in executor}
    assert set(mounts) == {"exec-preprocess", "exec-train"}
    assert {(mount["constant"], mount["mountPath"]) for mount in mounts.values()} == {("spira-state", STATE)}
    assert "pvcMount" not in str(compiled(CompileOptions(), tmp_path)[1])


def test_the_exit_handler_covers_all_tasks(tmp_path: Path):
    """All tasks are inside of it, and the cache never answers its notification."""
    spec, _ = compiled(OPTIONS["cluster"], tmp_path)
    root = spec["root"]["dag"]["tasks"]
    assert set(root) == {"exit-handler-1", "notify"}
    assert root["notify"]["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    assert root["notify"]["cachingOptions"] == {}
    status = root["notify"]["inputs"]["parameters"]["status"]
    assert status == {"taskFinalStatus": {"producerTask": "exit-handler-1"}}


def test_a_run_of_a_schedule_has_a_name(spec: dict[str, Any]):
    """Its parameters are always the same, so Kubeflow's own name of the run is used."""
    job = tasks(spec)["evaluate"]["inputs"]["parameters"]["job"]
    assert job == {"runtimeValue": {"constant": "{{$.pipeline_job_name}}"}}


def test_no_default_is_repeated(spec: dict[str, Any]):
    """Only spira.config has defaults."""
    assert "defaultValue" not in yaml.safe_dump(spec)


def test_the_parameters_are_those_of_the_compiled_pipeline():
    """One list: a parameter that only one side has would fail at the start of a run."""
    (spec, *_) = yaml.safe_load_all(COMPILED.read_text())
    assert set(spec["root"]["inputDefinitions"]["parameters"]) == set(Parameters.model_fields)
