"""The summary: the verdict first, every reason or how many more, and what to type next."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from spira import config
from spira.cli import summary


@pytest.fixture
def finished() -> dict[str, Any]:
    """A summary as a run leaves it: approved, version 3, one seed."""
    measured = {"value": 0.91, "low": 0.8, "high": 0.97}
    return {
        "approved": True,
        "reasons": [],
        "model_version": 3,
        "metrics": dict.fromkeys(summary.SHOWN, measured),
        "candidate": {"seed": 42},
        "training": {"42": {"epochs": 9, "best_epoch": 7, "best_eval_loss": 0.2}},
        "spread": {"noisy": {"accuracy": {"mean": 0.9, "std": 0.02}}},
        "data": {"files": 60, "classes": {"control": {"files": 30}, "patient": {"files": 30}}},
        "config": config.Config().model_dump(mode="json"),
        "stages": {"train": 12.0},
        "paths": {"report": "/w/report.html", "package": "/w/package"},
        "mlflow": "sqlite:////w/mlflow.db",
    }


def shown(finished: dict[str, Any]) -> str:
    """What a person sees, on a wide screen."""
    console = Console(width=300, record=True, file=io.StringIO())
    summary.show(finished, "my work", console)
    return console.export_text()


def test_an_approved_model_is_said_to_serve_and_can_be_asked(finished: dict[str, Any]):
    """Version, interval, spread over seeds, and a command that can be pasted."""
    text = shown(finished)
    for said in ("APPROVED: version 3", "0.910", "0.800 to 0.970", "0.900 ± 0.020", "/w/report.html"):
        assert said in text
    assert "spira predict RECORDING.wav --work 'my work'" in text


def test_a_rejected_model_comes_with_its_reasons(finished: dict[str, Any]):
    """As many as fit, the number of the others, and no invitation to ask it."""
    reasons = [f"reason {number}" for number in range(summary.REASONS_SHOWN + 2)]
    text = shown(finished | {"approved": False, "reasons": reasons, "model_version": None})
    assert "NOT APPROVED" in text
    assert "reason 9" in text
    assert "and 2 more" in text
    assert "spira predict" not in text


def test_a_verdict_without_measurements_is_shown(finished: dict[str, Any]):
    """A candidate with NaN weights isn't measured: there are reasons and no table."""
    text = shown(finished | {"approved": False, "reasons": ["the weights hold NaN"], "metrics": {}, "spread": {}})
    assert "the weights hold NaN" in text
    assert "accuracy" not in text


def test_a_number_that_is_none_is_a_dash(finished: dict[str, Any]):
    """A metric that isn't defined on the data, such as AUROC of one class."""
    assert " - " in shown(
        finished | {"metrics": finished["metrics"] | {"ece": dict.fromkeys(("value", "low", "high"))}}
    )
