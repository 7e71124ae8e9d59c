"""The model repository as delivery uses it: MLflow, loaded when it is first asked."""

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
        folder: where fetched packages are kept.
    """

    def __init__(self, uri: str, folder: Path) -> None:
        self.uri, self.folder = uri, folder

    @cached_property
    def registry(self) -> Registry:
        """Connected at first use, which loads MLflow (3 s)."""
        from spira.registry import open_at

        return open_at(self.uri)

    def champion_status(self) -> ChampionStatus:
        """Who is champion, and who is held; makes the store where there is none, before any run could."""
        return ChampionStatus(*self.registry.champion_status())

    def release(self, version: str) -> Release:
        """The version's package, fetched once, and the place of its artifacts."""
        return Release(version, self.package(version), self.registry.show(version).uri)

    def package(self, version: str) -> Path:
        """A version's package, fetched once."""
        return self.registry.fetch(version, self.folder / version)

    def promote(self, version: str, reason: str) -> None:
        """See :meth:`spira.registry.Registry.promote`."""
        self.registry.promote(version, reason or None)

    def roll_back(self, bad: str, reason: str) -> None:
        """See :meth:`spira.registry.Registry.rollback`."""
        self.registry.rollback(reason, int(bad))
