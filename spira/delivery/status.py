"""Status of the delivery for people and programs; JSON output and the custom resource are projections of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydantic import field_serializer

from spira.config import FrozenModel, JsonObject
from spira.delivery.decide import wanted
from spira.delivery.history.events import VersionId
from spira.delivery.history.state import DeliveryState
from spira.delivery.reconcile import Report
from spira.deployment.target import Status


class AxisDigests(FrozenModel):
    """Digests of the three axes of the observed fingerprint."""

    data: str
    model: str
    code: str


class ObservedStatus(FrozenModel):
    """The last observation in the ledger."""

    fingerprint: str
    """Empty if the input is invalid."""
    axes: AxisDigests | None
    """None if the input is invalid."""
    problem: str
    """Empty if the input is valid."""
    since: datetime

    @field_serializer("since", when_used="json")
    def _isoformat(self, since: datetime) -> str:
        return since.isoformat()


class TargetStatus(FrozenModel):
    """What one target serves."""

    version: str | None
    ready: bool
    message: str
    digest: str = ""
    """Digest of the package that serves; empty if it is unknown."""
    drifted: bool = False

    def is_as_wanted(self, wanted: VersionId) -> bool:
        """Return whether the target serves the wanted version, by its digest, and is ready."""
        if self.version is None or self.drifted or not self.ready:
            return False
        return VersionId(self.version, self.digest).is_same(wanted)


class PinStatus(FrozenModel):
    """The version that an operator has pinned."""

    version: str
    reason: str


class DeliveryStatus(FrozenModel):
    """Everything that is going on."""

    observed: ObservedStatus | None
    """None before the first tick."""
    training: str
    """``running``, ``due``, ``approved``, ``rejected`` or ``failed``; a sentence if there is nothing to train on."""
    run: str | None
    """Name of the active run."""
    wanted: str | None
    """Version that should serve."""
    champion: str | None
    """Champion of the model repository; None also if the repository is unreachable."""
    serving: dict[str, TargetStatus | None]
    """By target; None for a target that is unreachable."""
    pin: PinStatus | None
    rolled_back: dict[str, str]
    """Reason of each rollback by the version that was left."""
    notes: tuple[str, ...]
    """What has to wait, and why."""
    troubles: tuple[str, ...]
    """What was unreachable or failed, and why."""
    torn_records: tuple[int, ...]
    """Numbers of the records that were set aside, because their write was interrupted or an operator accepted it."""
    damaged_records: tuple[int, ...]
    """Numbers of the records that were changed or removed after they were written."""
    records: int
    """Number of records in the ledger."""
    wanted_digest: str = ""
    """Digest of the package that should serve; empty if it is unknown."""
    champion_digest: str = ""
    """Digest of the champion's package; empty if it is unknown."""
    notice_problems: tuple[str, ...] = ()
    """Why notices did not arrive, one line an address."""

    @property
    def wanted_id(self) -> VersionId | None:
        """Version that should serve, with its identity."""
        return VersionId(self.wanted, self.wanted_digest) if self.wanted else None

    @property
    def has_problem(self) -> bool:
        """Whether something failed or was unreachable, or a target or the champion is not as wanted."""
        wanted, troubles = self.wanted_id, (*self.troubles, *self.notice_problems)
        if troubles or not wanted:
            return bool(troubles)
        targets = self.serving.values()
        champion = VersionId(self.champion, self.champion_digest) if self.champion else None
        is_served = all(target is not None and target.is_as_wanted(wanted) for target in targets)
        return not is_served or champion is None or not champion.is_same(wanted)

    def to_json(self) -> JsonObject:
        """Return the JSON form that ``spira deliver status --json`` prints."""
        return self.model_dump(mode="json")


class TickStatus(DeliveryStatus):
    """Status after a tick, with the actions that were carried out."""

    done: tuple[str, ...]
    """One line per action, in order."""


def delivery_status(report: Report) -> DeliveryStatus:
    """Return the status after a tick or a dry run."""
    snapshot, state = report.snapshot, report.snapshot.state
    champion_status = snapshot.champion_status
    rolled_back = {*state.rolled_back, *(champion_status.rolled_back if champion_status else ())}
    version, champion = wanted(state, rolled_back), champion_status.champion if champion_status else None
    return DeliveryStatus(
        observed=_observed_status(state),
        training=_training(state),
        run=state.active.run if state.active else None,
        wanted=version.number if version else None,
        wanted_digest=version.digest if version else "",
        champion=champion.number if champion else None,
        champion_digest=champion.digest if champion else "",
        serving={target: _target_status(status) for target, status in snapshot.serving.items()},
        pin=PinStatus(version=state.pin.version.number, reason=state.pin.reason) if state.pin else None,
        rolled_back={version.number: reason for version, reason in state.rolled_back.items()},
        notes=report.decision.notes,
        troubles=report.troubles,
        notice_problems=report.notice_problems,
        torn_records=state.torn,
        damaged_records=state.damaged,
        records=state.last,
    )


def tick_status(report: Report, done: Sequence[str]) -> TickStatus:
    """Return the status after a tick.

    Args:
        done: one line per action; of several ticks if the command waited.
    """
    return TickStatus(done=tuple(done), **delivery_status(report).model_dump())


def _observed_status(state: DeliveryState) -> ObservedStatus | None:
    last = state.last_observation
    if last is None:
        return None
    axes = AxisDigests(data=last.axes.data, model=last.axes.model, code=last.axes.code) if last.axes else None
    return ObservedStatus(fingerprint=last.fingerprint, axes=axes, problem=last.problem, since=last.since)


def _target_status(status: Status | None) -> TargetStatus | None:
    if status is None:
        return None
    return TargetStatus(
        version=status.version,
        ready=status.ready,
        message=status.message,
        digest=status.digest,
        drifted=status.drifted,
    )


def _training(state: DeliveryState) -> str:
    if state.active:
        return "running"
    if not state.last_observation:
        return "nothing observed yet: run spira deliver tick"
    if not state.last_observation.axes:
        return "nothing fit to train on"
    attempts = state.attempts_of(state.last_observation.fingerprint)
    return attempts[-1].outcome if attempts else "due"
