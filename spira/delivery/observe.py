"""Looking at data, settings and code: cheap where nothing moved, by content where something did."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from spira import config, lineage
from spira.data import content_hash
from spira.data.content_hash import Hashed
from spira.data.metadata import DataError, read_dataset
from spira.data.storage import Entry, MissingError, Store, open_store
from spira.delivery.fingerprints import Axes, InvalidInput, axis_of, data_axis, model_axis
from spira.delivery.reconcile import Observation
from spira.delivery.settings import Settings
from spira.delivery.training_request import TrainingRequest
from spira.errors import SpiraError
from spira.evaluation import gate

CACHE = "cache/data.json"
"""In the ledger's store, so that a reconciler that begins anew need not read every recording again."""


def look(settings: Settings, kept: Store, code: Callable[[], Mapping[str, str]] = lineage.code_parts) -> Observation:
    """What is there to train on, and the order for a run of just that.

    Args:
        kept: where hashes are kept from one look to the next.
        code: gives what would train, part by part.

    Raises:
        StorageError: the data can't be reached.
    """
    try:
        resolved, judge = resolve(settings)
    except SpiraError as error:
        return Observation(InvalidInput(f"settings: {error}"))
    try:
        data = data_axis(data_files(settings.data, kept, settings.skip_bad))
    except DataError as error:
        return Observation(InvalidInput(f"data: {error}"))
    seen = Axes(data, model_axis(resolved, judge, settings.skip_bad), axis_of(code()))
    request = TrainingRequest(
        data=settings.data,
        data_digest=data.digest,
        config=resolved,
        gate=judge,
        skip_bad=settings.skip_bad,
        code_digest=seen.code.digest,
        git_commit=lineage.git_commit(),
    )
    return Observation(seen, request)


def resolve(settings: Settings) -> tuple[config.Config, gate.Gate]:
    """The configuration and the gate, as their files say now.

    Raises:
        ConfigError: a file can't be read, or names an unknown key.
    """
    chosen = Path(settings.config) if settings.config else None
    judge = Path(settings.gate) if settings.gate else None
    return config.load(chosen, settings.set), gate.load(judge)


def data_files(uri: str, kept: Store, skip_bad: bool = False) -> dict[str, Hashed]:
    """The hashes of a data set's CSVs, recordings and noises.

    Where nothing in the place has moved since the last look, a listing is all that is read; else the CSVs are read
    again, and the files that moved.

    Raises:
        DataError: the CSVs break a rule, or name a file that isn't there (yet).
        StorageError: the data can't be reached, or changed while it was looked at.
    """
    store = open_store(uri)
    seen, known = _recall(kept, store.uri)
    if seen and seen == _digest(store.list()):
        return known
    dataset = read_dataset(store, missing_ok=skip_bad)
    files = content_hash.look(store, dataset.files, known)
    settled = all(file.generation for file in files.values())
    _remember(kept, store.uri, _digest(store.list()) if settled else "", files)
    return files


def _digest(entries: list[Entry]) -> str:
    listing = "".join(f"{entry.path}\0{entry.size}\0{entry.generation}\n" for entry in entries)
    return hashlib.sha256(listing.encode()).hexdigest()


def _recall(kept: Store, uri: str) -> tuple[str, dict[str, Hashed]]:
    """The listing's digest and the files as they were last seen; a cache that can't be used is none."""
    try:
        content = kept.read(CACHE)
    except MissingError:
        return "", {}
    try:
        told = json.loads(content)
        if told["uri"] != uri:
            return "", {}
        return told["listing"], {path: Hashed(*file) for path, file in told["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return "", {}


def _remember(kept: Store, uri: str, listing: str, files: dict[str, Hashed]) -> None:
    told = {path: (file.size, file.sha256, file.generation) for path, file in files.items()}
    kept.write(CACHE, json.dumps({"uri": uri, "listing": listing, "files": told}).encode())
