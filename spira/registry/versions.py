"""Versions of the model: registering a package as one, and showing, comparing and fetching them."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow.artifacts
import mlflow.pyfunc
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import Model

from spira.registry.outcomes import VERSION_TAG
from spira.registry.runs import approval
from spira.registry.store import ModelStore, RegistryError, unless_exists

CODE_FOLDER = "spira_inference"
LOADER = f"{CODE_FOLDER}.pyfunc"
"""The module whose ``_load_pyfunc(path)`` makes the served model from the package's ``data`` folder."""

SERVED_WITH = ["numpy>=1.24,<3", "scipy>=1.9,<2"]
"""Given, so that MLflow needn't infer them (slow); the Inference Service has numpy 1.24 and scipy 1.9."""


@dataclass(frozen=True)
class RegisteredVersion:
    """A registered model; ``metrics`` are those of the run that gave its latest verdict."""

    version: int
    aliases: tuple[str, ...]
    created: datetime
    approved: bool
    metrics: dict[str, float]
    tags: dict[str, str]
    run_id: str
    uri: str
    """The folder of its artifacts, which never changes: what a server is pointed to."""


@dataclass(frozen=True)
class Difference:
    """A metric or parameter that two versions don't share; None where a version lacks it."""

    kind: str
    name: str
    a: float | str | None
    b: float | str | None


def package_digest(package: Path) -> str:
    """SHA-256 over the sorted paths and contents of a package's ``data``, ``code`` and ``package.json``."""
    digest = hashlib.sha256()
    for path in sorted(_package_files(package), key=lambda path: path.relative_to(package).as_posix()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(package).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def register(store: ModelStore, package: Path, run_id: str, verdict: Mapping[str, Any], tags: Mapping[str, str]) -> int:
    """See :meth:`spira.registry.Registry.register`."""
    _check_package(package)
    digest = package_digest(package)
    reasons = "; ".join(verdict.get("reasons", []))
    tags = {**tags, "approved": approval(verdict), "reasons": reasons}
    tags |= {"verdict_run": run_id, "package_digest": digest}
    same = store.search(f"tag.package_digest = '{digest}'")
    entity = same[0] if same else _create(store, package, run_id, digest, tags)
    store.tag(entity, tags)
    if "champion" not in entity.aliases:
        store.point("challenger", entity.version)
    store.client.set_tag(run_id, VERSION_TAG, str(entity.version))
    return int(entity.version)


def list_versions(store: ModelStore) -> list[RegisteredVersion]:
    """All versions, newest first."""
    return [_version(store, entity) for entity in store.search()]


def show(store: ModelStore, version: int | str) -> RegisteredVersion:
    """See :meth:`spira.registry.Registry.show`."""
    return _version(store, store.find(version))


def champion(store: ModelStore) -> RegisteredVersion | None:
    """The version in production, None before the first promotion."""
    entity = store.at("champion")
    return _version(store, entity) if entity else None


def compare(store: ModelStore, a: int | str, b: int | str) -> list[Difference]:
    """The metrics, then the parameters, in which two versions differ, by name."""
    first, second = (store.client.get_run(show(store, version).run_id).data for version in (a, b))
    return [
        *_differences("metric", first.metrics, second.metrics),
        *_differences("parameter", first.params, second.params),
    ]


def fetch(store: ModelStore, version: int | str, out: Path) -> Path:
    """See :meth:`spira.registry.Registry.fetch`."""
    entity = store.find(version)
    registered = entity.tags.get("package_digest")
    if out.exists():
        return _checked(out, entity, registered)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".fetch-") as temporary:
        package = _download(store, entity, Path(temporary))
        if package_digest(package) != registered:
            raise RegistryError(f"version {entity.version}: its artifacts aren't what was registered")
        try:
            package.rename(out)
        except OSError:
            if not out.exists():  # else another process has just put it there
                raise
    return _checked(out, entity, registered)


def _checked(out: Path, entity: ModelVersion, registered: str | None) -> Path:
    if package_digest(out) == registered:
        return out
    raise RegistryError(f"{out}: exists and isn't version {entity.version}; remove it or name another")


def _check_package(package: Path) -> None:
    for part in ("package.json", "data/config.json", f"code/{CODE_FOLDER}/pyfunc.py"):
        if not (package / part).is_file():
            raise RegistryError(f"{package}: incomplete package, {part} is missing; package it again")


def _package_files(package: Path) -> Iterator[Path]:
    """Files of a package; byte code is made by running it and is no part of it."""
    for path in (package / "package.json", *(package / "data").rglob("*"), *(package / "code").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


def _create(store: ModelStore, package: Path, run_id: str, digest: str, tags: Mapping[str, str]) -> ModelVersion:
    """Upload under the digest, so that two packages of one run don't mix, then name it a version."""
    run = store.client.get_run(run_id)
    place = f"packages/{digest[:16]}"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        mlflow.pyfunc.save_model(
            folder,
            loader_module=LOADER,
            data_path=str(package / "data"),
            code_paths=[str(package / "code" / CODE_FOLDER)],
            pip_requirements=SERVED_WITH,
            mlflow_model=Model(run_id=run_id),
        )
        shutil.copyfile(package / "package.json", folder / "package.json")
        store.client.log_artifacts(run_id, str(folder), place)
    with unless_exists():
        store.client.create_registered_model(store.model_name)
    return store.client.create_model_version(
        store.model_name, f"{run.info.artifact_uri}/{place}", run_id, tags=dict(tags)
    )


def _download(store: ModelStore, entity: ModelVersion, temporary: Path) -> Path:
    """Lay a version's artifacts down as the package they were made of."""
    uri = store.client.get_model_version_download_uri(store.model_name, entity.version)
    model = Path(
        mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(temporary), tracking_uri=store.tracking_uri)
    )
    data = Model.load(str(model)).flavors["python_function"]["data"]
    package = temporary / "package"
    package.mkdir()
    (model / data).rename(package / "data")
    (model / "code").rename(package / "code")
    (model / "package.json").rename(package / "package.json")
    return package


def _version(store: ModelStore, entity: ModelVersion) -> RegisteredVersion:
    run_id = entity.tags.get("verdict_run") or entity.run_id or ""
    return RegisteredVersion(
        version=int(entity.version),
        aliases=tuple(sorted(entity.aliases)),
        created=datetime.fromtimestamp(entity.creation_timestamp / 1000, UTC),
        approved=entity.tags.get("approved") == "true",
        metrics=store.client.get_run(run_id).data.metrics if run_id else {},
        tags=dict(entity.tags),
        run_id=run_id,
        uri=store.client.get_model_version_download_uri(store.model_name, str(entity.version)),
    )


def _differences(kind: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Difference]:
    names = sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))
    return [Difference(kind, name, a.get(name), b.get(name)) for name in names]
