"""The component that registers an approved candidate as a version."""

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
    """Package an approved candidate, log the run and register the version; refuse a rejected candidate.

    Args:
        corpus: Corpus, an output of preprocess; the package is checked on some of its test recordings.
        candidate: Checkpoint of the candidate, an output of evaluate.
        verdict: Verdict, an output of evaluate.
        report: HTML report, logged with the run.
        registry_uri: URL of the MLflow server, or a folder for SQLite.

    Returns:
        Number of the version.
        package: Package of the version: weights, features and golden recordings.
        metrics: Version, and time in seconds.
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
    package.metadata.update(result.metadata())
    metrics.metadata.update(result.metrics())
    return result.model_version
