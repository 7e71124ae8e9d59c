"""Commands of the operator: pin, unpin, roll back, approve, retry, cancel.

Each is recorded; the next tick carries it out.
"""

from __future__ import annotations

import getpass
from collections.abc import Callable
from datetime import UTC, datetime

from spira.delivery.decide import candidate, wanted
from spira.delivery.history.events import (
    Approved,
    Cancelled,
    DamageAccepted,
    OperatorEvent,
    Pinned,
    Retried,
    RolledBack,
    Unpinned,
    VersionId,
)
from spira.delivery.history.ledger import Ledger, OvertakenError, Record
from spira.delivery.history.state import DeliveryState, state_of
from spira.errors import SpiraError

MAX_ATTEMPTS = 20
"""Attempts to append while other processes append (optimistic locking)."""


def pin(ledger: Ledger, version: str, reason: str) -> Record:
    """Serve a version until it is unpinned.

    Raises:
        SpiraError: the version is not in the ledger, or was rolled back.
    """

    def event(state: DeliveryState) -> Pinned:
        pinned = _find_servable(state, version)
        return Pinned(version=version, digest=pinned.digest, reason=reason, who=getpass.getuser())

    return _append(ledger, event)


def unpin(ledger: Ledger) -> Record:
    """Allow promotions again.

    Raises:
        SpiraError: nothing is pinned.
    """

    def event(state: DeliveryState) -> Unpinned:
        if state.pin is None:
            raise SpiraError("no version is pinned")
        return Unpinned(version=state.pin.version.number, who=getpass.getuser())

    return _append(ledger, event)


def roll_back(ledger: Ledger, reason: str, to: str = "") -> Record:
    """Exclude the wanted version from service for good, and pin the version before it.

    Args:
        to: the version to pin instead; empty for the one delivered before.

    Raises:
        SpiraError: there is no version to roll back to.
    """

    def event(state: DeliveryState) -> RolledBack:
        bad = wanted(state, state.rolled_back)
        excluded = [*state.rolled_back, *([bad] if bad else [])]
        delivered = [delivery.version for delivery in reversed(state.deliveries)]
        earlier = [version for version in delivered if not version.is_among(excluded)]
        if bad is None or not (earlier or to):
            raise SpiraError("cannot roll back: there is no other delivered version that was not rolled back")
        if to == bad.number:
            raise SpiraError(f"cannot roll back from version {to} to itself: name another version with --to")
        good = _find_servable(state, to) if to else earlier[0]
        return RolledBack(
            bad=bad.number,
            to=good.number,
            reason=reason,
            bad_digest=bad.digest,
            to_digest=good.digest,
            who=getpass.getuser(),
        )

    return _append(ledger, event)


def approve(ledger: Ledger, version: str) -> Record:
    """Allow a version that its gate has approved to be promoted.

    Raises:
        SpiraError: the version does not wait for approval.
    """

    def event(state: DeliveryState) -> Approved:
        waiting = candidate(state, state.rolled_back)
        serving = wanted(state, state.rolled_back)
        if waiting is None or waiting.version is None or (serving and waiting.version.is_same(serving)):
            raise SpiraError("no version waits for approval")
        if waiting.version.number != version:
            raise SpiraError(f"version {version} does not wait for approval; version {waiting.version} does")
        return Approved(version=version, digest=waiting.version.digest, who=getpass.getuser())

    return _append(ledger, event)


def retry(ledger: Ledger) -> Record:
    """Allow further attempts for the last observation after its attempts were used up.

    Raises:
        SpiraError: the last observation has not failed.
    """

    def event(state: DeliveryState) -> Retried:
        fingerprint = state.last_observation.fingerprint if state.last_observation else ""
        attempts = state.attempts_of(fingerprint)
        if not attempts or attempts[-1].outcome != "failed":
            raise SpiraError("nothing to retry: the last run for the observed input has not failed")
        return Retried(fingerprint=fingerprint, who=getpass.getuser())

    return _append(ledger, event)


def cancel(ledger: Ledger, reason: str = "") -> Record:
    """End the active run; a run that is already cancelled keeps its first reason.

    Raises:
        SpiraError: no run is active.
    """

    def event(state: DeliveryState) -> Cancelled:
        if state.active is None:
            raise SpiraError("nothing to cancel: no run is active")
        return Cancelled(run=state.active.run, reason=reason, who=getpass.getuser())

    return _append(ledger, event)


def accept_damage(ledger: Ledger, reason: str) -> Record:
    """Leave the damaged records out for good, so that the delivery goes on without them.

    Raises:
        SpiraError: no record is damaged.
    """

    def event(state: DeliveryState) -> DamageAccepted:
        if not state.damaged:
            raise SpiraError("no record of the ledger is damaged")
        return DamageAccepted(records=state.damaged, reason=reason, who=getpass.getuser())

    return _append(ledger, event)


def _find_servable(state: DeliveryState, number: str) -> VersionId:
    """Return the newest version of a number.

    Raises:
        SpiraError: it was neither approved nor delivered, or it was rolled back.
    """
    approved = [attempt.version for attempt in state.attempts if attempt.outcome == "approved" and attempt.version]
    known = [*(delivery.version for delivery in state.deliveries), *approved]
    version = next((version for version in reversed(known) if version.number == number), None)
    if version is None:
        versions = ", ".join(sorted({version.number for version in known})) or "none"
        raise SpiraError(f"version {number} is not in the ledger; approved or delivered versions: {versions}")
    if reason := state.rollback_reason(version):
        raise SpiraError(f"version {number} was rolled back ({reason}): choose another version, or train a new one")
    return version


def _append(ledger: Ledger, event: Callable[[DeliveryState], OperatorEvent]) -> Record:
    """Append a record whose event was computed from, and checked against, all earlier records."""
    for attempt in range(MAX_ATTEMPTS):
        state = state_of(ledger.read())
        try:
            return ledger.append(state.last, event(state), datetime.now(UTC))
        except OvertakenError:
            if attempt == MAX_ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")
