"""The component that evaluates checkpoints by the gate."""

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
    """Measure the checkpoints on the frozen test split, and approve or reject the candidate by the gate.

    Args:
        corpus: Corpus, an output of preprocess.
        checkpoints: Checkpoints, one per seed; the candidate is the one with the lowest validation loss.
        gate: Gate, JSON, with all of its keys.
        registry_uri: URL of the MLflow server, or a folder for SQLite. Its champion is compared with the candidate.
        pipeline_run: Name of this run for the lineage.
        job: Kubeflow's own name of this run, used if pipeline_run is empty, as in the runs of a schedule.

    Returns:
        Whether the candidate is approved.
        verdict: Verdict with checks, metrics and reasons; predictions, histories, lineage.
        report: Verdict as an HTML page.
        candidate: Checkpoint of the candidate.
        metrics: Metrics of the noisy test, by file.
        classification: ROC curve and confusion matrix of the noisy test.
    """
    from pathlib import Path

    from spira.stages.evaluate import dashboard_metrics, evaluate, log_charts

    result = evaluate(
        Path(corpus.path),
        [Path(checkpoint.path) for checkpoint in checkpoints],
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
