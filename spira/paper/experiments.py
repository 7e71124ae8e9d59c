"""The paper's 18 experiments, each defined by its differences from :func:`spira.config.paper`.

    python -m spira experiments --data DIR 1.1 3.6

Sources and differences
    Noises of every experiment are the paper's. Batch size, warm-up and windows are those of the authors'
    configuration files that are available (1.1 to 1.3, 2.1, 2.2, 3.2, 3.6), and inferred for the rest. Early stopping
    differs from file to file; here it is the paper's 40 epochs. For whole files the authors seem to pad features; here
    the waveform is padded.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from spira.config import PAPER_MODEL, PAPER_TRAINING, Config, from_dict
from spira.data.corpus import Corpus
from spira.errors import SpiraError
from spira.evaluation.evaluate import TEST_KEY
from spira.evaluation.predict import predict_waveforms
from spira.features.batches import noisy_waveform
from spira.files import read_json, write_text
from spira.models.checkpoint import Checkpoint, TrainingIdentity
from spira.training import train

log = logging.getLogger(__name__)

SHARED = {"model": PAPER_MODEL, "training": PAPER_TRAINING | {"batch_files": 5, "warmup_steps": 1000}}
"""Settings that all experiments share."""

WHOLE = {"windows": {"mode": "whole"}}
SHORT = {"windows": {"window_seconds": 3.0}}


def noises(controls: int, patients: int) -> dict[str, object]:
    """Return the settings of the noises inserted in training, by class."""
    return {"noise": {"train_controls": controls, "train_patients": patients}}


EXPERIMENTS: dict[str, dict[str, object]] = {
    "1.1": WHOLE | noises(0, 0),
    "1.2": SHORT | noises(0, 0),
    "1.3": noises(0, 0),
    "2.1": WHOLE | noises(1, 0),
    "2.2": SHORT | noises(1, 0),
    "2.3": noises(1, 0),
    "3.1": noises(1, 1),
    "3.2": noises(2, 1),
    "3.3": noises(2, 2),
    "3.4": noises(3, 2),
    "3.5": noises(3, 3),
    "3.6": noises(4, 3),
    "3.7": noises(4, 4),
    "3.8": noises(5, 4),
    "3.9": noises(5, 5),
    "3.10": noises(6, 5),
    "3.11": noises(6, 6),
    "3.12": noises(7, 6),
}

PUBLISHED = {"1.1": {"noisy": 0.5093, "clean": 0.9815}, "3.6": {"noisy": 0.9167}}
"""Published accuracy by file on the paper's test of 108 files, as far as it is known.

The authors' repositories hold other runs of 3.6 with other figures.
"""

CONDITIONS = ("noisy", "clean")
"""The test with one noise inserted in controls, and the test as recorded."""


def configuration(experiment: str, settings: Sequence[str] = ()) -> Config:
    """Return the configuration of an experiment, overridden by ``section.key=value`` settings.

    Raises:
        SpiraError: the paper has no such experiment.
    """
    if experiment not in EXPERIMENTS:
        raise SpiraError(f"experiment {experiment!r} is not one of the paper's: {', '.join(EXPERIMENTS)}")
    return from_dict(SHARED | EXPERIMENTS[experiment], settings)


def run(
    corpus: Corpus,
    work: Path,
    experiments: Sequence[str] = (),
    seeds: Sequence[int] = (),
    settings: Sequence[str] = (),
    device: str = "auto",
) -> pd.DataFrame:
    """Train and test experiments. Finished results in ``work`` are kept; interrupted trainings are resumed.

    Args:
        work: receives a folder ``<experiment>/seed-<seed>`` for each network.
        experiments: names of experiments; all 18 by default.
        seeds: the paper's (42, 43, 46) by default.
        settings: ``section.key=value`` that override every experiment, such as ``training.max_epochs=20``.

    Returns:
        One row per experiment, see :func:`row`.
    """
    configs = {name: configuration(name, settings) for name in experiments or EXPERIMENTS}
    rows = []
    for name, config in configs.items():
        results = [
            train_and_test(corpus, config, seed, work / name / f"seed-{seed}", device)
            for seed in seeds or config.training.seeds
        ]
        rows.append(row(name, config, pd.DataFrame(results)))
        log.info("experiment %s: noisy %.3f, clean %.3f", name, rows[-1]["noisy"], rows[-1]["clean"])
    return pd.DataFrame(rows)


def train_and_test(corpus: Corpus, config: Config, seed: int, out: Path, device: str) -> dict[str, float]:
    """Return the accuracy by file of one network in each condition, and save it in ``test.json`` of its checkpoint."""
    identity = TrainingIdentity.of(train.resolve(config, corpus), seed, corpus.digest).model_dump()
    saved = out / "test.json"
    if saved.exists():
        result = read_json(saved)
        if result.pop("of") == identity:
            return result
    trained = train.train(corpus, config, seed, out, device=device)
    accuracies = {condition: accuracy(corpus, trained, condition) for condition in CONDITIONS}
    write_text(saved, json.dumps({"of": identity} | accuracies))
    return accuracies


def accuracy(corpus: Corpus, trained: Checkpoint, condition: str) -> float:
    """Return the share of test files that are classified correctly, as the paper counts them."""
    test, config = corpus.split("test"), trained.config
    counts = (config.noise.test_controls, config.noise.test_patients) if condition == "noisy" else (0, 0)
    key = [TEST_KEY, config.evaluation.seed, 0]  # the first of the evaluation's draws
    waveforms = (noisy_waveform(test, i, corpus.noises, counts, config, key) for i in range(len(test)))
    is_patient = predict_waveforms(trained.network, config, waveforms) >= config.evaluation.threshold
    return float(np.mean(is_patient == (test.labels == 1)))


def row(name: str, config: Config, results: pd.DataFrame) -> dict[str, Any]:
    """Return an experiment's settings, mean and standard deviation over seeds, and published accuracies."""
    windows = "whole files" if config.windows.mode == "whole" else f"{config.windows.window_seconds:g} s"
    measured = {
        key: value
        for condition in CONDITIONS
        for key, value in (
            (condition, results[condition].mean()),
            (f"{condition}_std", results[condition].std(ddof=1) if len(results) > 1 else 0.0),
            (f"published_{condition}", PUBLISHED.get(name, {}).get(condition, np.nan)),
        )
    }
    noise = {"noise_controls": config.noise.train_controls, "noise_patients": config.noise.train_patients}
    return {"experiment": name, "windows": windows} | noise | {"seeds": len(results)} | measured


def format_table(table: pd.DataFrame) -> str:
    """Return the table as text: accuracy by file in per cent beside the published one."""
    here = f"{'here':>14} {'paper':>10}"
    lines = [
        f"{'':10}  {'':11}  {'noises in':>9}  {'':5}  {'test with noise':>25}  {'test without noise':>25}",
        f"{'experiment':10}  {'windows':11}  {'training':>9}  {'seeds':5}  {here}  {here}",
    ]
    for entry in table.to_dict("records"):
        cells = [
            f"{percent(entry[name]):>7} ± {100 * entry[f'{name}_std']:4.1f} {percent(entry[f'published_{name}']):>10}"
            for name in CONDITIONS
        ]
        noise = f"{entry['noise_controls']} / {entry['noise_patients']}"
        lines.append(
            f"{entry['experiment']:10}  {entry['windows']:11}  {noise:>9}  {entry['seeds']:5}  {'  '.join(cells)}"
        )
    lines.append("Accuracy by file, %: mean ± standard deviation over seeds. Noises: in controls / in patients.")
    return "\n".join(lines)


def percent(share: float) -> str:
    """Return a share in per cent as the paper prints it, or a dash."""
    return "-" if np.isnan(share) else f"{100 * share:.2f}"
