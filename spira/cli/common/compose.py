"""Composition: the reconciler of a settings file, with its ledger, runner, repository and targets.

Every part connects at first use, so that an unreachable one does not prevent the use of the others.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from spira import lineage
from spira.data.pseudonyms import in_work
from spira.data.storage import open_store
from spira.delivery.history.ledger import Ledger
from spira.delivery.notices.send import Sender
from spira.delivery.observation.observe import observe
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

CodeParts = Callable[[], Mapping[str, str]]


def ledger(settings: Settings) -> Ledger:
    """Return the ledger; every record contains the machine and the process that wrote it."""
    writer = f"{platform.node()}:{os.getpid()}"
    return Ledger(open_store(settings.ledger), writer, in_work(Path(settings.work)))


def repository(settings: Settings) -> MLflowRepository:
    """Return the model repository."""
    return MLflowRepository(settings.registry, Path(settings.work) / "models", settings.verify_key)


def targets(settings: Settings, repository: MLflowRepository) -> list[LazyTarget]:
    """Return the deployment targets."""
    return [
        LazyTarget(target.kind, partial(connect, target, settings.registry, repository.package, settings.verify_key))
        for target in settings.targets
    ]


def reconciler(settings: Settings) -> Reconciler:
    """Return the reconciler with everything it depends on."""
    delivery_ledger, models = ledger(settings), repository(settings)
    runner, code_parts = _runner(settings, models)
    dependencies = Dependencies(
        observe=lambda: observe(settings, open_store(Path(settings.work)), code_parts),
        ledger=delivery_ledger,
        runner=runner,
        repository=models,
        targets=targets(settings, models),
        clock=lambda: datetime.now(UTC),
    )
    return Reconciler(dependencies, settings.policy)


def notice_sender(settings: Settings) -> Sender:
    """Return what sends notices, with a ledger of its own: it works in a thread."""
    from spira.delivery.notices.channels import ServiceProcess, channels

    return Sender(
        ledger=ledger(settings),
        find_channels=lambda: channels(settings.notices.urls_file),
        policy=settings.policy,
        links=settings.addresses,
        lasting=timedelta(minutes=settings.notices.lasting_minutes),
        clock=lambda: datetime.now(UTC),
        services=ServiceProcess(),
        language=settings.language,
    )


def _runner(settings: Settings, models: MLflowRepository) -> tuple[Runner, CodeParts]:
    """Return the runner, and a function that returns the parts of the code with which it trains."""
    if settings.kubeflow:
        return kubeflow_runner(Path(settings.kubeflow), models)
    from pipelines.local_runner import LocalRunner

    return LocalRunner(Path(settings.work), settings.registry, settings.verify_key), lineage.code_parts


def kubeflow_runner(path: Path, models: MLflowRepository) -> tuple[LazyRunner, CodeParts]:
    """Return the runner of a Kubeflow cluster.

    Its code is that of the pipeline version that was uploaded last, and not the sources of this process. The sizes of
    pods are no part of it, so a version that differs only in them causes no training. The version is looked up once, so
    that a run uses the version that was observed.

    Args:
        path: Kubeflow settings.
    """

    @cache
    def server() -> Server:
        from pipelines.kubeflow.server import connect
        from pipelines.kubeflow.settings import load

        cluster = load(path)
        return connect(cluster.host, cluster.experiment)

    @cache
    def version() -> PipelineVersion:
        from pipelines.kubeflow.versions import latest

        return latest(server(), cached=True)  # the digest of an observation pins the data

    def connect_runner() -> Runner:
        from pipelines.kubeflow.pods import Pods
        from pipelines.kubeflow.runner import Kubeflow
        from pipelines.kubeflow.settings import load

        # Without the target: the reconciler deploys, after the verdict is in the ledger. It also notifies.
        cluster = load(path).model_copy(update={"target": None, "notify_url": ""})
        return Kubeflow(
            server(), cluster, version, lambda run: models.registry.outcome(run), Pods.here(cluster.namespace)
        )

    # An earlier program compiled no digest of the code into a version; its name is a digest of its content.
    return LazyRunner(connect_runner), lambda: {"pipeline": version().code_digest or version().name}


class LazyRunner:
    """A runner that connects at first use."""

    def __init__(self, connect: Callable[[], Runner]) -> None:
        self.connect = connect

    @cached_property
    def runner(self) -> Runner:
        return self.connect()

    def find(self, name: str) -> Run | None:
        """See :class:`~spira.delivery.runner.Runner`."""
        return self.runner.find(name)

    def start(self, request: TrainingRequest) -> None:
        """See :class:`~spira.delivery.runner.Runner`."""
        self.runner.start(request)

    def cancel(self, name: str) -> None:
        """See :class:`~spira.delivery.runner.Runner`."""
        self.runner.cancel(name)


class LazyTarget:
    """A target that connects at first use; see :class:`spira.deployment.target.Target`."""

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
