"""Evaluation of trained networks on the frozen test split: conditions, metrics, slices, champion, verdict.

One network per seed is measured. The candidate is the network with the lowest *validation* loss, so the test split
does not influence the choice. Only the candidate is checked by the gate. All networks get the same noise draws.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from spira.config import Config
from spira.data.corpus import Corpus, Split
from spira.data.metadata import CLASS_NAMES
from spira.data.names import speaker_key
from spira.data.pseudonyms import shown_speaker
from spira.errors import SpiraError
from spira.evaluation import checks as gate_checks
from spira.evaluation import confounders, diagnosis, flow, metrics, probes, verdict
from spira.evaluation.gate import Gate
from spira.evaluation.metrics import METRICS, Scores
from spira.evaluation.predict import predict_waveforms
from spira.evaluation.verdict import (
    Candidate,
    ChampionComparison,
    Check,
    Condition,
    DiagnosisRule,
    Estimate,
    ExternalTest,
    Mistake,
    RecordedGate,
    RocCurve,
    SeedSpread,
    SeedTraining,
    Slice,
    TestData,
    Verdict,
)
from spira.features.batches import noisy_waveform
from spira.models import checkpoint
from spira.models.checkpoint import Checkpoint, CheckpointInfo

log = logging.getLogger(__name__)

Predictor = Callable[[Sequence[np.ndarray]], np.ndarray]
"""Waveforms at 16 kHz -> probabilities ``[recordings]``."""

SeedMetrics = Mapping[str, Mapping[str, float]]
"""Condition -> metric -> value by file; NaN where a metric is not defined."""

NOT_SLICED = {"file_path", "label", "class", "split", "offset", "samples", "seconds", "sha256", "speaker"}
"""Columns of the corpus index that form no slices."""

TEST_KEY = 0x7E57
"""Seed key that keeps the test's noise draws apart from those of training and validation."""

SPREAD_CONDITIONS = ("noisy", "clean")
"""Conditions under which every seed is measured."""

EXTERNAL_CONDITIONS = ("noisy", "clean")
"""Conditions under which external test sets are measured."""

MAX_MISTAKES = 10
"""Number of mistakes in the verdict."""

MAX_DISTINCT_NUMBERS = 6
"""A numeric column with more distinct values is sliced into thirds."""


@dataclass(frozen=True)
class ChampionPredictor:
    """The champion, whatever it is made of."""

    name: str
    predict: Predictor
    threshold: float | None = None
    """Smallest probability that it calls patient; None for the candidate's."""
    band: tuple[float, float] | None = None
    """Its abstention band; None for the candidate's."""


@dataclass(frozen=True)
class Measurements:
    """Numbers of a verdict; empty if an integrity check failed."""

    conditions: dict[str, Condition] = field(default_factory=dict)
    slices: tuple[Slice, ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    seeds: dict[str, SeedMetrics] = field(default_factory=dict)
    spread: dict[str, dict[str, SeedSpread]] = field(default_factory=dict)
    champion: ChampionComparison | None = None


def evaluate(
    corpus: Corpus,
    checkpoints: Sequence[Path],
    gate: Gate,
    out: Path,
    champion: ChampionPredictor | None = None,
    earlier_evaluations: int | None = None,
) -> Verdict:
    """Measure the checkpoints, check the candidate, write ``verdict.json`` and ``predictions.parquet`` into ``out``.

    Args:
        earlier_evaluations: number of earlier evaluations of this test set; None if that is not known.

    Raises:
        SpiraError: there is no checkpoint, or one cannot be read.
    """
    trained = sorted((checkpoint.load(path) for path in checkpoints), key=lambda network: network.info.seed)
    if not trained:
        raise SpiraError("there is no checkpoint to evaluate: train at least one seed")
    candidate = choose_candidate(trained)
    test = corpus.split("test")
    classes = class_counts(test)
    integrity = integrity_checks(candidate, test, gate)
    checks = [*integrity, *gate_checks.data_checks(gate, classes)]
    predictions, measured, baseline, rule = pd.DataFrame(), Measurements(), None, None
    if all(check.passed for check in integrity):
        rule = diagnosis.choose(corpus, candidate, gate)
        evaluator = TestSetEvaluator(corpus, candidate.config, gate, rule)
        predictions = evaluator.predictions(candidate)
        measured = evaluator.measure(candidate, trained, predictions, champion)
        checks += performance_checks(gate, measured, classes)
        baseline = confounders.baseline(corpus, evaluator, predictions)
        checks.insert(0, confounders.check(gate, baseline, classes))  # its finding is shown first
    external = external_tests(corpus, candidate, gate, rule) if measured.conditions else ()
    approved, reasons = decide(checks)
    result = Verdict(
        candidate=Candidate(seed=candidate.info.seed, best_eval_loss=candidate.info.best_eval_loss),
        gate=RecordedGate.of(gate),
        diagnosis=rule,
        config=candidate.config,
        training={str(network.info.seed): training_of(network) for network in trained},
        data=TestData(files=len(test), classes=classes, digest=test_digest(test)),
        conditions=measured.conditions,
        slices=measured.slices,
        mistakes=measured.mistakes,
        seeds=measured.seeds,
        spread=measured.spread,
        champion=measured.champion,
        approved=approved,
        reasons=reasons,
        warnings=(
            *(check.message for check in checks if check.is_warning),
            *(f"external test set {test.name}: {test.problem}" for test in external if test.problem),
        ),
        checks=tuple(checks),
        confounders=baseline,
        external=external,
        flow=flow.rows(corpus),
        test_evaluations=None if earlier_evaluations is None else earlier_evaluations + 1,
    )
    write(out, result, predictions)
    return result


def choose_candidate(trained: Sequence[Checkpoint]) -> Checkpoint:
    """Return the network with the lowest validation loss; one with finite weights if there is any."""

    def order(network: Checkpoint) -> tuple[bool, float, int]:
        loss = network.info.best_eval_loss
        return not is_finite(network), math.inf if loss is None else loss, network.info.seed

    return min(trained, key=order)


def decide(checks: Sequence[Check]) -> tuple[bool, tuple[str, ...]]:
    """Return whether the candidate is approved, and the messages of the failed checks. No checks: not approved."""
    reasons = tuple(check.message for check in checks if not check.passed)
    return bool(checks) and not reasons, reasons


def performance_checks(gate: Gate, measured: Measurements, classes: Mapping[str, Mapping[str, int]]) -> list[Check]:
    """Apply the gate to the measurements of a candidate; ``classes`` is :func:`class_counts` of the test split."""
    checks = gate_checks.performance_checks(gate, measured.conditions, classes)
    checks += gate_checks.slice_checks(gate, measured.slices)
    if measured.champion:
        checks.append(gate_checks.champion_check(gate, measured.champion.difference))
    return checks


def training_of(network: Checkpoint) -> SeedTraining:
    """Return length and result of a network's training."""
    info = network.info
    return SeedTraining(epochs=info.epochs, best_epoch=info.best_epoch, best_eval_loss=info.best_eval_loss)


def class_counts(test: Split) -> dict[str, dict[str, int]]:
    """Return the number of files, and of speakers where they are known, of each class."""
    counts = {}
    for label, name in CLASS_NAMES.items():
        rows = test.table[test.table["label"] == label]
        speakers = {"speakers": int(rows["speaker"].nunique())} if "speaker" in rows else {}
        counts[name] = {"files": len(rows)} | speakers
    return counts


def test_digest(test: Split) -> str:
    """Return the SHA-256 over the sorted content hashes and classes of a split's recordings.

    Names, speakers and other columns do not change it, and neither do the other splits.
    """
    rows = sorted(zip(test.table["sha256"], test.table["label"], strict=True))
    return hashlib.sha256("\n".join(f"{sha256} {label}" for sha256, label in rows).encode()).hexdigest()


def external_tests(
    corpus: Corpus, candidate: Checkpoint, gate: Gate, rule: DiagnosisRule | None
) -> tuple[ExternalTest, ...]:
    """Measure the candidate on each external test set, under the conditions of the frozen test."""
    tests = []
    for split in corpus.external:
        recordings = corpus.split(split)
        problem = "; ".join(
            check.message for check in leakage_checks(candidate.info, recordings, gate, split) if not check.passed
        )
        conditions: dict[str, Condition] = {}
        if not problem:
            evaluator = TestSetEvaluator(corpus, candidate.config, gate, rule, split)
            predictions = evaluator.predictions(candidate, EXTERNAL_CONDITIONS)
            conditions = evaluator.conditions(predictions)
        data = TestData(files=len(recordings), classes=class_counts(recordings), digest=test_digest(recordings))
        name = split.removeprefix("test_")
        tests.append(ExternalTest(name=name, data=data, conditions=conditions, problem=problem))
    return tuple(tests)


def is_finite(network: Checkpoint) -> bool:
    """Return whether no weight is NaN or infinite."""
    return all(bool(value.isfinite().all()) for value in network.network.state_dict().values())


def integrity_checks(candidate: Checkpoint, test: Split, gate: Gate) -> list[Check]:
    """Check the conditions without which no measurement has a meaning."""
    info = candidate.info
    return [
        gate_checks.fact(
            "weights_finite",
            "Weights are finite",
            is_finite(candidate),
            "the weights hold NaN or infinite values: the training has diverged",
        ),
        gate_checks.fact(
            "configuration_intact",
            "Configuration is that of the training",
            info.config_digest == candidate.config.digest(),
            "the configuration beside the weights is not that of the training (digests differ)",
        ),
        *leakage_checks(info, test, gate),
    ]


def leakage_checks(info: CheckpointInfo, test: Split, gate: Gate, split: str = "test") -> list[Check]:
    """Compare a test split with the training data, if the checkpoint records them."""
    if not info.train_files:
        return [gate_checks.unknown_training_data(gate, info.imported_from)]
    shared_files = set(info.train_files) & set(test.table["sha256"])
    speakers = set(test.table["speaker"].astype(str)) if "speaker" in test.table else set()
    trained_speakers = {speaker_key(speaker) for speaker in info.train_speakers or ()}
    shared_speakers = sorted(speaker for speaker in speakers if speaker_key(speaker) in trained_speakers)
    if shared_speakers:  # the verdict has the number alone: it leaves the work folder
        log.warning("%s speakers that were trained on: %s", split, ", ".join(map(shown_speaker, shared_speakers)))
    return gate_checks.leakage_checks(len(shared_files), len(shared_speakers))


class TestSetEvaluator:
    """Measurements on the frozen test split, or on an external test set. All metrics share one bootstrap."""

    __test__ = False  # pytest would collect it by its name

    def __init__(
        self, corpus: Corpus, config: Config, gate: Gate, rule: DiagnosisRule | None = None, split: str = "test"
    ) -> None:
        self.corpus, self.test, self.noises = corpus, corpus.split(split), corpus.noises
        self.config, self.gate, self.rule = config, gate, rule
        self.draws = {"noisy": config.evaluation.noise_draws, "clean": 1, "background": 1}

    def measure(
        self,
        candidate: Checkpoint,
        trained: Sequence[Checkpoint],
        predictions: pd.DataFrame,
        champion: ChampionPredictor | None,
    ) -> Measurements:
        """Return everything measured of the candidate, the other seeds and the champion."""
        noisy = predictions[predictions["condition"] == "noisy"]
        seeds = {
            str(network.info.seed): (
                self.seed_metrics(predictions) if network is candidate else self.other_seed_metrics(network)
            )
            for network in trained
        }
        return Measurements(
            conditions=self.conditions(predictions),
            slices=tuple(self._slice(column, value, rows) for column, value, rows in slices(noisy)),
            mistakes=worst_mistakes(noisy, self.threshold),
            seeds=seeds,
            spread=spread_over_seeds(seeds),
            champion=self.compare(predictions, champion) if champion else None,
        )

    @property
    def threshold(self) -> float:
        """Return the smallest probability that is called patient."""
        return self.rule.threshold if self.rule else self.config.evaluation.threshold

    def waveforms(self, condition: str, draw: int) -> list[np.ndarray]:
        """Return the test recordings under a condition."""
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
        self, network: Checkpoint, conditions: Sequence[str] = ("noisy", "clean", "background")
    ) -> pd.DataFrame:
        """Return one row per recording, condition and noise draw, with calibrated probabilities."""
        temperature = self.rule.temperature if self.rule else 1.0
        tables = [
            self._table(
                condition,
                draw,
                diagnosis.with_temperature(
                    predict_waveforms(network.network, network.config, self.waveforms(condition, draw)), temperature
                ),
            )
            for condition in conditions
            for draw in range(self.draws[condition])
        ]
        log.info("seed %d: measured %d recordings under %s", network.info.seed, len(self.test), ", ".join(conditions))
        return pd.concat(tables, ignore_index=True)

    def _table(self, condition: str, draw: int, probabilities: np.ndarray) -> pd.DataFrame:
        columns = [
            column
            for column in self.test.table
            if column not in NOT_SLICED or column in ("file_path", "label", "speaker")
        ]
        return self.test.table[columns].assign(condition=condition, draw=draw, probability=probabilities)

    def conditions(self, predictions: pd.DataFrame) -> dict[str, Condition]:
        """Return everything measured under each condition."""
        return {str(name): self.condition(rows) for name, rows in predictions.groupby("condition", sort=False)}

    def condition(self, rows: pd.DataFrame) -> Condition:
        """Return everything measured under one condition."""
        scores = self.scores(rows)
        right = scores.called == scores.labels
        (controls, false_patients), (patients, missed) = (
            (int(np.sum(right[scores.labels == label])), int(np.sum(~right[scores.labels == label])))
            for label in (0, 1)
        )
        return Condition(
            draws=int(rows["draw"].nunique()),
            by_file=self.intervals(scores),
            by_speaker=self.intervals(self.scores(by_speaker(rows))) if "speaker" in rows else None,
            confusion=((controls, false_patients), (missed, patients)),
            answers=metrics.answers(scores),
            predictive_values=tuple(
                metrics.predictive_values(scores, self.config.evaluation.confidence, prevalence)
                for prevalence in self.gate.prevalences
            ),
            operating_points=metrics.operating_points(scores, self.config.evaluation.confidence),
            roc=roc(scores),
            calibration=metrics.calibration(scores, self.config.evaluation.confidence),
            spread=float(np.std(scores.probabilities)),
        )

    def scores(self, rows: pd.DataFrame) -> Scores:
        """Return rows of predictions with the threshold, the band and the clusters."""
        clusters = rows["speaker" if "speaker" in rows else "file_path"].to_numpy()
        labels, probabilities = rows["label"].to_numpy(), rows["probability"].to_numpy()
        band = self.rule.band if self.rule else self.gate.abstention.band
        return Scores(labels, probabilities, clusters, self.threshold, band)

    def intervals(self, scores: Scores, names: tuple[str, ...] = tuple(METRICS)) -> dict[str, Estimate]:
        """Return metrics with their intervals."""
        settings = self.config.evaluation
        weights = metrics.resamples(scores, settings.bootstrap_samples, settings.seed)
        return metrics.with_intervals(scores, weights, settings.confidence, names)

    def other_seed_metrics(self, network: Checkpoint) -> SeedMetrics:
        """Return the metrics of a seed that is not the candidate; none if its weights are not finite.

        Its threshold and its calibration are its own.
        """
        if not is_finite(network):
            return {}
        rule = diagnosis.choose(self.corpus, network, self.gate)
        evaluator = TestSetEvaluator(self.corpus, self.config, self.gate, rule)
        return evaluator.seed_metrics(evaluator.predictions(network, SPREAD_CONDITIONS))

    def seed_metrics(self, predictions: pd.DataFrame) -> SeedMetrics:
        """Return the metrics of one seed under each condition of the spread, without intervals."""
        rows_of = predictions[predictions["condition"].isin(SPREAD_CONDITIONS)].groupby("condition", sort=False)
        return {
            str(name): {metric: METRICS[metric].value(scores) for metric in METRICS}
            for name, rows in rows_of
            for scores in [self.scores(rows)]
        }

    def _slice(self, column: str, value: str, rows: pd.DataFrame) -> Slice:
        names = ("accuracy", "sensitivity", "specificity")
        return Slice(
            column=column,
            value=value,
            files=int(rows["file_path"].nunique()),
            metrics=self.intervals(self.scores(rows), names),
        )

    def compare(self, predictions: pd.DataFrame, champion: ChampionPredictor) -> ChampionComparison:
        """Return candidate minus champion in noisy accuracy, paired: both get the same waveforms."""
        candidate_rows = predictions[predictions["condition"] == "noisy"]
        probabilities = [champion.predict(self.waveforms("noisy", draw)) for draw in range(self.draws["noisy"])]
        champion_rows = candidate_rows.assign(probability=np.concatenate(probabilities))
        candidate = self.scores(candidate_rows)
        other = replace(
            self.scores(champion_rows),
            threshold=champion.threshold if champion.threshold is not None else candidate.threshold,
            band=champion.band or candidate.band,
        )
        confidence = self.config.evaluation.confidence
        return ChampionComparison(
            name=champion.name,
            by_file=self.intervals(other),
            difference=metrics.difference(candidate, other, confidence),
        )


def by_speaker(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the mean probability of each speaker's recordings, one row per speaker, class and draw."""
    return rows.groupby(["speaker", "label", "draw"])["probability"].mean().reset_index()


def roc(scores: Scores) -> RocCurve:
    """Return false and true positive rates by threshold."""
    from sklearn.metrics import roc_curve

    false_rate, true_rate, thresholds = roc_curve(scores.labels, scores.probabilities)
    finite = np.clip(thresholds, 0.0, 1.0)  # the first is infinite: nothing is called patient
    return RocCurve(fpr=false_rate.tolist(), tpr=true_rate.tolist(), thresholds=finite.tolist())


def slices(rows: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """Return (column, value, rows) for every value of an optional column; numeric columns are cut into thirds.

    A text column with another value for every recording is a name or a note, not a group.
    """
    columns = [str(column) for column in rows if column not in NOT_SLICED | {"condition", "draw", "probability"}]
    parts: list[tuple[str, str, pd.DataFrame]] = []
    for column in columns:
        values = rows[column]
        if pd.api.types.is_numeric_dtype(values) and values.nunique() > MAX_DISTINCT_NUMBERS:
            values = thirds(values)
        elif not pd.api.types.is_numeric_dtype(values):
            present = rows[values.notna() & (values != "")]
            if present[column].nunique() == present["file_path"].nunique():
                continue
        parts += [(column, str(value), rows[values == value]) for value in values.dropna().unique()]
    return sorted(parts, key=lambda part: part[:2])


def thirds(values: pd.Series[Any]) -> pd.Series[Any]:
    """Return the third that each number is in, named by its smallest and largest number: "20 to 43"."""
    third = pd.qcut(values, 3, labels=False, duplicates="drop")
    grouped = values.groupby(third)
    names = grouped.transform("min").map("{:g}".format) + " to " + grouped.transform("max").map("{:g}".format)
    return names.where(third.notna())


def worst_mistakes(rows: pd.DataFrame, threshold: float) -> tuple[Mistake, ...]:
    """Return the recordings with the wrong class, farthest from the truth first, by mean over the draws."""
    means = rows.groupby(["file_path", "label"], as_index=False)["probability"].mean()
    wrong = means[(means["probability"] >= threshold) != (means["label"] == 1)]
    worst = wrong.assign(error=(wrong["probability"] - wrong["label"]).abs()).nlargest(MAX_MISTAKES, "error")
    return tuple(
        Mistake(file_path=str(row.file_path), label=int(row.label), probability=float(row.probability))
        for row in worst.itertuples()
    )


def spread_over_seeds(seeds: Mapping[str, SeedMetrics]) -> dict[str, dict[str, SeedSpread]]:
    """Return mean and standard deviation over seeds of each metric, by condition."""
    spread: dict[str, dict[str, SeedSpread]] = {}
    for condition in SPREAD_CONDITIONS:
        measured = [conditions[condition] for conditions in seeds.values() if conditions]
        spread[condition] = {name: _spread([values[name] for values in measured]) for name in METRICS if measured}
    return spread


def _spread(values: Sequence[float]) -> SeedSpread:
    if not np.isfinite(values).all():  # a likelihood ratio of a network without a false patient is infinite
        return SeedSpread(mean=None, std=None)
    std = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return SeedSpread(mean=float(np.mean(values)), std=std)


def write(out: Path, result: Verdict, predictions: pd.DataFrame) -> None:
    """Write the verdict folder. The verdict comes last, so that a folder that has it is complete."""
    out.mkdir(parents=True, exist_ok=True)
    predictions.to_parquet(out / verdict.PREDICTIONS)
    verdict.write(out / verdict.VERDICT, result)
