"""The model repository on MLflow, which is imported at first use."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from spira.delivery.decide import ChampionStatus
from spira.deployment.target import Release

if TYPE_CHECKING:
    from spira.registry import Registry


class MLflowRepository:
    """See :class:`spira.delivery.reconcile.Repository`.

    Args:
        uri: MLflow URL, or a folder for SQLite.
        folder: cache of downloaded packages, one folder a version.
    """

    def __init__(self, uri: str, folder: Path) -> None:
        self.uri, self.folder = uri, folder

    @cached_property
    def registry(self) -> Registry:
        """Connection to MLflow; the import takes 3 s."""
        from spira.registry import open_at

        return open_at(self.uri)

    def champion_status(self) -> ChampionStatus:
        """Return the champion and the versions that were rolled back.

        Creates the SQLite store if it does not exist, before a run needs it.
        """
        return ChampionStatus(*self.registry.champion_status())

    def release(self, version: str) -> Release:
        """Return a version with its package, downloaded at first use, and the URI of its artifacts."""
        return Release(version, self.package(version), self.registry.show(version).uri)

    def package(self, version: str) -> Path:
        """Return the folder of a version's package, downloaded at first use."""
        return self.registry.fetch(version, self.folder / version)

    def promote(self, version: str, reason: str) -> None:
        """See :meth:`spira.registry.Registry.promote`."""
        self.registry.promote(version, reason or None)

    def roll_back(self, version: str, reason: str) -> None:
        """See :meth:`spira.registry.Registry.rollback`."""
        self.registry.rollback(reason, int(version))
