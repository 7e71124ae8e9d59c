"""Approved candidate to registered version; rejected candidate to logged run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spira.errors import SpiraError
from spira.files import read_json
from spira.stage_logging import stage
from spira.stages.verdict_folder import HISTORIES, LINEAGE, PREDICTIONS, VERDICT

if TYPE_CHECKING:
    from spira.registry import Registry

log = logging.getLogger(__name__)


@stage
def push(corpus: Path, candidate: Path, verdict: Path, report: Path, out: Path, *, registry_uri: str) -> dict[str, Any]:
    """An approved candidate -> package and registered version, alias ``challenger``.

    Args:
        candidate: its checkpoint folder.
        verdict: the verdict folder.
        out: the package folder to make.

    Raises:
        SpiraError: the verdict is no approval, or the package's answers differ from torch's.
    """
    from spira.data.corpus import Corpus
    from spira.packaging import build as packaging
    from spira.registry import open_at

    judged, tags = read_json(verdict / VERDICT), read_json(verdict / LINEAGE)
    if judged["approved"] is not True:
        raise SpiraError("the verdict is no approval: a model that fails its gate is not registered")
    origin = {name: tag for name, tag in tags.items() if name != "pipeline_run"}  # repeated, it is the same version
    packaging.package(candidate, Corpus.open(corpus), judged, out, origin)
    registry = open_at(registry_uri)
    run_id = _log_run(registry, corpus, candidate, verdict, report)
    version = registry.register(out, run_id, judged, tags)
    log.info("push: version %d of %s", version, registry.model_name)
    return {"model_version": version, "run_id": run_id}


@stage
def reject(corpus: Path, candidate: Path, verdict: Path, report: Path, *, registry_uri: str) -> dict[str, Any]:
    """A candidate that failed -> a logged run with its reasons; nothing is registered.

    Raises:
        SpiraError: the verdict is an approval.
    """
    from spira.registry import open_at

    if read_json(verdict / VERDICT)["approved"] is True:
        raise SpiraError("the verdict is an approval: an approved model is not to be rejected")
    run_id = _log_run(open_at(registry_uri), corpus, candidate, verdict, report)
    log.info("reject: logged, no version registered")
    return {"run_id": run_id}


def _log_run(registry: Registry, corpus: Path, candidate: Path, verdict: Path, report: Path) -> str:
    """Everything about a run, into MLflow."""
    from spira.data.corpus import Corpus

    judged, tags = read_json(verdict / VERDICT), read_json(verdict / LINEAGE)
    return registry.log_run(
        name=tags["pipeline_run"] or "spira",
        params=judged["config"],
        histories=read_json(verdict / HISTORIES),
        verdict=judged,
        artifacts={"report.html": report, PREDICTIONS: verdict / PREDICTIONS, "checkpoint": candidate},
        tags=tags,
        dataset_uri=Corpus.open(corpus).manifest.uri,
    )
