"""The compiled pipeline: reproducible bytes, and none of the structures that a runner handles wrongly."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import components
from pipelines import training
from pipelines.parameters import OPTIONAL, STATE, Parameters, describe
from pipelines.training import (
    COMPILED,
    HOUR,
    STORE_VARIABLES,
    CompileOptions,
    code_digest,
    compile_pipeline,
    with_image,
)
from spira import lineage
from spira.config import Config, from_dict
from spira.data.pseudonyms import KEY_VARIABLE
from spira.delivery.training_request import TrainingRequest
from spira.evaluation import gate as gates
from spira.packaging import attestation
from spira.stages.inputs import read_config, read_gate, read_project
from tests.support import ROOT
from tests.support.gatefiles import LENIENT

pytestmark = pytest.mark.integration

IMAGE = "registry.example/spira@sha256:0123"
CLUSTER = CompileOptions(claim="spira-state", gpu_count=1, target='{"kind": "kserve"}', notify_url="http://chat/hook")
OPTIONS = {"plain": CompileOptions(), "cluster": CLUSTER}


def compiled(options: CompileOptions, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compile the pipeline; return its two documents, the pipeline and the options for Kubernetes."""
    compile_pipeline(folder / "training.yaml", IMAGE, options)
    spec, platform = yaml.safe_load_all((folder / "training.yaml").read_text())
    return spec, platform["platforms"]["kubernetes"]


@pytest.fixture(scope="module", params=OPTIONS)
def documents(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The test reads both documents, for each of the options."""
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
    """A cluster uses the image of the deployment, by its digest."""
    executors = spec["deploymentSpec"]["executors"]
    assert {executor["container"]["image"] for executor in executors.values()} == {IMAGE}
    assert {"preprocess", "train", "evaluate", "push", "reject"} <= {name[5:] for name in executors}


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


@pytest.mark.parametrize("name", ["evaluate", "push", "deploy", "reject", "notify"])
def test_tasks_with_effects_or_that_read_the_registry_are_never_cached(tmp_path: Path, name: str):
    """The option is set on each task, as a client's enable_caching=False applies to root tasks only."""
    spec, _ = compiled(replace(CLUSTER, cached=True), tmp_path)
    assert tasks(spec)[name]["cachingOptions"] == {}


@pytest.mark.parametrize("name", ["preprocess", "train"])
def test_tasks_whose_outputs_follow_from_their_inputs_are_cached(tmp_path: Path, name: str):
    """The digests of data and code are inputs, as the cache compares neither files nor the content of an image."""
    spec, _ = compiled(CompileOptions(cached=True), tmp_path)
    assert tasks(spec)[name]["cachingOptions"] == {"enableCache": True}
    assert "data_digest" in tasks(spec)["preprocess"]["inputs"]["parameters"]
    digest = tasks(spec)[name]["inputs"]["parameters"]["code_digest"]
    assert digest == {"runtimeValue": {"constant": IMAGE.partition("@")[2]}}


def test_nothing_is_cached_where_no_digest_pins_the_data(spec: dict[str, Any]):
    """The parameters of a schedule or of the dashboard's form are the same every night, even if the data has changed.

    The form is filled for the version that was uploaded last, which is not cached.
    """
    assert {str(task["cachingOptions"]) for task in components_of(spec).values()} == {"{}"}


def test_a_pipeline_whose_tasks_are_cached_requires_the_digest_of_the_data(tmp_path: Path):
    """Server and dashboard refuse a run without a value for a parameter that has no default."""
    spec, _ = compiled(CompileOptions(cached=True), tmp_path)
    assert required(spec) == {"data", "data_digest"}


def test_a_run_needs_no_parameter_but_the_data(spec: dict[str, Any]):
    """The dashboard's form keeps its button disabled until every parameter without a default has a value."""
    assert required(spec) == {"data"}


def test_the_defaults_are_those_of_the_cluster(tmp_path: Path):
    """A run from the dashboard's form finds MLflow where the manifests put it, its state, and its GPU."""
    plain, cluster = (compiled(options, tmp_path)[0] for options in OPTIONS.values())
    assert defaults(plain) == {
        "data_digest": "",
        "preprocess_config": "{}",
        "config": "{}",
        "gate": "",
        "project": "",
        "seeds": [42, 43, 46],
        "skip_bad": False,
        "device": "auto",
        "require_gpu": False,
        "node_selector": {},
        "tolerations": [],
        "state_uri": "",
        "registry_uri": "http://mlflow.mlflow:5000",
    }
    changed = {"device": "cuda", "require_gpu": True, "state_uri": STATE}
    own = {"target": CLUSTER.target, "notify_url": CLUSTER.notify_url}
    assert defaults(cluster) == defaults(plain) | changed | own
    services = ROOT / "manifests" / "base" / "mlflow"
    (service,) = (
        document
        for document in yaml.safe_load_all((services / "mlflow.yaml").read_text())
        if document["kind"] == "Service"
    )
    namespace = yaml.safe_load((services / "kustomization.yaml").read_text())["namespace"]
    address = f"http://{service['metadata']['name']}.{namespace}:{service['spec']['ports'][0]['port']}"
    assert defaults(plain)["registry_uri"] == address


def test_the_default_texts_are_the_defaults_of_the_project():
    """The stages read them as the project's configuration and gate."""
    (spec, *_) = yaml.safe_load_all(COMPILED.read_text())
    values = defaults(spec)
    assert read_config(values["config"], values["preprocess_config"]) == Config()
    assert read_gate(values["gate"]) == gates.load()
    assert read_project(values["project"]).is_empty


def required(spec: dict[str, Any]) -> set[str]:
    """Return the parameters that a run must have a value for."""
    definitions = spec["root"]["inputDefinitions"]["parameters"]
    return {name for name, definition in definitions.items() if not definition.get("isOptional")}


def defaults(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the defaults of the parameters."""
    definitions = spec["root"]["inputDefinitions"]["parameters"]
    return {
        name: definition["defaultValue"] for name, definition in definitions.items() if "defaultValue" in definition
    }


Documents = tuple[dict[str, Any], dict[str, Any]]


def cache_key(documents: Documents, request: TrainingRequest, name: str) -> dict[str, Any]:
    """Return what Kubeflow's cache compares of a task: image, command, parameters, artifacts and claims.

    Artifacts are compared by their id. That of the corpus stays if the cache answers preprocess.
    """
    spec, platform = documents
    arguments = defaults(spec) | Parameters.local(request, Path("work"), serve=False).arguments()
    inputs = tasks(spec)[name]["inputs"]
    values = {}
    for parameter, source in inputs["parameters"].items():
        channel = source.get("componentInputParameter", "").removeprefix("pipelinechannel--")
        constant = 42 if channel.endswith("-loop-item") else source.get("runtimeValue", {}).get("constant")
        values[parameter] = arguments.get(channel, constant)
    executor = container(spec, name)
    return {
        "image": executor["image"],
        "command": executor["command"] + executor["args"],
        "parameters": values,
        "artifacts": sorted(inputs.get("artifacts", {})),
        "claims": [mount["constant"] for mount in pod(platform, name).get("pvcMount", [])],
    }


REQUEST = TrainingRequest(data="gs://voices", data_digest="d" * 64, config=Config(), gate=gates.load())


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Documents:
    """Documents of the cached form of the cluster's pipeline."""
    return compiled(replace(CLUSTER, cached=True), tmp_path_factory.mktemp("cached"))


def test_sizes_and_places_of_pods_are_no_part_of_the_cache_key(cached: Documents, tmp_path: Path):
    """A larger pod must not prepare the corpus or train the networks again."""
    places = {"node_selector": {"pool": "gpu"}, "tolerations": ({"key": "gpu"},)}
    other = replace(CLUSTER, cached=True, cpu="8", memory="64Gi", gpu_count=4, target="", notify_url="", **places)
    changed = compiled(other, tmp_path)
    assert container(changed[0], "train")["resources"] != container(cached[0], "train")["resources"]
    for name in ("preprocess", "train"):
        assert cache_key(changed, REQUEST, name) == cache_key(cached, REQUEST, name)


@pytest.mark.parametrize(
    ("setting", "changed"),
    [
        ("training.max_epochs=9", {"train"}),
        ("model.channels=8", {"train"}),
        ("evaluation.noise_draws=1", {"train"}),
        ("preprocess.max_seconds=9", {"preprocess", "train"}),
    ],
)
def test_a_setting_changes_only_the_keys_of_the_tasks_that_read_it(cached: Documents, setting: str, changed: set[str]):
    """A changed training keeps the corpus. A network is tied to the whole configuration, which it is saved with."""
    other = REQUEST.model_copy(update={"config": from_dict({}, [setting])})
    keys = {
        name: [cache_key(cached, request, name) for request in (REQUEST, other)] for name in ("preprocess", "train")
    }
    assert {name for name, (before, after) in keys.items() if before != after} == changed


def test_data_and_code_are_part_of_the_cache_key(cached: Documents):
    """The digest of the data decides, not its place alone; and the image's own digest decides for the code."""
    other = REQUEST.model_copy(update={"data_digest": "e" * 64})
    before, after = (cache_key(cached, request, "preprocess") for request in (REQUEST, other))
    assert before != after
    assert before["parameters"]["code_digest"] == IMAGE.partition("@")[2]


def test_the_code_of_an_image_by_tag_is_that_of_these_sources():
    """A tag can move. The compiled file in the source tree has no digest, as it would be part of what it identifies."""
    digests = code_digest("spira-train:dev"), code_digest(IMAGE), code_digest(components.IMAGE)
    assert digests == (lineage.code_digest(), "sha256:0123", "")


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
    assert types["preprocess_config"] == "STRING"
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


def test_only_trainings_have_gpus_and_chosen_nodes(spec: dict[str, Any], platform: dict[str, Any]):
    """The type is the name of the resource; nodes and tolerations are parameters. Without a GPU none is requested."""
    accelerator = container(spec, "train")["resources"].get("accelerator", {})
    gpu = ("nvidia.com/gpu", "1") if "deploy" in tasks(spec) else (None, None)
    assert (accelerator.get("resourceType"), accelerator.get("resourceCount")) == gpu
    assert "node_selector" in str(pod(platform, "train")["nodeSelector"])
    assert "tolerations" in str(pod(platform, "train")["tolerations"])
    others = [name for name in components_of(spec) if name != "train"]
    assert [name for name in others if "accelerator" in str(container(spec, name))] == []
    assert [name for name in others if "nodeSelector" in pod(platform, name)] == []


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_tasks_that_use_torch_have_resources_and_shared_memory(
    spec: dict[str, Any], platform: dict[str, Any], name: str
):
    """A volume gives more than a container's 64 MB of shared memory."""
    resources = container(spec, name)["resources"]
    keys = ("resourceCpuRequest", "resourceMemoryRequest", "resourceMemoryLimit")
    assert [resources[key] for key in keys] == ["1", "4Gi", "4Gi"]
    assert {"name": "SPIRA_CPU_REQUEST", "value": "1"} in container(spec, name)["env"]
    shared_memory = {"medium": "Memory", "mountPath": "/dev/shm", "volumeName": "shm"}
    assert pod(platform, name)["emptyDirMounts"] == [shared_memory]


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


def test_the_top_level_shows_the_stages_and_the_outcome(tmp_path: Path):
    """Nothing is around them, every name is for a person, and the branches are named by the decision."""
    spec, _ = compiled(CompileOptions(), tmp_path)
    assert display_names(spec["root"]) == {"Preprocess", "Train one network per seed", "Evaluate", "Outcome"}
    (outcome,) = (name for name in spec["components"] if name.startswith("comp-condition-branches"))
    assert display_names(spec["components"][outcome]) == {"Approved", "Rejected"}


def display_names(component: dict[str, Any]) -> set[str]:
    """Return the names that the dashboard shows of the tasks of a DAG."""
    return {task["taskInfo"]["name"] for task in component["dag"]["tasks"].values()}


def test_what_is_not_configured_has_neither_a_task_nor_a_parameter(tmp_path: Path):
    """A task that does nothing costs two pods, and a parameter without a use looks as if it had one."""
    spec, _ = compiled(CompileOptions(), tmp_path)
    assert {"deploy", "notify"} & set(tasks(spec)) == set()
    assert set(OPTIONAL) & set(spec["root"]["inputDefinitions"]["parameters"]) == set()
    full, _ = compiled(CLUSTER, tmp_path)
    assert {"deploy", "notify"} < set(tasks(full))
    assert set(OPTIONAL) < set(full["root"]["inputDefinitions"]["parameters"])


def test_seeds_are_trained_side_by_side(spec: dict[str, Any]):
    """Without a limit, the cluster's room decides."""
    (loop,) = (task for task in tasks(spec).values() if "parameterIterator" in task)
    assert "iteratorPolicy" not in loop


@pytest.mark.parametrize(
    ("options", "pods"),
    [
        (CompileOptions(), 20),
        (CompileOptions(target="{}"), 22),
        (CompileOptions(target="{}", notify_url="http://x"), 25),
    ],
)
def test_the_number_of_pods_of_an_approved_run(options: CompileOptions, pods: int, tmp_path: Path):
    """The run has three seeds. Before, every run had 25, as it had an exit handler and a task that deploys."""
    spec, _ = compiled(options, tmp_path)
    assert count_pods(spec, spec["root"], seeds=3) == pods
    assert f"{pods} pods" in (ROOT / "docs" / "kubernetes.md").read_text()


def count_pods(spec: dict[str, Any], component: dict[str, Any], seeds: int) -> int:
    """Return the number of pods of a DAG in an approved run.

    Kubeflow starts a driver for every DAG, for every iteration and for every task, and an executor for every task. The
    branch that is not taken has its driver, which reads the condition.
    """
    if "executorLabel" in component:
        return 2
    pods = 1
    for task in component["dag"]["tasks"].values():
        inner = spec["components"][task["componentRef"]["name"]]
        if "parameterIterator" in task:
            pods += 1 + seeds * count_pods(spec, inner, seeds)
        elif task["taskInfo"]["name"] == "Rejected":
            pods += 1
        else:
            pods += count_pods(spec, inner, seeds)
    return pods


def test_the_file_has_no_secret_and_no_path_of_a_node(spec: dict[str, Any], platform: dict[str, Any]):
    """It runs on any installation: Kubeflow stores artifacts, and MLflow is a URL."""
    text = yaml.safe_dump([spec, platform]).lower()
    assert [word for word in ("hostpath", "secret", "password", "token", "minio") if word in text] == []
    assert not re.search(r"s3://\w", text)


def test_only_preprocess_has_the_keys_of_the_store(tmp_path: Path):
    """A Secret holds them, and the key of pseudonyms, which evaluate has too; keys that it lacks are left out."""
    compile_pipeline(tmp_path / "out.yaml", options=CompileOptions(secret="spira-data"))
    _, platform = yaml.safe_load_all((tmp_path / "out.yaml").read_text())
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    secrets = {name: executor["secretAsEnv"] for name, executor in executors.items() if "secretAsEnv" in executor}
    keys = {"exec-preprocess": {*STORE_VARIABLES, KEY_VARIABLE}, "exec-evaluate": {KEY_VARIABLE}}
    assert secrets.keys() == keys.keys()
    for name, (secret,) in secrets.items():
        assert (secret["secretName"], secret["optional"]) == ("spira-data", True)
        assert {entry["envVar"]: entry["secretKey"] for entry in secret["keyToEnv"]} == {key: key for key in keys[name]}


def test_only_push_has_the_private_key(tmp_path: Path):
    """Evaluate and deploy have the public one. Both are mounted as files, and their variables name them."""
    options = CompileOptions(signing_secret="signs", verify_config_map="verifies", target="{}")
    spec, platform = compiled(options, tmp_path)
    executors = platform["deploymentSpec"]["executors"]
    mounts = {
        kind: {name: executor[kind] for name, executor in executors.items() if kind in executor}
        for kind in ("secretAsVolume", "configMapAsVolume")
    }
    assert {name: mount[0]["secretName"] for name, mount in mounts["secretAsVolume"].items()} == {"exec-push": "signs"}
    assert {name: mount[0]["configMapName"] for name, mount in mounts["configMapAsVolume"].items()} == {
        "exec-evaluate": "verifies",
        "exec-deploy": "verifies",
    }
    for name, executor in spec["deploymentSpec"]["executors"].items():
        variables = {entry["name"]: entry["value"] for entry in executor["container"].get("env", [])}
        keys = {variable: variables.get(variable) for variable in (attestation.SIGNING_KEY, attestation.VERIFY_KEY)}
        volumes = [mount[name][0] for mount in mounts.values() if name in mount]
        assert [Path(path).parent.as_posix() for path in keys.values() if path] == [
            volume["mountPath"] for volume in volumes
        ], name
    assert not any(volume["optional"] for mount in mounts.values() for (volume,) in mount.values())


def test_only_tasks_that_can_resume_mount_the_claim(platform: dict[str, Any], tmp_path: Path):
    """Kubeflow refuses an empty name of a claim, so the claim is a compile-time option and not a parameter."""
    _, cluster = compiled(CLUSTER, tmp_path)
    executors = cluster["deploymentSpec"]["executors"]
    mounts = {name: executor["pvcMount"][0] for name, executor in executors.items() if "pvcMount" in executor}
    assert set(mounts) == {"exec-preprocess", "exec-train"}
    assert {(mount["constant"], mount["mountPath"]) for mount in mounts.values()} == {("spira-state", STATE)}
    assert "pvcMount" not in str(compiled(CompileOptions(), tmp_path)[1])


def test_the_exit_handler_covers_all_tasks(tmp_path: Path):
    """All tasks are inside of it, and the cache never answers its notification."""
    spec, _ = compiled(CLUSTER, tmp_path)
    root = spec["root"]["dag"]["tasks"]
    assert set(root) == {"exit-handler-1", "notify"}
    assert root["notify"]["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    assert root["notify"]["cachingOptions"] == {}
    status = root["notify"]["inputs"]["parameters"]["status"]
    assert status == {"taskFinalStatus": {"producerTask": "exit-handler-1"}}


def test_a_run_has_the_name_that_kubeflow_gave_it(spec: dict[str, Any]):
    """A clone keeps all parameters, and those of a schedule's runs are always the same, so no parameter is a name."""
    name = {"runtimeValue": {"constant": "{{$.pipeline_job_name}}"}}
    assert tasks(spec)["evaluate"]["inputs"]["parameters"]["pipeline_run"] == name
    assert "run_name" not in spec["root"]["inputDefinitions"]["parameters"]
    if "notify" in tasks(spec):
        assert tasks(spec)["notify"]["inputs"]["parameters"]["pipeline_run"] == name


def test_a_component_repeats_no_default(spec: dict[str, Any]):
    """Only spira.config and the pipeline have defaults."""
    assert "defaultValue" not in yaml.safe_dump(spec["components"])


def test_the_parameters_are_those_of_the_compiled_pipeline(tmp_path: Path):
    """One list: a parameter that only one side has would fail at the start of a run."""
    spec, _ = compiled(CLUSTER, tmp_path)
    assert set(spec["root"]["inputDefinitions"]["parameters"]) == set(Parameters.model_fields)


def test_a_run_is_described_by_its_data_and_by_what_differs_from_the_defaults():
    """The dashboard shows it beside the name of the run."""
    assert describe(REQUEST) == "Data gs://voices (pinned by dddddddddddd); default settings and gate"
    changed = {"config": from_dict({}, ["training.seeds=[1, 2]"]), "gate": gates.load(LENIENT), "data_digest": ""}
    text = describe(REQUEST.model_copy(update=changed))
    assert text.startswith("Data gs://voices (not pinned); training.seeds=[1, 2], gate.")


def test_the_digest_of_the_image_is_in_the_environment_of_every_task(tmp_path: Path) -> None:
    """The provenance of a model has it; an image by tag has no digest. Variables that a task has already are kept."""
    digest = "sha256:" + "1" * 64
    compile_pipeline(tmp_path / "pipeline.yaml", f"registry/spira@{digest}")
    containers = [
        executor["container"]
        for executor in yaml.safe_load((tmp_path / "pipeline.yaml").read_text().partition("\n---\n")[0])[
            "deploymentSpec"
        ]["executors"].values()
    ]
    assert containers
    for container in containers:
        assert container["image"] == f"registry/spira@{digest}"
        assert {"name": "SPIRA_IMAGE_DIGEST", "value": digest} in container["env"]
    compile_pipeline(tmp_path / "tag.yaml", "spira:dev")
    assert "SPIRA_IMAGE_DIGEST" not in (tmp_path / "tag.yaml").read_text()
    own = f"  env:\n  - name: A\n    value: b\n  image: {training.IMAGE}\n"
    assert yaml.safe_load(with_image(own, f"a@{digest}")) == {
        "env": [{"name": "A", "value": "b"}, {"name": "SPIRA_IMAGE_DIGEST", "value": digest}],
        "image": f"a@{digest}",
    }
