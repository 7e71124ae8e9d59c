"""The runs of an experiment at a glance: how far each is, and why one failed or doesn't get on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipelines.kubeflow.pods import Pods
from pipelines.kubeflow.runner import Verdict, runs_of, told
from pipelines.kubeflow.server import SECONDS, Server
from spira.delivery.runner import RunnerError

LATEST = 10


@dataclass(frozen=True)
class Line:
    """A run."""

    name: str
    state: str
    begun: str
    message: str


def runs(server: Server, names: list[str], verdict: Verdict | None = None, pods: Pods | None = None) -> list[Line]:
    """The runs of these names, or the latest ones; the latest first.

    Args:
        verdict: tells what came of a success; None where that isn't asked.

    Raises:
        RunnerError: there is no run of a name, or the server can't be asked.
    """
    with server.asked("the runs can't be listed"):
        found = [run for run in reversed(runs_of(server)) if not names or run.display_name in names]
        if missing := set(names) - {run.display_name for run in found}:
            raise RunnerError(f"no run {', '.join(sorted(missing))} in experiment {server.experiment}")
        call = server.client.runs.run_service_get_run
        chosen = found if names else found[:LATEST]
        whole = [call(run_id=run.run_id, _request_timeout=SECONDS) for run in chosen]
    return [_line(run, verdict, pods) for run in whole]


def _line(run: Any, verdict: Verdict | None, pods: Pods | None) -> Line:
    begun = f"{run.created_at:%Y-%m-%d %H:%M}"
    if run.state == "SUCCEEDED" and verdict is None:
        return Line(run.display_name, "succeeded", begun, "--mlflow tells its verdict")
    became = told(run, verdict or (lambda name: None), pods)
    message = became.message
    if became.state == "succeeded":
        message = f"approved, version {became.model_version}" if became.approved else "; ".join(became.reasons)
    return Line(run.display_name, became.state, begun, message)
