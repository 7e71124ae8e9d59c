"""The content of a run in MLflow: parameters, numbers, verdict and files. The same content is the same run.

    run                 headline numbers, parameters, verdict, report; its description has the headline table
    └ seed 42           curves of the training, one child run a seed, so that the curves of seeds overlay

Start and end of a run are those of the work (:mod:`spira.evaluation.report.work_times`), not those of the logging.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

import mlflow.artifacts
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run

from spira import temporary
from spira.errors import SpiraError
from spira.evaluation import verdict as verdicts
from spira.evaluation.report.verdict_text import description
from spira.evaluation.report.work_times import Span, WorkTimes
from spira.evaluation.verdict import VERDICT, Verdict
from spira.registry import headlines
from spira.registry.store import ModelStore, RegistryError

MAX_BATCH_METRICS = 1000
MAX_BATCH_PARAMS = 100
MAX_DATASET_DIGEST_CHARACTERS = 36
"""MLflow's limits."""
NOTE, PARENT = "mlflow.note.content", "mlflow.parentRunId"
"""MLflow's tags of the description, and of the run that a run belongs to."""
SYNTHETIC = "synthetic"
"""Tag of a run, a version and a data set whose recordings are not of patients."""
CHECKPOINT = "checkpoint/checkpoint.json"
"""Artifact of a run: origin of its network."""


@dataclass(frozen=True)
class RunContent:
    """Everything that is logged of a run; see :meth:`spira.registry.Registry.log_run`."""

    name: str
    params: Mapping[str, Any]
    histories: Mapping[int, list[dict[str, float]]]
    verdict: Verdict
    artifacts: Mapping[str, Path]
    tags: Mapping[str, str]
    dataset_uri: str | None
    times: WorkTimes | None = None
    notice: str = ""

    def digest(self) -> str:
        """Return the SHA-256 by which a repeated call recognises its run."""
        verdict = self.verdict.to_json()
        content = [
            self.name,
            self.params,
            self.histories,
            # The pseudonyms in mistakes and slices depend on the key, which another process may not have, and the
            # number of evaluations on the runs that were logged meanwhile.
            {key: part for key, part in verdict.items() if key not in ("mistakes", "slices", "test_evaluations")},
            sorted(self.artifacts),
            self.tags,
            self.dataset_uri,
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def log(store: ModelStore, content: RunContent) -> str:
    """Log a run, or what is missing of it, and return its id."""
    for path in content.artifacts.values():
        if not path.exists():
            raise RegistryError(f"{path}: an artifact of run {content.name!r} is missing; nothing was logged")
    store.mark_experiment()
    run = _begin(store, content)
    run_id = run.info.run_id
    if run.info.status != "FINISHED":
        for seed, epochs in content.histories.items():
            if epochs:
                _log_seed(store, run_id, content, int(seed), epochs)
        numbers = headlines.of_verdict(content.verdict).items()
        _log_metrics(store, run_id, [Metric(name, value, run.info.start_time, 0) for name, value in numbers])
        _log_params(store, run_id, {**content.params, "gate": content.verdict.to_json()["gate"]})
        if content.dataset_uri is not None:
            _log_dataset(store, run_id, content.dataset_uri, content)
        _log_artifacts(store, run_id, content.artifacts)
        store.client.log_dict(run_id, content.verdict.to_json(), VERDICT)
        _end(store, run_id, content.times.whole() if content.times else None)
    return run_id


def approval(verdict: Verdict) -> str:
    """Return the value of the tag ``approved`` of a run or version."""
    return "true" if verdict.approved else "false"


def read_verdict(store: ModelStore, run: Run) -> Verdict:
    """Download the verdict of a run.

    Raises:
        RegistryError: it is not a verdict.
    """
    with temporary.folder() as folder:
        path = mlflow.artifacts.download_artifacts(
            run_id=run.info.run_id, artifact_path=VERDICT, dst_path=str(folder), tracking_uri=store.tracking_uri
        )
        try:
            return verdicts.parse(Path(path).read_text("utf-8"), f"the verdict of run {run.info.run_name!r}")
        except SpiraError as error:
            raise RegistryError(str(error)) from error


def download(store: ModelStore, run_id: str, path: str, folder: Path) -> Path | None:
    """Download one artifact of a run into a folder; None if the run does not have it."""
    parent = str(PurePosixPath(path).parent)
    listed = store.client.list_artifacts(run_id, None if parent == "." else parent)
    if path not in [file.path for file in listed]:
        return None
    return Path(
        mlflow.artifacts.download_artifacts(
            run_id=run_id, artifact_path=path, dst_path=str(folder), tracking_uri=store.tracking_uri
        )
    )


def training_files(store: ModelStore, run_id: str) -> frozenset[str] | None:
    """Return the SHA-256 of each training recording from the checkpoint of a run; None if it does not record them."""
    with temporary.folder() as folder:
        path = download(store, run_id, CHECKPOINT, folder)
        if path is None:
            return None
        try:
            files = json.loads(path.read_text("utf-8"))["train_files"]
        except (ValueError, KeyError, TypeError):
            return None
    return frozenset(files) or None


def _begin(store: ModelStore, content: RunContent) -> Run:
    tags = {
        **content.tags,
        "approved": approval(content.verdict),
        NOTE: description(content.verdict, content.notice),
        **({SYNTHETIC: "true"} if content.notice else {}),
    }
    return _find_or_create(
        store, content.digest(), content.name, tags, content.times.whole() if content.times else None
    )


def _log_seed(store: ModelStore, parent: str, content: RunContent, seed: int, epochs: list[dict[str, float]]) -> None:
    """Log the curves of one seed as a child run, or what is missing of it.

    The name of the pipeline run is not among its tags: the child is no result of its own (see ``Registry.outcome``).
    """
    span = content.times.trainings.get(seed) if content.times else None
    is_candidate = seed == content.verdict.candidate.seed
    tags = {
        PARENT: parent,
        NOTE: f"Training of seed {seed}{', the candidate' if is_candidate else ''}: {len(epochs)} epochs.",
        "seed": str(seed),
        "candidate": str(is_candidate).lower(),
    }
    run = _find_or_create(store, f"{content.digest()}-{seed}", f"seed {seed}", tags, span)
    if run.info.status == "FINISHED":
        return
    _log_metrics(store, run.info.run_id, [*_curves(run.info.start_time, epochs), *_of_test(run, content, seed, epochs)])
    _log_params(store, run.info.run_id, {"seed": seed})
    _end(store, run.info.run_id, span)


def _find_or_create(store: ModelStore, digest: str, name: str, tags: Mapping[str, str], span: Span | None) -> Run:
    """Return the run with a content digest; create it if a call that was killed has not done so."""
    same = store.client.search_runs([store.experiment_id], f"tags.content_digest = '{digest}'", max_results=1)
    if same:
        return same[0]
    start = _milliseconds(span.start) if span else None
    return store.client.create_run(store.experiment_id, start, {**tags, "content_digest": digest}, name)


def _end(store: ModelStore, run_id: str, span: Span | None) -> None:
    store.client.set_terminated(run_id, end_time=_milliseconds(span.end) if span else None)


def _milliseconds(time: datetime) -> int:
    return round(time.timestamp() * 1000)


def _curves(start: int, epochs: list[dict[str, float]]) -> Iterator[Metric]:
    """Yield the numbers of every epoch. Their times follow from the start, so that a repeated metric is the same."""
    seconds = 0.0
    for epoch in epochs:
        seconds += epoch.get("seconds", 0.0)
        for name, value in epoch.items():
            if name != "epoch" and isinstance(value, int | float):
                curve = headlines.EPOCH_NAMES.get(name, f"train/{name}")
                yield Metric(curve, float(value), start + round(seconds * 1000), int(epoch["epoch"]))


def _of_test(run: Run, content: RunContent, seed: int, epochs: list[dict[str, float]]) -> Iterator[Metric]:
    """Yield the numbers of the test for a seed, at its last epoch, so that they stand at the end of its curves."""
    for name, value in headlines.of_seed(content.verdict, seed).items():
        yield Metric(name, value, run.info.start_time, int(epochs[-1]["epoch"]))


def _log_metrics(store: ModelStore, run_id: str, rows: list[Metric]) -> None:
    for first in range(0, len(rows), MAX_BATCH_METRICS):
        store.client.log_batch(run_id, metrics=rows[first : first + MAX_BATCH_METRICS])


def _log_params(store: ModelStore, run_id: str, params: Mapping[str, Any]) -> None:
    entries = [Param(name, str(value)) for name, value in headlines.flat(params)]
    for first in range(0, len(entries), MAX_BATCH_PARAMS):
        store.client.log_batch(run_id, params=entries[first : first + MAX_BATCH_PARAMS])


def _log_dataset(store: ModelStore, run_id: str, uri: str, content: RunContent) -> None:
    name = PurePosixPath(uri).name or uri
    dataset = Dataset(
        name=f"{name} ({SYNTHETIC})" if content.notice else name,
        digest=content.tags.get("data_fingerprint", "")[:MAX_DATASET_DIGEST_CHARACTERS],
        source_type="uri",
        source=json.dumps({"uri": uri}),
        profile=content.verdict.data.model_dump_json(),
    )
    tags = [InputTag("mlflow.data.context", "training and evaluation")]
    if content.notice:
        tags.append(InputTag(SYNTHETIC, "true"))
    store.client.log_inputs(run_id, [DatasetInput(dataset, tags)])


def _log_artifacts(store: ModelStore, run_id: str, artifacts: Mapping[str, Path]) -> None:
    with temporary.folder() as folder:
        for name, path in artifacts.items():
            staged = folder / name
            staged.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if path.is_dir() else shutil.copyfile)(path, staged)
        store.client.log_artifacts(run_id, str(folder))
