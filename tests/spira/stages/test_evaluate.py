"""The metrics and charts of a verdict on a dashboard."""

from __future__ import annotations

from typing import Any

from spira.evaluation.verdict import Estimate, Verdict
from spira.stages.evaluate import EvaluateResult
from tests.support.verdicts import condition, make_verdict

FATAL = make_verdict(approved=False).model_copy(update={"conditions": {}})
"""Verdict without measurements: an integrity check failed."""


def result(verdict: Verdict) -> EvaluateResult:
    """Return the result of the stage with this verdict."""
    return EvaluateResult(verdict=verdict, lineage={"data_fingerprint": "d", "pipeline_run": ""}, seconds=1.0)


def test_a_dashboard_shows_few_metrics_and_none_without_a_value():
    """Kubeflow's metadata takes no NaN. The decision is no metric, and the calibration is in the report alone."""
    noisy = condition(accuracy=0.9, ece=0.1)
    noisy.by_file["auroc"] = Estimate(value=float("nan"))
    measured = make_verdict().model_copy(update={"conditions": {"noisy": noisy}})
    name = {"display_name": "evaluate: noisy test, by file"}
    assert result(measured).metrics() == name | {"accuracy": 0.9, "seconds": 1.0}
    assert result(FATAL).metrics() == name | {"seconds": 1.0}


def test_the_verdict_is_named_by_the_decision_and_the_first_reason():
    """The dashboard shows the name of the artifact without opening it."""
    reasons = ["accuracy 0.6 is below 0.8", "AUROC 0.5"]
    assert result(make_verdict(approved=False, reasons=reasons)).verdict_metadata() == {
        "display_name": "rejected: accuracy 0.6 is below 0.8",
        "reasons": "accuracy 0.6 is below 0.8; AUROC 0.5",
    }
    assert result(make_verdict()).verdict_metadata()["display_name"] == "approved: accuracy 0.900 (0.850 to 0.950)"


def test_the_candidate_carries_its_lineage():
    """Kubeflow's metadata takes no empty text, so tags without a value are left out."""
    metadata = result(make_verdict()).candidate_metadata()
    assert (metadata["display_name"], metadata["seed"]) == ("candidate: seed 42", 42)
    assert metadata["data_fingerprint"] == "d"
    assert "pipeline_run" not in metadata


class Chart:
    """Recorder of the calls that ``ClassificationMetrics`` gets."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def log_roc_curve(self, *values: list[float]) -> None:
        self.calls.append(values)

    def log_confusion_matrix(self, *values: list[Any]) -> None:
        self.calls.append(values)


def test_charts_show_the_noisy_test():
    """They show ROC and confusion matrix, or nothing if nothing was measured."""
    chart, empty = Chart(), Chart()
    result(make_verdict()).log_charts(chart)
    result(FATAL).log_charts(empty)
    assert chart.calls == [([0, 1], [0, 1], [1, 0]), (["control", "patient"], [[4, 0], [0, 4]])]
    assert empty.calls == []
