"""The paper's 18 experiments: each states only its differences from :func:`spira.config.paper`.

Noises of every experiment are the paper's; files a batch, warm-up and windows were read from those of its
authors' configuration files that could be seen (1.1 to 1.3, 2.1, 2.2, 3.2, 3.6) and are inferred for the rest. Their
early stopping differs from file to file: here it is the paper's 40 epochs. Where whole files are taken the authors
seem to pad features; here the waveform is padded before.

    python -m spira experiments --data DIR 1.1 3.6
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from spira import files
from spira.config import PAPER_MODEL, PAPER_TRAINING, Config, from_dict
from spira.data.corpus import Corpus
from spira.errors import SpiraError
from spira.evaluation.evaluate import TEST_KEY
from spira.evaluation.predict import predict_waveforms
from spira.features.batches import noisy_waveform
from spira.models import checkpoint
from spira.models.checkpoint import Checkpoint
from spira.training import train

log = logging.getLogger(__name__)

EVERY = {"model": PAPER_MODEL, "training": PAPER_TRAINING | {"batch_files": 5, "warmup_steps": 1000}}
"""What all experiments share."""

WHOLE = {"windows": {"mode": "whole"}}
SHORT = {"windows": {"window_seconds": 3.0}}


def noises(controls: int, patients: int) -> dict[str, Any]:
    """Noises inserted in training, by class."""
    return {"noise": {"train_controls": controls, "train_patients": patients}}


EXPERIMENTS: dict[str, dict[str, Any]] = {
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
"""Accuracy by file on the paper's own test of 108 files, as far as it is known here; the authors' repositories hold
other runs of 3.6 with other figures."""

CONDITIONS = ("noisy", "clean")
"""The test with one noise inserted in controls, and as it was recorded."""


def configuration(experiment: str, settings: Sequence[str] = ()) -> Config:
    """The settings of an experiment, with ``section.key=value`` over them.

    Raises:
        SpiraError: there is no such experiment.
    """
    if experiment not in EXPERIMENTS:
        raise SpiraError(f"experiment {experiment!r} is none of the paper's: {', '.join(EXPERIMENTS)}")
    return from_dict(EVERY | EXPERIMENTS[experiment], settings)


def run(
    corpus: Corpus,
    work: Path,
    experiments: Sequence[str] = (),
    seeds: Sequence[int] = (),
    settings: Sequence[str] = (),
    device: str = "auto",
) -> pd.DataFrame:
    """Train and test experiments; what is finished in ``work`` is kept, what was interrupted goes on.

    Args:
        work: gets a folder ``<experiment>/seed-<seed>`` for each network.
        experiments: their numbers; all 18 if none is given.
        seeds: the paper's (42, 43, 46) if none is given.
        settings: ``section.key=value`` over every experiment, such as ``training.max_epochs=20``.

    Returns:
        One row an experiment, see :func:`row`.
    """
    configs = {name: configuration(name, settings) for name in experiments or EXPERIMENTS}
    rows = []
    for name, config in configs.items():
        used = seeds or config.training.seeds
        results = [result(corpus, config, seed, work / name / f"seed-{seed}", device) for seed in used]
        rows.append(row(name, config, pd.DataFrame(results)))
        log.info("experiment %s: noisy %.3f, clean %.3f", name, rows[-1]["noisy"], rows[-1]["clean"])
    return pd.DataFrame(rows)


def result(corpus: Corpus, config: Config, seed: int, out: Path, device: str) -> dict[str, float]:
    """Accuracy by file of one network under each condition; kept in ``test.json`` beside its checkpoint."""
    identity = checkpoint.identity(train.resolve(config, corpus), seed, corpus.digest)
    kept = out / "test.json"
    if kept.exists():
        told = json.loads(kept.read_text())
        if told.pop("of") == identity:
            return told
    trained = train.train(corpus, config, seed, out, device=device)
    accuracies = {condition: accuracy(corpus, trained, condition) for condition in CONDITIONS}
    files.write_text(kept, json.dumps({"of": identity} | accuracies))
    return accuracies


def accuracy(corpus: Corpus, trained: Checkpoint, condition: str) -> float:
    """Share of the test's files on the right side of the threshold, as the paper counts."""
    test, config = corpus.split("test"), trained.config
    counts = (config.noise.test_controls, config.noise.test_patients) if condition == "noisy" else (0, 0)
    key = [TEST_KEY, config.evaluation.seed, 0]  # the first of the evaluation's draws
    waveforms = (noisy_waveform(test, i, corpus.noises, counts, config, key) for i in range(len(test)))
    called = predict_waveforms(trained.network, config, waveforms) >= config.evaluation.threshold
    return float(np.mean(called == (test.labels == 1)))


def row(name: str, config: Config, results: pd.DataFrame) -> dict[str, Any]:
    """An experiment: its settings, mean and standard deviation over seeds, and what is published."""
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


def text(table: pd.DataFrame) -> str:
    """The table as it is printed: accuracy by file in per cent beside the published one."""
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
    """As the paper prints it, or a dash."""
    return "-" if np.isnan(share) else f"{100 * share:.2f}"
