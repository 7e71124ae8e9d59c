"""Corpus, checkpoints and champion to verdict, report and candidate."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spira import lineage
from spira.config import SAMPLE_RATE_HZ
from spira.errors import SpiraError
from spira.files import link_files, read_json, write_json
from spira.stage_logging import stage
from spira.stages.verdict_folder import HISTORIES, LINEAGE, VERDICT

if TYPE_CHECKING:
    from spira.evaluation.evaluate import ChampionPredictor

log = logging.getLogger(__name__)


@stage
def evaluate(
    corpus: Path,
    checkpoints: Sequence[Path],
    gate: str,
    out: Path,
    report: Path,
    chosen: Path,
    *,
    registry_uri: str,
    pipeline_run: str,
) -> dict[str, Any]:
    """Corpus, checkpoints and the champion -> verdict folder, ``report.html`` and the candidate.

    Args:
        gate: the gate, JSON.
        out: the verdict folder to make: verdict, predictions, lineage and histories.
        report: the HTML file to make.
        chosen: where the candidate's checkpoint folder goes.
        registry_uri: MLflow URL, or a folder for SQLite; its champion is the one to compare with.

    Returns:
        The verdict.
    """
    from spira.data.corpus import Corpus
    from spira.evaluation import evaluate as evaluation
    from spira.evaluation import report as page
    from spira.evaluation.gate import Gate
    from spira.models import checkpoint

    opened = Corpus.open(corpus)
    with open_champion(registry_uri) as champion:
        evaluation.evaluate(opened, checkpoints, Gate.model_validate_json(gate), out, champion)
    verdict = read_json(out / VERDICT)  # as every later reader sees it: what is no number is null
    by_seed = {read_json(path / checkpoint.INFO)["seed"]: path for path in checkpoints}
    link_files(by_seed[verdict["candidate"]["seed"]], checkpoint.FILES, chosen)
    tags = lineage.tags(opened.digest, checkpoint.load(chosen).config, pipeline_run)
    write_json(out / LINEAGE, tags)
    write_json(out / HISTORIES, {seed: read_json(path / checkpoint.HISTORY) for seed, path in by_seed.items()})
    page.write(out, chosen, opened, report, tags)
    log.info("evaluate: %s", "approved" if verdict["approved"] else "NOT approved")
    for reason in verdict["reasons"]:
        log.info("evaluate: %s", reason)
    return verdict


@contextmanager
def open_champion(registry_uri: str) -> Iterator[ChampionPredictor | None]:
    """The version in production, answering by its own code in its own process; None before the first."""
    from spira.evaluation.evaluate import ChampionPredictor

    if "://" not in registry_uri and not (Path(registry_uri) / "mlflow.db").exists():
        yield None  # nothing was ever logged there: spares loading MLflow
        return
    from spira.registry import open_at

    registry = open_at(registry_uri)
    version = registry.champion()
    if version is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as temporary:
        package = registry.fetch(version.version, Path(temporary) / "package")
        yield ChampionPredictor(f"version {version.version}", partial(_answers, package))


def _answers(package: Path, waveforms: Sequence[np.ndarray]) -> np.ndarray:
    """A package's probabilities of waveforms, float32 [samples] at 16 kHz each -> [files]."""
    from scipy.io import wavfile

    from spira.packaging.verify import predict_with_package

    with tempfile.TemporaryDirectory() as temporary:
        files = [Path(temporary) / f"{i}.wav" for i in range(len(waveforms))]
        for file, waveform in zip(files, waveforms, strict=True):
            wavfile.write(file, SAMPLE_RATE_HZ, waveform)
        answers = predict_with_package(package, files)
    if mute := [answer["error"] for answer in answers if "error" in answer]:
        raise SpiraError(f"the champion can't be compared with, it refuses {len(mute)} test recordings: {mute[0]}")
    return np.array([answer["probability"] for answer in answers])


def headline(verdict: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a verdict that a dashboard shows: those of the paper's noisy test, by file."""
    noisy = verdict["conditions"].get("noisy", {}).get("by_file", {})
    return {"approved": verdict["approved"], "seconds": verdict["seconds"]} | {
        name: measured["value"] for name, measured in noisy.items() if measured["value"] is not None
    }


def draw(verdict: dict[str, Any], chart: Any) -> None:
    """ROC and confusion matrix of the noisy test, by file, as a dashboard's ``ClassificationMetrics``."""
    noisy = verdict["conditions"].get("noisy")
    if noisy:  # absent where the candidate wasn't worth measuring
        chart.log_roc_curve(noisy["roc"]["fpr"], noisy["roc"]["tpr"], noisy["roc"]["thresholds"])
        chart.log_confusion_matrix(["control", "patient"], noisy["confusion"])
