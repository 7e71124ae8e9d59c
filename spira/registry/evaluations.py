"""The evaluation of a version, from the run with its latest verdict."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import mlflow.artifacts
import pandas as pd
from mlflow.entities import Run

from spira import temporary
from spira.evaluation.verdict import PREDICTIONS, VERDICT, Verdict
from spira.registry import runs
from spira.registry.store import ModelStore

REPORT = "report.html"


@dataclass(frozen=True)
class Evaluation:
    """The verdict on a version, and what the run logged beside it."""

    run_name: str
    started: datetime
    verdict: Verdict
    predictions: pd.DataFrame | None
    """One row for each test recording, condition and draw, with pseudonyms; None if they were not logged."""
    data_uri: str
    """Folder or prefix of the data set; empty if it was not logged."""
    artifacts: str
    """URI of the run's files."""
    has_report: bool


def read(store: ModelStore, run_id: str) -> Evaluation | None:
    """Return the evaluation that a run logged; None if it has no verdict.

    Raises:
        RegistryError: the verdict is damaged.
    """
    names = {file.path for file in store.client.list_artifacts(run_id)}
    if VERDICT not in names:
        return None
    run = store.client.get_run(run_id)
    return Evaluation(
        run_name=run.info.run_name or "",
        started=datetime.fromtimestamp(run.info.start_time / 1000, UTC),
        verdict=runs.read_verdict(store, run),
        predictions=_predictions(store, run_id) if PREDICTIONS in names else None,
        data_uri=_data_uri(run),
        artifacts=str(run.info.artifact_uri),
        has_report=REPORT in names,
    )


def _predictions(store: ModelStore, run_id: str) -> pd.DataFrame:
    with temporary.folder() as folder:
        path = mlflow.artifacts.download_artifacts(
            run_id=run_id, artifact_path=PREDICTIONS, dst_path=str(folder), tracking_uri=store.tracking_uri
        )
        return pd.read_parquet(Path(path))


def _data_uri(run: Run) -> str:
    datasets = run.inputs.dataset_inputs if run.inputs else []
    return next((str(json.loads(entry.dataset.source).get("uri", "")) for entry in datasets), "")
