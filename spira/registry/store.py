"""One model in one MLflow store: the connection, the versions with their tags and aliases, and errors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import Experiment, Run, ViewType
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from spira.errors import SpiraError
from spira.registry import database, server

EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": (
        "Trainings of SPIRA's detector of respiratory insufficiency in speech. A run has the headline numbers of its "
        "verdict, the report, and one child run a seed with the curves of the training."
    ),
}
"""Tags of the experiment: the view in which MLflow opens it, and its description."""


class RegistryError(SpiraError):
    """The model repository refused or failed; the message gives the reason and the remedy."""


@contextmanager
def explained(problem: str) -> Iterator[None]:
    """Turn an error of MLflow, its database or the disk into one line, without the password of a URL."""
    try:
        yield
    except ModuleNotFoundError as error:
        # SQLAlchemy's own choice for postgresql:// is psycopg 3; the extra installs psycopg2.
        remedy = (
            "install it, or for PostgreSQL pip install 'spira[server]' and begin the URL with postgresql+psycopg2://"
        )
        message = f"{problem}: the database driver {error.name} is not installed: {remedy}"
        raise RegistryError(_without_password(message)) from error
    except (MlflowException, SQLAlchemyError, OSError, UnicodeEncodeError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise RegistryError(_without_password(f"{problem}: {first_line}")) from error


def _without_password(message: str) -> str:
    return re.sub(r"//[^/@\s]*@", "//", message)


@contextmanager
def unless_exists() -> Iterator[None]:
    """Ignore that another process has just created the same object."""
    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def local_uri(work: Path) -> str:
    """Return the MLflow URI of a work folder: SQLite, with the artifacts in ``mlartifacts`` beside it."""
    return database.uri(work.resolve() / "mlflow.db")


@dataclass(frozen=True)
class ModelStore:
    """MLflow's records of one model."""

    client: MlflowClient
    tracking_uri: str
    model_name: str
    experiment_id: str

    @classmethod
    def connect(cls, tracking_uri: str, model_name: str) -> ModelStore:
        """Connect; create database and experiment if they are absent. See :class:`spira.registry.Registry`."""
        if not re.fullmatch(r"[a-zA-Z0-9\-_]+", model_name):
            raise RegistryError(
                f"model name {model_name!r}: use letters, digits, - and _ only (the Inference Service's rule)"
            )
        with explained(f"the MLflow store {tracking_uri} cannot be used"):
            file = database.file_of(tracking_uri)
            if file:
                database.create(file)
                database.rebind(file)
            elif is_server(tracking_uri):
                server.check_version(tracking_uri)
            client = MlflowClient(tracking_uri, registry_uri=tracking_uri)
            location = database.artifact_location(file) if file else None  # a server chooses the folder
            experiment = _experiment(client, model_name, location)
            if is_server(tracking_uri):
                server.check_artifacts(tracking_uri, experiment)
            return cls(client, tracking_uri, model_name, experiment.experiment_id)

    def mark_experiment(self) -> None:
        """Set the kind of the experiment, so that MLflow opens it as a training, and its description, if absent.

        Servers older than MLflow 3 keep the kind as a tag without a meaning.
        """
        tags = self.client.get_experiment(self.experiment_id).tags
        for key, value in EXPERIMENT_TAGS.items():
            if key not in tags:  # a person may have chosen another
                self.client.set_experiment_tag(self.experiment_id, key, value)

    def search(self, condition: str | None = None) -> list[ModelVersion]:
        """Return versions, newest first, with their aliases (MLflow's own search leaves them out)."""
        query = f"name = '{self.model_name}'" + (f" and {condition}" if condition else "")
        entities: list[ModelVersion] = []
        token = None
        while page := self.client.search_model_versions(query, page_token=token):
            entities.extend(page)
            token = page.token
            if not token:
                break
        models = self.client.search_registered_models(f"name = '{self.model_name}'")
        aliases = models[0].aliases if models else {}
        for entity in entities:
            entity.aliases = [alias for alias, version in aliases.items() if int(version) == int(entity.version)]
        return sorted(entities, key=lambda entity: -int(entity.version))

    def find(self, version: int | str) -> ModelVersion:
        """Return a version by number or alias.

        Raises:
            RegistryError: there is none; the message lists those that exist.
        """
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
        """Return the version that an alias points to."""
        return next((entity for entity in self.search() if alias in entity.aliases), None)

    def runs(self, condition: str) -> Iterator[Run]:
        """Yield the runs of the experiment that fulfil a condition, deleted ones too."""
        token = None
        while True:
            page = self.client.search_runs([self.experiment_id], condition, ViewType.ALL, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def create_version(self, uri: str, run_id: str, tags: Mapping[str, str]) -> ModelVersion:
        """Create the next version from uploaded artifacts."""
        with unless_exists():
            self.client.create_registered_model(self.model_name)
        return self.client.create_model_version(self.model_name, uri, run_id, tags=dict(tags))

    def uri(self, entity: ModelVersion) -> str:
        """Return the folder of a version's artifacts."""
        return self.client.get_model_version_download_uri(self.model_name, str(entity.version))

    def point(self, alias: str, version: int | str) -> None:
        """Point an alias to a version, and no longer to another."""
        self.client.set_registered_model_alias(self.model_name, alias, str(version))

    def drop(self, alias: str) -> None:
        """Remove an alias."""
        self.client.delete_registered_model_alias(self.model_name, alias)

    def tag(self, entity: ModelVersion, tags: Mapping[str, str]) -> None:
        """Write the tags that differ from those of the version."""
        for key, value in tags.items():
            if entity.tags.get(key) != str(value):
                self.client.set_model_version_tag(self.model_name, str(entity.version), key, str(value))

    def describe(self, entity: ModelVersion, description: str) -> None:
        """Write the description of a version, unless a person has written another."""
        current = (entity.description or "").strip()
        beginning = description.split(maxsplit=3)[:3]
        if not current or current.split(maxsplit=3)[:3] == beginning:
            self.client.update_model_version(self.model_name, str(entity.version), description)

    def untag(self, entity: ModelVersion, *keys: str) -> None:
        """Remove tags from the version."""
        for key in keys:
            if key in entity.tags:
                self.client.delete_model_version_tag(self.model_name, str(entity.version), key)


def is_server(tracking_uri: str) -> bool:
    """Return whether a URI is that of an MLflow server."""
    return tracking_uri.startswith(("http://", "https://"))


def _experiment(client: MlflowClient, name: str, location: str | None) -> Experiment:
    if client.get_experiment_by_name(name) is None:
        with unless_exists():
            client.create_experiment(name, artifact_location=location)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None  # just created, here or by another process
    return experiment
