"""The SQLite file of a local store, made whole or not at all.

MLflow makes its tables migration by migration, for seconds: two processes at once, or a kill meanwhile, leave a file
that no MLflow can use again.
"""

from __future__ import annotations

import fcntl
from pathlib import Path

from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore


def make(file: Path, artifacts: Path) -> None:
    """Make the database under another name and rename it; nothing where it is there, or another process makes it.

    Args:
        artifacts: folder of artifacts that no run says otherwise of.
    """
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_name(f".{file.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if file.exists():
            return
        making = file.with_name(f".{file.name}.making")
        making.unlink(missing_ok=True)  # left by a kill
        store = SqlAlchemyStore(f"sqlite:///{making}", str(artifacts))
        store.engine.dispose()
        making.replace(file)
