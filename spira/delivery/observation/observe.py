"""Observation of data, settings and code: by a listing if no file has moved, by content if one has."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from spira import config, files, lineage, project
from spira.data import content_hash
from spira.data.content_hash import Hashed
from spira.data.metadata import DataError, read_dataset
from spira.data.pseudonyms import hidden_names, in_work
from spira.data.storage import Entry, MissingError, Store, open_store
from spira.delivery.observation.fingerprints import Axes, InvalidInput, axis_of, data_axis, model_axis
from spira.delivery.reconcile import Observation
from spira.delivery.settings import Settings
from spira.delivery.training_request import TrainingRequest
from spira.errors import SpiraError
from spira.evaluation import gate

CACHE = "cache/data.json"
"""File with the known hashes, in the work folder, so that a new process need not read every recording again."""


def observe(
    settings: Settings, cache: Store, code_parts: Callable[[], Mapping[str, str]] = lineage.code_parts
) -> Observation:
    """Return the current fingerprints, and the training request for exactly this input.

    Args:
        cache: store of the file hashes between two observations.
        code_parts: returns the parts of the code that would train.

    Raises:
        StorageError: the data are unreachable.
    """
    try:
        training_config, training_gate = resolve(settings)
        owner = project.load(Path(settings.project) if settings.project else None)
    except SpiraError as error:
        return Observation(InvalidInput(f"settings: {error}"))
    try:
        with hidden_names(in_work(Path(settings.work))):  # problems go into the ledger and the custom resource
            data = data_axis(data_files(settings.data, cache, settings.skip_bad))
    except DataError as error:
        return Observation(InvalidInput(f"data: {error}"))
    axes = Axes(data, model_axis(training_config, training_gate, settings.skip_bad), axis_of(code_parts()))
    request = TrainingRequest(
        data=settings.data,
        data_digest=data.digest,
        config=training_config,
        gate=training_gate,
        skip_bad=settings.skip_bad,
        code_digest=axes.code.digest,
        git_commit=lineage.git_commit(),
        project=owner,
    )
    return Observation(axes, request)


def resolve(settings: Settings) -> tuple[config.Config, gate.Gate]:
    """Read the training configuration and the gate from their files.

    Raises:
        ConfigError: a file cannot be read, or has an unknown key or an invalid value.
    """
    config_path = Path(settings.config) if settings.config else None
    gate_path = Path(settings.gate) if settings.gate else None
    return config.load(config_path, settings.set), gate.load(gate_path)


def data_files(uri: str, cache: Store, skip_bad: bool = False) -> dict[str, Hashed]:
    """Return the hashes of a data set's CSV files, recordings and noises.

    If nothing has moved since the last observation, only a listing is read. Otherwise the CSV files are read again,
    and the files that have moved.

    Raises:
        DataError: the CSV files break a rule, or name a file that does not exist (yet).
        StorageError: the data are unreachable, or changed during the observation.
    """
    store = open_store(uri)
    cached_listing, known = _load_cache(cache, store.uri)
    if cached_listing and cached_listing == _digest(store.list()):
        return known
    dataset = read_dataset(store, missing_ok=skip_bad)
    hashes = content_hash.hash_files(store, dataset.files, known)
    # A file without a generation changed a moment ago and may change again unnoticed: do not trust the listing then.
    is_settled = all(file.generation for file in hashes.values())
    _save_cache(cache, store.uri, _digest(store.list()) if is_settled else "", hashes)
    return hashes


def _digest(entries: list[Entry]) -> str:
    listing = "".join(f"{entry.path}\0{entry.size}\0{entry.generation}\n" for entry in entries)
    return hashlib.sha256(listing.encode(errors="surrogateescape")).hexdigest()  # names that are not UTF-8


def _load_cache(cache: Store, uri: str) -> tuple[str, dict[str, Hashed]]:
    """Return the digest of the last listing and the known hashes; empty if the cache is missing or damaged."""
    try:
        content = cache.read(CACHE)
    except MissingError:
        return "", {}
    try:
        body = json.loads(content)
        if body["uri"] != uri or not files.has_checksum(body):
            return "", {}
        return body["listing"], {path: Hashed(*file) for path, file in body["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return "", {}


def _save_cache(cache: Store, uri: str, listing: str, hashes: dict[str, Hashed]) -> None:
    body = {path: (file.size, file.sha256, file.generation) for path, file in hashes.items()}
    content = files.with_checksum({"uri": uri, "listing": listing, "files": body})
    cache.write(CACHE, json.dumps(content).encode())
