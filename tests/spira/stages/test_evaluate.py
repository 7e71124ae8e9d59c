"""The metrics and charts of a verdict on a dashboard."""

from __future__ import annotations

from typing import Any

from spira.evaluation.verdict import Estimate
from spira.stages.evaluate import dashboard_metrics, log_charts
from tests.support.verdicts import condition, make_verdict

FATAL = make_verdict(approved=False).model_copy(update={"conditions": {}})
"""Verdict without measurements: an integrity check failed."""


def test_metrics_without_a_value_are_left_out_of_the_dashboard():
    """Kubeflow's metadata takes no NaN; a verdict without measurements has no metrics at all."""
    noisy = condition(accuracy=0.9)
    noisy.by_file["ece"] = Estimate(value=float("nan"))
    measured = make_verdict().model_copy(update={"conditions": {"noisy": noisy}})
    assert dashboard_metrics(measured, 1.0) == {"approved": True, "seconds": 1.0, "accuracy": 0.9}
    assert dashboard_metrics(FATAL, 1.0) == {"approved": False, "seconds": 1.0}


class Chart:
    """Recorder of the calls that ``ClassificationMetrics`` gets."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def log_roc_curve(self, *values: list[float]) -> None:
        self.calls.append(values)

    def log_confusion_matrix(self, *values: list[Any]) -> None:
        self.calls.append(values)


def test_charts_show_the_noisy_test():
    """ROC and confusion matrix; nothing if nothing was measured."""
    chart, empty = Chart(), Chart()
    log_charts(make_verdict(), chart)
    log_charts(FATAL, empty)
    assert chart.calls == [([0, 1], [0, 1], [1, 0]), (["control", "patient"], [[4, 0], [0, 4]])]
    assert empty.calls == []
