"""The model repository: runs, versions and aliases in MLflow. The only package that imports it.

Every run is logged, rejected ones too. A package becomes a version with the alias ``challenger``;
promoted it is ``champion``, and the one before it ``previous``. Writes are ordered so that a call killed
anywhere converges when it is made again. Importing takes about 3 s: import late.

    registry = Registry(local_uri(work))
    run_id = registry.log_run("demo", params, histories, verdict, {"report.html": report}, tags)
    version = registry.register(package, run_id, verdict, tags)
    registry.promote(version)
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# MLflow reads these at import: no telemetry, no progress bars, and a dead server is known in seconds. Artifacts go
# through the server: by itself a client would go to the bucket behind it, which need not be in its reach.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", "false")
os.environ.setdefault("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD", "false")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

from spira.registry import aliases, outcomes, runs, versions
from spira.registry.outcomes import Outcome
from spira.registry.store import ModelStore, RegistryError, explained, local_uri
from spira.registry.versions import Difference, RegisteredVersion, package_digest

__all__ = [
    "Difference",
    "Outcome",
    "RegisteredVersion",
    "Registry",
    "RegistryError",
    "local_uri",
    "open_at",
    "package_digest",
]

logging.getLogger("alembic").setLevel(logging.WARNING)


class Registry:
    """The runs and versions of one model in one MLflow store.

    Args:
        tracking_uri: ``sqlite:///…/mlflow.db`` or the http(s) URL of an MLflow server that proxies artifacts.
        artifact_root: folder of the artifacts; by default ``mlartifacts`` beside a SQLite file, else the
            server's choice.
        model_name: name of the registered model and of the experiment.

    Raises:
        RegistryError: the name is refused by the Inference Service, or the store can't be reached.
    """

    def __init__(self, tracking_uri: str, artifact_root: Path | None = None, model_name: str = "spira") -> None:
        self.tracking_uri = tracking_uri
        self.model_name = model_name
        self._store = ModelStore.connect(tracking_uri, artifact_root, model_name)

    @explained("the run can't be logged")
    def log_run(
        self,
        name: str,
        params: Mapping[str, Any],
        histories: Mapping[int, list[dict[str, float]]],
        verdict: Mapping[str, Any],
        artifacts: Mapping[str, Path],
        tags: Mapping[str, str],
        dataset_uri: str | None = None,
    ) -> str:
        """Log a run, whatever its verdict, and return its id.

        The same content again is the same run: a call that was killed goes on where it was.

        Args:
            params: the resolved configuration; nested keys are joined by dots.
            histories: the epochs of each seed, logged as ``seed_42.train_loss`` with the epoch as step.
            verdict: its numbers become metrics (``noisy.by_file.accuracy``), its gate parameters; it is kept
                as ``verdict.json`` too.
            artifacts: where a file or folder goes in the run, and what goes there.
            dataset_uri: where the data set is; its digest is the tag ``data_fingerprint``.

        Raises:
            RegistryError: an artifact is missing, or the store fails.
        """
        return runs.log_run(self._store, name, params, histories, verdict, artifacts, tags, dataset_uri)

    @explained("the outcome of the run can't be looked up")
    def outcome(self, pipeline_run: str) -> Outcome | None:
        """What a run of the pipeline came to, by its tag ``pipeline_run``; the latest, where it was repeated.

        None where nothing was logged, or not to the end: an approval without its version is none.

        Raises:
            RegistryError: the verdict can't be read.
        """
        return outcomes.outcome(self._store, pipeline_run)

    @explained("the package can't be registered")
    def register(self, package: Path, run_id: str, verdict: Mapping[str, Any], tags: Mapping[str, str]) -> int:
        """Make a package the next version, alias ``challenger``, and return its number.

        The same package again (by :func:`package_digest`) is the same version: the latest verdict and
        lineage stand in its tags. A champion doesn't become its own challenger.

        Raises:
            RegistryError: the package is incomplete, or the store fails.
        """
        return versions.register(self._store, package, run_id, verdict, tags)

    @explained("the version can't be promoted")
    def promote(self, version: int | str, force_reason: str | None = None) -> RegisteredVersion:
        """Make a version champion and the champion before it ``previous``; again changes nothing.

        Raises:
            RegistryError: the version is unknown; or it isn't approved or was rolled back, and no reason to
                force it is given.
        """
        return versions.show(self._store, aliases.promote(self._store, version, force_reason))

    @explained("the champion can't be rolled back")
    def rollback(self, reason: str, bad: int | None = None) -> RegisteredVersion:
        """Make ``previous`` champion again, and the one it had replaced ``previous``; return the champion.

        The version that is left is held: it isn't promoted again unless forced. Where both aliases are one
        version, a promotion or rollback was killed half-way: it is undone or finished.

        Args:
            bad: only roll back while this version is champion, which makes the call safe to repeat.

        Raises:
            RegistryError: there is nothing to go back to.
        """
        return versions.show(self._store, aliases.rollback(self._store, reason, bad))

    @explained("versions can't be listed")
    def list_versions(self) -> list[RegisteredVersion]:
        """All versions, newest first."""
        return versions.list_versions(self._store)

    @explained("the version can't be shown")
    def show(self, version: int | str) -> RegisteredVersion:
        """One version by number or alias.

        Raises:
            RegistryError: there is none; the message says which there are.
        """
        return versions.show(self._store, version)

    @explained("the champion can't be looked up")
    def champion(self) -> RegisteredVersion | None:
        """The version in production, None before the first promotion."""
        return versions.champion(self._store)

    @explained("the champion can't be looked up")
    def champion_status(self) -> tuple[str | None, frozenset[str]]:
        """The champion's number, None before the first promotion, and the versions that were rolled back."""
        return aliases.champion_status(self._store)

    @explained("the versions can't be compared")
    def compare(self, a: int | str, b: int | str) -> list[Difference]:
        """The metrics, then the parameters, in which two versions differ, by name."""
        return versions.compare(self._store, a, b)

    @explained("the version can't be fetched")
    def fetch(self, version: int | str, out: Path) -> Path:
        """Download a version's package to the folder ``out``, whole or not at all.

        Raises:
            RegistryError: what came isn't what was registered, or ``out`` holds something else.
        """
        return versions.fetch(self._store, version, out)


def open_at(uri: str) -> Registry:
    """The model repository at an MLflow URL, or in a folder (SQLite), which is made."""
    if "://" in uri:
        return Registry(uri)
    Path(uri).mkdir(parents=True, exist_ok=True)
    return Registry(local_uri(Path(uri)))
