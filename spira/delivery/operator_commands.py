"""What a person may say: pin, unpin, roll back, approve, try again. It is recorded; the next tick carries it out."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from spira.delivery.decide import candidate, wanted
from spira.delivery.ledger import Ledger, OvertakenError, Record
from spira.delivery.state import DeliveryState, state_of
from spira.errors import SpiraError

TRIES = 20
"""Against others who write at the same time."""


def pin(ledger: Ledger, version: str, reason: str) -> Record:
    """Have a version serve until it is unpinned.

    Raises:
        SpiraError: the ledger knows no such version.
    """
    return _say(ledger, "pinned", lambda state: {"version": _known(state, version), "reason": reason})


def unpin(ledger: Ledger) -> Record:
    """Let the loop promote again.

    Raises:
        SpiraError: nothing is pinned.
    """

    def body(state: DeliveryState) -> dict[str, Any]:
        if state.pin is None:
            raise SpiraError("no version is pinned")
        return {"version": state.pin.version}

    return _say(ledger, "unpinned", body)


def roll_back(ledger: Ledger, reason: str, to: str = "") -> Record:
    """Leave what serves for good, and pin what served before it.

    Args:
        to: the version to go back to; the one delivered before if empty.

    Raises:
        SpiraError: there is nothing to go back to.
    """

    def body(state: DeliveryState) -> dict[str, Any]:
        bad = wanted(state, state.rolled_back)
        delivered = [each.version for each in reversed(state.deliveries)]
        fit = [version for version in delivered if version != bad and version not in state.rolled_back]
        if bad is None or not (fit or to):
            raise SpiraError("nothing to go back to: no other version was delivered that isn't rolled back too")
        if to == bad:
            raise SpiraError(f"version {to} is what is rolled back from: name another with --to")
        return {"bad": bad, "to": _known(state, to) if to else fit[0], "reason": reason}

    return _say(ledger, "rolled_back", body)


def approve(ledger: Ledger, version: str) -> Record:
    """Let a version that its gate approved serve.

    Raises:
        SpiraError: it doesn't wait for approval.
    """

    def body(state: DeliveryState) -> dict[str, Any]:
        waiting = candidate(state, state.rolled_back)
        if waiting is None or waiting.version == wanted(state, state.rolled_back):
            raise SpiraError("no version waits for approval")
        if waiting.version != version:
            raise SpiraError(f"version {version} doesn't wait for approval; version {waiting.version} does")
        return {"version": version}

    return _say(ledger, "approved", body)


def retry(ledger: Ledger) -> Record:
    """Try what is observed again, though its attempts are used up.

    Raises:
        SpiraError: nothing that is observed has failed.
    """

    def body(state: DeliveryState) -> dict[str, Any]:
        fingerprint = state.last_observation.fingerprint if state.last_observation else ""
        attempts = state.attempts_of(fingerprint)
        if not attempts or attempts[-1].outcome != "failed":
            raise SpiraError("nothing to try again: what is observed has not failed")
        return {"fingerprint": fingerprint}

    return _say(ledger, "retried", body)


def _known(state: DeliveryState, version: str) -> str:
    made = {each.version for each in state.attempts if each.outcome == "approved" and each.version}
    known = made | {each.version for each in state.deliveries}
    if version not in known:
        raise SpiraError(
            f"the ledger knows no version {version}; approved or delivered: {', '.join(sorted(known)) or 'none'}"
        )
    if version in state.rolled_back:
        raise SpiraError(
            f"version {version} was rolled back ({state.rolled_back[version]}): train a better one, or choose another"
        )
    return version


def _say(ledger: Ledger, kind: str, body: Callable[[DeliveryState], dict[str, Any]]) -> Record:
    """Record it as said of the very state that the ledger is in."""
    for attempt in range(TRIES):
        state = state_of(ledger.read())
        try:
            said = {**body(state), "who": getpass.getuser()}
            return ledger.append(state.last, kind, datetime.now(UTC), said)
        except OvertakenError:
            if attempt == TRIES - 1:
                raise
    raise AssertionError("unreachable")
