"""The component that makes a corpus from a data set."""

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
    """Check and decode a data set, and write it as a corpus of memory-mappable arrays.

    Args:
        data: Data set: folder, gs:// or s3:// prefix, such as gs://bucket/voices.
        data_digest: SHA-256 digest that the data set must have; empty to accept any.
        code_digest: Digest of the code, used only in the cache key, as the name of an image does not identify code.
        config: Configuration, JSON; keys that are missing have their defaults.
        skip_bad: Leave bad recordings out, instead of refusing the data set.
        state_uri: Folder that outlives the task, for the corpus of repeated runs, such as /state; empty for none.

    Returns:
        corpus: Corpus: audio arrays, index table and data-quality report.
        metrics: Numbers of recordings by split, of noises and of skipped recordings, digest, and time in seconds.
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
