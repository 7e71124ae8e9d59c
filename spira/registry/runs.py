"""The content of a run in MLflow: parameters, curves, verdict and files. The same content is the same run."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import mlflow.artifacts
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run

from spira import temporary
from spira.errors import SpiraError
from spira.evaluation import verdict as verdicts
from spira.evaluation.verdict import VERDICT, Verdict
from spira.registry.store import ModelStore, RegistryError

MAX_BATCH_METRICS = 1000
MAX_BATCH_PARAMS = 100
MAX_DATASET_DIGEST_CHARACTERS = 36
"""MLflow's limits."""
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
    run = _begin(store, content)
    run_id = run.info.run_id
    if run.info.status != "FINISHED":
        _log_metrics(store, run, _metrics(content))
        _log_params(store, run_id, {**content.params, "gate": content.verdict.to_json()["gate"]})
        if content.dataset_uri is not None:
            _log_dataset(store, run_id, content.dataset_uri, content)
        _log_artifacts(store, run_id, content.artifacts)
        store.client.log_dict(run_id, content.verdict.to_json(), VERDICT)
        store.client.set_terminated(run_id)
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


def training_files(store: ModelStore, run_id: str) -> frozenset[str] | None:
    """Return the SHA-256 of each training recording from the checkpoint of a run; None if it does not record them."""
    if CHECKPOINT not in [file.path for file in store.client.list_artifacts(run_id, CHECKPOINT.split("/")[0])]:
        return None
    with temporary.folder() as folder:
        path = mlflow.artifacts.download_artifacts(
            run_id=run_id, artifact_path=CHECKPOINT, dst_path=str(folder), tracking_uri=store.tracking_uri
        )
        try:
            files = json.loads(Path(path).read_text("utf-8"))["train_files"]
        except (ValueError, KeyError, TypeError):
            return None
    return frozenset(files) or None


def _begin(store: ModelStore, content: RunContent) -> Run:
    digest = content.digest()
    same = store.client.search_runs([store.experiment_id], f"tags.content_digest = '{digest}'", max_results=1)
    if same:
        return same[0]
    tags = {**content.tags, "approved": approval(content.verdict), "content_digest": digest}
    return store.client.create_run(store.experiment_id, run_name=content.name, tags=tags)


def _log_metrics(store: ModelStore, run: Run, metrics: Iterator[tuple[str, float, int]]) -> None:
    """Log in batches. All timestamps are the run's start, so that a repeated metric is the same metric."""
    rows = [Metric(name, value, run.info.start_time, step) for name, value, step in metrics]
    for first in range(0, len(rows), MAX_BATCH_METRICS):
        store.client.log_batch(run.info.run_id, metrics=rows[first : first + MAX_BATCH_METRICS])


def _log_params(store: ModelStore, run_id: str, params: Mapping[str, Any]) -> None:
    entries = [Param(name, str(value)) for name, value in _flat(params)]
    for first in range(0, len(entries), MAX_BATCH_PARAMS):
        store.client.log_batch(run_id, params=entries[first : first + MAX_BATCH_PARAMS])


def _log_dataset(store: ModelStore, run_id: str, uri: str, content: RunContent) -> None:
    dataset = Dataset(
        name=PurePosixPath(uri).name or uri,
        digest=content.tags.get("data_fingerprint", "")[:MAX_DATASET_DIGEST_CHARACTERS],
        source_type="uri",
        source=json.dumps({"uri": uri}),
        profile=content.verdict.data.model_dump_json(),
    )
    context = InputTag("mlflow.data.context", "training and evaluation")
    store.client.log_inputs(run_id, [DatasetInput(dataset, [context])])


def _log_artifacts(store: ModelStore, run_id: str, artifacts: Mapping[str, Path]) -> None:
    with temporary.folder() as folder:
        for name, path in artifacts.items():
            staged = folder / name
            staged.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if path.is_dir() else shutil.copyfile)(path, staged)
        store.client.log_artifacts(run_id, str(folder))


def _metrics(content: RunContent) -> Iterator[tuple[str, float, int]]:
    """Yield (name, value, step): every number of every epoch, then every number of the verdict."""
    for seed, epochs in content.histories.items():
        for epoch in epochs:
            for name, value in epoch.items():
                if name != "epoch" and _is_number(value):
                    yield f"seed_{seed}.{name}", float(value), int(epoch["epoch"])
    verdict = content.verdict.to_json()
    for name, value in _flat({key: part for key, part in verdict.items() if key not in ("gate", "confounders")}):
        if _is_number(value):
            yield name.removeprefix("conditions.").removesuffix(".value"), float(value), 0
    for name, number in _validation_metrics(content.verdict):
        if number is not None:
            yield name, number, 0


def _validation_metrics(verdict: Verdict) -> Iterator[tuple[str, float | None]]:
    """Yield few numbers of the external test sets and of the confounders alone, in the noisy test by file."""
    for test in verdict.external:
        if "noisy" in test.conditions:
            for metric in ("accuracy", "sensitivity", "specificity", "auroc"):
                yield f"external.{test.name}.{metric}", test.conditions["noisy"].by_file[metric].value
    for baseline in verdict.confounders.tests if verdict.confounders else ():
        if baseline.condition == "noisy":
            yield "confounders.auroc", baseline.by_file["auroc"].value
            yield "confounders.auroc_difference", baseline.difference["auroc"].value


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings by dotted name; characters that MLflow refuses in a name become ``_``."""
    for key, value in values.items():
        name = prefix + re.sub(r"[^\w\-. :/]", "_", str(key))
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)
