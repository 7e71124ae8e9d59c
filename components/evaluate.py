"""Corpus, checkpoints and gate -> verdict."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, ClassificationMetrics, Dataset, Input, Metrics, Model, Output

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    corpus: Input[Dataset],
    checkpoints: Input[list[Model]],
    gate: str,
    registry_uri: str,
    pipeline_run: str,
    job: str,
    verdict: Output[Artifact],
    report: Output[HTML],
    candidate: Output[Model],
    metrics: Output[Metrics],
    classification: Output[ClassificationMetrics],
) -> bool:
    """Measure the checkpoints on the frozen test split and judge the candidate by the gate.

    Args:
        corpus: What preprocess made.
        checkpoints: One a seed; the one with the lowest validation loss is the candidate.
        gate: Thresholds, JSON.
        registry_uri: MLflow URL, or a folder for SQLite; its champion is compared with.
        pipeline_run: Name of this run, for the lineage.
        job: Kubeflow's name of this run, where it has no other: a schedule's.

    Returns:
        Whether the candidate is approved.
        verdict: Every number and reason, predictions, histories, lineage.
        report: The same as a page to read.
        candidate: The checkpoint that was judged.
        metrics: The numbers of the noisy test, by file.
        classification: Its ROC and confusion matrix.
    """
    from pathlib import Path

    from spira.stages.evaluate import dashboard_metrics, evaluate, log_charts

    result = evaluate(
        Path(corpus.path),
        [Path(each.path) for each in checkpoints],
        gate,
        Path(verdict.path),
        Path(report.path),
        Path(candidate.path),
        registry_uri=registry_uri,
        pipeline_run=pipeline_run or job,
    )
    metrics.metadata.update(dashboard_metrics(result["verdict"], result["seconds"]))
    log_charts(result["verdict"], classification)
    return result["verdict"].approved
