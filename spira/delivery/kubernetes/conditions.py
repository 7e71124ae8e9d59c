"""Status of the custom resource: fields to read at a glance, and conditions in the standard form of Kubernetes.

The conditions:

    Fit       the input can be trained on
    Settled   the input was trained and evaluated, whatever the verdict
    Serving   every target serves the wanted version and is ready
    Healthy   everything was reachable, and every action succeeded
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import ConfigDict
from pydantic.alias_generators import to_camel

from spira.config import FrozenModel, JsonObject
from spira.delivery.history.events import VersionId
from spira.delivery.observation.fingerprints import describe_problem
from spira.delivery.status import AxisDigests, DeliveryStatus, ObservedStatus, TargetStatus
from spira.kubernetes_connection import KubernetesObject

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


class ResourceModel(FrozenModel):
    """A part of the custom resource: field names in Kubernetes' camelCase, unknown fields ignored."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")


class StoredCondition(ResourceModel):
    """A condition as the resource stores it."""

    type: str
    status: ConditionStatus
    reason: str
    message: str
    observed_generation: int
    last_transition_time: str


class StoredTarget(ResourceModel):
    """State of one target."""

    name: str
    version: str | None = None
    ready: bool | None = None
    message: str | None = None


class ResourceStatus(ResourceModel):
    """The ``status`` of the custom resource; see ``manifests/base/delivery/crd.yaml``."""

    observed_generation: int
    last_tick_time: str
    fingerprint: str | None = None
    axes: AxisDigests | None = None
    training: str
    run: str | None = None
    wanted: str | None = None
    champion: str | None = None
    pinned: str | None = None
    serving: str
    message: str
    records: int
    targets: tuple[StoredTarget, ...]
    conditions: tuple[StoredCondition, ...]

    def to_json(self) -> JsonObject:
        """Return the fields as the API server stores them; fields without a value are left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class PreviousStatus(ResourceModel):
    """The part of the replaced ``status`` that matters for the next one."""

    conditions: tuple[StoredCondition, ...] = ()


def resource_status(
    status: DeliveryStatus, previous: KubernetesObject, generation: int, now: datetime
) -> ResourceStatus:
    """Return the ``status`` of the custom resource.

    Args:
        previous: the ``status`` that is replaced; a condition keeps its transition time while its status is the same.
        generation: ``metadata.generation`` of the resource.
    """
    observed = status.observed
    before = PreviousStatus.model_validate(previous).conditions
    return ResourceStatus(
        observed_generation=generation,
        last_tick_time=_time(now),
        fingerprint=(observed.fingerprint or None) if observed else None,
        axes=observed.axes if observed else None,
        training=status.training,
        run=status.run,
        wanted=status.wanted,
        champion=status.champion,
        pinned=status.pin.version if status.pin else None,
        serving=_serving_summary(status.serving),
        message=_shorten("; ".join(_troubles(status) or status.notes) or UP_TO_DATE),
        records=status.records,
        targets=tuple(_target(name, target) for name, target in status.serving.items()),
        conditions=_with_times(conditions(status), before, generation, _time(now)),
    )


def conditions(status: DeliveryStatus) -> list[Condition]:
    """Return the four conditions."""
    return [_fit(status.observed), _settled(status), _serving(status.wanted_id, status.serving), _healthy(status)]


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


def _serving(wanted: VersionId | None, serving: Mapping[str, TargetStatus | None]) -> Condition:
    if not wanted:
        return Condition("Serving", "False", "NothingWanted", "no version was delivered yet")
    wrong = [name for name, target in serving.items() if target and not target.is_as_wanted(wanted)]
    unreachable = [name for name, target in serving.items() if not target]
    details = "; ".join(f"{name}: {_summary(serving[name])}" for name in wrong + unreachable)
    if wrong:  # a known error matters more than an unreachable target
        return Condition("Serving", "False", "NotAsWanted", f"version {wanted} is wanted; {details}")
    if unreachable:
        return Condition("Serving", "Unknown", "Unreachable", f"version {wanted} is wanted; {details}")
    return Condition("Serving", "True", "AsWanted", f"version {wanted}")


def _healthy(status: DeliveryStatus) -> Condition:
    if troubles := _troubles(status):
        return Condition("Healthy", "False", "Troubles", "; ".join(troubles))
    return Condition("Healthy", "True", "NoTrouble", "everything was reachable, and every action succeeded")


def _troubles(status: DeliveryStatus) -> tuple[str, ...]:
    return (*status.troubles, *status.notice_problems)


def _with_times(
    conditions: list[Condition], previous: Iterable[StoredCondition], generation: int, now: str
) -> tuple[StoredCondition, ...]:
    """Return the conditions as the resource stores them; the time changes only with the status, not with a message."""
    before = {(condition.type, condition.status): condition.last_transition_time for condition in previous}
    return tuple(
        StoredCondition(
            type=condition.type,
            status=condition.status,
            reason=condition.reason,
            message=_shorten(condition.message),
            observed_generation=generation,
            last_transition_time=before.get((condition.type, condition.status), now),
        )
        for condition in conditions
    )


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


def _target(name: str, target: TargetStatus | None) -> StoredTarget:
    if target is None:
        return StoredTarget(name=name, message=UNREACHABLE)
    message = _shorten(target.message) or None
    return StoredTarget(name=name, version=target.version, ready=target.ready, message=message)


def _shorten(message: str) -> str:
    """Return the message in one line, because a table shows only the first, and cut to the limit."""
    line = "; ".join(message.splitlines())
    return line if len(line) <= MAX_MESSAGE_CHARACTERS else f"{line[: MAX_MESSAGE_CHARACTERS - 1]}…"


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"
