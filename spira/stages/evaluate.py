"""The stage evaluate: corpus, checkpoints and champion to verdict, report and candidate."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spira import digests, lineage, temporary
from spira.config import SAMPLE_RATE_HZ
from spira.errors import SpiraError
from spira.files import link_files, read_json, write_json
from spira.project import UNKNOWN, Project
from spira.stage_logging import DETAIL, StageResult, stage
from spira.stages import verdict_folder
from spira.stages.verdict_folder import HISTORIES, LINEAGE, PROJECT, WORK_TIMES, read_project

if TYPE_CHECKING:
    from spira.evaluation.evaluate import ChampionPredictor
    from spira.evaluation.gate import Gate
    from spira.evaluation.report.work_times import WorkTimes
    from spira.evaluation.verdict import Verdict
    from spira.models.checkpoint import CheckpointInfo
    from spira.registry import Registry

log = logging.getLogger(__name__)

DIAGNOSIS = "diagnosis.json"
"""Threshold and calibration, beside the candidate's checkpoint; absent if the gate has no rule for them."""
SHOWN_METRICS = ("accuracy", "sensitivity", "specificity", "auroc")
"""Metrics of the noisy test that a dashboard shows beside the verdict."""


@dataclass(frozen=True, kw_only=True)
class EvaluateResult(StageResult):
    """The decision on the candidate."""

    verdict: Verdict
    lineage: dict[str, str]
    """Tags of the run."""

    def metrics(self) -> dict[str, str | float]:
        """Return the main metrics of the paper's noisy test, by file, for a dashboard.

        Metrics without a value are left out: Kubeflow's metadata takes neither NaN nor null.
        """
        noisy = self.verdict.conditions.get("noisy")
        values = {name: noisy.by_file[name].value for name in SHOWN_METRICS if name in noisy.by_file} if noisy else {}
        shown = {name: value for name, value in values.items() if value is not None}
        return {"display_name": "evaluate: noisy test, by file", **shown, "seconds": self.seconds}

    def verdict_metadata(self) -> dict[str, str]:
        """Return what a dashboard shows of the verdict; its name is the decision with the first reason."""
        from spira.evaluation.report.verdict_text import headline

        return {"display_name": headline(self.verdict), "reasons": "; ".join(self.verdict.reasons) or "none"}

    def candidate_metadata(self) -> dict[str, str | float]:
        """Return what a dashboard shows of the candidate."""
        candidate, lineage = self.verdict.candidate, self.lineage
        return {
            "display_name": f"candidate: seed {candidate.seed}",
            "seed": candidate.seed,
            "architecture": self.verdict.config.model.architecture,
            "framework": "torch",
            **{name: tag for name, tag in lineage.items() if tag},  # Kubeflow's metadata takes no empty text
        }

    def summary(self) -> str:
        """Return the decision, the main metrics and the checks as Markdown."""
        from spira.evaluation.report.verdict_text import markdown

        return markdown(self.verdict)

    def log_charts(self, chart: Any) -> None:
        """Log ROC and confusion matrix of the noisy test, by file, to a dashboard's ``ClassificationMetrics``."""
        from spira.data.metadata import CLASS_NAMES

        noisy = self.verdict.conditions.get("noisy")
        if noisy:  # absent if an integrity check failed
            chart.log_roc_curve(list(noisy.roc.fpr), list(noisy.roc.tpr), list(noisy.roc.thresholds))
            chart.log_confusion_matrix(list(CLASS_NAMES.values()), [list(row) for row in noisy.confusion])


@stage
def evaluate(
    corpus: Path,
    checkpoints: Sequence[Path],
    gate: Gate,
    out: Path,
    report: Path,
    chosen: Path,
    *,
    registry_uri: str,
    pipeline_run: str,
    project: Project = UNKNOWN,
) -> EvaluateResult:
    """Measure the checkpoints, decide on the candidate, write the verdict folder and the report.

    Args:
        corpus: the corpus folder.
        checkpoints: checkpoint folders, one per seed.
        out: the verdict folder to create: verdict, predictions, lineage and histories, and what MLflow gets of them.
        report: the HTML file to create, for MLflow and a dashboard: with pseudonyms, and without voices.
        chosen: the folder to create for the candidate's checkpoint.
        registry_uri: MLflow URL, or a folder for SQLite. The candidate is compared with its champion.
        pipeline_run: name of the run, for the lineage; empty outside a pipeline.
        project: owner, contact and licence, for the model card.
    """
    from spira.data import pseudonyms
    from spira.data.corpus import Corpus
    from spira.evaluation import evaluate as evaluation
    from spira.evaluation.report import page as report_page
    from spira.evaluation.report import sharing
    from spira.evaluation.report.head import Origin
    from spira.models import checkpoint

    began = datetime.now(UTC)
    digests.remove(out)
    opened = Corpus.open(corpus)
    registry = _existing_registry(registry_uri)
    earlier = 0
    if registry:
        earlier = registry.evaluations(evaluation.test_digest(opened.split("test")), opened.digest, pipeline_run)
    with open_champion(registry) as champion:
        verdict = evaluation.evaluate(opened, checkpoints, gate, out, champion, earlier)
    infos = {path: checkpoint.read_info(path) for path in checkpoints}
    by_seed = {info.seed: path for path, info in infos.items()}
    link_files(by_seed[verdict.candidate.seed], checkpoint.FILES, chosen, optional=[digests.FILE])
    if verdict.diagnosis:
        write_json(chosen / DIAGNOSIS, verdict.diagnosis.model_dump(mode="json"))
    tags = lineage.tags(opened.digest, verdict.config, pipeline_run)
    write_json(out / LINEAGE, tags)
    write_json(out / HISTORIES, {seed: read_json(path / checkpoint.HISTORY) for seed, path in by_seed.items()})
    write_json(out / PROJECT, project.model_dump())
    shared_names = pseudonyms.from_environment()
    sharing.write(out, chosen, shared_names)
    content = report_page.Content(shared_names, language=project.language)
    report_page.write(out, chosen, opened, report, tags, content, Origin(project, evaluated=began))
    log.info("evaluate: evaluations of this test set so far, this one included: %d", earlier + 1)
    write_json(out / WORK_TIMES, work_times(infos.values(), began).model_dump(mode="json"))
    digests.record(out, verdict_folder.FILES)
    log.info("evaluate: the candidate is %s", "approved" if verdict.approved else "NOT approved")
    for reason in verdict.reasons:
        log.info("evaluate: %s", reason, extra=DETAIL)
    for warning in verdict.warnings:
        log.warning("evaluate: %s", warning)
    return EvaluateResult(verdict=verdict, lineage=tags)


def work_times(trained: Iterable[CheckpointInfo], began: datetime) -> WorkTimes:
    """Return the times of a run whose evaluation ends now.

    Args:
        trained: origins of the networks.
        began: start of the evaluation.
    """
    from spira.evaluation.report.work_times import Span, WorkTimes

    trainings = {
        info.seed: Span(start=info.ended_at - timedelta(seconds=info.seconds or 0), end=info.ended_at)
        for info in trained
        if info.ended_at
    }
    return WorkTimes(trainings=trainings, evaluation=Span(start=began, end=datetime.now(UTC)))


def write_local_report(
    verdict: Path, chosen: Path, corpus: Path, out: Path, *, with_audio: bool, version: int | None = None
) -> None:
    """Write the report for the work folder, with file names, in the language of the project.

    Args:
        with_audio: include audio and spectrograms of mistakes.
        version: number of the registered version, if there is one.
    """
    from spira.data.corpus import Corpus
    from spira.evaluation.report import page as report
    from spira.evaluation.report.head import Origin

    verdict_folder.check(verdict)
    project = read_project(verdict)
    content = report.Content(has_voices=with_audio, language=project.language)
    origin = Origin(project, "" if version is None else str(version), _evaluated(verdict))
    report.write(verdict, chosen, Corpus.open(corpus), out, read_json(verdict / LINEAGE), content, origin)


def _evaluated(verdict: Path) -> datetime | None:
    """Return the begin of the evaluation; None if an earlier version wrote the verdict folder."""
    from spira.evaluation.report.work_times import WorkTimes

    file = verdict / WORK_TIMES
    return WorkTimes.model_validate(read_json(file)).evaluation.start if file.is_file() else None


def _existing_registry(registry_uri: str) -> Registry | None:
    """Return the model repository, or None for a folder without one."""
    if "://" not in registry_uri and not (Path(registry_uri) / "mlflow.db").exists():
        return None  # an empty folder has no champion and no runs; to import MLflow would take seconds
    from spira.registry import open_at

    return open_at(registry_uri)


@contextmanager
def open_champion(registry: Registry | None) -> Iterator[ChampionPredictor | None]:
    """Provide the champion, computed from its package by our own code; None before the first promotion."""
    from spira.evaluation.evaluate import ChampionPredictor

    version = registry.champion() if registry else None
    if registry is None or version is None:
        yield None
        return
    with temporary.folder() as folder:
        package = registry.fetch(version.version, folder / "package")
        config = read_json(package / "data" / "config.json")
        yield ChampionPredictor(
            f"version {version.version}",
            partial(_predict, package),
            threshold=config["threshold"],
            band=tuple(config["abstention"]),
        )


def _predict(package: Path, waveforms: Sequence[np.ndarray]) -> np.ndarray:
    """Return a package's probabilities of waveforms, float32 [samples] at 16 kHz each -> [recordings]."""
    from scipy.io import wavfile

    from spira.packaging.verify import predict_with_package

    with temporary.folder() as folder:
        paths = [folder / f"{i}.wav" for i in range(len(waveforms))]
        for path, waveform in zip(paths, waveforms, strict=True):
            wavfile.write(path, SAMPLE_RATE_HZ, waveform)
        predictions = predict_with_package(package, paths)
    if errors := [prediction["error"] for prediction in predictions if "error" in prediction]:
        raise SpiraError(
            f"the candidate cannot be compared with the champion, which refuses {len(errors)} test recordings: "
            f"{errors[0]}"
        )
    return np.array([prediction["probability"] for prediction in predictions])
