"""Candidate that failed its gate -> logged run."""

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
    """Log the run with the reasons; register nothing. Refuse one that is approved.

    Args:
        corpus: What preprocess made.
        candidate: Checkpoint that was judged.
        verdict: What evaluate made.
        report: Page to log with the run.
        registry_uri: MLflow URL, or a folder for SQLite.

    Returns:
        metrics: MLflow run, seconds.
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
    metrics.metadata.update(result)
