"""Corpus -> checkpoint of one seed."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train(
    corpus: Input[Dataset],
    config: str,
    seed: int,
    device: str,
    require_gpu: bool,
    state_uri: str,
    code_digest: str,
    cpu: str,
    memory: str,
    gpu_count: str,
    checkpoint: Output[Model],
    metrics: Output[Metrics],
):
    """Train one network; go on where an earlier, killed try of the same training stopped.

    Args:
        corpus: What preprocess made.
        config: Configuration, JSON, in full or in part.
        seed: Decides initial weights, order, noise and dropout.
        device: auto, cpu, cuda or cuda:N.
        require_gpu: Fail where no GPU is, rather than train for days on a CPU.
        state_uri: Folder that outlives the task, for the state of the training; empty for none.
        code_digest: What code this is: for the cache, which knows an image by its name only.
        cpu: Of the pod; here and below because a loop is handed what its tasks take as inputs, and nothing else.
        memory: Of the pod.
        gpu_count: Of the pod.

    Returns:
        checkpoint: Weights, resolved configuration and history.
        metrics: Seed, epochs, best epoch and its validation loss, seconds.
    """
    from pathlib import Path

    from spira.stages.inputs import read_config, state_folder
    from spira.stages.train import train

    result = train(
        Path(corpus.path),
        read_config(config),
        seed,
        Path(checkpoint.path),
        device=device,
        require_gpu=require_gpu,
        state=state_folder(state_uri),
    )
    metrics.metadata.update(result)
