"""The runs of an experiment in a table: the verdict of each, or the reason why it failed or waits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pipelines.kubeflow.failures import branch
from pipelines.kubeflow.pods import Pods
from pipelines.kubeflow.runner import FindOutcome, list_runs, to_run
from pipelines.kubeflow.server import SECONDS, Server
from spira.delivery.runner import Run, RunnerError

MAX_RUNS = 10
"""Number of the latest runs in the table, if no names are given."""
NO_BRANCH = "Kubeflow reports success, but neither branch of the pipeline ran, and there is no verdict"
NO_MLFLOW = "the version and the reasons are in MLflow: give --mlflow URL"


@dataclass(frozen=True)
class Line:
    """A run in the table."""

    name: str
    state: Literal["running", "interrupted", "succeeded", "failed"]
    begun: str
    """Date and time of its creation, UTC."""
    message: str
    """Verdict, causes of a failure, or the reason why it waits; a line each."""


def runs(
    server: Server, names: list[str], find_outcome: FindOutcome | None = None, pods: Pods | None = None
) -> list[Line]:
    """Return the runs of these names, or the latest, the latest first.

    Args:
        find_outcome: Function that returns the outcome of a run from MLflow; None leaves versions and reasons out.

    Raises:
        RunnerError: There is no run of a name, or the server cannot be reached.
    """
    with server.explain_errors("runs cannot be listed"):
        listed = [run for run in reversed(list_runs(server)) if not names or run.display_name in names]
        if missing := set(names) - {run.display_name for run in listed}:
            raise RunnerError(f"no run {', '.join(sorted(missing))} in experiment {server.experiment}")
        call = server.client.runs.run_service_get_run
        chosen = listed if names else listed[:MAX_RUNS]
        detailed = [call(run_id=run.run_id, _request_timeout=SECONDS) for run in chosen]
    return [_line(run, find_outcome, pods) for run in detailed]


def _line(detailed: Any, find_outcome: FindOutcome | None, pods: Pods | None) -> Line:
    run = _finished(detailed, find_outcome) if detailed.state == "SUCCEEDED" else to_run(detailed, lambda _: None, pods)
    return Line(detailed.display_name, run.state, f"{detailed.created_at:%Y-%m-%d %H:%M}", run.message)


def _finished(detailed: Any, find_outcome: FindOutcome | None) -> Run:
    """Return a finished run with its verdict as the message.

    MLflow has the version and the reasons under the run's own name. The branch that ran has the verdict alone. It
    counts where MLflow has nothing of that name, as for a clone of a run whose pipeline took the name as a parameter.
    """
    verdict = branch(detailed)
    if find_outcome is None:
        return Run("succeeded", f"{verdict}; {NO_MLFLOW}") if verdict else Run("failed", NO_BRANCH)
    try:
        run = to_run(detailed, find_outcome, None)
    except RunnerError as error:
        return Run("succeeded", "; ".join(filter(None, [verdict, str(error)])))
    if run.state == "failed":
        message = f"{verdict}; MLflow has no run of this name" if verdict else NO_BRANCH
        return Run("succeeded" if verdict else "failed", message)
    if run.approved:
        return Run("succeeded", f"approved, version {run.model_version}")
    return Run("succeeded", f"rejected: {run.reasons[0]}" if run.reasons else "rejected")
