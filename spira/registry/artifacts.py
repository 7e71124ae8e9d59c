"""A package as the artifacts of a model version: an MLflow model of flavour ``python_function``.

    packages/DIGEST/package/         the package, file by file: the version's source
    packages/DIGEST/package.*        what stands beside it (:mod:`spira.packaging.attestation`)

A package of format 1 was registered as ``packages/DIGEST`` with MLflow's own files around it, which nothing digested.
They are left behind when it is downloaded.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

import mlflow.artifacts
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from spira import temporary
from spira.packaging import attestation
from spira.packaging.mlflow_model import ENVIRONMENT, MLMODEL
from spira.packaging.verify import PackageError, regular_files
from spira.registry.store import ModelStore

PACKAGE = "package"
"""Name of the folder of a package in the artifacts."""


def upload(store: ModelStore, package: Path, run_id: str, digest: str) -> str:
    """Upload a package to its run and return its URI."""
    run = store.client.get_run(run_id)
    folder = f"packages/{digest[:16]}/{PACKAGE}"  # by digest, so that two packages of one run do not mix
    store.client.log_artifacts(run_id, str(package), folder)
    return f"{run.info.artifact_uri}/{folder}"


def upload_attestation(store: ModelStore, uri: str, run_id: str, beside: Path) -> None:
    """Upload the files that stand beside a registered package; those of a later verdict replace the earlier ones.

    A package of format 1 has nothing beside it.
    """
    folder = f"packages/{uri.split('/')[-2]}"
    if uri.endswith(f"/{folder}/{PACKAGE}"):
        store.client.log_artifacts(run_id, str(beside), folder)


def download_attestation(store: ModelStore, entity: ModelVersion, package: Path) -> None:
    """Download the envelope of a version to its place beside a package, if the version has one."""
    uri = store.uri(entity)
    if not uri.endswith(f"/{PACKAGE}"):
        return
    with temporary.folder(package.parent, "fetch") as folder:
        try:
            envelope = mlflow.artifacts.download_artifacts(
                artifact_uri=uri + attestation.ENVELOPE, dst_path=str(folder), tracking_uri=store.tracking_uri
            )
        except (MlflowException, OSError):
            return  # none: refused later, where a signature is required
        Path(envelope).replace(attestation.envelope_of(package))


def read_beside(store: ModelStore, entity: ModelVersion, suffix: str) -> str:
    """Return the text of a file beside a version's package; empty if there is none."""
    uri = store.uri(entity)
    if not uri.endswith(f"/{PACKAGE}"):
        return ""
    with temporary.folder() as folder:
        try:
            file = mlflow.artifacts.download_artifacts(
                artifact_uri=uri + suffix, dst_path=str(folder), tracking_uri=store.tracking_uri
            )
        except (MlflowException, OSError):
            return ""
        return Path(file).read_text("utf-8")


def download(store: ModelStore, entity: ModelVersion, temporary: Path) -> Path:
    """Download a version's artifacts into a temporary folder and return the package there.

    Raises:
        PackageError: they hold a file that does not belong to the package, or a link.
    """
    uri = store.uri(entity)
    if (local := _local_folder(uri)) is not None:
        regular_files(local)  # the download below would follow a link
    downloaded = Path(
        mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(temporary), tracking_uri=store.tracking_uri)
    )
    if (downloaded / "data" / "data").is_dir():
        return _without_mlflows_files(downloaded, temporary / "format-1")
    return downloaded


def _local_folder(uri: str) -> Path | None:
    """Return the folder of a URI on this machine; None for any other URI."""
    parts = urlsplit(uri)
    path = Path(uri) if not parts.scheme else Path(unquote(parts.path)) if parts.scheme == "file" else None
    return path if path is not None and path.is_dir() else None


def _without_mlflows_files(downloaded: Path, package: Path) -> Path:
    """Move a package of format 1 out of the files that MLflow had written around it."""
    for name in (MLMODEL, *ENVIRONMENT):
        (downloaded / name).unlink(missing_ok=True)
    data = downloaded / "data"
    if strangers := sorted(path.name for path in data.iterdir() if path.name != "data"):
        raise PackageError(f"the registered folder holds data/{strangers[0]!r}, which is no part of the package")
    downloaded.rename(package)
    (package / "data").rename(package / "outer")
    (package / "outer" / "data").rename(package / "data")
    (package / "outer").rmdir()
    return package
