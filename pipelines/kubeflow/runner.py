"""Runs on a Kubeflow cluster, by name: one training request is one run, however often and by whomever it is started.

Kubeflow accepts any number of runs of one name. A run is therefore looked up before it is created, and again after. If
several were created at once, or a response was lost, the first run stays and the others are deleted.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import urllib3
from kfp_server_api import ApiException

from pipelines.kubeflow.failures import failed_tasks, run_error, running_tasks, to_text
from pipelines.kubeflow.pods import PodReport, Pods
from pipelines.kubeflow.server import NOT_FOUND, SECONDS, Server, unreachable
from pipelines.kubeflow.settings import KubeflowSettings
from pipelines.kubeflow.versions import PipelineVersion
from pipelines.parameters import describe
from spira.delivery.runner import Run, RunnerError
from spira.delivery.training_request import TrainingRequest
from spira.errors import SpiraError

if TYPE_CHECKING:
    from spira.registry import Outcome

FAILED_STATES = ("FAILED", "SKIPPED")
ENDING_STATES = ("SUCCEEDED", *FAILED_STATES, "CANCELED", "CANCELING")
"""States of a run that has ended, or that somebody has terminated."""
ORPHAN = (
    "(but it has no pods: if kubectl's context is Kubeflow's cluster, its schedule or workflow was deleted; "
    "terminate it in the dashboard)"
)
"""Note on a run that lost its workflow; Kubeflow leaves it RUNNING."""
MAX_START = timedelta(minutes=5)
"""Time in which a new run gets its first pod."""

FindOutcome = Callable[[str], "Outcome | None"]
"""A function that returns the outcome of a run by its name, such as :meth:`spira.registry.Registry.outcome`."""


class Kubeflow:
    """A runner on Kubeflow; see :class:`spira.delivery.runner.Runner`.

    Args:
        server: Connected server.
        cluster: Settings of the cluster.
        version: Function that returns the pipeline version of a new run, such as ``lambda: versions.latest(server)``.
        find_outcome: Function that returns the outcome of a run from MLflow.
        pods: Pods of the runs, for the reason why a run waits or failed; None where Kubernetes cannot be reached.
    """

    def __init__(
        self,
        server: Server,
        cluster: KubeflowSettings,
        version: Callable[[], PipelineVersion],
        find_outcome: FindOutcome,
        pods: Pods | None = None,
    ) -> None:
        self.server, self.cluster, self.version = server, cluster, version
        self.find_outcome, self.pods = find_outcome, pods

    def find(self, name: str) -> Run | None:
        """See :class:`~spira.delivery.runner.Runner`."""
        with self.server.explain_errors(f"run {name} cannot be looked up"):
            runs = list_runs(self.server, name)
            if not runs:
                return None
            run = self.server.client.runs.run_service_get_run(run_id=runs[0].run_id, _request_timeout=SECONDS)
        return to_run(run, self.find_outcome, self.pods)

    def start(self, request: TrainingRequest) -> None:
        """See :class:`~spira.delivery.runner.Runner`."""
        with self.server.explain_errors(f"run {request.name} cannot be started"):
            if not list_runs(self.server, request.name):
                self._create(request)
            for run in list_runs(self.server, request.name)[1:]:
                self._delete(run.run_id)

    def cancel(self, name: str) -> None:
        """See :class:`~spira.delivery.runner.Runner`; Kubeflow then takes its time to end the pods."""
        with self.server.explain_errors(f"run {name} cannot be terminated"):
            for run in list_runs(self.server, name):
                if run.state not in ENDING_STATES:
                    self._terminate(run.run_id)

    def _terminate(self, run_id: str) -> None:
        api = self.server.client.runs
        try:
            api.run_service_terminate_run(run_id=run_id, _request_timeout=SECONDS)
        except ApiException:  # also if the run has just ended
            run = api.run_service_get_run(run_id=run_id, _request_timeout=SECONDS)
            if run.state not in ENDING_STATES:
                raise

    def _create(self, request: TrainingRequest) -> None:
        version = self.version()
        reference = {"pipeline_id": version.pipeline_id, "pipeline_version_id": version.version_id}
        body = {
            "display_name": request.name,
            "description": describe(request),
            "experiment_id": self.server.get_or_create_experiment_id(),
            "pipeline_version_reference": reference,
            "runtime_config": {"parameters": self.cluster.arguments(request, version)},
        }
        try:
            self.server.client.runs.run_service_create_run(run=body, _request_timeout=SECONDS)
        except (urllib3.exceptions.HTTPError, OSError) as error:  # the run may exist all the same
            if not list_runs(self.server, request.name):
                cause = unreachable(self.server.host, error)
                raise RunnerError(f"run {request.name} may not have started; submit it again: {cause}") from error

    def _delete(self, run_id: str) -> None:
        try:
            self.server.client.runs.run_service_delete_run(run_id=run_id, _request_timeout=SECONDS)
        except ApiException as error:
            if error.status != NOT_FOUND:  # else another process has just deleted it
                raise


def list_runs(server: Server, name: str = "") -> list[Any]:
    """Return the runs of a name, or all, in the order of their creation; archived runs too."""
    experiment = server.experiment_id()
    if experiment is None:
        return []
    runs = server.list_all(server.client.runs.run_service_list_runs, "runs", name, experiment_id=experiment)
    return sorted(runs, key=lambda run: (run.created_at, run.run_id))


def to_run(run: Any, find_outcome: FindOutcome, pods: Pods | None) -> Run:
    """Return the state and result of a run.

    Args:
        run: Run with its details, as Kubeflow's call for a single run returns it.

    Raises:
        RunnerError: The verdict of the run cannot be read.
    """
    if run.state == "SUCCEEDED":
        return _with_outcome(run.display_name, find_outcome)
    if run.state == "CANCELED":
        return Run("failed", "a person terminated the run in Kubeflow")
    report = pods.report(run.run_id) if pods else PodReport()
    if run.state in FAILED_STATES:
        return Run("failed", _failure(run, report))
    return Run("running", _progress(run, report))


def _failure(run: Any, report: PodReport) -> str:
    """Return the causes of a failed run: those of its pods, else its own error, else the names of failed tasks."""
    pods = "are gone" if report.count is not None else "cannot be read from here"
    reason = (
        to_text(report.failed)
        or run_error(run)
        or to_text(failed_tasks(run, f"its pods, which have the cause, {pods}"))
    )
    return "\n".join(filter(None, [reason or f"Kubeflow gives no reason for state {run.state}", report.note]))


def _progress(run: Any, report: PodReport) -> str:
    """Return why a run makes no progress, or the names of the tasks that run, or its state."""
    if report.waiting:
        return to_text(report.waiting)
    state = (run.state or "PENDING").lower()
    names = running_tasks(run)
    is_orphan = report.count == 0 and run.state == "RUNNING" and datetime.now(UTC) - run.created_at > MAX_START
    note = report.note or (ORPHAN if is_orphan else "")
    return " ".join(filter(None, [f"{state}: {', '.join(names)}" if names else state, note]))


def _with_outcome(name: str, find_outcome: FindOutcome) -> Run:
    try:
        outcome = find_outcome(name)
    except SpiraError as error:
        raise RunnerError(f"the verdict of run {name} cannot be read: {error}") from error
    if outcome is None:  # Kubeflow skips a branch whose condition it cannot read, and reports success
        return Run("failed", f"Kubeflow reports that {name} succeeded, but MLflow has no verdict of it: it has failed")
    return Run(
        "succeeded",
        approved=outcome.approved,
        reasons=outcome.reasons,
        model_version=outcome.model_version,
        metrics=outcome.metrics,
    )
