"""Schedules on a Kubeflow server, replaced where they differ from what is wanted.

Kubeflow can neither change a schedule nor move it to a new version of the pipeline. The wanted schedule is therefore
compared with the existing ones of its name. If they differ, the wanted schedule is created first and the others are
deleted after, so that nothing is lost if the server refuses the new one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kfp_server_api import ApiException

from pipelines.kubeflow.server import NOT_FOUND, SECONDS, Server
from pipelines.kubeflow.versions import PipelineVersion
from spira.errors import SpiraError

MAX_CONCURRENT_RUNS = 1
"""Number of runs of a schedule at a time: the next waits for the end of the last."""


@dataclass(frozen=True)
class Schedule:
    """A wanted schedule.

    Raises:
        SpiraError: ``cron`` does not have six fields, or the cache could answer runs although the data has changed.
    """

    name: str
    cron: str
    """Times in six fields, the first for seconds, UTC: ``0 30 3 * * *`` is 03:30 every night."""
    version: PipelineVersion
    arguments: dict[str, Any]
    service_account: str = ""
    """Service account of its pods; Kubeflow's default if empty."""

    def __post_init__(self) -> None:
        if len(self.cron.split()) != 6:
            raise SpiraError(f"--cron {self.cron!r}: give six fields, the first for seconds, such as '0 30 3 * * *'")
        if self.version.cached and not self.arguments.get("data_digest"):
            raise SpiraError(
                f"version {self.version.name} answers from the cache, and no digest pins the schedule's data: changed "
                "data would go unnoticed; give --image to upload a version without the cache, or --data-digest"
            )

    def body(self, experiment_id: str) -> dict[str, Any]:
        """Return the body of the request that creates the schedule."""
        reference = {"pipeline_id": self.version.pipeline_id, "pipeline_version_id": self.version.version_id}
        return {
            "display_name": self.name,
            "experiment_id": experiment_id,
            "pipeline_version_reference": reference,
            "runtime_config": {"parameters": self.arguments},
            "trigger": {"cron_schedule": {"cron": self.cron}},
            "max_concurrency": str(MAX_CONCURRENT_RUNS),
            "no_catchup": True,
            "mode": "ENABLE",
        } | ({"service_account": self.service_account} if self.service_account else {})


def check(server: Server, wanted: Schedule) -> list[str]:
    """Return the differences between the schedule on the server and the wanted one, a line each."""
    with server.explain_errors(f"schedule {wanted.name} cannot be looked up"):
        return _differences(_list_schedules(server, wanted.name), wanted)


def put(server: Server, wanted: Schedule) -> list[str]:
    """Replace the schedule on the server if it differs from the wanted one; return the differences, a line each."""
    with server.explain_errors(f"schedule {wanted.name} cannot be replaced"):
        existing = _list_schedules(server, wanted.name)
        differences = _differences(existing, wanted)
        equal = [schedule for schedule in existing if not _changes(schedule, wanted)][:1]
        if not equal:
            server.client.recurring_runs.recurring_run_service_create_recurring_run(
                recurring_run=wanted.body(server.get_or_create_experiment_id()), _request_timeout=SECONDS
            )
        _delete(server, [schedule for schedule in existing if schedule not in equal])
    return differences


def remove(server: Server, name: str) -> int:
    """Delete all schedules of a name and return their number; their runs stay."""
    with server.explain_errors(f"schedule {name} cannot be deleted"):
        existing = _list_schedules(server, name)
        _delete(server, existing)
    return len(existing)


def _list_schedules(server: Server, name: str) -> list[Any]:
    experiment = server.experiment_id()
    if experiment is None:
        return []
    call = server.client.recurring_runs.recurring_run_service_list_recurring_runs
    return server.list_all(call, "recurring_runs", name, experiment_id=experiment)


def _delete(server: Server, schedules: list[Any]) -> None:
    for schedule in schedules:
        try:
            server.client.recurring_runs.recurring_run_service_delete_recurring_run(
                recurring_run_id=schedule.recurring_run_id, _request_timeout=SECONDS
            )
        except ApiException as error:
            if error.status != NOT_FOUND:  # else another process has just deleted it
                raise


def _differences(existing: list[Any], wanted: Schedule) -> list[str]:
    if not existing:
        return ["there is no schedule of this name"]
    if len(existing) > 1:
        return [f"there are {len(existing)} schedules of this name"]
    return _changes(existing[0], wanted)


def _changes(existing: Any, wanted: Schedule) -> list[str]:
    """Return the fields in which an existing schedule differs, each with both values."""
    reference, trigger = existing.pipeline_version_reference, existing.trigger
    cron = trigger.cron_schedule if trigger else None
    arguments = (existing.runtime_config.parameters if existing.runtime_config else None) or {}
    account = existing.service_account or ""
    pairs = {
        "times": (cron.cron if cron else None, wanted.cron),
        "version": (reference.pipeline_version_id if reference else None, wanted.version.version_id),
        "concurrent runs": (int(existing.max_concurrency or 0), MAX_CONCURRENT_RUNS),
        "catch-up of missed runs": (not existing.no_catchup, False),
        "enabled": (existing.mode == "ENABLE", True),
        "service account": (account, wanted.service_account or account),
    }
    names = sorted({*arguments, *wanted.arguments})
    pairs |= {name: (arguments.get(name), wanted.arguments.get(name)) for name in names}
    return [f"{name}: {actual!r}, wanted {value!r}" for name, (actual, value) in pairs.items() if actual != value]
