"""The folders from which the Inference Service loads a version, and so the only place where a package's code runs.

Each is a verified, read-only copy of a package. It is compared with its package before every start of a process.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from spira.packaging import mlflow_model, verify


class Models:
    """The model folders of one service, by version.

    Args:
        root: their folder, on a local disk; a service in a container has it mounted under the same path.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def folder(self, version: str) -> Path:
        """Return the folder of a version; its name is the version."""
        return self.root / version

    def provide(self, version: str, package: Path) -> Path:
        """Return the folder of a version after a check; copy the package to it if it is absent or was changed.

        Raises:
            PackageError: the package itself was changed.
        """
        verify.check_files(package)
        folder, staged = self.folder(version), self.root / f".{version}.writing"
        for left in self.root.glob(".*.writing"):  # by a kill, perhaps of another version
            _remove(left)
        shutil.copytree(package, staged, symlinks=True)
        verify.check_files(staged)  # the copy is what is served: the package could change meanwhile
        if not (staged / mlflow_model.MLMODEL).exists():  # format 1: MLflow wrote its own, outside the digests
            mlflow_model.write(staged)
        if not verify.is_identical(folder, staged):
            _set_writable(staged, False)
            _remove(folder)
            staged.rename(folder)
        _remove(staged)
        return folder


def _remove(folder: Path) -> None:
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        _set_writable(folder, True)
        shutil.rmtree(folder)


def _set_writable(folder: Path, writable: bool) -> None:
    """Set or remove the permission to write a folder and all that is in it."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            executable = 0o111 if path.is_dir() else 0
            path.chmod(executable | (0o644 if writable else 0o444))
