"""Reproduction: train a version again from its records in the ledger, and compare the weights."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import ConfigDict, Json, ValidationError

from spira import lineage
from spira.config import Config, FrozenModel, explain
from spira.data import corpus
from spira.data.corpus import Corpus
from spira.data.storage import open_store
from spira.delivery.explain import EMPTY_AXES, describe_change, fingerprints
from spira.delivery.history.events import VersionId
from spira.delivery.history.ledger import Ledger
from spira.delivery.history.state import Attempt, state_of
from spira.delivery.observation.fingerprints import Axis, AxisName, Change, axis_of, changes, data_axis, with_pseudonyms
from spira.delivery.observation.observe import data_files
from spira.errors import SpiraError
from spira.packaging import attestation
from spira.signature import is_required
from spira.training import train

PARALLEL_TRAININGS = 2
"""Seeds that the local pipeline trains at the same time. Each uses its share of the cores, and the number of threads
decides the last bits of the weights."""
MAX_CHANGES_SHOWN = 10


class RecordedRequest(FrozenModel):
    """The part of a recorded training request that is needed to train again.

    The gate is left out: that of an older version may not be valid any more.
    """

    model_config = ConfigDict(extra="ignore")

    data: str
    data_digest: str
    config: Json[Config]
    skip_bad: bool = False
    git_commit: str = ""


@dataclass(frozen=True)
class Reproduction:
    """Result of training a version again."""

    version: str
    seed: int
    identical: bool
    """Whether every weight is bit-identical."""
    largest_difference: float
    """Largest absolute difference between two weights."""
    code_changes: tuple[str, ...]
    """Differences of the code, if they were accepted."""


def reproduce(
    ledger: Ledger,
    version: str,
    package: Path,
    seed: int,
    folder: Path,
    *,
    other_code: bool,
    progress: Callable[[str], None],
) -> Reproduction:
    """Train a version again and compare the weights.

    Args:
        package: the package of the version, to compare with.
        seed: seed of the version.
        folder: for the corpus and the training, which resumes after a kill.
        other_code: accept code that differs from that of the run.
        progress: receives a line before the training.

    Raises:
        SpiraError: no run in the ledger produced the version, data or code differ from those of the run, or the
            provenance beside the package has another origin than the ledger.
    """
    records = ledger.read()
    attempt = state_of(records).attempt_of(VersionId(version))
    if attempt is None:
        raise SpiraError(f"no run in the ledger produced version {version}: see spira deliver history")
    fingerprint = fingerprints(records)[attempt.fingerprint]
    request = _recorded_request(attempt)
    code = _changes("code", ledger.load_axis("code", fingerprint.code), axis_of(lineage.code_parts()))
    if code and not other_code:
        is_known = request.git_commit not in ("", "unknown")
        advice = f"check out {request.git_commit}" if is_known else "restore it"
        raise SpiraError(f"the code differs from that of the run ({_summary(code)}): {advice}, or add --other-code")
    files = data_files(request.data, open_store(folder), request.skip_bad)
    present = with_pseudonyms(data_axis(files), ledger.pseudonyms)
    if data := _changes("data", ledger.load_axis("data", fingerprint.data), present):
        raise SpiraError(f"{request.data} differs from the data of the run ({_summary(data)}): restore the data first")
    _check_provenance(package, request, same_code=not code)
    progress(f"training seed {seed} of version {version}")
    weights = _train(request, seed, folder)
    return _compare(version, seed, weights, package, code)


def _recorded_request(attempt: Attempt) -> RecordedRequest:
    try:
        return RecordedRequest.model_validate(attempt.request)
    except ValidationError as error:
        raise SpiraError(f"training request of run {attempt.run}: {explain(error)}") from None


def _check_provenance(package: Path, request: RecordedRequest, same_code: bool) -> None:
    """Compare the inputs in a package's provenance with those of the recorded request, and with the present code.

    A package of format 1 has no provenance.
    """
    if not attestation.envelope_of(package).exists() and not is_required():
        return
    attestation.check(package)
    stated = attestation.inputs(attestation.provenance(package))
    recorded = {"data": request.data_digest, "model": request.config.digest()}
    if same_code:
        recorded["code"] = lineage.code_digest()
    for name, digest in recorded.items():
        if stated.get(name) != digest:
            raise SpiraError(
                f"the provenance of {package} names other inputs than the ledger: its {name} is "
                f"{stated.get(name) or 'unknown'}, that of the run {digest}"
            )


def _changes(name: AxisName, before: Axis, after: Axis) -> list[Change]:
    return changes(EMPTY_AXES | {name: before}, EMPTY_AXES | {name: after})


def _summary(changes: Sequence[Change]) -> str:
    more = f" and {len(changes) - MAX_CHANGES_SHOWN} more" if len(changes) > MAX_CHANGES_SHOWN else ""
    return ", ".join(describe_change(change) for change in changes[:MAX_CHANGES_SHOWN]) + more


def _train(request: RecordedRequest, seed: int, folder: Path) -> dict[str, np.ndarray]:
    config = request.config
    corpus.build(request.data, folder / "corpus", config.preprocess, request.skip_bad)
    opened = Corpus.open(folder / "corpus")
    if opened.digest != request.data_digest:
        raise SpiraError(f"{request.data} changed while it was read: run again")
    if "OMP_NUM_THREADS" not in os.environ:  # otherwise the user has set it, for this training as for the run
        parallel = min(PARALLEL_TRAININGS, len(config.training.seeds))
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // parallel))
    trained = train.train(opened, config, seed, folder / f"seed-{seed}")
    return {name: value.numpy() for name, value in trained.network.state_dict().items() if value.is_floating_point()}


def _compare(
    version: str, seed: int, weights: dict[str, np.ndarray], package: Path, code: Sequence[Change]
) -> Reproduction:
    with np.load(package / "data" / "weights.npz") as file:
        original = dict(file)
    if original.keys() != weights.keys():
        raise SpiraError(f"version {version} has other layers than the new training: the code differs from the run's")
    differences = [float(np.abs(weights[name] - original[name]).max()) for name in original]
    identical = all(np.array_equal(weights[name], original[name]) for name in original)
    code_changes = tuple(describe_change(change) for change in code)
    return Reproduction(version, seed, identical, max(differences), code_changes)
