"""Schedules on a Kubeflow server, replaced where they differ from what is wanted.

A schedule of the training pipeline names no version: each of its runs takes the latest one, so an upload needs no
change of the schedule. Only in such runs, Kubeflow gives the tasks the name of their run.

Kubeflow cannot change a schedule. If the existing ones of a name differ from the wanted one, the wanted one is created
first, so that nothing is lost if the server refuses it, and the others are disabled. They are deleted once no run of
theirs is active, by this or a later call: with a schedule, Kubeflow deletes the pods and logs of its runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kfp_server_api import ApiException

from pipelines.kubeflow.runner import list_runs
from pipelines.kubeflow.server import NOT_FOUND, SECONDS, Server
from pipelines.kubeflow.versions import PipelineVersion
from spira.errors import SpiraError

MAX_CONCURRENT_RUNS = 1
"""Number of runs of a schedule at a time: the next waits for the end of the last."""
ENABLED = "ENABLE"
LATEST = "the latest"
ENDED_STATES = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
"""Kubeflow's states of a run that is no longer active."""


@dataclass(frozen=True)
class Schedule:
    """A wanted schedule.

    Raises:
        SpiraError: ``cron`` does not have six fields.
    """

    name: str
    cron: str
    """Times in six fields, the first for seconds, UTC: ``0 30 3 * * *`` is 03:30 every night."""
    version: PipelineVersion
    """Version that the arguments are for; the latest one if ``pinned`` is False."""
    arguments: dict[str, Any]
    service_account: str = ""
    """Service account of its pods; Kubeflow's default if empty."""
    pinned: bool = False
    """Whether its runs stay on that version. They do not know their own name then, which a tick does not need."""

    def __post_init__(self) -> None:
        if len(self.cron.split()) != 6:
            raise SpiraError(f"--cron {self.cron!r}: give six fields, the first for seconds, such as '0 30 3 * * *'")

    def body(self, experiment_id: str) -> dict[str, Any]:
        """Return the body of the request that creates the schedule."""
        reference = {"pipeline_id": self.version.pipeline_id}
        reference |= {"pipeline_version_id": self.version.version_id} if self.pinned else {}
        return {
            "display_name": self.name,
            "experiment_id": experiment_id,
            "pipeline_version_reference": reference,
            "runtime_config": {"parameters": self.arguments},
            "trigger": {"cron_schedule": {"cron": self.cron}},
            "max_concurrency": str(MAX_CONCURRENT_RUNS),
            "no_catchup": True,
            "mode": ENABLED,
        } | ({"service_account": self.service_account} if self.service_account else {})


@dataclass(frozen=True)
class Change:
    """Result of a call that changed schedules."""

    differences: list[str]
    """Differences that it removed, a line each."""
    deleted: int
    """Number of schedules that it deleted."""
    retained: int
    """Number of disabled schedules that remain because a run of theirs is active; a later call deletes them."""


def check(server: Server, wanted: Schedule) -> list[str]:
    """Return the differences between the schedule on the server and the wanted one, a line each."""
    with server.explain_errors(f"schedule {wanted.name} cannot be looked up"):
        return _differences(_list_schedules(server, wanted.name), wanted)


def put(server: Server, wanted: Schedule) -> Change:
    """Replace the schedule on the server if it differs from the wanted one."""
    with server.explain_errors(f"schedule {wanted.name} cannot be replaced"):
        existing = _list_schedules(server, wanted.name)
        differences = _differences(existing, wanted)
        equal = [schedule for schedule in existing if not _changes(schedule, wanted)][:1]
        if not equal:
            server.client.recurring_runs.recurring_run_service_create_recurring_run(
                recurring_run=wanted.body(server.get_or_create_experiment_id()), _request_timeout=SECONDS
            )
        deleted, retained = _retire(server, [schedule for schedule in existing if schedule not in equal])
    return Change(differences, deleted, retained)


def remove(server: Server, name: str) -> Change:
    """Disable all schedules of a name, and delete those without an active run."""
    with server.explain_errors(f"schedule {name} cannot be deleted"):
        deleted, retained = _retire(server, _list_schedules(server, name))
    return Change([], deleted, retained)


def _retire(server: Server, schedules: list[Any]) -> tuple[int, int]:
    """Disable schedules and delete those without an active run; return the numbers of deleted and retained ones."""
    for schedule in schedules:
        if schedule.mode == ENABLED:
            _call_unless_gone(server.client.recurring_runs.recurring_run_service_disable_recurring_run, schedule)
    # listed after the schedules were disabled, so that none of them can start another run
    runs = list_runs(server) if schedules else []
    active = {run.recurring_run_id for run in runs if run.state not in ENDED_STATES}
    idle = [schedule for schedule in schedules if schedule.recurring_run_id not in active]
    for schedule in idle:
        _call_unless_gone(server.client.recurring_runs.recurring_run_service_delete_recurring_run, schedule)
    return len(idle), len(schedules) - len(idle)


def _list_schedules(server: Server, name: str) -> list[Any]:
    experiment = server.experiment_id()
    if experiment is None:
        return []
    call = server.client.recurring_runs.recurring_run_service_list_recurring_runs
    return server.list_all(call, "recurring_runs", name, experiment_id=experiment)


def _call_unless_gone(call: Callable[..., Any], schedule: Any) -> None:
    try:
        call(recurring_run_id=schedule.recurring_run_id, _request_timeout=SECONDS)
    except ApiException as error:
        if error.status != NOT_FOUND:  # else another process has just deleted it
            raise


def _differences(existing: list[Any], wanted: Schedule) -> list[str]:
    if not existing:
        return ["there is no schedule of this name"]
    enabled = [schedule for schedule in existing if schedule.mode == ENABLED]  # a disabled one may wait for its run
    if len(enabled) > 1:
        return [f"there are {len(enabled)} schedules of this name"]
    return _changes((enabled or existing)[0], wanted)


def _changes(existing: Any, wanted: Schedule) -> list[str]:
    """Return the fields in which an existing schedule differs, each with both values."""
    reference, trigger = existing.pipeline_version_reference, existing.trigger
    cron = trigger.cron_schedule if trigger else None
    arguments = (existing.runtime_config.parameters if existing.runtime_config else None) or {}
    account = existing.service_account or ""
    pairs = {
        "times": (cron.cron if cron else None, wanted.cron),
        "pipeline": (reference.pipeline_id if reference else None, wanted.version.pipeline_id),
        "version": (
            (reference.pipeline_version_id if reference else None) or LATEST,
            wanted.version.version_id if wanted.pinned else LATEST,
        ),
        "concurrent runs": (int(existing.max_concurrency or 0), MAX_CONCURRENT_RUNS),
        "catch-up of missed runs": (not existing.no_catchup, False),
        "enabled": (existing.mode == ENABLED, True),
        "service account": (account, wanted.service_account or account),
    }
    names = sorted({*arguments, *wanted.arguments})
    pairs |= {name: (arguments.get(name), wanted.arguments.get(name)) for name in names}
    return [f"{name}: {actual!r}, wanted {value!r}" for name, (actual, value) in pairs.items() if actual != value]
