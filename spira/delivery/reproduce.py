"""Making a version again from what the ledger says of it, and holding the weights of both side by side."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from spira import lineage
from spira.config import Config
from spira.data import corpus
from spira.data.corpus import Corpus
from spira.delivery.explain import NOTHING, describe, fingerprints
from spira.delivery.fingerprints import Axis, Change, Name, axis_of, changes, data_axis
from spira.delivery.ledger import Ledger
from spira.delivery.observe import data_files
from spira.delivery.state import Attempt, state_of
from spira.errors import SpiraError
from spira.training import train

RUNS_AT_ONCE = 2
"""Seeds that the local pipeline trains side by side: each has its share of the cores, which decides the last bits."""
SHOWN = 10


@dataclass(frozen=True)
class Reproduction:
    """A version made again."""

    version: str
    seed: int
    identical: bool
    """Every weight, to the bit."""
    largest_difference: float
    """Between two weights."""
    code_changes: tuple[str, ...]
    """What the code of now does otherwise, where that was let pass."""


def reproduce(
    ledger: Ledger,
    version: str,
    package: Path,
    seed: int,
    folder: Path,
    *,
    other_code: bool,
    tell: Callable[[str], None],
) -> Reproduction:
    """Train a version's candidate again and compare.

    Args:
        package: the version's own, fetched: what is compared with.
        seed: of the candidate.
        folder: for the corpus and the training, which may be taken up after a kill.
        other_code: go on though the code isn't what it was.

    Raises:
        SpiraError: the ledger doesn't know the version, or data or code are not what they were.
    """
    records = ledger.read()
    attempt = state_of(records).attempt_of(version)
    if attempt is None:
        raise SpiraError(f"the ledger knows no run that made version {version}: spira deliver history")
    axes = fingerprints(records)[attempt.fingerprint]
    code = _changes("code", ledger.axis("code", axes.code), axis_of(lineage.code_parts()))
    if code and not other_code:
        commit = attempt.request.get("git_commit", "unknown")
        back = "bring that back" if commit == "unknown" else f"check out {commit}"
        raise SpiraError(f"the code isn't what it was ({_few(code)}): {back}, or go on with --other-code")
    found = data_axis(data_files(attempt.request["data"], ledger.store, attempt.request["skip_bad"]))
    if data := _changes("data", ledger.axis("data", axes.data), found):
        raise SpiraError(f"{attempt.request['data']} isn't what it was ({_few(data)}): bring that back first")
    tell(f"trains seed {seed} of version {version} again")
    weights = _train(attempt, seed, folder)
    return _compare(version, seed, weights, package, code)


def _changes(name: Name, before: Axis, after: Axis) -> list[Change]:
    return changes(NOTHING | {name: before}, NOTHING | {name: after})


def _few(found: list[Change]) -> str:
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ", ".join(describe(change) for change in found[:SHOWN]) + more


def _train(attempt: Attempt, seed: int, folder: Path) -> dict[str, np.ndarray]:
    request = attempt.request
    resolved = Config.model_validate_json(request["config"])
    corpus.build(request["data"], folder / "corpus", resolved.preprocess, request["skip_bad"])
    opened = Corpus.open(folder / "corpus")
    if opened.digest != request["data_digest"]:
        raise SpiraError(f"{request['data']} changed while it was read: run again")
    if "OMP_NUM_THREADS" not in os.environ:  # else the user has decided, here as in the run
        side_by_side = min(RUNS_AT_ONCE, len(resolved.training.seeds))
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // side_by_side))
    trained = train.train(opened, resolved, seed, folder / f"seed-{seed}")
    return {name: value.numpy() for name, value in trained.network.state_dict().items() if value.is_floating_point()}


def _compare(
    version: str, seed: int, weights: dict[str, np.ndarray], package: Path, code: list[Change]
) -> Reproduction:
    with np.load(package / "data" / "weights.npz") as file:
        original = dict(file)
    if original.keys() != weights.keys():
        raise SpiraError(f"version {version} has other layers than what was trained now: the code isn't what it was")
    differences = [float(np.abs(weights[name] - original[name]).max()) for name in original]
    identical = all(np.array_equal(weights[name], original[name]) for name in original)
    told = tuple(describe(change) for change in code)
    return Reproduction(version, seed, identical, max(differences), told)
