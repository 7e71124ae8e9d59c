"""Data set -> corpus."""

from kfp import dsl
from kfp.dsl import Dataset, Metrics, Output

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def preprocess(
    data: str,
    data_digest: str,
    code_digest: str,
    config: str,
    skip_bad: bool,
    state_uri: str,
    corpus: Output[Dataset],
    metrics: Output[Metrics],
):
    """Check, decode and lay down a data set as one mappable corpus.

    Args:
        data: Folder or gs:// prefix of the data set.
        data_digest: Digest that the data set must have; empty for whatever is there.
        code_digest: What code this is: for the cache, which knows an image by its name only.
        config: Configuration, JSON, in full or in part.
        skip_bad: Leave bad recordings out instead of refusing the data set.
        state_uri: Folder that outlives the task, for repeated runs; empty for none.

    Returns:
        corpus: Arrays, index and quality report.
        metrics: Recordings by split, skipped ones, seconds.
    """
    from pathlib import Path

    from spira.stages.inputs import read_config, state_folder
    from spira.stages.preprocess import preprocess

    result = preprocess(
        data,
        read_config(config),
        Path(corpus.path),
        data_digest=data_digest,
        skip_bad=skip_bad,
        state=state_folder(state_uri),
    )
    metrics.metadata.update(result)
