"""A reconciler as the settings say: its ledger, runner, repository and targets."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from spira.delivery import look
from spira.delivery.ledger import Ledger
from spira.delivery.reconcile import Arms, Reconciler
from spira.delivery.repository import MLflowRepository
from spira.delivery.runner import Runner
from spira.delivery.settings import Settings
from spira.deployment import Target
from spira.storage import open_store


def ledger(settings: Settings) -> Ledger:
    """The ledger; every record tells the machine and process that wrote it."""
    return Ledger(open_store(settings.ledger), f"{platform.node()}:{os.getpid()}")


def reconciler(settings: Settings) -> Reconciler:
    """Everything connected; nothing is loaded or asked before it is needed."""
    book = ledger(settings)
    arms = Arms(
        look=lambda: look.look(settings, book.store),
        ledger=book,
        runner=_runner(settings),
        repository=MLflowRepository(settings.registry, Path(settings.work) / "models"),
        targets=_targets(settings),
        clock=lambda: datetime.now(UTC),
    )
    return Reconciler(arms, settings.policy)


def _runner(settings: Settings) -> Runner:
    from pipelines.runs import LocalRuns

    return LocalRuns(Path(settings.work), settings.registry)


def _targets(settings: Settings) -> list[Target]:
    from spira.deployment.local import Local

    return [Local(Path(target.serving)) for target in settings.targets]
