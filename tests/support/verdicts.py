"""Small but complete verdicts for the tests."""

from __future__ import annotations

from collections.abc import Sequence

from spira.config import Config
from spira.evaluation import gate
from spira.evaluation.verdict import (
    Calibration,
    Candidate,
    Condition,
    Estimate,
    RecordedGate,
    RocCurve,
    SeedSpread,
    SeedTraining,
    TestData,
    Verdict,
)


def estimate(value: float, margin: float = 0.05) -> Estimate:
    """Return a rate with its interval."""
    return Estimate(value=value, low=value - margin, high=min(1.0, value + margin))


def condition(spread: float = 0.4, **metrics: float) -> Condition:
    """Return the measurements of a condition with the given metrics by file; speakers are not known."""
    return Condition(
        draws=1,
        by_file={name: estimate(value) for name, value in metrics.items()},
        by_speaker=None,
        confusion=((4, 0), (0, 4)),
        roc=RocCurve(fpr=(0, 1), tpr=(0, 1), thresholds=(1, 0)),
        calibration=Calibration(predicted=(), observed=(), count=()),
        spread=spread,
    )


def make_verdict(approved: bool = True, reasons: Sequence[str] = (), accuracy: float = 0.9) -> Verdict:
    """Return the verdict on seed 42, with the given accuracy in the noisy test."""
    return Verdict(
        candidate=Candidate(seed=42, best_eval_loss=0.5),
        gate=RecordedGate.of(gate.load()),
        config=Config(),
        training={"42": SeedTraining(epochs=3, best_epoch=2, best_eval_loss=0.5)},
        data=TestData(files=8, classes={"control": {"files": 4}, "patient": {"files": 4}}),
        conditions={"noisy": condition(accuracy=accuracy)},
        slices=(),
        mistakes=(),
        seeds={"42": {"noisy": {"accuracy": accuracy}}},
        spread={"noisy": {"accuracy": SeedSpread(mean=accuracy, std=0.01)}},
        champion=None,
        approved=approved,
        reasons=tuple(reasons),
        checks=(),
    )
