"""The tables of a verdict as CSV files, for a reader who computes further with them."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

import pandas as pd

from spira.data.metadata import CLASS_NAMES
from spira.data.quality import CorpusQuality
from spira.evaluation.verdict import Estimate, Verdict

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet computes a text cell that starts so; an apostrophe before it prevents that."""

Row = Mapping[str, object]


def checks(verdict: Verdict) -> list[Row]:
    """Return one row a check of the gate."""
    return [
        {
            "check": check.name,
            "group": check.group.value,
            "title": check.title,
            "passed": check.passed,
            "value": check.value,
            "low": check.low,
            "high": check.high,
            "limit": check.limit,
            "message": check.message,
        }
        for check in verdict.checks
    ]


def metrics(verdict: Verdict) -> list[Row]:
    """Return one row a condition, unit (file or speaker) and metric."""
    return [
        {"condition": name, "unit": unit, "metric": metric, **_interval(estimate)}
        for name, condition in verdict.conditions.items()
        for unit, estimates in (("file", condition.by_file), ("speaker", condition.by_speaker or {}))
        for metric, estimate in estimates.items()
    ]


def calibration(verdict: Verdict) -> list[Row]:
    """Return one row a condition and bin of probabilities."""
    return [
        {
            "condition": name,
            "from": of_bin.low,
            "to": of_bin.high,
            "predicted": of_bin.predicted,
            "observed": of_bin.observed.value,
            "low": of_bin.observed.low,
            "high": of_bin.observed.high,
            "predictions": of_bin.count,
            "speakers": of_bin.speakers,
            "few_speakers": of_bin.has_few_speakers,
        }
        for name, condition in verdict.conditions.items()
        for of_bin in condition.calibration.bins
    ]


def seeds(verdict: Verdict) -> list[Row]:
    """Return one row a seed, with its metrics by file under each condition."""
    return [
        {
            "seed": seed,
            "epochs": training.epochs,
            "best_epoch": training.best_epoch,
            "best_eval_loss": training.best_eval_loss,
            **{
                f"{condition}_{metric}": value
                for condition, values in verdict.seeds.get(seed, {}).items()
                for metric, value in values.items()
            },
        }
        for seed, training in verdict.training.items()
    ]


def slices(verdict: Verdict) -> list[Row]:
    """Return one row a slice and metric."""
    return [
        {
            "column": part.column,
            "value": part.value,
            "files": part.files,
            "metric": metric,
            "estimate": estimate.value,
            "low": estimate.low,
            "high": estimate.high,
        }
        for part in verdict.slices
        for metric, estimate in part.metrics.items()
    ]


def quality(corpus: CorpusQuality) -> list[Row]:
    """Return one row a split and class, with medians and percentiles of each quantity."""
    return [
        {
            "split": split,
            "class": CLASS_NAMES[int(label)],
            "files": group.files,
            **{
                f"{name}_{point}": value
                for name in ("seconds", "peak_dbfs", "rms_dbfs", "background_dbfs", "speech_fraction")
                for point, value in getattr(group, name).model_dump().items()
            },
        }
        for split, of_split in corpus.splits.items()
        for label, group in of_split.by_class.items()
    ]


def csv(rows: Sequence[Row]) -> str:
    """Return rows as CSV with one line of column names."""
    return pd.DataFrame([{name: _cell(value) for name, value in row.items()} for row in rows]).to_csv(index=False)


def link(rows: Sequence[Row]) -> str:
    """Return rows as the address of a CSV file inside the page."""
    return "data:text/csv;charset=utf-8;base64," + base64.b64encode(csv(rows).encode()).decode()


def _interval(estimate: Estimate) -> dict[str, object]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value
