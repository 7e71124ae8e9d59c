"""The training pipeline: one composition, compiled once, run by Kubernetes or on one machine.

    spira pipeline compile --image REGISTRY/spira-train@sha256:…

The top level of a run
----------------------
Preprocess, the trainings, Evaluate and Outcome, in which one of the branches Approved and Rejected runs. Only where a
run must be reported to a URL, an exit handler is around them.

Placement
---------
The sizes of pods are compile-time options, the nodes on which they run are parameters:

    gpu_count   node_selector                                            tolerations
    0           {}                                                       []
    1           {"cloud.google.com/gke-accelerator": "nvidia-tesla-t4"}  [GPU]     on GKE
    1           {"karpenter.sh/nodepool": "gpu"}                         [GPU]     with Karpenter

    GPU = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}

Cache
-----
Kubeflow's cache compares image, command, input parameters, input artifacts and claims, never content. The inputs of
preprocess are the data's place and digest, its own section of the configuration, and a digest of the code. So a changed
setting of the training, or another size of pods, leaves the corpus cached.

Whether a task is cached is fixed in the compiled file. There are therefore two compiled forms. The form for data that a
digest pins is cached, and has no default for the digest. The other is never cached; the dashboard and schedules use it.

Configuration and gate are JSON text. A structure does not pass unchanged: a protobuf structure has one type of number,
so that 40 arrives as 40.0 in kfp's local runner.

Failures
--------
No task has a retry policy: a stock Kubeflow ignores it, and on one machine it would only repeat a refusal. To retry a
run that failed or was preempted, start it again: the cache returns finished tasks, and training resumes from the state
folder, which is a mounted volume (``CompileOptions.claim``).
"""

import re
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from kfp import compiler, dsl, kubernetes
from kfp.compiler.compiler_utils import KubernetesManifestOptions
from kfp.dsl.graph_component import GraphComponent
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec

from components import IMAGE
from components.deploy import deploy
from components.evaluate import evaluate
from components.notify import notify
from components.preprocess import preprocess
from components.push import push
from components.reject import reject
from components.train import train
from pipelines.parameters import OPTIONAL, REGISTRY_URI, STATE
from spira import lineage
from spira.config import Config
from spira.data.pseudonyms import KEY_VARIABLE

NAME = "spira-training"
DISPLAY_NAME = "SPIRA training"
COMPILED = Path(__file__).with_suffix(".yaml")
HOUR = 3600
LIMITS = dsl.PipelineConfig(active_deadline_seconds=48 * HOUR, ttl_seconds_after_finished=7 * 24 * HOUR)
"""A run is ended after two days, as a pod that no node can take would otherwise wait for ever. Its pods and their logs
are removed a week after its end."""
SEEDS = list(Config().training.seeds)

STORE_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
"""Keys of the Secret, and environment variables of preprocess (:mod:`spira.data.storage.s3`)."""


@dataclass(frozen=True)
class CompileOptions:
    """Compile-time options of the training pipeline: what is no pipeline parameter, and some defaults of parameters.

    Sizes of pods are options because Kubeflow passes a parameter into a loop only as an input of a task, and every
    input is part of the cache key: another size would train every network again.
    """

    claim: str = ""
    """PersistentVolumeClaim for the state of preprocess and train; none if empty. Kubeflow refuses an empty name."""
    secret: str = ""
    """Secret in the namespace of the pods with address and keys of the S3 store of the data set, and with the key of
    pseudonyms (:mod:`spira.data.pseudonyms`); none if empty."""
    cached: bool = False
    """Whether the cache may answer preprocess and train. Such a pipeline has no default for ``data_digest``."""
    cpu: str = "1"
    """CPU request of each train pod and of the evaluate pod, such as 2 or 500m."""
    memory: str = "4Gi"
    """Memory request and limit of each train pod and of the evaluate pod, such as 4Gi."""
    gpu_count: int = 0
    """GPUs of each train pod. With one or more, training fails by default where there is no GPU."""
    node_selector: dict[str, str] = field(default_factory=dict)
    """Default of the parameter."""
    tolerations: tuple[dict[str, Any], ...] = ()
    """Default of the parameter."""
    registry_uri: str = REGISTRY_URI
    """Default of the parameter."""
    target: str = ""
    """Default of the parameter; if it is empty, there is neither the parameter nor a task that deploys."""
    notify_url: str = ""
    """Default of the parameter; if it is empty, there is neither the parameter nor an exit handler."""
    run_name: str = ""
    """Name of the run, for kfp's local runner, which cannot name a run; Kubeflow's own name of the run if empty. Only
    Kubeflow's own name is right for a run that a person cloned."""
    name: ClassVar[str] = NAME
    """Name of the pipeline."""

    def compile(self, out: Path, image: str) -> None:
        """Write the compiled pipeline; see :func:`compile_pipeline`."""
        compile_pipeline(out, image, self)


def code_digest(image: str) -> str:
    """Return the digest of the code in an image: the image's own, or that of these sources if a tag names it.

    It is empty for the placeholder of the image: the compiled file in this source tree cannot contain its own digest.
    """
    if image == IMAGE:
        return ""
    _, _, digest = image.partition("@")
    return digest or lineage.code_digest()


def pipeline(options: CompileOptions, code_digest: str = "") -> GraphComponent:
    """Return the composition for the given options.

    Args:
        code_digest: Digest of the code, a constant input of the cached tasks.
    """
    has_gpu = options.gpu_count > 0
    pipeline_run = options.run_name or dsl.PIPELINE_JOB_NAME_PLACEHOLDER

    @dsl.pipeline(name=NAME, display_name=DISPLAY_NAME, pipeline_config=LIMITS)
    def training(
        data: str,
        data_digest: str = "",
        preprocess_config: str = "{}",
        config: str = "{}",
        gate: str = "",
        seeds: list[int] = SEEDS,
        skip_bad: bool = False,
        language: str = "en",
        device: str = "cuda" if has_gpu else "auto",
        require_gpu: bool = has_gpu,
        node_selector: dict = options.node_selector,
        tolerations: list = list(options.tolerations),  # noqa: B006 (kfp copies the defaults)
        state_uri: str = STATE if options.claim else "",
        registry_uri: str = options.registry_uri,
        target: str = options.target,
        notify_url: str = options.notify_url,
    ):
        """Train one detector per seed, evaluate them by the gate, and register the best as a version if it is approved.

        Only data is required. Open the step Evaluate for the verdict: its artifact "verdict" is named by the decision
        and the first reason, and "summary" has the metrics of the noisy and clean tests and every check.

        Args:
            data: Data set: folder, gs:// or s3:// prefix, such as gs://bucket/voices.
            data_digest: SHA-256 digest that the data set must have; empty to accept any. Required where the cache may
                answer, as the cache compares parameters and not the data.
            preprocess_config: Section preprocess of the configuration, JSON; keys that are missing have their
                defaults.
            config: Configuration without its section preprocess, JSON; keys that are missing have their defaults.
            gate: Gate, JSON, with all of its keys; empty for the project's own.
            seeds: Seeds, such as [1, 2]; one network is trained for each.
            skip_bad: Leave bad recordings out, instead of refusing the data set.
            language: Language of the report: en or pt-BR.
            device: Device of the training: auto, cpu, cuda or cuda:N.
            require_gpu: Fail where there is no GPU, instead of training on the CPU.
            node_selector: Labels of the nodes for train pods, such as {"karpenter.sh/nodepool": "gpu"}.
            tolerations: Tolerations of train pods, written as in the specification of a pod.
            state_uri: Folder that outlives a task, from which an interrupted run resumes, such as /state on a mounted
                volume; empty for none.
            registry_uri: URL of the MLflow server, or a folder for SQLite.
            target: Deployment target, JSON, written as in delivery.yaml; empty to leave deployment to continuous
                delivery.
            notify_url: URL that gets a POST request when the run has ended, visible in the dashboard; empty for none.
        """
        with with_exit_handler(options, pipeline_run=pipeline_run, registry_uri=registry_uri, notify_url=notify_url):
            preprocess_task = with_cache_and_state(
                preprocess(
                    data=data,
                    data_digest=data_digest,
                    code_digest=code_digest,
                    preprocess_config=preprocess_config,  # settings are JSON text: in a structure 40 arrives as 40.0
                    skip_bad=skip_bad,
                    state_uri=state_uri,
                ),
                options,
            ).set_display_name("Preprocess")
            with_secret(preprocess_task, options, *STORE_VARIABLES, KEY_VARIABLE)
            with_timeout(preprocess_task.set_cpu_request("500m").set_memory_request("1Gi"), 6)
            corpus = preprocess_task.outputs["corpus"]
            # list[int]: from a bare list a seed arrives as text; without a limit of parallelism, all run side by side
            with dsl.ParallelFor(seeds, name="Train one network per seed") as seed:
                train_task = with_cache_and_state(
                    train(
                        corpus=corpus,
                        config=config,
                        preprocess_config=preprocess_config,
                        seed=seed,
                        device=device,
                        require_gpu=require_gpu,
                        state_uri=state_uri,
                        code_digest=code_digest,
                    ),
                    options,
                ).set_display_name("Train")
                with_resources(with_timeout(train_task, 24), options)
                on_nodes(train_task, options.gpu_count, node_selector, tolerations)
            evaluate_task = without_cache(
                evaluate(
                    corpus=corpus,
                    # collected here, outside of the branches: inside of them it does not compile
                    checkpoints=dsl.Collected(train_task.outputs["checkpoint"]),
                    gate=gate,
                    registry_uri=registry_uri,
                    pipeline_run=pipeline_run,
                    language=language,
                )
            ).set_display_name("Evaluate")
            with_resources(with_timeout(evaluate_task, 6), options)
            with_secret(evaluate_task, options, KEY_VARIABLE)
            results = {
                "corpus": corpus,
                "candidate": evaluate_task.outputs["candidate"],
                "verdict": evaluate_task.outputs["verdict"],
                "report": evaluate_task.outputs["report"],
                "registry_uri": registry_uri,
            }
            # The condition reads a single return value, as kfp's local runner cannot read a named output. With an else
            # branch, a condition that cannot be read never looks like a finished run. No OneOf joins the branches: it
            # fails on a cache hit.
            with dsl.If(evaluate_task.outputs["Output"] == True, name="Approved"):  # noqa: E712 (kfp's condition)
                push_task = with_timeout(without_cache(push(**results)).set_display_name("Push"), 1)
                if options.target:
                    deploy_task = deploy(
                        package=push_task.outputs["package"],
                        version=push_task.outputs["Output"],
                        registry_uri=registry_uri,
                        target=target,
                    )
                    with_timeout(without_cache(deploy_task).set_display_name("Deploy"), 1)
            with dsl.Else(name="Rejected"):
                with_timeout(without_cache(reject(**results)).set_display_name("Reject"), 1)

    _complete(training.pipeline_spec, options)
    return training


def _complete(spec: PipelineSpec, options: CompileOptions) -> None:
    """Change what kfp's language cannot express: the name of the branches, and parameters that options leave out."""
    for dag in (spec.root.dag, *(component.dag for component in spec.components.values())):
        for name, task in dag.tasks.items():
            if name.startswith("condition-branches"):
                task.task_info.name = "Outcome"
    parameters = spec.root.input_definitions.parameters
    for name in OPTIONAL:
        if not getattr(options, name):
            del parameters[name]
    if options.cached:
        # The cache would answer unpinned data with the corpus of other data. Without a default, the server and the
        # dashboard refuse a run that pins nothing.
        parameters["data_digest"].ClearField("default_value")
        parameters["data_digest"].ClearField("is_optional")


def with_exit_handler(options: CompileOptions, **arguments: object) -> dsl.ExitHandler | nullcontext:
    """Return a context whose tasks are followed by notify, however they end; an empty one if nothing notifies.

    Args:
        arguments: Inputs of notify.
    """
    if not options.notify_url:
        return nullcontext()
    task = with_timeout(without_cache(notify(**arguments)).set_display_name("Notify"), 1)
    return dsl.ExitHandler(task, name="Train and evaluate")


def with_cache_and_state(task: dsl.PipelineTask, options: CompileOptions) -> dsl.PipelineTask:
    """Cache a task whose outputs follow from its inputs alone, and mount the claim for its state."""
    if options.claim:
        kubernetes.mount_pvc(task, options.claim, STATE)
    return task.set_caching_options(options.cached)


def with_secret(task: dsl.PipelineTask, options: CompileOptions, *variables: str) -> None:
    """Set environment variables of a task from the keys of the Secret; it may lack those that are not needed."""
    if options.secret:
        kubernetes.use_secret_as_env(task, options.secret, {name: name for name in variables}, optional=True)


def without_cache(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Disable the cache of a task that reads or changes something outside of the pipeline."""
    return task.set_caching_options(False)


def with_timeout(task: dsl.PipelineTask, hours: int) -> dsl.PipelineTask:
    """Limit the run time of a task's pod."""
    return kubernetes.set_timeout(task, hours * HOUR)


def with_resources(task: dsl.PipelineTask, options: CompileOptions) -> None:
    """Request CPU and memory for a task that uses torch, and mount a volume as its shared memory."""
    task.set_env_variable("SPIRA_CPU_REQUEST", options.cpu)  # one thread a core; kfp's local runner has set its own
    task.set_cpu_request(options.cpu).set_memory_request(options.memory).set_memory_limit(options.memory)
    # without a volume, a container has 64 MB of shared memory
    kubernetes.empty_dir_mount(task, volume_name="shm", mount_path="/dev/shm", medium="Memory")


def on_nodes(task: dsl.PipelineTask, gpu_count: int, node_selector: dict, tolerations: list) -> None:
    """Request GPUs for a task, and the nodes on which it may run."""
    if gpu_count:  # the type is the name of the resource; node_selector chooses a model of GPU
        task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(gpu_count)
    kubernetes.add_node_selector_json(task, node_selector)
    kubernetes.add_toleration_json(task, tolerations)


def with_image(text: str, image: str) -> str:
    """Set the image of all tasks in a compiled pipeline, and its digest in their environment, for the provenance."""
    digest = image.partition("@")[2]

    def replace(match: re.Match[str]) -> str:
        env, indent = match["env"] or "", match["indent"]
        if digest:
            header = env or f"{indent}env:\n"
            env = f"{header}{indent}- name: SPIRA_IMAGE_DIGEST\n{indent}  value: {digest}\n"
        return f"{env}{indent}image: {image}\n"

    # kfp sorts keys: a container's variables, if it has any, stand right before its image
    pattern = rf"(?P<env>^ +env:\n(?: +- name: .*\n +value: .*\n)+)?^(?P<indent> +)image: {re.escape(IMAGE)}\n"
    return re.sub(pattern, replace, text, flags=re.MULTILINE)


def compile_pipeline(
    out: Path,
    image: str = IMAGE,
    options: CompileOptions | None = None,
    manifest: KubernetesManifestOptions | None = None,
) -> None:
    """Write the compiled pipeline; the same sources give the same bytes.

    Args:
        image: Image of the components; on a cluster with a digest, as the cache compares images by name only.
        options: Compile-time options; those of one machine if None.
        manifest: Names of the resources ``Pipeline`` and ``PipelineVersion``; None to write Kubeflow's own file.
    """
    temporary = out.with_name(f".{out.stem}.writing.yaml")
    compiler.Compiler().compile(
        pipeline(options or CompileOptions(), code_digest(image)),
        str(temporary),
        kubernetes_manifest_format=manifest is not None,
        kubernetes_manifest_options=manifest,
    )
    text = with_image(temporary.read_text(), image)
    if manifest:
        # kfp always writes it, and an API server whose definition of Pipeline lacks it refuses the resource
        text = re.sub(r"^  displayName: .*\n(?=---$)", "", text, count=1, flags=re.MULTILINE)
    temporary.write_text(text)
    temporary.replace(out)
