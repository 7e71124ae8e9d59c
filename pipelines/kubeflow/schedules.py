"""A schedule on a Kubeflow server, made to be as it is wanted: Kubeflow can't change one, nor move it to a new version.

What is wanted is compared with what is there; where they differ, the wanted schedule is created and the others of
its name are deleted, in that order, so that a schedule which the server refuses costs none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kfp_server_api import ApiException

from pipelines.kubeflow.server import NOT_FOUND, SECONDS, Server
from pipelines.kubeflow.versions import PipelineVersion
from spira.errors import SpiraError

AT_ONCE = 1
"""Runs of a schedule: the next waits for the last."""


@dataclass(frozen=True)
class Schedule:
    """A schedule as it is wanted.

    Raises:
        SpiraError: the times are not in Kubeflow's form, or its runs would be answered from the cache though their
            data may have changed.
    """

    name: str
    cron: str
    """Six fields, the first for seconds: ``0 30 3 * * *`` is half past three every night, UTC."""
    version: PipelineVersion
    arguments: dict[str, Any]
    service_account: str = ""
    """Of its pods; Kubeflow's own if empty."""

    def __post_init__(self) -> None:
        if len(self.cron.split()) != 6:
            raise SpiraError(f"times {self.cron!r}: six fields are needed, the first for seconds: '0 30 3 * * *'")
        if self.version.cached and not self.arguments.get("data_digest"):
            raise SpiraError(
                f"version {self.version.name} answers from the cache, and the schedule's data isn't pinned: changed "
                "data would go unnoticed; give --image, which uploads a version that doesn't, or --data-digest"
            )

    def body(self, experiment_id: str) -> dict[str, Any]:
        """As Kubeflow is told."""
        reference = {"pipeline_id": self.version.pipeline_id, "pipeline_version_id": self.version.version_id}
        return {
            "display_name": self.name,
            "experiment_id": experiment_id,
            "pipeline_version_reference": reference,
            "runtime_config": {"parameters": self.arguments},
            "trigger": {"cron_schedule": {"cron": self.cron}},
            "max_concurrency": str(AT_ONCE),
            "no_catchup": True,
            "mode": "ENABLE",
        } | ({"service_account": self.service_account} if self.service_account else {})


def check(server: Server, wanted: Schedule) -> list[str]:
    """What is not as it is wanted, line by line; empty where all is."""
    with server.asked(f"schedule {wanted.name} can't be looked up"):
        return _differences(_there(server, wanted.name), wanted)


def put(server: Server, wanted: Schedule) -> list[str]:
    """Make it so; what was not as it is wanted, line by line."""
    with server.asked(f"schedule {wanted.name} can't be put right"):
        there = _there(server, wanted.name)
        differences = _differences(there, wanted)
        right = [each for each in there if not _changes(each, wanted)][:1]
        if not right:
            server.client.recurring_runs.recurring_run_service_create_recurring_run(
                recurring_run=wanted.body(server.made_experiment_id()), _request_timeout=SECONDS
            )
        _delete(server, [each for each in there if each not in right])
    return differences


def remove(server: Server, name: str) -> int:
    """Delete all schedules of a name, and count them; their runs stay."""
    with server.asked(f"schedule {name} can't be deleted"):
        there = _there(server, name)
        _delete(server, there)
    return len(there)


def _there(server: Server, name: str) -> list[Any]:
    experiment = server.experiment_id()
    if experiment is None:
        return []
    call = server.client.recurring_runs.recurring_run_service_list_recurring_runs
    return server.all(call, "recurring_runs", name, experiment_id=experiment)


def _delete(server: Server, schedules: list[Any]) -> None:
    for each in schedules:
        try:
            server.client.recurring_runs.recurring_run_service_delete_recurring_run(
                recurring_run_id=each.recurring_run_id, _request_timeout=SECONDS
            )
        except ApiException as error:
            if error.status != NOT_FOUND:  # another process has just deleted it
                raise


def _differences(there: list[Any], wanted: Schedule) -> list[str]:
    if not there:
        return ["there is no such schedule"]
    if len(there) > 1:
        return [f"there are {len(there)} of this name"]
    return _changes(there[0], wanted)


def _changes(there: Any, wanted: Schedule) -> list[str]:
    """In what one differs, each as it is and as it is wanted."""
    reference, cron = there.pipeline_version_reference, there.trigger.cron_schedule if there.trigger else None
    given = (there.runtime_config.parameters if there.runtime_config else None) or {}
    pairs = {
        "times": (cron.cron if cron else None, wanted.cron),
        "version": (reference.pipeline_version_id if reference else None, wanted.version.version_id),
        "runs at once": (int(there.max_concurrency or 0), AT_ONCE),
        "catching up": (not there.no_catchup, False),
        "enabled": (there.mode == "ENABLE", True),
        "service account": (there.service_account or "", wanted.service_account or there.service_account or ""),
    }
    pairs |= {name: (given.get(name), wanted.arguments.get(name)) for name in sorted({*given, *wanted.arguments})}
    return [f"{name}: {was!r}, wanted {want!r}" for name, (was, want) in pairs.items() if was != want]
