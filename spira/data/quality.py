"""The data-quality report: what the recordings are like, and what to be wary of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from spira.data.metadata import CLASSES, SPLITS

DISTRIBUTIONS = ("seconds", "peak_dbfs", "rms_dbfs", "background_dbfs", "speech_fraction", "clipped_fraction")
SHORTCUTS = {
    "background_dbfs": (6.0, "dB", "background noise"),
    "rms_dbfs": (6.0, "dB", "loudness"),
    "seconds": (2.0, "s", "length"),
}
"""Measure -> (difference of the classes' medians that is worth a warning, unit, name)."""
MAX_RATE_DIFFERENCE = 0.25
"""Between the classes' shares of recordings at one sample rate."""
MIN_FILES = 20
"""Of a class."""
MIN_MINORITY = 0.2
"""Of a split's recordings, in its smaller class."""


def quality_report(measures: pd.DataFrame, repeats: list[str], skipped: list[dict[str, str]]) -> dict[str, Any]:
    """The report of a corpus, which its ``quality.json`` holds.

    Args:
        measures: a row a recording: split (``noise`` too), label, speaker (missing where not known), then
            those of :func:`spira.data.decoding.measure`.
        repeats: recordings that hold the same audio as another of their split, in plain words.
        skipped: recordings that were left out, with file_path, split, where, rule and message.
    """
    splits = {str(split): describe(rows) for split, rows in measures.groupby("split")}
    noise = splits.pop("noise")
    warnings = [warning for split in SPLITS for warning in warn(split, splits[split])]
    if measures["speaker"].isna().all():
        warnings.append("no speaker column: whether a voice is in two splits is not known")
    warnings += repeats
    if skipped:
        warnings.append(f"{len(skipped)} bad recordings were skipped: see 'skipped'")
    return {"splits": splits, "noise": noise, "skipped": skipped, "warnings": warnings}


def describe(rows: pd.DataFrame) -> dict[str, Any]:
    """The quality report of one split from its recordings' measures."""
    labels = sorted(set(rows["label"]) & set(CLASSES))
    by_class = {str(label): _distributions(rows[rows["label"] == label]) for label in labels}
    return {
        "files": len(rows),
        "seconds": round(float(rows["seconds"].sum()), 3),
        "classes": {label: group["files"] for label, group in by_class.items()},
        "speakers": int(rows["speaker"].nunique()) or None,
        "sample_rates": _histogram(rows["sample_rate"]),
        "channels": _histogram(rows["channels"]),
        "by_class": by_class or {"noise": _distributions(rows)},
    }


def _distributions(rows: pd.DataFrame) -> dict[str, Any]:
    quantiles = rows[list(DISTRIBUTIONS)].quantile([0.05, 0.5, 0.95]).round(3)
    spread = {name: dict(zip(("p5", "median", "p95"), quantiles[name].tolist(), strict=True)) for name in DISTRIBUTIONS}
    return {"files": len(rows), "sample_rates": _histogram(rows["sample_rate"]), **spread}


def _histogram(values: pd.Series) -> dict[str, int]:
    return {str(value): int(count) for value, count in values.value_counts().sort_index().items()}


def warn(split: str, quality: dict[str, Any]) -> list[str]:
    """What to be wary of in a split's report, in plain words."""
    control, patient = (quality["by_class"][str(label)] for label in CLASSES)
    return [
        f"{split}: {warning}"
        for warning in (*_shortcuts(control, patient), *_bandwidths(control, patient), *_sizes(quality))
    ]


def _shortcuts(control: dict[str, Any], patient: dict[str, Any]) -> Iterator[str]:
    for name, (limit, unit, word) in SHORTCUTS.items():
        difference = patient[name]["median"] - control[name]["median"]
        if abs(difference) > limit:
            yield (
                f"{word} of patients differs by {difference:+.1f} {unit} from that of "
                "controls (medians): a network can tell the classes apart by it without hearing any illness"
            )


def _bandwidths(control: dict[str, Any], patient: dict[str, Any]) -> Iterator[str]:
    for rate in sorted({*control["sample_rates"], *patient["sample_rates"]}, key=int):
        shares = [group["sample_rates"].get(rate, 0) / group["files"] for group in (control, patient)]
        if abs(shares[0] - shares[1]) > MAX_RATE_DIFFERENCE:
            yield (
                f"{shares[0]:.0%} of controls but {shares[1]:.0%} of patients were recorded "
                f"at {rate} Hz: the bandwidth gives the class away"
            )


def _sizes(quality: dict[str, Any]) -> Iterator[str]:
    smallest = min(quality["classes"].values())
    if smallest < MIN_FILES:
        yield f"a class has only {smallest} recordings: figures from it are uncertain"
    if smallest < MIN_MINORITY * quality["files"]:
        yield f"the classes are unbalanced, {quality['classes']}"
