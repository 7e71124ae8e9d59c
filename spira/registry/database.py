"""The SQLite file of a local store, created completely or not at all.

MLflow creates its tables in many migrations, which takes seconds. Two processes that do it at once, or a kill in
between, leave a file that MLflow cannot use again.
"""

from __future__ import annotations

from pathlib import Path

from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from spira.files import lock


def create(file: Path, artifacts: Path) -> None:
    """Create the database under another name and rename it; do nothing if it exists already.

    Args:
        file: the database.
        artifacts: default folder of the artifacts of a run.
    """
    if file.exists():
        return
    with lock(file.with_name(f".{file.name}.lock")):
        if file.exists():  # created by another process meanwhile
            return
        unfinished = file.with_name(f".{file.name}.making")
        unfinished.unlink(missing_ok=True)  # left by a kill
        store = SqlAlchemyStore(f"sqlite:///{unfinished}", str(artifacts))
        store.engine.dispose()
        unfinished.replace(file)
