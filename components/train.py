"""The component that trains one network."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train(
    corpus: Input[Dataset],
    config: str,
    preprocess_config: str,
    seed: int,
    device: str,
    require_gpu: bool,
    state_uri: str,
    code_digest: str,
    checkpoint: Output[Model],
    metrics: Output[Metrics],
):
    """Train one network; resume where a killed attempt of the same training stopped.

    Args:
        corpus: Corpus, an output of preprocess.
        config: Configuration without its section preprocess, JSON; keys that are missing have their defaults.
        preprocess_config: Section preprocess of the configuration, JSON; a part of the checkpoint's configuration.
        seed: Seed of initial weights, order of recordings, noise and dropout, such as 42.
        device: Device of the training: auto, cpu, cuda or cuda:N.
        require_gpu: Fail where there is no GPU, instead of training on the CPU.
        state_uri: Folder that outlives the task, for the state of the training, such as /state; empty for none.
        code_digest: Digest of the code, used only in the cache key, as the name of an image does not identify code.

    Returns:
        checkpoint: Weights, resolved configuration and history.
        metrics: Seed, number of epochs, best epoch and its validation loss, and time in seconds.
    """
    from pathlib import Path

    from spira.stages.inputs import read_config, state_folder
    from spira.stages.train import train

    result = train(
        Path(corpus.path),
        read_config(config, preprocess_config),
        seed,
        Path(checkpoint.path),
        device=device,
        require_gpu=require_gpu,
        state=state_folder(state_uri),
    )
    checkpoint.metadata.update(result.metadata())
    metrics.metadata.update(result.metrics())
