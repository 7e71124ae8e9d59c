"""The component that logs the run of a rejected candidate."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Model, Output

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def reject(
    corpus: Input[Dataset],
    candidate: Input[Model],
    verdict: Input[Artifact],
    report: Input[HTML],
    registry_uri: str,
    metrics: Output[Metrics],
):
    """Log the run with the reasons of the rejection, without registering a version; refuse an approved candidate.

    Args:
        corpus: Corpus, an output of preprocess.
        candidate: Checkpoint of the candidate, an output of evaluate.
        verdict: Verdict, an output of evaluate.
        report: HTML report, logged with the run.
        registry_uri: URL of the MLflow server, or a folder for SQLite.

    Returns:
        metrics: MLflow run, and time in seconds.
    """
    from pathlib import Path

    from spira.stages.push import reject

    result = reject(
        Path(corpus.path),
        Path(candidate.path),
        Path(verdict.path),
        Path(report.path),
        registry_uri=registry_uri,
    )
    metrics.metadata.update(result.metrics())
