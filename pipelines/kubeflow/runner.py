"""Runs on a Kubeflow cluster, by name: an order is one run there, whoever gives it and however often.

Kubeflow takes any number of runs of one name. So a run is looked for before it is created, and again after: of
several that were created at once, or whose answer got lost on the way, the first stays and the others are deleted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import urllib3
from kfp_server_api import ApiException

from pipelines.kubeflow.failures import failure
from pipelines.kubeflow.pods import Pods
from pipelines.kubeflow.server import NOT_FOUND, SECONDS, Server, unreachable
from pipelines.kubeflow.settings import KubeflowSettings
from pipelines.kubeflow.versions import PipelineVersion
from spira.delivery.runner import Run, RunnerError
from spira.delivery.training_request import TrainingRequest
from spira.errors import SpiraError

if TYPE_CHECKING:
    from spira.registry import Outcome

FAILED = ("FAILED", "CANCELED", "SKIPPED")
HEADLINE = "noisy.by_file."
"""How the metrics of the paper's test begin."""

Verdict = Callable[[str], "Outcome | None"]
"""The outcome of a run by its name, such as :meth:`spira.registry.Registry.outcome`."""


class Kubeflow:
    """See :class:`spira.delivery.runner.Runner`.

    Args:
        version: gives the pipeline version that a new run is of, such as ``lambda: versions.latest(server)``.
        pods: for saying why a run doesn't get on, or failed; None where Kubernetes can't be asked.
    """

    def __init__(
        self,
        server: Server,
        cluster: KubeflowSettings,
        version: Callable[[], PipelineVersion],
        verdict: Verdict,
        pods: Pods | None = None,
    ) -> None:
        self.server, self.cluster, self.version, self.verdict, self.pods = server, cluster, version, verdict, pods

    def find(self, name: str) -> Run | None:
        """See :class:`~spira.delivery.runner.Runner`."""
        with self.server.asked(f"run {name} can't be looked up"):
            runs = runs_of(self.server, name)
            if not runs:
                return None
            run = self.server.client.runs.run_service_get_run(run_id=runs[0].run_id, _request_timeout=SECONDS)
        return told(run, self.verdict, self.pods)

    def start(self, request: TrainingRequest) -> None:
        """See :class:`~spira.delivery.runner.Runner`."""
        with self.server.asked(f"run {request.name} can't be begun"):
            if not runs_of(self.server, request.name):
                self._create(request)
            for run in runs_of(self.server, request.name)[1:]:
                self._delete(run.run_id)

    def _create(self, request: TrainingRequest) -> None:
        version = self.version()
        reference = {"pipeline_id": version.pipeline_id, "pipeline_version_id": version.version_id}
        body = {
            "display_name": request.name,
            "experiment_id": self.server.made_experiment_id(),
            "pipeline_version_reference": reference,
            "runtime_config": {"parameters": self.cluster.arguments(request, version)},
        }
        try:
            self.server.client.runs.run_service_create_run(run=body, _request_timeout=SECONDS)
        except (urllib3.exceptions.HTTPError, OSError) as error:  # it may be there all the same
            if not runs_of(self.server, request.name):
                cause = unreachable(self.server.host, error)
                raise RunnerError(f"run {request.name} may not have begun, order it again: {cause}") from error

    def _delete(self, run_id: str) -> None:
        try:
            self.server.client.runs.run_service_delete_run(run_id=run_id, _request_timeout=SECONDS)
        except ApiException as error:
            if error.status != NOT_FOUND:  # another process has just deleted it
                raise


def runs_of(server: Server, name: str = "") -> list[Any]:
    """The runs of a name, or all, in the order in which they were created; archived ones too."""
    experiment = server.experiment_id()
    if experiment is None:
        return []
    found = server.all(server.client.runs.run_service_list_runs, "runs", name, experiment_id=experiment)
    return sorted(found, key=lambda run: (run.created_at, run.run_id))


def told(run: Any, verdict: Verdict, pods: Pods | None) -> Run:
    """What became of a run of Kubeflow's, given in full.

    Raises:
        RunnerError: its verdict can't be asked for.
    """
    if run.state == "SUCCEEDED":
        return _judged(run.display_name, verdict)
    if run.state in FAILED:
        reasons = [pods.said(run.run_id) if pods else "", failure(run)]
        return Run("failed", "\n".join(filter(None, reasons)) or f"Kubeflow says {run.state}, and no more")
    return Run("running", (pods.waiting(run.run_id) if pods else "") or (run.state or "PENDING").lower())


def _judged(name: str, verdict: Verdict) -> Run:
    """A gate that can't be read never looks like a success: Kubeflow may skip a branch in silence."""
    try:
        outcome = verdict(name)
    except SpiraError as error:
        raise RunnerError(f"the verdict of run {name} can't be asked for: {error}") from error
    if outcome is None:
        return Run("failed", f"Kubeflow calls {name} a success, yet MLflow has no verdict of it: it counts as failed")
    metrics = {name.removeprefix(HEADLINE): value for name, value in outcome.metrics.items() if HEADLINE in name}
    return Run(
        "succeeded",
        approved=outcome.approved,
        reasons=outcome.reasons,
        model_version=outcome.model_version,
        metrics={name: value for name, value in metrics.items() if "." not in name},
    )
