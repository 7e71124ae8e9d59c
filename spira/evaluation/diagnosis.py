"""Threshold and calibration, chosen on the validation split by the rule of the gate file.

The test split has no influence on the choice. The choice is made under the noise of the paper's test, with the network
that is judged. The package applies it, so that ``spira predict`` and every server give the answers that were judged.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from spira.data.corpus import Corpus
from spira.data.metadata import CLASS_NAMES
from spira.errors import SpiraError
from spira.evaluation import metrics
from spira.evaluation.gate import DiagnosisRules, Gate
from spira.evaluation.metrics import Scores
from spira.evaluation.predict import predict_waveforms
from spira.evaluation.verdict import DiagnosisRule
from spira.features.batches import VALIDATION_KEY, noisy_waveform
from spira.inference.model import scaled
from spira.models.checkpoint import Checkpoint

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.1, 10.0
INNERMOST = 1e-6
"""Smallest distance of a threshold from 0 and 1."""

Floats = NDArray[np.float64]


def choose(corpus: Corpus, network: Checkpoint, gate: Gate) -> DiagnosisRule | None:
    """Return the threshold and the temperature of a network; None if the gate has no rule for them.

    Raises:
        SpiraError: the validation split has no recording of one class.
    """
    rules = gate.diagnosis
    if rules is None:
        return None
    split, config = corpus.split("eval"), network.config
    for label, name in CLASS_NAMES.items():
        if label not in split.labels:
            raise SpiraError(
                f"the validation split has no recording of a {name}: the gate's diagnosis cannot be chosen on it; "
                "add recordings to metadata_eval.csv, or leave diagnosis out of the gate file"
            )
    counts, draws = (config.noise.test_controls, config.noise.test_patients), config.evaluation.noise_draws
    probabilities = np.concatenate(
        [
            predict_waveforms(
                network.network,
                config,
                (
                    noisy_waveform(
                        split, i, corpus.noises, counts, config, [VALIDATION_KEY, config.evaluation.seed, draw]
                    )
                    for i in range(len(split))
                ),
            )
            for draw in range(draws)
        ]
    )
    column = "speaker" if "speaker" in split.table else "file_path"
    labels, speakers = np.tile(split.labels, draws), np.tile(split.table[column].to_numpy(), draws)
    temperature = fitted_temperature(probabilities, labels, len(split)) if rules.temperature_scaling else 1.0
    calibrated = with_temperature(probabilities, temperature)
    threshold, band = config.evaluation.threshold, gate.abstention.band
    if rules.target_sensitivity is not None:
        threshold = highest_threshold(calibrated, labels, rules.target_sensitivity)
        band = moved_band(band, config.evaluation.threshold, threshold)
    scores, names = Scores(labels, calibrated, speakers, threshold, band), ("sensitivity", "specificity")
    weights = metrics.resamples(scores, config.evaluation.bootstrap_samples, config.evaluation.seed)
    return DiagnosisRule(
        threshold=threshold,
        band=band,
        temperature=temperature,
        chosen_by=in_words(rules),
        recordings=len(split),
        validation=metrics.with_intervals(scores, weights, config.evaluation.confidence, names),
    )


def in_words(rules: DiagnosisRules) -> str:
    """Return the rules as a phrase."""
    parts = []
    if rules.target_sensitivity is not None:
        parts.append(f"highest threshold with a sensitivity of {rules.target_sensitivity:g} on validation")
    if rules.temperature_scaling:
        parts.append("temperature fitted on validation")
    return ", ".join(parts) or "threshold of the configuration"


def with_temperature(probabilities: Floats, temperature: float) -> Floats:
    """Return calibrated probabilities, ``[rows]``: the same numbers as the package gives."""
    if temperature == 1.0:
        return probabilities
    return np.array([scaled(float(probability), temperature) for probability in probabilities])


def fitted_temperature(probabilities: Floats, labels: NDArray[np.int64], recordings: int) -> float:
    """Return the temperature with the lowest cross-entropy.

    The targets are Platt's (1999), a little inside of 0 and 1: with those themselves, classes that are separated on
    validation would make every probability 0 or 1.

    Args:
        probabilities: ``[rows]``.
        labels: ``[rows]``: 0 control, 1 patient.
        recordings: number of recordings; rows of one recording are no further evidence.
    """
    inner = np.clip(probabilities, 1e-12, 1 - 1e-12)
    logits = np.log(inner / (1 - inner))
    share = float(np.mean(labels))
    patients, controls = share * recordings, (1 - share) * recordings
    targets = np.where(labels == 1, (patients + 1) / (patients + 2), 1 / (controls + 2))

    def cross_entropy(log_temperature: float) -> float:
        scaled_logits = logits / math.exp(log_temperature)
        return float(np.mean(np.logaddexp(0, scaled_logits) - targets * scaled_logits))

    ends = (math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE))
    return float(math.exp(minimize_scalar(cross_entropy, bounds=ends, method="bounded").x))


def highest_threshold(probabilities: Floats, labels: NDArray[np.int64], sensitivity: float) -> float:
    """Return the highest threshold with a sensitivity: midway to the next lower probability, whatever its class.

    A threshold on a probability itself would depend on the last bit of another computation of it.
    """
    patients = np.sort(probabilities[labels == 1])
    lowest_called = patients[math.floor((1 - sensitivity) * len(patients) + 1e-9)]
    lower = probabilities[probabilities < lowest_called]
    threshold = (float(lowest_called) + (float(lower.max()) if len(lower) else 0.0)) / 2
    return min(max(threshold, INNERMOST), 1 - INNERMOST)


def moved_band(band: tuple[float, float], old: float, new: float) -> tuple[float, float]:
    """Return the abstention band around a new threshold: its ends move by as much as the threshold, in log odds."""
    odds = new / (1 - new) * (1 - old) / old
    low, high = (end if end in (0.0, 1.0) else end * odds / (1 - end + end * odds) for end in band)
    return low, high
