"""Approved candidate -> registered version."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Model, Output

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def push(
    corpus: Input[Dataset],
    candidate: Input[Model],
    verdict: Input[Artifact],
    report: Input[HTML],
    registry_uri: str,
    package: Output[Model],
    metrics: Output[Metrics],
) -> int:
    """Package the approved candidate, log the run and register the version; refuse one that is not approved.

    Args:
        corpus: What preprocess made; the package is checked on some of its test recordings.
        candidate: Checkpoint that was judged.
        verdict: What evaluate made.
        report: Page to log with the run.
        registry_uri: MLflow URL, or a folder for SQLite.

    Returns:
        Number of the version.
        package: What is served.
        metrics: Version, MLflow run, seconds.
    """
    from pathlib import Path

    from spira.stages.push import push

    result = push(
        Path(corpus.path),
        Path(candidate.path),
        Path(verdict.path),
        Path(report.path),
        Path(package.path),
        registry_uri=registry_uri,
    )
    metrics.metadata.update(result)
    return result["model_version"]
