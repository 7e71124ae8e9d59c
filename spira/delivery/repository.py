"""The model repository on MLflow, which is imported at first use."""

from __future__ import annotations

import shutil
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from spira import files
from spira.delivery.decide import ChampionStatus
from spira.delivery.history.events import VersionId
from spira.deployment.target import Release
from spira.errors import SpiraError
from spira.packaging import attestation
from spira.packaging.verify import PackageError, package_digest

if TYPE_CHECKING:
    from spira.registry import RegisteredVersion, Registry


class MLflowRepository:
    """See :class:`spira.delivery.reconcile.Repository`.

    Args:
        uri: MLflow URL, or a folder for SQLite.
        folder: cache of downloaded packages, one folder a version.
        verify_key: path of the public key of signatures; see :mod:`spira.signature`.
    """

    def __init__(self, uri: str, folder: Path, verify_key: str = "") -> None:
        self.uri, self.folder, self.verify_key = uri, folder, verify_key

    @cached_property
    def registry(self) -> Registry:
        """Connection to MLflow; the import takes 3 s."""
        from spira.registry import open_at

        return open_at(self.uri)

    def champion_status(self) -> ChampionStatus:
        """Return the champion, the versions that were rolled back, and the digests of all.

        Creates the SQLite store if it does not exist, before a run needs it.
        """
        champion, rolled_back, digests = self.registry.champion_status()
        return ChampionStatus(
            VersionId(champion, digests.get(champion, "")) if champion else None,
            frozenset(VersionId(number, digests.get(number, "")) for number in rolled_back),
            digests,
        )

    def release(self, version: VersionId) -> Release:
        """Return a version with its package, downloaded at first use, and the URI of its artifacts.

        Raises:
            SpiraError: the repository has no version with this digest, or its package is damaged.
        """
        registered = self.registry.show(self.number(version))
        return Release(str(registered.version), self._package(registered), registered.uri, digest=registered.digest)

    def package(self, version: str) -> Path:
        """Return the folder of the package of a number or alias, downloaded at first use."""
        return self._package(self.registry.show(version))

    def _package(self, registered: RegisteredVersion) -> Path:
        """Return the folder of a version's package; one that is damaged, or another one, is downloaded again."""
        folder = self.folder / str(registered.version)
        with files.lock(self.folder / ".lock"):
            if folder.exists() and registered.digest and not _holds(folder, registered.digest):
                shutil.rmtree(folder)
                attestation.envelope_of(folder).unlink(missing_ok=True)
            return self.registry.fetch(registered.version, folder, self.verify_key)

    def number(self, version: VersionId) -> str:
        """Return the number that a version has in the repository now.

        Raises:
            SpiraError: the repository does not have it.
        """
        digests = self.registry.champion_status()[2]
        if not version.digest or digests.get(version.number) == version.digest:
            return version.number
        for number, digest in digests.items():
            if digest == version.digest:
                return number
        raise SpiraError(
            f"version {version} (package {version.digest[:12]}) is not in the model repository, which was lost or "
            "replaced: restore it from a copy; the targets keep what they serve, and a new version replaces it"
        )

    def promote(self, version: VersionId, reason: str) -> None:
        """See :meth:`spira.registry.Registry.promote`."""
        self.registry.promote(self.number(version), reason or None)

    def roll_back(self, version: VersionId, reason: str) -> None:
        """See :meth:`spira.registry.Registry.rollback`."""
        self.registry.rollback(reason, int(self.number(version)))

    def run_page(self, run: str) -> str:
        """See :meth:`spira.registry.Registry.page_of`."""
        return self.registry.page_of(run)


def _holds(folder: Path, digest: str) -> bool:
    """Return whether a folder is the package of a digest; a folder with a link in it is none."""
    try:
        return package_digest(folder) == digest
    except PackageError:
        return False
