"""The training pipeline: one composition, compiled once, run by Kubernetes or on one machine.

    spira pipeline compile --image REGISTRY/spira-train@sha256:…

What the runners do with a pipeline decides its shape: the condition reads a single return value and has an
else branch, so that a gate that can't be read never passes for an approval; the branches end in no OneOf;
tasks with effects, or that depend on the registry, are never cached; the loop runs over ``list[int]``; nested
settings travel as a JSON string, in which 40 stays 40; what was collected over the loop is used outside the
branches only, where it compiles.

Where pods go is decided by parameters, so that one file serves with a GPU and without:

    gpu_count   node_selector                                            tolerations
    "0"         {}                                                       []
    "1"         {"cloud.google.com/gke-accelerator": "nvidia-tesla-t4"}  [GPU]     on GKE
    "1"         {"karpenter.sh/nodepool": "gpu"}                         [GPU]     with Karpenter

    GPU = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}

No task sets a retry: a stock Kubeflow ignores it, and one machine would only repeat a refusal. A run that failed or
was preempted is ordered again: what is done is answered from the cache, and a training goes on from the state
folder, which is a volume (``CompileOptions.claim``). A pod that no node takes would wait for ever, so a run has a
deadline.
"""

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
"""The run is ended after two days, and its pods with their logs are removed a week after it ended."""


@dataclass(frozen=True)
class CompileOptions:
    """In what a compiled file may differ where no parameter can say it; the flow is the same."""

    claim: str = ""
    """PersistentVolumeClaim for the state of preprocess and train; none if empty, which Kubeflow takes for no name."""
    cached: bool = True
    """Whether preprocess and train may be answered from the cache: not where the data isn't pinned by a digest."""
    notified: bool = False
    """Whether an exit handler says how the run ended; on one machine the process that waits for it does."""
    name: ClassVar[str] = NAME
    """Of the pipeline."""

    def compile(self, out: Path, image: str) -> None:
        """See :func:`compile_pipeline`."""
        compile_pipeline(out, image, self)


def pipeline(form: CompileOptions) -> GraphComponent:
    """The composition in one of its forms."""

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
        """Recordings in; a served, or honestly rejected, detector of respiratory insufficiency out.

        Args:
            data: Folder or gs:// prefix of the data set.
            data_digest: Digest that the data set must have; give it wherever results are cached.
            code_digest: What the code is; with the data's digest it decides what the cache may answer.
            config: Configuration, JSON, in full or in part.
            gate: Thresholds, JSON, in full.
            seeds: One network a seed.
            skip_bad: Leave bad recordings out instead of refusing the data set.
            device: auto, cpu, cuda or cuda:N.
            require_gpu: Fail where no GPU is.
            cpu: Requested by a training, and by the evaluation, such as 2 or 500m.
            memory: Requested by each of them, and their limit, such as 4Gi.
            gpu_count: Requested by a training; 0 for none.
            node_selector: Labels of the nodes to train on, such as those of a GPU model.
            tolerations: Taints of nodes that a training bears, as in a pod.
            state_uri: Folder that outlives tasks, for killed and repeated runs; empty for none.
            registry_uri: MLflow URL, or a folder for SQLite.
            target: Where it serves, as JSON, as a target of delivery.yaml; empty to leave that to continuous delivery.
            notify_url: Gets a POST when the run has ended; empty for none.
            run_name: What lineage, MLflow and the ledger call this run; Kubeflow's name of it if empty.
        """
        job = dsl.PIPELINE_JOB_NAME_PLACEHOLDER
        with notified(form, pipeline_run=run_name, job=job, notify_url=notify_url):
            prepared = kept(
                preprocess(
                    data=data,
                    data_digest=data_digest,
                    code_digest=code_digest,
                    config=config,
                    skip_bad=skip_bad,
                    state_uri=state_uri,
                ),
                form,
            ).set_display_name("Preprocess")
            timed(prepared.set_cpu_request("500m").set_memory_request("1Gi"), 6)
            corpus = prepared.outputs["corpus"]
            with dsl.ParallelFor(seeds, name="seeds") as seed:
                trained = kept(
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
                    form,
                ).set_display_name("Train")
                sized(timed(trained, 24), cpu, memory)
                placed(trained, gpu_count, node_selector, tolerations)
            judged = uncached(
                evaluate(
                    corpus=corpus,
                    checkpoints=dsl.Collected(trained.outputs["checkpoint"]),
                    gate=gate,
                    registry_uri=registry_uri,
                    pipeline_run=run_name,
                    job=job,
                )
            ).set_display_name("Evaluate")
            sized(timed(judged, 6), cpu, memory)
            outcome = {
                "corpus": corpus,
                "candidate": judged.outputs["candidate"],
                "verdict": judged.outputs["verdict"],
                "report": judged.outputs["report"],
                "registry_uri": registry_uri,
            }
            with dsl.If(judged.outputs["Output"] == True, name="approved"):  # noqa: E712 (kfp's condition)
                pushed = timed(uncached(push(**outcome)).set_display_name("Push"), 1)
                deployed = deploy(
                    package=pushed.outputs["package"],
                    version=pushed.outputs["Output"],
                    registry_uri=registry_uri,
                    target=target,
                )
                timed(uncached(deployed).set_display_name("Deploy"), 1)
            with dsl.Else(name="rejected"):
                timed(uncached(reject(**outcome)).set_display_name("Reject"), 1)

    return training


def notified(form: CompileOptions, **about: object) -> dsl.ExitHandler | nullcontext:
    """What happens inside is told when it has ended, however it ends."""
    if not form.notified:
        return nullcontext()
    return dsl.ExitHandler(timed(uncached(notify(**about)).set_display_name("Notify"), 1), name="run")


def kept(task: dsl.PipelineTask, form: CompileOptions) -> dsl.PipelineTask:
    """A task that follows from its inputs alone: answered from the cache, and its state kept in the volume."""
    if form.claim:
        kubernetes.mount_pvc(task, form.claim, STATE)
    return task.set_caching_options(form.cached)


def uncached(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """A task that reads or changes what is outside the pipeline: never answered from the cache."""
    return task.set_caching_options(False)


def timed(task: dsl.PipelineTask, hours: int) -> dsl.PipelineTask:
    """A task whose pod is ended after so many hours of work."""
    return kubernetes.set_timeout(task, hours * HOUR)


def sized(task: dsl.PipelineTask, cpu: str, memory: str) -> None:
    """Room for torch: a container's shared memory is 64 MB unless a volume of its own is mounted."""
    task.set_cpu_request(cpu).set_memory_request(memory).set_memory_limit(memory)
    kubernetes.empty_dir_mount(task, volume_name="shm", mount_path="/dev/shm", medium="Memory")


def placed(task: dsl.PipelineTask, gpu_count: str, node_selector: dict, tolerations: list) -> None:
    """On which nodes; the accelerator's type is the name of the resource, its model is for the selector to say."""
    task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(gpu_count)
    kubernetes.add_node_selector_json(task, node_selector)
    kubernetes.add_toleration_json(task, tolerations)


def compile_pipeline(
    out: Path, image: str = IMAGE, form: CompileOptions | None = None, manifest: KubernetesManifestOptions | None = None
) -> None:
    """Write the compiled pipeline; the same sources give the same bytes.

    Args:
        image: of the components; on a cluster by digest, since the cache knows an image by its name only.
        form: that of one machine if not given.
        manifest: write the resources ``Pipeline`` and ``PipelineVersion`` of these names instead.
    """
    temporary = out.with_name(f".{out.stem}.writing.yaml")
    compiler.Compiler().compile(
        pipeline(form or CompileOptions()),
        str(temporary),
        kubernetes_manifest_format=manifest is not None,
        kubernetes_manifest_options=manifest,
    )
    text = temporary.read_text().replace(f"image: {IMAGE}\n", f"image: {image}\n")
    temporary.write_text(text)
    temporary.replace(out)
