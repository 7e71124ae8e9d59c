"""The metrics and charts of a verdict on a dashboard, and the reports of the stage."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from spira import config, digests
from spira.data.corpus import Corpus
from spira.evaluation import gate
from spira.evaluation.verdict import Estimate, Verdict
from spira.language import Language
from spira.project import Project
from spira.stages.evaluate import EvaluateResult, evaluate, write_local_report
from spira.stages.verdict_folder import PROJECT, WORK_TIMES
from spira.training import train
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


@pytest.mark.integration
def test_both_reports_name_owner_days_and_run_and_the_local_one_the_version(corpus: Corpus, tmp_path: Path):
    """The local report is in the project's language. A verdict folder of an earlier version has neither."""
    slim = config.from_dict(config.smoke().model_dump(mode="json"))
    train.train(corpus, slim, 1, tmp_path / "1", device="cpu")
    folders = tmp_path / "verdict", tmp_path / "shared.html", tmp_path / "candidate"
    project = Project(owner="Voice group", language=Language.PORTUGUESE)
    began = datetime.now(UTC)
    stage = {"registry_uri": str(tmp_path), "pipeline_run": "spira-20", "project": project}
    evaluate(corpus.path, [tmp_path / "1"], gate.load(), *folders, **stage)
    verdict, shared, candidate = folders
    local, earlier = tmp_path / "local.html", tmp_path / "earlier.html"
    write_local_report(verdict, candidate, corpus.path, local, with_audio=False, version=7)
    days = {f"{day:%Y-%m-%d}" for day in (began, datetime.now(UTC))}
    assert head(shared).startswith("Versão do modelo execução spira-20 sem versão: não aprovado Avaliado em 20")
    assert head(local).startswith("Versão do modelo 7 da execução spira-20 Avaliado em 20")
    for page in (shared, local):
        assert "Responsável Voice group" in head(page)
        assert any(f"Avaliado em {day}" in head(page) for day in days)
    for name in (PROJECT, WORK_TIMES, digests.FILE):
        (verdict / name).unlink()
    write_local_report(verdict, candidate, corpus.path, earlier, with_audio=False)
    assert "Evaluated not recorded" in head(earlier)
    assert "Owner not recorded" in head(earlier)


def head(page: Path) -> str:
    """Return the text of a report's head."""
    found = re.search(r'<dl class="head">(.*?)</dl>', page.read_text("utf-8"), re.DOTALL)
    assert found
    return " ".join(re.sub("<[^>]+>", " ", found[1]).split())
