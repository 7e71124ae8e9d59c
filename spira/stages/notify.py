"""The notify stage: the notice that a run has ended, with its verdict."""

from __future__ import annotations

import json
import logging
from typing import Literal

from spira.errors import SpiraError
from spira.stage_logging import StageResult, stage

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10
FAILED_STATES = ("FAILED", "CANCELLED", "CANCELED", "ERROR")
"""Kubeflow's states of a run that failed. All other states are of a run that has ended, RUNNING too: Kubeflow 2.17
reports COMPLETE for a success, and RUNNING if the cache answered all trainings or a person terminated the run."""

State = Literal["SUCCEEDED", "REJECTED", "FAILED", "ENDED"]
"""How a run ended: its model was approved, its model was rejected, it failed, or its verdict cannot be read."""


@stage
def notify(run: str, state: str, message: str, url: str, *, registry_uri: str) -> StageResult:
    """Log how a run ended, and post it to a URL. A post that fails is logged and does not fail the run.

    Args:
        run: name of the run, under which MLflow has its verdict.
        state: state of the run as Kubeflow reports it.
        message: reason of a failure, as far as Kubeflow knows it.
        url: receiver of a JSON object with run, state (see :data:`State`) and message; empty for none.
        registry_uri: MLflow URL, or a folder for SQLite.
    """
    import urllib.request
    from http.client import HTTPException

    ended, message = _result(run, state, message, registry_uri)
    log.info("notify: %s %s: %s", run, ended.lower(), message.removeprefix(f"{ended.lower()}: "))
    if url:
        notice = json.dumps({"run": run, "state": ended, "message": message}).encode()
        try:
            request = urllib.request.Request(url, notice, {"Content-Type": "application/json"})
            urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS).close()
        except (OSError, HTTPException, ValueError) as error:
            log.warning("notify: the notice was not delivered to %s: %s", url, error)
    return StageResult()


def _result(run: str, state: str, message: str, registry_uri: str) -> tuple[State, str]:
    """Return the state of a run that has ended, and its verdict or the reason of its failure."""
    ended, verdict = _verdict(run, registry_uri)
    if state in FAILED_STATES:
        reason = message or "Kubeflow gives no reason; see spira pipeline status"
        return "FAILED", f"{reason} ({verdict})" if verdict else reason
    if ended == "FAILED":
        return ended, message or "the run ended without a verdict, for example because a person terminated it"
    return ended, verdict


def _verdict(run: str, registry_uri: str) -> tuple[State, str]:
    """Return the state of a run by its verdict in MLflow, and the verdict as text; FAILED and no text without one."""
    from spira.registry import open_at

    try:
        outcome = open_at(registry_uri).outcome(run)
    except SpiraError as error:
        return "ENDED", f"the verdict cannot be read: {error}"
    if outcome is None:
        return "FAILED", ""
    if outcome.approved:
        return "SUCCEEDED", f"approved, version {outcome.model_version}"
    return "REJECTED", f"rejected: {'; '.join(outcome.reasons)}"
