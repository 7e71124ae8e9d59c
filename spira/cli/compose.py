"""A reconciler as the settings say: its ledger, runner, repository and targets, each connected when first asked."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from spira import lineage
from spira.data.storage import open_store
from spira.delivery.ledger import Ledger
from spira.delivery.observe import look
from spira.delivery.reconcile import Dependencies, Reconciler
from spira.delivery.repository import MLflowRepository
from spira.delivery.runner import Run, Runner
from spira.delivery.settings import Settings
from spira.delivery.training_request import TrainingRequest
from spira.deployment.target import Plan, Release, Status, Target
from spira.deployment.targets import connect

if TYPE_CHECKING:
    from pipelines.kubeflow.server import Server
    from pipelines.kubeflow.versions import PipelineVersion


def ledger(settings: Settings) -> Ledger:
    """The ledger; every record tells the machine and process that wrote it."""
    return Ledger(open_store(settings.ledger), f"{platform.node()}:{os.getpid()}")


def repository(settings: Settings) -> MLflowRepository:
    """The model repository."""
    return MLflowRepository(settings.registry, Path(settings.work) / "models")


def targets(settings: Settings, models: MLflowRepository) -> list[LazyTarget]:
    """Where it serves."""
    return [
        LazyTarget(target.kind, partial(connect, target, settings.registry, models.package))
        for target in settings.targets
    ]


def reconciler(settings: Settings) -> Reconciler:
    """Everything together."""
    book, models = ledger(settings), repository(settings)
    runner, code = _runner(settings, models)
    dependencies = Dependencies(
        look=lambda: look(settings, book.store, code),
        ledger=book,
        runner=runner,
        repository=models,
        targets=targets(settings, models),
        clock=lambda: datetime.now(UTC),
    )
    return Reconciler(dependencies, settings.policy)


def _runner(settings: Settings, models: MLflowRepository) -> tuple[Runner, Callable[[], Mapping[str, str]]]:
    """Who trains, and what the code is that it trains by."""
    if settings.kubeflow:
        there = OnKubeflow(Path(settings.kubeflow), models)
        return there, there.code
    from pipelines.local_runner import LocalRunner

    return LocalRunner(Path(settings.work), settings.registry), lineage.code_parts


class OnKubeflow:
    """Kubeflow as a runner; the code is the pipeline version that was uploaded last, its images by digest."""

    def __init__(self, cluster: Path, models: MLflowRepository) -> None:
        self.file, self.models = cluster, models

    def code(self) -> dict[str, str]:
        """The version by its name, which is the digest of its content."""
        return {"pipeline": self._version.name}

    def find(self, name: str) -> Run | None:
        """See :class:`~spira.delivery.runner.Runner`."""
        return self._runner.find(name)

    def start(self, request: TrainingRequest) -> None:
        """See :class:`~spira.delivery.runner.Runner`; of the version that was looked at."""
        self._runner.start(request)

    @cached_property
    def _server(self) -> Server:
        from pipelines.kubeflow.server import connect
        from pipelines.kubeflow.settings import load

        place = load(self.file)
        return connect(place.host, place.experiment)

    @cached_property
    def _version(self) -> PipelineVersion:
        from pipelines.kubeflow.versions import latest

        return latest(self._server)

    @cached_property
    def _runner(self) -> Runner:
        from pipelines.kubeflow.pods import Pods
        from pipelines.kubeflow.runner import Kubeflow
        from pipelines.kubeflow.settings import load

        place = load(self.file).model_copy(update={"target": None})  # the reconciler deploys, once the ledger says so
        return Kubeflow(
            self._server,
            place,
            lambda: self._version,
            lambda run: self.models.registry.outcome(run),
            Pods.here(place.namespace),
        )


class LazyTarget:
    """A target that is connected when it is first asked: one that is away is no trouble of the others."""

    def __init__(self, name: str, connect: Callable[[], Target]) -> None:
        self.name, self.connect = name, connect

    @cached_property
    def _target(self) -> Target:
        return self.connect()

    def status(self) -> Status:
        return self._target.status()

    def plan(self, release: Release) -> Plan:
        return self._target.plan(release)

    def apply(self, release: Release) -> Status:
        return self._target.apply(release)

    def verify(self) -> float:
        return self._target.verify()

    def rollback(self, reason: str, bad: str | None = None) -> Status:
        return self._target.rollback(reason, bad)
