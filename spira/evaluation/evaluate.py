"""Judging trained networks on the frozen test split: conditions, metrics, slices, the champion, the verdict.

One network a seed is measured; the candidate is the one with the lowest *validation* loss, so the test has
no say in the choice. Only the candidate meets the gate. All networks hear the same noise draws.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from spira import files
from spira.config import Config
from spira.data.corpus import Corpus, Split
from spira.errors import SpiraError
from spira.evaluation import gate as gates
from spira.evaluation import metrics, probes
from spira.evaluation.gate import Check, Gate
from spira.evaluation.metrics import METRICS, Scores
from spira.evaluation.predict import predict_files
from spira.features.batches import noisy_waveform
from spira.models import checkpoint
from spira.models.checkpoint import Checkpoint

log = logging.getLogger(__name__)

Predictor = Callable[[Sequence[np.ndarray]], np.ndarray]
"""Waveforms at 16 kHz -> probabilities ``[files]``: how a champion answers, whatever it is made of."""

CLASSES = {0: "control", 1: "patient"}
RESERVED = {"file_path", "label", "class", "split", "offset", "samples", "seconds", "sha256", "speaker"}
"""Columns of the index that are no slices."""

TEST_KEY = 0x7E57
"""Keeps the test's draws of noise apart from those of training and validation."""

SPREAD = ("noisy", "clean")
"""Conditions under which every seed is measured."""

MISTAKES = 10


@dataclass(frozen=True)
class ChampionPredictor:
    """The model that serves now."""

    name: str
    predict: Predictor


def evaluate(
    corpus: Corpus, checkpoints: Sequence[Path], gate: Gate, out: Path, champion: ChampionPredictor | None = None
) -> dict[str, Any]:
    """Measure the checkpoints, judge the candidate, write ``verdict.json`` and ``predictions.parquet`` into ``out``.

    Raises:
        SpiraError: there is no checkpoint, or one can't be read.
    """
    trained = [checkpoint.load(path) for path in checkpoints]
    if not trained:
        raise SpiraError("there is no checkpoint to evaluate: train at least one seed")
    trained.sort(key=lambda each: each.info["seed"])
    candidate = min(trained, key=lambda each: (not is_finite(each), each.info["best_eval_loss"], each.info["seed"]))
    test = corpus.split("test")
    verdict = describe(candidate, trained, test, gate)
    fatal = integrity_checks(candidate, corpus, test)
    checks = fatal + gates.data_checks(gate, verdict["data"]["classes"])
    predictions = pd.DataFrame()
    if all(check["passed"] for check in fatal):
        judge = Judge(corpus, candidate.config, gate)
        predictions = judge.predictions(candidate)
        verdict |= judge.measure(predictions)
        heard = {each.info["seed"]: predictions if each is candidate else judge.other_seed(each) for each in trained}
        verdict |= spread_over_seeds({seed: judge.seed_metrics(rows) for seed, rows in heard.items()})
        checks += gates.performance_checks(gate, verdict["conditions"]) + gates.slice_checks(gate, verdict["slices"])
        if champion:
            verdict["champion"] = judge.compare(predictions, champion)
            checks.append(gates.champion_check(gate, verdict["champion"]["difference"]))
    verdict |= decide(checks)
    write(out, verdict, predictions)
    return verdict


def decide(checks: list[Check]) -> dict[str, Any]:
    """Approved only if every check passed; the reasons are the messages of those that did not."""
    failed = [check["message"] for check in checks if not check["passed"]]
    return {"approved": bool(checks) and not failed, "reasons": failed, "checks": checks}


def describe(candidate: Checkpoint, trained: list[Checkpoint], test: Split, gate: Gate) -> dict[str, Any]:
    """What is judged, on what, by which gate."""
    return {
        "candidate": {"seed": candidate.info["seed"], "best_eval_loss": candidate.info["best_eval_loss"]},
        "chosen_by": "lowest validation loss",
        "gate": gate.model_dump(mode="json") | {"digest": gate.digest()},
        "config": candidate.config.model_dump(mode="json"),
        "training": {
            str(each.info["seed"]): {k: each.info[k] for k in ("epochs", "best_epoch", "best_eval_loss")}
            for each in trained
        },
        "data": {"files": len(test), "classes": class_counts(test)},
        "conditions": {},
        "slices": [],
        "mistakes": [],
        "seeds": {},
        "spread": {},
        "champion": None,
    }


def class_counts(test: Split) -> dict[str, dict[str, int]]:
    """Files, and speakers where known, of each class."""
    counts = {}
    for label, name in CLASSES.items():
        rows = test.table[test.table["label"] == label]
        speakers = {"speakers": int(rows["speaker"].nunique())} if "speaker" in rows else {}
        counts[name] = {"files": len(rows)} | speakers
    return counts


def is_finite(candidate: Checkpoint) -> bool:
    """No weight is NaN or infinite."""
    return all(bool(value.isfinite().all()) for value in candidate.network.state_dict().values())


def integrity_checks(candidate: Checkpoint, corpus: Corpus, test: Split) -> list[Check]:
    """What makes every further number meaningless."""
    info = candidate.info
    shared_files = set(info.get("train_files", ())) & set(test.table["sha256"])
    speakers = set(test.table["speaker"].astype(str)) if "speaker" in test.table else set()
    shared_speakers = sorted(set(info.get("train_speakers") or ()) & speakers)
    return [
        gates.holds(
            "weights_finite",
            is_finite(candidate),
            "the weights hold NaN or infinite values: the training has diverged",
        ),
        gates.holds(
            "configuration_intact",
            info.get("config_digest") == candidate.config.digest(),
            "the settings beside the weights, preprocessing or network, are not those of its training (digests differ)",
        ),
        gates.holds(
            "test_files_unseen",
            not shared_files,
            f"{len(shared_files)} test recordings were in its training: leakage",
        ),
        gates.holds(
            "test_speakers_unseen",
            not shared_speakers,
            f"{len(shared_speakers)} test speakers were in its training: leakage ({', '.join(shared_speakers[:5])})",
        ),
    ]


class Judge:
    """The frozen test under every condition, with the bootstrap that all numbers share."""

    def __init__(self, corpus: Corpus, config: Config, gate: Gate) -> None:
        self.test, self.noises, self.config, self.gate = corpus.split("test"), corpus.noises, config, gate
        self.draws = {"noisy": config.evaluation.noise_draws, "clean": 1, "background": 1}

    def waveforms(self, condition: str, draw: int) -> list[np.ndarray]:
        """The test recordings under a condition."""
        if condition == "noisy":
            return [self._noisy(i, draw) for i in range(len(self.test))]
        change = probes.background if condition == "background" else np.asarray
        return [change(self.test.waveform(i)) for i in range(len(self.test))]

    def _noisy(self, index: int, draw: int) -> np.ndarray:
        noise = self.config.noise
        key = [TEST_KEY, self.config.evaluation.seed, draw]
        counts = (noise.test_controls, noise.test_patients)
        return noisy_waveform(self.test, index, self.noises, counts, self.config, key)

    def predictions(
        self, candidate: Checkpoint, conditions: Sequence[str] = ("noisy", "clean", "background")
    ) -> pd.DataFrame:
        """A row a recording, condition and noise draw."""
        tables = [
            self._table(
                condition,
                draw,
                predict_files(candidate.network, candidate.config, self.waveforms(condition, draw)),
            )
            for condition in conditions
            for draw in range(self.draws[condition])
        ]
        log.info("seed %d: %d recordings under %s", candidate.info["seed"], len(self.test), ", ".join(conditions))
        return pd.concat(tables, ignore_index=True)

    def _table(self, condition: str, draw: int, probabilities: np.ndarray) -> pd.DataFrame:
        known = [
            column
            for column in self.test.table
            if column not in RESERVED or column in ("file_path", "label", "speaker")
        ]
        return self.test.table[known].assign(condition=condition, draw=draw, probability=probabilities)

    def measure(self, predictions: pd.DataFrame) -> dict[str, Any]:
        """Metrics of every condition, slices and worst mistakes."""
        noisy = predictions[predictions["condition"] == "noisy"]
        return {
            "conditions": {
                str(name): self.condition(rows) for name, rows in predictions.groupby("condition", sort=False)
            },
            "slices": [self._slice(column, value, rows) for column, value, rows in slices(noisy)],
            "mistakes": worst_mistakes(noisy, self.config.evaluation.threshold),
        }

    def condition(self, rows: pd.DataFrame) -> dict[str, Any]:
        """Everything measured of one condition."""
        scores = self.scores(rows)
        right = scores.called == scores.labels
        draws = int(rows["draw"].nunique())
        matrix = [[int(np.sum(right[scores.labels == c])), int(np.sum(~right[scores.labels == c]))] for c in (0, 1)]
        return {
            "draws": draws,
            "by_file": self.intervals(scores),
            "by_speaker": self.intervals(self.scores(by_speaker(rows))) if "speaker" in rows else None,
            "confusion": [matrix[0], matrix[1][::-1]],
            "roc": roc(scores),
            "calibration": metrics.calibration(scores),
            "spread": float(np.std(scores.probabilities)),
        }

    def scores(self, rows: pd.DataFrame) -> Scores:
        """Rows of predictions with their threshold, band and clusters."""
        clusters = rows["speaker" if "speaker" in rows else "file_path"].to_numpy()
        labels, probabilities = rows["label"].to_numpy(), rows["probability"].to_numpy()
        return Scores(labels, probabilities, clusters, self.config.evaluation.threshold, self.gate.abstention.band)

    def intervals(self, scores: Scores, names: tuple[str, ...] = tuple(METRICS)) -> dict[str, dict[str, float]]:
        """Metrics with bootstrap intervals."""
        settings = self.config.evaluation
        weights = metrics.resamples(scores, settings.bootstrap_samples, settings.seed)
        return metrics.with_intervals(scores, weights, settings.confidence, names)

    def other_seed(self, trained: Checkpoint) -> pd.DataFrame:
        """The predictions of a seed that is no candidate, for the spread; none where its weights are broken."""
        return self.predictions(trained, SPREAD) if is_finite(trained) else pd.DataFrame({"condition": []})

    def seed_metrics(self, predictions: pd.DataFrame) -> dict[str, dict[str, float]]:
        """The metrics of one seed, by condition of the spread, without intervals."""
        spread = predictions[predictions["condition"].isin(SPREAD)]
        return {
            str(name): {metric: float(METRICS[metric](scores, np.ones((1, len(rows))))[0]) for metric in METRICS}
            for name, rows in spread.groupby("condition", sort=False)
            for scores in [self.scores(rows)]
        }

    def _slice(self, column: str, value: str, rows: pd.DataFrame) -> dict[str, Any]:
        names = ("accuracy", "sensitivity", "specificity")
        return {
            "column": column,
            "value": value,
            "files": int(rows["file_path"].nunique()),
            "metrics": self.intervals(self.scores(rows), names),
        }

    def compare(self, predictions: pd.DataFrame, champion: ChampionPredictor) -> dict[str, Any]:
        """Candidate minus champion in noisy accuracy, paired: the same waveforms, the same resamples."""
        mine = predictions[predictions["condition"] == "noisy"]
        answers = [champion.predict(self.waveforms("noisy", draw)) for draw in range(self.draws["noisy"])]
        theirs = mine.assign(probability=np.concatenate(answers))
        candidate, other = self.scores(mine), self.scores(theirs)
        settings = self.config.evaluation
        weights = metrics.resamples(candidate, settings.bootstrap_samples, settings.seed)
        gap = metrics.accuracy(candidate, weights) - metrics.accuracy(other, weights)
        ones = np.ones((1, len(mine)))
        value = float((metrics.accuracy(candidate, ones) - metrics.accuracy(other, ones))[0])
        return {
            "name": champion.name,
            "by_file": metrics.with_intervals(other, weights, settings.confidence),
            "difference": {"value": value} | metrics.bounds(gap, settings.confidence),
        }


def by_speaker(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean probability of each speaker's recordings, a row a speaker, class and draw."""
    return rows.groupby(["speaker", "label", "draw"])["probability"].mean().reset_index()


def roc(scores: Scores) -> dict[str, list[float]]:
    """False and true positive rates by threshold."""
    from sklearn.metrics import roc_curve

    false_rate, true_rate, thresholds = roc_curve(scores.labels, scores.probabilities)
    finite = np.clip(thresholds, 0.0, 1.0)  # the first is infinite: nothing called patient
    return {"fpr": false_rate.tolist(), "tpr": true_rate.tolist(), "thresholds": finite.tolist()}


def slices(rows: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """Groups of recordings by every optional column; numbers of many values are cut into thirds."""
    columns = [str(column) for column in rows if column not in RESERVED | {"condition", "draw", "probability"}]
    parts: list[tuple[str, str, pd.DataFrame]] = []
    for column in columns:
        values = rows[column]
        if pd.api.types.is_numeric_dtype(values) and values.nunique() > 6:
            values = thirds(values)
        parts += [(column, str(value), rows[values == value]) for value in values.dropna().unique()]
    return sorted(parts, key=lambda part: part[:2])


def thirds(values: pd.Series) -> pd.Series:
    """Each number's third of all, by the smallest and largest in it: "20 to 43"."""
    third = pd.qcut(values, 3, labels=False, duplicates="drop")
    grouped = values.groupby(third)
    named = grouped.transform("min").map("{:g}".format) + " to " + grouped.transform("max").map("{:g}".format)
    return named.where(third.notna())


def worst_mistakes(rows: pd.DataFrame, threshold: float) -> list[dict[str, Any]]:
    """The wrongly called recordings farthest from the truth, by mean probability over the draws."""
    means = rows.groupby(["file_path", "label"], as_index=False)["probability"].mean()
    wrong = means[(means["probability"] >= threshold) != (means["label"] == 1)]
    worst = wrong.assign(off=(wrong["probability"] - wrong["label"]).abs()).nlargest(MISTAKES, "off")
    return worst.drop(columns="off").assign(split="test").to_dict("records")


def spread_over_seeds(seeds: dict[int, dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Each seed's metrics, and mean and standard deviation over seeds, by condition."""
    spread: dict[str, dict[str, dict[str, float]]] = {}
    for condition in SPREAD:
        measured = [found[condition] for found in seeds.values() if found]
        spread[condition] = {
            name: {
                "mean": float(np.mean(values)),
                "std": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
            }
            for name in METRICS
            for values in [[each[name] for each in measured]]
            if values
        }
    return {"seeds": {str(seed): found for seed, found in seeds.items()}, "spread": spread}


def write(out: Path, verdict: dict[str, Any], predictions: pd.DataFrame) -> None:
    """Predictions first, then the verdict under its name: where it stands, both are complete."""
    out.mkdir(parents=True, exist_ok=True)
    predictions.to_parquet(out / "predictions.parquet")
    files.write_text(out / "verdict.json", json.dumps(json_safe(verdict), indent=1, allow_nan=False))


def json_safe(value: Any) -> Any:
    """NaN and infinity are no JSON: they become null."""
    if isinstance(value, dict):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
