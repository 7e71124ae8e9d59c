"""The component that trains one network."""

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
    """Train one network; resume where a killed attempt of the same training stopped.

    Args:
        corpus: Corpus, an output of preprocess.
        config: Configuration, JSON; keys that are missing have their defaults.
        seed: Seed of initial weights, order of recordings, noise and dropout, such as 42.
        device: Device of the training: auto, cpu, cuda or cuda:N.
        require_gpu: Fail where there is no GPU, instead of training on the CPU.
        state_uri: Folder that outlives the task, for the state of the training, such as /state; empty for none.
        code_digest: Digest of the code, used only in the cache key, as the name of an image does not identify code.
        cpu: CPU request of the pod, such as 2 or 500m. Not used by the code: Kubeflow passes a parameter into a loop
            only if a task inside declares it as an input.
        memory: Memory request and limit of the pod, such as 4Gi. Declared for the same reason as cpu.
        gpu_count: GPUs of the pod, such as 1; 0 for none. Declared for the same reason as cpu.

    Returns:
        checkpoint: Weights, resolved configuration and history.
        metrics: Seed, number of epochs, best epoch and its validation loss, and time in seconds.
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
