"""Status of the custom resource: fields to read at a glance, and conditions in the standard form of Kubernetes.

The conditions:

    Fit       the input can be trained on
    Settled   the input was trained and evaluated, whatever the verdict
    Serving   every target serves the wanted version and is ready
    Healthy   everything was reachable, and every action succeeded
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from spira.delivery.fingerprints import describe_problem
from spira.delivery.status import DeliveryStatus, ObservedStatus, TargetStatus

MAX_MESSAGE_CHARACTERS = 1000
"""Kubernetes limits the length of a message; the ledger has the full text."""
UNREACHABLE = "unreachable"
UP_TO_DATE = "up to date: the last observation is settled, and every target serves the wanted version"

ConditionStatus = Literal["True", "False", "Unknown"]
SETTLED: Mapping[str, tuple[ConditionStatus, str]] = {
    "running": ("False", "Running"),
    "due": ("False", "Due"),
    "failed": ("False", "Failed"),
    "approved": ("True", "Approved"),
    "rejected": ("True", "Rejected"),
}
"""Status and reason of the condition ``Settled`` by :attr:`DeliveryStatus.training`; otherwise unknown."""


@dataclass(frozen=True)
class Condition:
    """One condition, with the field names of Kubernetes."""

    type: str
    status: ConditionStatus
    reason: str
    message: str


def resource_status(
    status: DeliveryStatus, previous: Mapping[str, Any], generation: int, now: datetime
) -> dict[str, Any]:
    """Return the ``status`` of the custom resource.

    Args:
        previous: the ``status`` that is replaced; a condition keeps its transition time while its status is the same.
        generation: ``metadata.generation`` of the resource.
    """
    observed = status.observed
    fields = {
        "observedGeneration": generation,
        "lastTickTime": _time(now),
        "fingerprint": observed and observed.fingerprint,
        "axes": observed and observed.axes and observed.axes.model_dump(),
        "training": status.training,
        "run": status.run,
        "wanted": status.wanted,
        "champion": status.champion,
        "pinned": status.pin and status.pin.version,
        "serving": _serving_summary(status.serving),
        "message": _shorten("; ".join(status.troubles or status.notes) or UP_TO_DATE),
        "records": status.records,
        "targets": [_target(name, target) for name, target in status.serving.items()],
        "conditions": _with_times(conditions(status), previous.get("conditions", ()), generation, _time(now)),
    }
    return _without_empty(fields)


def conditions(status: DeliveryStatus) -> list[Condition]:
    """Return the four conditions."""
    return [_fit(status.observed), _settled(status), _serving(status.wanted, status.serving), _healthy(status)]


def _fit(observed: ObservedStatus | None) -> Condition:
    if observed is None:
        return Condition("Fit", "Unknown", "NothingObserved", "nothing was observed yet")
    if observed.problem:
        return Condition("Fit", "False", "InvalidInput", describe_problem(observed.problem))
    return Condition("Fit", "True", "Observed", f"fingerprint {observed.fingerprint[:12]}")


def _settled(status: DeliveryStatus) -> Condition:
    condition_status, reason = SETTLED.get(status.training, ("Unknown", "NothingFit"))
    run = f", run {status.run}" if status.run else ""
    return Condition("Settled", condition_status, reason, f"{status.training}{run}")


def _serving(wanted: str | None, serving: Mapping[str, TargetStatus | None]) -> Condition:
    if not wanted:
        return Condition("Serving", "False", "NothingWanted", "no version was delivered yet")
    wrong = [name for name, target in serving.items() if target and not _is_as_wanted(target, wanted)]
    unreachable = [name for name, target in serving.items() if not target]
    details = "; ".join(f"{name}: {_summary(serving[name])}" for name in wrong + unreachable)
    if wrong:  # a known error matters more than an unreachable target
        return Condition("Serving", "False", "NotAsWanted", f"version {wanted} is wanted; {details}")
    if unreachable:
        return Condition("Serving", "Unknown", "Unreachable", f"version {wanted} is wanted; {details}")
    return Condition("Serving", "True", "AsWanted", f"version {wanted}")


def _is_as_wanted(target: TargetStatus, wanted: str) -> bool:
    return target.version == wanted and target.ready


def _healthy(status: DeliveryStatus) -> Condition:
    if status.troubles:
        return Condition("Healthy", "False", "Troubles", "; ".join(status.troubles))
    return Condition("Healthy", "True", "NoTrouble", "everything was reachable, and every action succeeded")


def _with_times(
    conditions: list[Condition], previous: Iterable[Mapping[str, Any]], generation: int, now: str
) -> list[dict[str, Any]]:
    """Return the conditions as the resource stores them; the time changes only with the status, not with a message."""
    before = {(condition["type"], condition["status"]): condition["lastTransitionTime"] for condition in previous}
    return [
        {
            **asdict(condition),
            "message": _shorten(condition.message),
            "observedGeneration": generation,
            "lastTransitionTime": before.get((condition.type, condition.status), now),
        }
        for condition in conditions
    ]


def _serving_summary(serving: Mapping[str, TargetStatus | None]) -> str:
    """Return one entry if all targets are alike, otherwise one per target."""
    summaries = {name: _summary(target) for name, target in serving.items()}
    if len(set(summaries.values())) == 1:
        return next(iter(summaries.values()))
    return ", ".join(f"{name}: {summary}" for name, summary in summaries.items())


def _summary(target: TargetStatus | None) -> str:
    if target is None:
        return UNREACHABLE
    return (target.version or "nothing") + ("" if target.ready else f", not ready: {target.message}")


def _target(name: str, target: TargetStatus | None) -> dict[str, Any]:
    if target is None:
        return {"name": name, "message": UNREACHABLE}
    message = _shorten(target.message)
    return _without_empty({"name": name, "version": target.version, "ready": target.ready, "message": message})


def _without_empty(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value not in (None, "")}


def _shorten(message: str) -> str:
    """Return the message in one line, because a table shows only the first, and cut to the limit."""
    line = "; ".join(message.splitlines())
    return line if len(line) <= MAX_MESSAGE_CHARACTERS else f"{line[: MAX_MESSAGE_CHARACTERS - 1]}…"


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"
