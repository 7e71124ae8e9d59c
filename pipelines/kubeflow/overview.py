"""The runs of an experiment in a table: the state of each, and the reason why it failed or waits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipelines.kubeflow.pods import Pods
from pipelines.kubeflow.runner import FindOutcome, list_runs, to_run
from pipelines.kubeflow.server import SECONDS, Server
from spira.delivery.runner import RunnerError

MAX_RUNS = 10
"""Number of the latest runs in the table, if no names are given."""


@dataclass(frozen=True)
class Line:
    """A run in the table."""

    name: str
    state: str
    begun: str
    """Date and time of its creation, UTC."""
    message: str
    """Verdict, error, or the reason why it waits."""


def runs(
    server: Server, names: list[str], find_outcome: FindOutcome | None = None, pods: Pods | None = None
) -> list[Line]:
    """Return the runs of these names, or the latest, the latest first.

    Args:
        find_outcome: Function that returns the outcome of a run from MLflow; None leaves verdicts out.

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
    begun = f"{detailed.created_at:%Y-%m-%d %H:%M}"
    if detailed.state == "SUCCEEDED" and find_outcome is None:
        return Line(detailed.display_name, "succeeded", begun, "give --mlflow to see the verdict")
    run = to_run(detailed, find_outcome or (lambda name: None), pods)
    message = run.message
    if run.state == "succeeded":
        message = f"approved, version {run.model_version}" if run.approved else "; ".join(run.reasons)
    return Line(detailed.display_name, run.state, begun, message)
