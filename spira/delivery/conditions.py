"""A tick's status as a Kubernetes resource tells it: fields to read at a glance, and conditions in the standard form.

The conditions:

    Fit       what is there can be trained on
    Settled   what is there was trained and judged, one way or the other
    Serving   every target serves what is wanted, and answers
    Healthy   everything could be asked and done
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

LONGEST = 1000
"""Characters of a message: it is for a person, and the ledger has it in full."""
STANDING = {
    "running": ("False", "Running"),
    "due": ("False", "Due"),
    "failed": ("False", "Failed"),
    "approved": ("True", "Approved"),
    "rejected": ("True", "Rejected"),
}
"""The condition ``Settled`` by where the training stands; where nothing is fit to train on, nobody knows."""
AT_REST = "what is observed is settled, and what serves is what is wanted"


@dataclass(frozen=True)
class Condition:
    """One of the four; Kubernetes' own words for what it holds."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str


def resource_status(
    told: Mapping[str, Any], before: Mapping[str, Any], generation: int, now: datetime
) -> dict[str, Any]:
    """The resource's status.

    Args:
        told: by :func:`spira.delivery.explain.status`.
        before: the status that it replaces: a condition keeps the time since which it is as it is.
        generation: of the resource.
    """
    observed = told["observed"] or {}
    fields = {
        "observedGeneration": generation,
        "lastTickTime": _time(now),
        "fingerprint": observed.get("fingerprint"),
        "axes": observed.get("axes"),
        "training": told["training"],
        "run": told["run"],
        "wanted": told["wanted"],
        "champion": told["champion"],
        "pinned": told["pin"] and told["pin"]["version"],
        "serving": _serving(told["serving"]),
        "message": _short("; ".join(told["troubles"] or told["notes"]) or AT_REST),
        "records": told["records"],
        "targets": [_target(name, each) for name, each in told["serving"].items()],
        "conditions": _since(conditions(told), before.get("conditions", ()), generation, _time(now)),
    }
    return {name: value for name, value in fields.items() if value not in (None, "")}


def conditions(told: Mapping[str, Any]) -> list[Condition]:
    """The four, of a status."""
    return [_fit(told["observed"]), _settled(told), _is_serving(told["wanted"], told["serving"]), _healthy(told)]


def _fit(observed: Mapping[str, Any] | None) -> Condition:
    if observed is None:
        return Condition("Fit", "Unknown", "NothingObserved", "nothing was observed yet")
    if observed["problem"]:
        return Condition("Fit", "False", "InvalidInput", observed["problem"])
    return Condition("Fit", "True", "Axes", f"fingerprint {observed['fingerprint'][:12]}")


def _settled(told: Mapping[str, Any]) -> Condition:
    status, reason = STANDING.get(told["training"], ("Unknown", "NothingFit"))
    run = f", run {told['run']}" if told["run"] else ""
    return Condition("Settled", status, reason, f"{told['training']}{run}")  # type: ignore[arg-type]


def _is_serving(wanted: str | None, serving: Mapping[str, Any]) -> Condition:
    """What is known to be wrong outweighs what can't be asked."""
    if not wanted:
        return Condition("Serving", "False", "NothingWanted", "no version was delivered yet")
    wrong = [name for name, each in serving.items() if each and (each["version"] != wanted or not each["ready"])]
    silent = [name for name, each in serving.items() if not each]
    told = "; ".join(f"{name}: {_served(serving[name])}" for name in wrong + silent)
    if wrong:
        return Condition("Serving", "False", "NotAsWanted", f"version {wanted} is wanted; {told}")
    if silent:
        return Condition("Serving", "Unknown", "NotAsked", f"version {wanted} is wanted; {told}")
    return Condition("Serving", "True", "AsWanted", f"version {wanted}")


def _healthy(told: Mapping[str, Any]) -> Condition:
    damaged = [f"ledger: record {number} can't be read" for number in told["damaged_records"]]
    if troubles := [*told["troubles"], *damaged]:
        return Condition("Healthy", "False", "Troubles", "; ".join(troubles))
    return Condition("Healthy", "True", "NoTrouble", "everything could be asked and done")


def _since(
    found: list[Condition], before: Iterable[Mapping[str, Any]], generation: int, now: str
) -> list[dict[str, Any]]:
    """As the resource holds them; the time moves where the status does, and not with a message."""
    then = {each["type"]: each for each in before}
    return [
        {
            **asdict(each),
            "message": _short(each.message),
            "observedGeneration": generation,
            "lastTransitionTime": then[each.type]["lastTransitionTime"]
            if each.type in then and then[each.type]["status"] == each.status
            else now,
        }
        for each in found
    ]


def _serving(serving: Mapping[str, Any]) -> str:
    """In a word where all targets say the same, else target by target."""
    told = {name: _served(each) for name, each in serving.items()}
    if len(set(told.values())) == 1:
        return next(iter(told.values()))
    return ", ".join(f"{name}: {each}" for name, each in told.items())


def _served(each: Mapping[str, Any] | None) -> str:
    if each is None:
        return "can't be asked"
    return (each["version"] or "nothing") + ("" if each["ready"] else f", not ready: {each['message']}")


def _target(name: str, each: Mapping[str, Any] | None) -> dict[str, Any]:
    if each is None:
        return {"name": name, "message": "can't be asked"}
    told = {"name": name, "version": each["version"], "ready": each["ready"], "message": _short(each["message"])}
    return {key: value for key, value in told.items() if value not in (None, "")}


def _short(message: str) -> str:
    """In one line, as a table shows no more of it."""
    line = "; ".join(message.splitlines())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"
