"""The training pipeline: one composition, compiled once, run by Kubernetes or on one machine.

    python -m pipelines compile

What the runners do with a pipeline decides its shape: the condition reads a single return value and has an
else branch, so that a gate that can't be read never passes for an approval; the branches end in no OneOf;
tasks with effects, or that depend on the registry, are never cached; the loop runs over ``list[int]``; nested
settings travel as a JSON string, in which 40 stays 40; what was collected over the loop is used outside the
branches only, where it compiles.
"""

from pathlib import Path

from kfp import compiler, dsl

from components import IMAGE
from components.deploy import deploy
from components.evaluate import evaluate
from components.preprocess import preprocess
from components.push import push
from components.reject import reject
from components.train import train

COMPILED = Path(__file__).with_suffix(".yaml")


def uncached(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """A task that reads or changes what is outside the pipeline: never answered from the cache."""
    return task.set_caching_options(False)


@dsl.pipeline(name="spira-training", display_name="SPIRA training")
def training(
    data: str,
    data_digest: str,
    config: str,
    gate: str,
    seeds: list[int],
    skip_bad: bool,
    device: str,
    require_gpu: bool,
    state_uri: str,
    registry_uri: str,
    serving_uri: str,
    run_name: str,
):
    """Recordings in; a served, or honestly rejected, detector of respiratory insufficiency out.

    Args:
        data: Folder or gs:// prefix of the data set.
        data_digest: Digest that the data set must have; give it wherever results are cached.
        config: Configuration, JSON, in full or in part.
        gate: Thresholds, JSON, in full.
        seeds: One network a seed.
        skip_bad: Leave bad recordings out instead of refusing the data set.
        device: auto, cpu, cuda or cuda:N.
        require_gpu: Fail where no GPU is.
        state_uri: Folder that outlives tasks, for killed and repeated runs; empty for none.
        registry_uri: MLflow URL, or a folder for SQLite.
        serving_uri: Folder that the local server reads; empty to leave serving to continuous delivery.
        run_name: What lineage, MLflow and the ledger call this run.
    """
    prepared = preprocess(
        data=data, data_digest=data_digest, config=config, skip_bad=skip_bad, state_uri=state_uri
    ).set_display_name("Preprocess")
    corpus = prepared.outputs["corpus"]
    with dsl.ParallelFor(seeds, name="seeds") as seed:
        trained = train(
            corpus=corpus,
            config=config,
            seed=seed,
            device=device,
            require_gpu=require_gpu,
            state_uri=state_uri,
        ).set_display_name("Train")
    judged = uncached(
        evaluate(
            corpus=corpus,
            checkpoints=dsl.Collected(trained.outputs["checkpoint"]),
            gate=gate,
            registry_uri=registry_uri,
            pipeline_run=run_name,
        )
    ).set_display_name("Evaluate")
    outcome = {
        "corpus": corpus,
        "candidate": judged.outputs["candidate"],
        "verdict": judged.outputs["verdict"],
        "report": judged.outputs["report"],
        "registry_uri": registry_uri,
    }
    with dsl.If(judged.outputs["Output"] == True, name="approved"):  # noqa: E712 (kfp's condition)
        pushed = uncached(push(**outcome)).set_display_name("Push")
        uncached(
            deploy(
                package=pushed.outputs["package"],
                version=pushed.outputs["Output"],
                registry_uri=registry_uri,
                serving_uri=serving_uri,
            )
        ).set_display_name("Deploy")
    with dsl.Else(name="rejected"):
        uncached(reject(**outcome)).set_display_name("Reject")


def compile_pipeline(out: Path, image: str = IMAGE) -> None:
    """Write the compiled pipeline; the same sources give the same bytes.

    Args:
        image: of the components; on a cluster by digest, since the cache knows an image by its name only.
    """
    temporary = out.with_name(f".{out.stem}.writing.yaml")
    compiler.Compiler().compile(training, str(temporary))
    text = temporary.read_text().replace(f"image: {IMAGE}\n", f"image: {image}\n")
    temporary.write_text(text)
    temporary.replace(out)
