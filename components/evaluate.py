"""The component that evaluates checkpoints by the gate."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, ClassificationMetrics, Dataset, Input, Markdown, Metrics, Model, Output

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    corpus: Input[Dataset],
    checkpoints: Input[list[Model]],
    gate: str,
    registry_uri: str,
    pipeline_run: str,
    language: str,
    verdict: Output[Artifact],
    report: Output[HTML],
    candidate: Output[Model],
    summary: Output[Markdown],
    metrics: Output[Metrics],
    classification: Output[ClassificationMetrics],
) -> bool:
    """Measure the checkpoints on the frozen test split, and approve or reject the candidate by the gate.

    Args:
        corpus: Corpus, an output of preprocess.
        checkpoints: Checkpoints, one per seed; the candidate is the one with the lowest validation loss.
        gate: Gate, JSON, with all of its keys; empty for the project's own.
        registry_uri: URL of the MLflow server, or a folder for SQLite. Its champion is compared with the candidate.
        pipeline_run: Name of this run, for the lineage and MLflow.
        language: Language of the report: en or pt-BR.

    Returns:
        Whether the candidate is approved.
        verdict: Verdict with checks, metrics and reasons; predictions, histories, lineage. Its display name is the
            decision with the first reason.
        report: Verdict as an HTML page.
        candidate: Checkpoint of the candidate.
        summary: Decision, metrics of the noisy and clean tests with intervals, and checks.
        metrics: Metrics of the noisy test, by file.
        classification: ROC curve and confusion matrix of the noisy test.
    """
    from pathlib import Path

    from spira.stages.evaluate import evaluate
    from spira.stages.inputs import read_gate, read_language

    result = evaluate(
        Path(corpus.path),
        [Path(checkpoint.path) for checkpoint in checkpoints],
        read_gate(gate),
        Path(verdict.path),
        Path(report.path),
        Path(candidate.path),
        registry_uri=registry_uri,
        pipeline_run=pipeline_run,
        language=read_language(language),
    )
    verdict.metadata.update(result.verdict_metadata())
    candidate.metadata.update(result.candidate_metadata())
    metrics.metadata.update(result.metrics())
    Path(summary.path).write_text(result.summary())
    result.log_charts(classification)
    return result.verdict.approved
