"""Logging a run: its parameters, curves, verdict and files. The same content is the same run."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run

from spira.registry.store import ModelStore, RegistryError

METRICS_A_BATCH = 1000
PARAMS_A_BATCH = 100
DATASET_DIGEST_CHARACTERS = 36
"""MLflow's limits."""


def log_run(
    store: ModelStore,
    name: str,
    params: Mapping[str, Any],
    histories: Mapping[int, list[dict[str, float]]],
    verdict: Mapping[str, Any],
    artifacts: Mapping[str, Path],
    tags: Mapping[str, str],
    dataset_uri: str | None,
) -> str:
    """See :meth:`spira.registry.Registry.log_run`."""
    for path in artifacts.values():
        if not path.exists():
            raise RegistryError(f"{path}: an artifact of run {name!r} is missing; nothing was logged")
    content = _digest([name, params, histories, verdict, sorted(artifacts), tags, dataset_uri])
    run = _begin(store, name, content, {**tags, "approved": approval(verdict)})
    run_id = run.info.run_id
    if run.info.status != "FINISHED":
        _log_metrics(store, run, _metrics(histories, verdict))
        _log_params(store, run_id, {**params, "gate": verdict.get("gate", {})})
        if dataset_uri is not None:
            _log_dataset(store, run_id, dataset_uri, tags, verdict)
        _log_artifacts(store, run_id, artifacts)
        store.client.log_dict(run_id, dict(verdict), "verdict.json")
        store.client.set_terminated(run_id)
    return run_id


def approval(verdict: Mapping[str, Any]) -> str:
    """The tag ``approved`` of a run or version."""
    return "true" if verdict["approved"] is True else "false"


def _begin(store: ModelStore, name: str, content: str, tags: Mapping[str, str]) -> Run:
    same = store.client.search_runs([store.experiment_id], f"tags.content_digest = '{content}'", max_results=1)
    if same:
        return same[0]
    return store.client.create_run(store.experiment_id, run_name=name, tags={**tags, "content_digest": content})


def _log_metrics(store: ModelStore, run: Run, metrics: Iterator[tuple[str, float, int]]) -> None:
    """Log in batches; the run's own time as timestamp makes a repeated metric the same metric."""
    rows = [Metric(name, value, run.info.start_time, step) for name, value, step in metrics]
    for first in range(0, len(rows), METRICS_A_BATCH):
        store.client.log_batch(run.info.run_id, metrics=rows[first : first + METRICS_A_BATCH])


def _log_params(store: ModelStore, run_id: str, params: Mapping[str, Any]) -> None:
    entries = [Param(name, str(value)) for name, value in _flat(params)]
    for first in range(0, len(entries), PARAMS_A_BATCH):
        store.client.log_batch(run_id, params=entries[first : first + PARAMS_A_BATCH])


def _log_dataset(store: ModelStore, run_id: str, uri: str, tags: Mapping[str, str], verdict: Mapping[str, Any]) -> None:
    dataset = Dataset(
        name=PurePosixPath(uri).name or uri,
        digest=tags.get("data_fingerprint", "")[:DATASET_DIGEST_CHARACTERS],
        source_type="uri",
        source=json.dumps({"uri": uri}),
        profile=json.dumps(verdict.get("data", {})),
    )
    context = InputTag("mlflow.data.context", "training and evaluation")
    store.client.log_inputs(run_id, [DatasetInput(dataset, [context])])


def _log_artifacts(store: ModelStore, run_id: str, artifacts: Mapping[str, Path]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        for place, path in artifacts.items():
            staged = Path(temporary) / place
            staged.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if path.is_dir() else shutil.copyfile)(path, staged)
        store.client.log_artifacts(run_id, temporary)


def _metrics(
    histories: Mapping[int, list[dict[str, float]]], verdict: Mapping[str, Any]
) -> Iterator[tuple[str, float, int]]:
    """(name, value, step): every number of every epoch, then every number of the verdict."""
    for seed, epochs in histories.items():
        for epoch in epochs:
            for name, value in epoch.items():
                if name != "epoch" and _is_number(value):
                    yield f"seed_{seed}.{name}", float(value), int(epoch["epoch"])
    for name, value in _flat({key: part for key, part in verdict.items() if key != "gate"}):
        if _is_number(value):
            yield name.removeprefix("conditions.").removesuffix(".value"), float(value), 0


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested mappings by dotted name; characters that MLflow refuses in a name become ``_``."""
    for key, value in values.items():
        name = prefix + re.sub(r"[^\w\-. :/]", "_", str(key))
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
