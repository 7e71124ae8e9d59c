"""Which version serves: promoting one to champion, and rolling back to the one before it.

``previous`` is written before ``champion``: the other way round, a kill between them would lose the old
champion. Where both are one version, a call was killed between them.
"""

from __future__ import annotations

from datetime import UTC, datetime

from mlflow.entities.model_registry import ModelVersion

from spira.registry.store import ModelStore, RegistryError


def promote(store: ModelStore, version: int | str, force_reason: str | None) -> int:
    """See :meth:`spira.registry.Registry.promote`; the new champion's number."""
    new, old = store.find(version), store.at("champion")
    if old is None or old.version != new.version:
        _refuse_unfit(new, force_reason)
        store.tag(new, {"promoted_at": _now(), "promotion_forced": force_reason or "no"})
        if old is not None:
            store.tag(new, {"replaced": old.version})
            store.point("previous", old.version)
        store.point("champion", new.version)
    if force_reason:
        store.untag(new, "rolled_back_at", "rolled_back_reason")
    if "challenger" in new.aliases:
        store.drop("challenger")
    return int(new.version)


def rollback(store: ModelStore, reason: str, bad: int | None) -> int:
    """See :meth:`spira.registry.Registry.rollback`; the champion's number."""
    champion, previous = store.at("champion"), store.at("previous")
    half_way = champion and previous and champion.version == previous.version
    if champion and bad is not None and int(champion.version) != bad and not half_way:
        return int(champion.version)
    if champion is None or previous is None:
        raise RegistryError("nothing to roll back to: no version has the alias previous")
    if not half_way:
        store.tag(champion, {"rolled_back_reason": reason, "rolled_back_at": _now()})
        store.point("champion", previous.version)
    _step_back(store, previous)
    return int(previous.version)


def champion_status(store: ModelStore) -> tuple[str | None, frozenset[str]]:
    """See :meth:`spira.registry.Registry.champion_status`."""
    entities = store.search()
    champion = next((str(entity.version) for entity in entities if "champion" in entity.aliases), None)
    return champion, frozenset(str(entity.version) for entity in entities if "rolled_back_reason" in entity.tags)


def _step_back(store: ModelStore, champion: ModelVersion) -> None:
    """``previous`` becomes what the champion had replaced, unless that was rolled back."""
    replaced = champion.tags.get("replaced")
    before = next((entity for entity in store.search() if str(entity.version) == replaced), None)
    if before is None or "rolled_back_reason" in before.tags:
        store.drop("previous")
    else:
        store.point("previous", before.version)


def _refuse_unfit(entity: ModelVersion, force_reason: str | None) -> None:
    tags = entity.tags
    if "rolled_back_reason" in tags:
        why = f"was rolled back ({tags['rolled_back_reason']})"
    elif tags.get("approved") != "true":
        why = f"is not approved ({tags.get('reasons') or 'no reason recorded'})"
    else:
        return
    if not force_reason:
        raise RegistryError(f"version {entity.version} {why}; to promote it all the same, give a reason to force")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
