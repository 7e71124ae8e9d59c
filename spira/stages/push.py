"""The stages after the verdict: push registers an approved candidate, reject logs one that failed."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from spira import digests, temporary
from spira.errors import SpiraError
from spira.evaluation import verdict as verdicts
from spira.files import link_files, read_json, write_json
from spira.stage_logging import StageResult, stage
from spira.stages import verdict_folder
from spira.stages.verdict_folder import HISTORIES, LINEAGE, PREDICTIONS, VERDICT, WORK_TIMES, read_project

if TYPE_CHECKING:
    from spira.data.corpus import Corpus
    from spira.evaluation.verdict import Verdict
    from spira.project import Project
    from spira.registry import Registry

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PushResult(StageResult):
    """A registered version."""

    model_version: int
    package_digest: str
    run_id: str
    """Run in MLflow."""
    run_page: str
    """URL of the run's page in MLflow; empty without a server."""
    version_page: str
    """URL of the version's page in MLflow; empty without a server."""
    lineage: dict[str, str] = field(default_factory=dict)
    """Tags of the run and of the version."""

    def metrics(self) -> dict[str, str | float]:
        """Return the numbers that a dashboard shows."""
        return {
            "display_name": f"push: version {self.model_version}",
            "model_version": self.model_version,
            "seconds": self.seconds,
        }

    def metadata(self) -> dict[str, str | float]:
        """Return what a dashboard shows of the package."""
        return {
            "display_name": f"package of version {self.model_version}",
            "model_version": self.model_version,
            "framework": "numpy and scipy",
            "package_digest": self.package_digest,
            **self.lineage,
            "mlflow_run": self.run_page or self.run_id,
            "mlflow_version": self.version_page or str(self.model_version),
        }


@dataclass(frozen=True, kw_only=True)
class RejectResult(StageResult):
    """The logged run of a rejected candidate."""

    run_id: str
    """Run in MLflow."""
    run_page: str
    """URL of the run's page in MLflow; empty without a server."""

    def metrics(self) -> dict[str, str | float]:
        """Return what a dashboard shows."""
        return {"display_name": "reject", "mlflow_run": self.run_page or self.run_id, "seconds": self.seconds}


@stage
def push(corpus: Path, candidate: Path, verdict: Path, report: Path, out: Path, *, registry_uri: str) -> PushResult:
    """Package an approved candidate, log its run and register the version, alias ``challenger``.

    Args:
        corpus: the corpus folder; the package is checked on some of its test recordings.
        candidate: checkpoint folder of the candidate.
        verdict: the verdict folder.
        report: the HTML file to log, with pseudonyms and without voices.
        out: the package folder to create.
        registry_uri: MLflow URL, or a folder for SQLite.

    Raises:
        SpiraError: the candidate is not approved, or the package's probabilities differ from torch's.
    """
    from spira.data.corpus import Corpus
    from spira.evaluation.report.page import notice
    from spira.packaging import build
    from spira.packaging.verify import package_digest
    from spira.registry import FROZEN_TEST_TAG, open_at

    verdict_folder.check(verdict)
    decision = verdicts.read(verdict / VERDICT)
    if not decision.approved:
        raise SpiraError(f"{verdict / VERDICT} is not an approval: a candidate that failed its gate is not registered")
    tags = read_json(verdict / LINEAGE)
    origin = {name: tag for name, tag in tags.items() if name != "pipeline_run"}  # so a repeated run, same version
    opened = Corpus.open(corpus)
    build.package(candidate, opened, decision.band, out, origin, decision.diagnosis)
    registry = open_at(registry_uri)
    run_id = _log_run(registry, opened, candidate, verdict, decision, report)
    if notice(opened):
        tags["synthetic"] = "true"
    project = read_project(verdict)
    version = registry.register(
        out,
        run_id,
        decision,
        tags | {FROZEN_TEST_TAG: opened.test_digest},
        _card(verdict, candidate, opened, project),
        project.language,
    )
    log.info("push: registered version %d of %s", version, registry.model_name)
    return PushResult(
        model_version=version,
        package_digest=package_digest(out),
        run_id=run_id,
        run_page=registry.run_page(run_id),
        version_page=registry.version_page(version),
        lineage={name: tag for name, tag in tags.items() if tag},  # Kubeflow's metadata takes no empty text
    )


@stage
def reject(corpus: Path, candidate: Path, verdict: Path, report: Path, *, registry_uri: str) -> RejectResult:
    """Log the run of a candidate that failed, with its reasons; register nothing.

    Raises:
        SpiraError: the candidate is approved.
    """
    from spira.data.corpus import Corpus
    from spira.registry import open_at

    verdict_folder.check(verdict)
    decision = verdicts.read(verdict / VERDICT)
    if decision.approved:
        raise SpiraError(f"{verdict / VERDICT} is an approval: push the candidate instead")
    registry = open_at(registry_uri)
    run_id = _log_run(registry, Corpus.open(corpus), candidate, verdict, decision, report)
    log.info("reject: logged the run, registered no version")
    return RejectResult(run_id=run_id, run_page=registry.run_page(run_id))


def _log_run(
    registry: Registry, corpus: Corpus, candidate: Path, verdict: Path, decision: Verdict, report: Path
) -> str:
    """Log everything about a run that may leave the pipeline in MLflow, and return the run's id."""
    from spira.evaluation.report import data_summary, sharing
    from spira.evaluation.report.page import notice
    from spira.evaluation.report.work_times import WorkTimes
    from spira.models import checkpoint
    from spira.registry.registry import TEST_TAG

    tags, shared = read_json(verdict / LINEAGE), verdict / sharing.FOLDER
    digests.check(shared, sharing.FILES, verdicts.REMEDY)
    with temporary.folder() as parent:
        folder = parent / "checkpoint"
        link_files(candidate, [name for name in checkpoint.FILES if name != checkpoint.INFO], folder)
        shutil.copyfile(shared / checkpoint.INFO, folder / checkpoint.INFO)
        data = data_summary.summarize(corpus, notice(corpus))
        write_json(parent / data_summary.FILE, data.model_dump(mode="json"))
        times = verdict / WORK_TIMES  # an earlier version wrote none
        return registry.log_run(
            name=tags["pipeline_run"] or "spira",
            params=decision.config.model_dump(mode="json"),
            histories=read_json(verdict / HISTORIES),
            verdict=verdicts.read(shared / VERDICT),
            artifacts={
                "report.html": report,
                PREDICTIONS: shared / PREDICTIONS,
                "checkpoint": folder,
                data_summary.FILE: parent / data_summary.FILE,
            },
            tags=tags | ({TEST_TAG: decision.data.digest} if decision.conditions and decision.data.digest else {}),
            dataset_uri=corpus.manifest.uri,
            times=WorkTimes.model_validate(read_json(times)) if times.is_file() else None,
            notice=data.notice,
        )


def _card(verdict: Path, candidate: Path, corpus: Corpus, project: Project) -> str:
    """Return what the model card says of the candidate, with pseudonyms, in the language of the project."""
    from spira.evaluation.report import model_card, sharing
    from spira.models import checkpoint

    return model_card.markdown(
        verdicts.read(verdict / sharing.FOLDER / VERDICT), checkpoint.load(candidate), corpus, project
    )
