"""The SQLite file of a local store: created completely or not at all, and usable where its folder was moved or copied.

MLflow creates its tables in many migrations, which takes seconds. Two processes that do it at once, or a kill in
between, leave a file that MLflow cannot use again.

MLflow records the absolute location of every artifact. The artifacts of a local store lie in ``mlartifacts`` beside
the file, so the records are changed when the file is opened in another folder. Without that, a copied store would
write into the original.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

import sqlalchemy
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from spira.files import lock

ARTIFACTS = "mlartifacts"
"""Name of the folder of the artifacts, beside the file."""

LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Tables and columns in which MLflow records locations of artifacts."""


def uri(file: Path) -> str:
    """Return the MLflow URI of an SQLite file."""
    database = _escaped(file)
    # For sqlite:/// MLflow creates the parent folder under its escaped name too; with the driver's name it does not.
    scheme = "sqlite" if database == str(file) else "sqlite+pysqlite"
    return f"{scheme}:///{database}"


def file_of(tracking_uri: str) -> Path | None:
    """Return the SQLite file of an MLflow URI; None for a server or another database.

    Raises:
        sqlalchemy.exc.ArgumentError: the URI is malformed.
    """
    if not re.match(r"sqlite(\+\w+)?:", tracking_uri):
        return None
    database = make_url(tracking_uri).database
    return Path(database).resolve() if database else None


def artifact_location(file: Path) -> str:
    """Return the location of the artifacts of an SQLite file, as MLflow records it: a path with URL escapes."""
    return _escaped(file.parent / ARTIFACTS)


def create(file: Path) -> None:
    """Create the database under another name and rename it; do nothing if it exists already."""
    if file.exists():
        return
    with lock(file.with_name(f".{file.name}.lock")):
        if file.exists():  # created by another process meanwhile
            return
        unfinished = file.with_name(f".{file.name}.making")
        unfinished.unlink(missing_ok=True)  # left by a kill
        # MLflow writes this location into SQL by itself, so every character with a meaning there is escaped.
        store = SqlAlchemyStore(uri(unfinished), quote(str(file.parent / ARTIFACTS)))
        store.engine.dispose()
        unfinished.replace(file)


def rebind(file: Path) -> None:
    """Change the recorded locations if the file was moved or copied; every change is made, or none.

    Only locations in the folder of an experiment that this program created are changed.
    """
    engine = sqlalchemy.create_engine(uri(file), poolclass=NullPool)
    new = artifact_location(file)
    experiments = sqlalchemy.text("SELECT DISTINCT artifact_location FROM experiments")
    with engine.connect() as connection:
        recorded = {row[0] for row in connection.execute(experiments)}
        moved = sorted(old for old in recorded if _is_local_store(old) and old != new)
        for old in moved:
            for table, column in LOCATIONS:
                connection.execute(
                    sqlalchemy.text(
                        f"UPDATE {table} SET {column} = :new || substr({column}, length(:old) + 1) "
                        f"WHERE {column} = :old OR substr({column}, 1, length(:old) + 1) = :old || '/'"
                    ),
                    {"new": new, "old": old},
                )
        if moved:
            connection.commit()


def _is_local_store(location: str | None) -> bool:
    return bool(location) and str(location).startswith("/") and str(location).endswith(f"/{ARTIFACTS}")


def _escaped(path: Path) -> str:
    """Return a path for a URL; only the characters that a URL gives a meaning are escaped."""
    return re.sub(r"[%?#]", lambda found: quote(found[0]), str(path))
