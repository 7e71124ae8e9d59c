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
from spira.delivery.ledger import Ledger
from spira.delivery.look import look
from spira.delivery.reconcile import Arms, Reconciler
from spira.delivery.repository import MLflowRepository
from spira.delivery.runner import Order, Run, Runner
from spira.delivery.settings import AnyTarget, InferenceServiceTarget, KServeTarget, Settings
from spira.deployment import DeploymentError, Plan, Release, Status, Target
from spira.storage import open_store

if TYPE_CHECKING:
    from pipelines.server import Server
    from pipelines.versions import Version


def ledger(settings: Settings) -> Ledger:
    """The ledger; every record tells the machine and process that wrote it."""
    return Ledger(open_store(settings.ledger), f"{platform.node()}:{os.getpid()}")


def repository(settings: Settings) -> MLflowRepository:
    """The model repository."""
    return MLflowRepository(settings.registry, Path(settings.work) / "models", settings.artifacts)


def reconciler(settings: Settings) -> Reconciler:
    """Everything together."""
    book, models = ledger(settings), repository(settings)
    runner, code = _runner(settings, models)
    arms = Arms(
        look=lambda: look(settings, book.store, code),
        ledger=book,
        runner=runner,
        repository=models,
        targets=[LateTarget(target.kind, partial(_target, target, settings)) for target in settings.targets],
        clock=lambda: datetime.now(UTC),
    )
    return Reconciler(arms, settings.policy)


def _runner(settings: Settings, models: MLflowRepository) -> tuple[Runner, Callable[[], Mapping[str, str]]]:
    """Who trains, and what the code is that it trains by."""
    if settings.kubeflow:
        there = OnKubeflow(Path(settings.kubeflow), models)
        return there, there.code
    from pipelines.runs import LocalRuns

    return LocalRuns(Path(settings.work), settings.registry), lineage.code_parts


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

    def start(self, order: Order) -> None:
        """See :class:`~spira.delivery.runner.Runner`; of the version that was looked at."""
        self._runner.start(order)

    @cached_property
    def _server(self) -> Server:
        from pipelines.cluster import load
        from pipelines.server import connect

        place = load(self.file)
        return connect(place.host, place.experiment)

    @cached_property
    def _version(self) -> Version:
        from pipelines.versions import latest

        return latest(self._server)

    @cached_property
    def _runner(self) -> Runner:
        from pipelines.cluster import load
        from pipelines.kubeflow import Kubeflow
        from pipelines.pods import Pods

        place = load(self.file)
        return Kubeflow(
            self._server,
            place,
            lambda: self._version,
            lambda run: self.models.registry.outcome(run),
            Pods.here(place.namespace),
        )


class LateTarget:
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


def _target(target: AnyTarget, settings: Settings) -> Target:
    if isinstance(target, KServeTarget):
        return _kserve(target, repository(settings))
    if isinstance(target, InferenceServiceTarget):
        return _inference_service(target, settings.registry)
    from spira.deployment.local import Local

    return Local(Path(target.serving))


def _kserve(target: KServeTarget, models: MLflowRepository) -> Target:
    from spira.deployment.cluster import Cluster
    from spira.deployment.kserve import KServe

    cluster = Cluster(target.namespace, target.context)
    return KServe(cluster, models.package, target.model, target.runtime, target.timeout_seconds)


def _inference_service(target: InferenceServiceTarget, registry: str) -> Target:
    from spira.deployment.inference_service import InferenceService
    from spira.deployment.service_contract import Service

    keys = [os.environ.get(name, "") for name in (target.access_key_variable, target.secret_key_variable)]
    if not all(keys):
        raise DeploymentError(f"set {target.access_key_variable} and {target.secret_key_variable} in the environment")
    service = Service(
        command=target.command,
        mlflow_uri=registry,
        nats_url=target.nats_url,
        minio=target.minio,
        access_key=keys[0],
        secret_key=keys[1],
        bucket=target.bucket,
        variables=target.variables,
    )
    return InferenceService(Path(target.folder), service)
