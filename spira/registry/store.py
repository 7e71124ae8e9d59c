"""One model in one MLflow store: connecting to it, its versions and their tags and aliases, and its errors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from spira.errors import SpiraError
from spira.registry import database


class RegistryError(SpiraError):
    """The model repository can't do what is asked; the message says why and what to do."""


@contextmanager
def explained(trouble: str) -> Iterator[None]:
    """Say in one line, without a URL's password, what MLflow, its database or the disk refused."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise RegistryError(re.sub(r"//[^/@\s]*@", "//", f"{trouble}: {first_line}")) from error


@contextmanager
def unless_exists() -> Iterator[None]:
    """Creating what another process has just created is no error."""
    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


SQLITE = "sqlite:///"


def local_uri(work: Path) -> str:
    """The MLflow store of a work folder: SQLite, its artifacts in ``mlartifacts`` beside it."""
    return f"{SQLITE}{work.resolve()}/mlflow.db"


@dataclass(frozen=True)
class ModelStore:
    """MLflow's records of one model; ``client`` for the rest of what MLflow can do."""

    client: MlflowClient
    tracking_uri: str
    model_name: str
    experiment_id: str

    @classmethod
    def connect(cls, tracking_uri: str, artifact_root: Path | None, model_name: str) -> ModelStore:
        """Connect, making database and experiment where there are none; see :class:`spira.registry.Registry`."""
        if not re.fullmatch(r"[a-zA-Z0-9\-_]+", model_name):
            raise RegistryError(
                f"model name {model_name!r}: use letters, digits, - and _ only (the Inference Service's rule)"
            )
        with explained(f"the MLflow store {tracking_uri} can't be used"):
            if tracking_uri.startswith(SQLITE):
                file = Path(tracking_uri.removeprefix(SQLITE))
                artifact_root = artifact_root or file.parent / "mlartifacts"
                database.make(file, artifact_root)
            client = MlflowClient(tracking_uri, registry_uri=tracking_uri)
            return cls(client, tracking_uri, model_name, _experiment(client, model_name, artifact_root))

    def search(self, condition: str | None = None) -> list[ModelVersion]:
        """Versions, newest first, with their aliases (which MLflow's own search leaves out)."""
        query = f"name = '{self.model_name}'" + (f" and {condition}" if condition else "")
        found: list[ModelVersion] = []
        token = None
        while page := self.client.search_model_versions(query, page_token=token):
            found.extend(page)
            token = page.token
            if not token:
                break
        models = self.client.search_registered_models(f"name = '{self.model_name}'")
        aliases = models[0].aliases if models else {}
        for entity in found:
            entity.aliases = [alias for alias, version in aliases.items() if int(version) == int(entity.version)]
        return sorted(found, key=lambda entity: -int(entity.version))

    def find(self, version: int | str) -> ModelVersion:
        """A version by number or alias; where there is none, a RegistryError says which there are."""
        entities = self.search()
        wanted = str(version).removeprefix("@")
        for entity in entities:
            if wanted == str(entity.version) or wanted in entity.aliases:
                return entity
        aliases = sorted(alias for entity in entities for alias in entity.aliases)
        numbers = ", ".join(str(entity.version) for entity in reversed(entities))
        raise RegistryError(
            f"model {self.model_name} has no version or alias {wanted!r}; "
            f"versions: {numbers or 'none yet'}; aliases: {', '.join(aliases) or 'none yet'}"
        )

    def at(self, alias: str) -> ModelVersion | None:
        """The version that an alias points to."""
        return next((entity for entity in self.search() if alias in entity.aliases), None)

    def point(self, alias: str, version: int | str) -> None:
        """Make an alias point to a version, and no longer to another."""
        self.client.set_registered_model_alias(self.model_name, alias, str(version))

    def drop(self, alias: str) -> None:
        """Take an alias away."""
        self.client.delete_registered_model_alias(self.model_name, alias)

    def tag(self, entity: ModelVersion, tags: Mapping[str, str]) -> None:
        """Write those tags that the version doesn't have already."""
        for key, value in tags.items():
            if entity.tags.get(key) != str(value):
                self.client.set_model_version_tag(self.model_name, str(entity.version), key, str(value))

    def untag(self, entity: ModelVersion, *keys: str) -> None:
        """Take those tags away that the version has."""
        for key in keys:
            if key in entity.tags:
                self.client.delete_model_version_tag(self.model_name, str(entity.version), key)


def _experiment(client: MlflowClient, name: str, artifact_root: Path | None) -> str:
    if client.get_experiment_by_name(name) is None:
        location = str(artifact_root.resolve()) if artifact_root else None
        with unless_exists():
            client.create_experiment(name, artifact_location=location)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None  # just created, here or by another process
    return experiment.experiment_id
