"""What a run of the pipeline came to, by its name: what push or reject logged of it."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow.artifacts
from mlflow.entities import Run

from spira.registry.store import ModelStore, RegistryError

RUN_TAG = "pipeline_run"
VERSION_TAG = "model_version"
"""On a run: the version that its package became."""


@dataclass(frozen=True)
class Outcome:
    """The verdict of a run, and the version that came of it."""

    approved: bool
    reasons: tuple[str, ...]
    model_version: int | None
    metrics: dict[str, float]
    """As logged; those of the paper's test are named ``noisy.by_file.…``."""


def outcome(store: ModelStore, pipeline_run: str) -> Outcome | None:
    """See :meth:`spira.registry.Registry.outcome`."""
    if "'" in pipeline_run:
        raise RegistryError(f"{pipeline_run!r} is no name of a run: it has a quotation mark")
    query = f"tags.{RUN_TAG} = '{pipeline_run}' and attributes.status = 'FINISHED'"
    logged = store.client.search_runs([store.experiment_id], query, max_results=1, order_by=["start_time DESC"])
    if not logged:
        return None
    (run,) = logged
    verdict = _verdict(store, run)
    approved, version = verdict.get("approved") is True, run.data.tags.get(VERSION_TAG)
    if approved and version is None:
        return None
    return Outcome(
        approved=approved,
        reasons=tuple(verdict.get("reasons", [])),
        model_version=int(version) if approved and version else None,
        metrics=dict(run.data.metrics),
    )


def _verdict(store: ModelStore, run: Run) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as temporary:
        path = mlflow.artifacts.download_artifacts(
            run_id=run.info.run_id, artifact_path="verdict.json", dst_path=temporary, tracking_uri=store.tracking_uri
        )
        try:
            return json.loads(Path(path).read_text())
        except json.JSONDecodeError as error:
            raise RegistryError(f"the verdict of run {run.info.run_name!r} is no JSON: {error}") from error
