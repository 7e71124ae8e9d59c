"""The training pipeline: one composition, compiled once, run by Kubernetes or on one machine.

    spira pipeline compile --image REGISTRY/spira-train@sha256:…

Placement
---------
Parameters decide where pods run, so that one compiled file serves with a GPU and without:

    gpu_count   node_selector                                            tolerations
    "0"         {}                                                       []
    "1"         {"cloud.google.com/gke-accelerator": "nvidia-tesla-t4"}  [GPU]     on GKE
    "1"         {"karpenter.sh/nodepool": "gpu"}                         [GPU]     with Karpenter

    GPU = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}

Failures
--------
No task has a retry policy: a stock Kubeflow ignores it, and on one machine it would only repeat a refusal. To retry a
run that failed or was preempted, start it again: the cache returns finished tasks, and training resumes from the state
folder, which is a mounted volume (``CompileOptions.claim``).
"""

import re
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from kfp import compiler, dsl, kubernetes
from kfp.compiler.compiler_utils import KubernetesManifestOptions
from kfp.dsl.graph_component import GraphComponent

from components import IMAGE
from components.deploy import deploy
from components.evaluate import evaluate
from components.notify import notify
from components.preprocess import preprocess
from components.push import push
from components.reject import reject
from components.train import train
from pipelines.parameters import STATE

NAME = "spira-training"
COMPILED = Path(__file__).with_suffix(".yaml")
HOUR = 3600
LIMITS = dsl.PipelineConfig(active_deadline_seconds=48 * HOUR, ttl_seconds_after_finished=7 * 24 * HOUR)
"""A run is ended after two days, as a pod that no node can take would otherwise wait for ever. Its pods and their logs
are removed a week after its end."""

STORE_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
"""Keys of the Secret, and environment variables of preprocess (:mod:`spira.data.storage.s3`)."""


@dataclass(frozen=True)
class CompileOptions:
    """Compile-time options of the training pipeline: what cannot be a pipeline parameter."""

    claim: str = ""
    """PersistentVolumeClaim for the state of preprocess and train; none if empty. Kubeflow refuses an empty name."""
    secret: str = ""
    """Secret in the namespace of the pods with address and keys of the S3 store of the data set; none if empty."""
    cached: bool = True
    """Whether the cache may answer preprocess and train. Must be False where no digest pins the data."""
    notifies: bool = False
    """Whether an exit handler reports the end of the run. On one machine the waiting process reports it."""
    name: ClassVar[str] = NAME
    """Name of the pipeline."""

    def compile(self, out: Path, image: str) -> None:
        """Write the compiled pipeline; see :func:`compile_pipeline`."""
        compile_pipeline(out, image, self)


def pipeline(options: CompileOptions) -> GraphComponent:
    """Return the composition for the given options."""

    @dsl.pipeline(name=NAME, display_name="SPIRA training", pipeline_config=LIMITS)
    def training(
        data: str,
        data_digest: str,
        code_digest: str,
        config: str,
        gate: str,
        seeds: list[int],
        skip_bad: bool,
        device: str,
        require_gpu: bool,
        cpu: str,
        memory: str,
        gpu_count: str,
        node_selector: dict,
        tolerations: list,
        state_uri: str,
        registry_uri: str,
        target: str,
        notify_url: str,
        run_name: str,
    ):
        """Train one detector per seed, evaluate them by the gate, and register and deploy the best if it is approved.

        Args:
            data: Data set: folder, gs:// or s3:// prefix, such as gs://bucket/voices.
            data_digest: SHA-256 digest that the data set must have; empty to accept any. Required where tasks are
                cached, as the cache compares parameters and not the data.
            code_digest: Digest of the code, used only in the cache key, as the name of an image does not identify code.
            config: Configuration, JSON; keys that are missing have their defaults.
            gate: Gate, JSON, with all of its keys.
            seeds: Seeds, such as [1, 2]; one network is trained for each.
            skip_bad: Leave bad recordings out, instead of refusing the data set.
            device: Device of the training: auto, cpu, cuda or cuda:N.
            require_gpu: Fail where there is no GPU, instead of training on the CPU.
            cpu: CPU request of each train pod and of the evaluate pod, such as 2 or 500m.
            memory: Memory request and limit of each train pod and of the evaluate pod, such as 4Gi.
            gpu_count: GPUs of each train pod, such as 1; 0 for none.
            node_selector: Labels of the nodes for train pods, such as {"karpenter.sh/nodepool": "gpu"}.
            tolerations: Tolerations of train pods, written as in the specification of a pod.
            state_uri: Folder that outlives a task, from which an interrupted run resumes, such as /state on a mounted
                volume; empty for none.
            registry_uri: URL of the MLflow server, or a folder for SQLite.
            target: Deployment target, JSON, written as in delivery.yaml; empty to leave deployment to continuous
                delivery.
            notify_url: URL that gets a POST request when the run has ended, visible in the dashboard; empty for none.
            run_name: Name of the run in lineage, MLflow and the ledger; Kubeflow's own name of the run if empty.
        """
        job = dsl.PIPELINE_JOB_NAME_PLACEHOLDER
        with with_exit_handler(options, pipeline_run=run_name, job=job, notify_url=notify_url):
            preprocess_task = with_cache_and_state(
                preprocess(
                    data=data,
                    data_digest=data_digest,
                    code_digest=code_digest,
                    config=config,  # nested settings are JSON text: in a dictionary 40 would arrive as 40.0
                    skip_bad=skip_bad,
                    state_uri=state_uri,
                ),
                options,
            ).set_display_name("Preprocess")
            with_store_keys(preprocess_task, options)
            with_timeout(preprocess_task.set_cpu_request("500m").set_memory_request("1Gi"), 6)
            corpus = preprocess_task.outputs["corpus"]
            with dsl.ParallelFor(seeds, name="seeds") as seed:  # list[int]: from a bare list a seed arrives as text
                train_task = with_cache_and_state(
                    train(
                        corpus=corpus,
                        config=config,
                        seed=seed,
                        device=device,
                        require_gpu=require_gpu,
                        state_uri=state_uri,
                        code_digest=code_digest,
                        cpu=cpu,
                        memory=memory,
                        gpu_count=gpu_count,
                    ),
                    options,
                ).set_display_name("Train")
                with_resources(with_timeout(train_task, 24), cpu, memory)
                on_nodes(train_task, gpu_count, node_selector, tolerations)
            evaluate_task = without_cache(
                evaluate(
                    corpus=corpus,
                    # collected here, outside of the branches: inside of them it does not compile
                    checkpoints=dsl.Collected(train_task.outputs["checkpoint"]),
                    gate=gate,
                    registry_uri=registry_uri,
                    pipeline_run=run_name,
                    job=job,
                )
            ).set_display_name("Evaluate")
            with_resources(with_timeout(evaluate_task, 6), cpu, memory)
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
            with dsl.If(evaluate_task.outputs["Output"] == True, name="approved"):  # noqa: E712 (kfp's condition)
                push_task = with_timeout(without_cache(push(**results)).set_display_name("Push"), 1)
                deploy_task = deploy(
                    package=push_task.outputs["package"],
                    version=push_task.outputs["Output"],
                    registry_uri=registry_uri,
                    target=target,
                )
                with_timeout(without_cache(deploy_task).set_display_name("Deploy"), 1)
            with dsl.Else(name="rejected"):
                with_timeout(without_cache(reject(**results)).set_display_name("Reject"), 1)

    return training


def with_exit_handler(options: CompileOptions, **arguments: object) -> dsl.ExitHandler | nullcontext:
    """Return a context whose tasks are followed by notify, however they end; an empty one if nothing notifies.

    Args:
        arguments: Inputs of notify.
    """
    if not options.notifies:
        return nullcontext()
    return dsl.ExitHandler(with_timeout(without_cache(notify(**arguments)).set_display_name("Notify"), 1), name="run")


def with_cache_and_state(task: dsl.PipelineTask, options: CompileOptions) -> dsl.PipelineTask:
    """Cache a task whose outputs follow from its inputs alone, and mount the claim for its state."""
    if options.claim:
        kubernetes.mount_pvc(task, options.claim, STATE)
    return task.set_caching_options(options.cached)


def with_store_keys(task: dsl.PipelineTask, options: CompileOptions) -> None:
    """Set a task's environment to the keys of the data set's store; a Secret may lack those that are not needed."""
    if options.secret:
        kubernetes.use_secret_as_env(task, options.secret, {name: name for name in STORE_VARIABLES}, optional=True)


def without_cache(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Disable the cache of a task that reads or changes something outside of the pipeline."""
    return task.set_caching_options(False)


def with_timeout(task: dsl.PipelineTask, hours: int) -> dsl.PipelineTask:
    """Limit the run time of a task's pod."""
    return kubernetes.set_timeout(task, hours * HOUR)


def with_resources(task: dsl.PipelineTask, cpu: str, memory: str) -> None:
    """Request CPU and memory for a task that uses torch, and mount a volume as its shared memory."""
    task.set_cpu_request(cpu).set_memory_request(memory).set_memory_limit(memory)
    # without a volume, a container has 64 MB of shared memory
    kubernetes.empty_dir_mount(task, volume_name="shm", mount_path="/dev/shm", medium="Memory")


def on_nodes(task: dsl.PipelineTask, gpu_count: str, node_selector: dict, tolerations: list) -> None:
    """Request GPUs for a task, and the nodes on which it may run."""
    # the type is the name of the resource; node_selector chooses a model of GPU
    task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(gpu_count)
    kubernetes.add_node_selector_json(task, node_selector)
    kubernetes.add_toleration_json(task, tolerations)


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
        pipeline(options or CompileOptions()),
        str(temporary),
        kubernetes_manifest_format=manifest is not None,
        kubernetes_manifest_options=manifest,
    )
    text = temporary.read_text().replace(f"image: {IMAGE}\n", f"image: {image}\n")
    if manifest:
        # kfp always writes it, and an API server whose definition of Pipeline lacks it refuses the resource
        text = re.sub(r"^  displayName: .*\n(?=---$)", "", text, count=1, flags=re.MULTILINE)
    temporary.write_text(text)
    temporary.replace(out)
