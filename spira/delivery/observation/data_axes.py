"""The data axis of every observation, in the ledger's store: recordings by pseudonym, each with its content hash.

    axes/data-DIGEST.json    {"digest", "key_id", "base", "parts", "removed", "checksum"}

``base`` is the digest of an earlier axis, and ``parts`` and ``removed`` are what changed since then, so that adding one
recording to a hundred thousand stores one. A chain of :data:`MAX_CHANGES` such files ends with a complete one, whose
base is empty.

The digest of a data set covers the names of its files, so it cannot be computed from pseudonyms: each file has a
checksum and its own digest instead. Older programs stored one flat object of names; it is read as pseudonyms.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ConfigDict, ValidationError

from spira.config import FrozenModel
from spira.data.pseudonyms import Pseudonyms
from spira.data.storage import StorageError, Store
from spira.delivery.observation.fingerprints import Axis, is_named_data_axis, with_pseudonyms
from spira.files import CHECKSUM, has_checksum, with_checksum

FILE = re.compile(r"axes/data-([0-9a-f]+)\.json")
MAX_CHANGES = 20
"""Files of changes between an axis and a complete one: each is one more read."""


class StoredDataAxis(FrozenModel):
    """Content of one file, without its checksum."""

    model_config = ConfigDict(extra="ignore")

    digest: str
    key_id: str
    base: str = ""
    """Digest of the axis to which the rest is the difference; empty for a complete axis."""
    parts: dict[str, str]
    """Recordings that are new or changed since ``base``."""
    removed: tuple[str, ...] = ()


class DataAxes:
    """The data axes in a ledger's store."""

    def __init__(self, store: Store, pseudonyms: Pseudonyms) -> None:
        self.store, self.pseudonyms = store, pseudonyms

    def save(self, axis: Axis, since: str) -> None:
        """Store an axis that has pseudonyms, unless it is stored.

        Args:
            since: digest of an axis to store the difference to; empty for none.
        """
        try:
            self.load(axis.digest)
        except StorageError:  # it is new, or damaged and now repaired
            self._write(self._difference(axis, since) or _complete(axis))

    def _write(self, stored: StoredDataAxis) -> None:
        content = with_checksum(stored.model_dump(mode="json"))
        self.store.write(_path(stored.digest), json.dumps(content, indent=0).encode())

    def _difference(self, axis: Axis, since: str) -> StoredDataAxis | None:
        """Return the difference to an earlier axis; None if that cannot be its base."""
        try:
            chain = self._chain(since) if since else []
        except StorageError:
            return None
        if not chain or len(chain) > MAX_CHANGES or chain[0].key_id != axis.key_id:
            return None
        if axis.digest in [part.digest for part in chain]:  # this one is damaged, and the chain repeats it
            return None
        before = _parts(chain)
        return StoredDataAxis(
            digest=axis.digest,
            key_id=axis.key_id,
            base=since,
            parts={name: part for name, part in axis.parts.items() if before.get(name) != part},
            removed=tuple(sorted(before.keys() - axis.parts.keys())),
        )

    def load(self, digest: str) -> Axis:
        """Return an axis, with pseudonyms.

        Raises:
            StorageError: it is missing or damaged, or one that it is a difference to.
        """
        chain = self._chain(digest)
        return Axis(digest, dict(sorted(_parts(chain).items())), chain[0].key_id)

    def _chain(self, digest: str) -> list[StoredDataAxis]:
        """Return an axis and those that it is a difference to; the last one is complete."""
        chain = [self._read(digest)]
        while base := chain[-1].base:
            if base in [part.digest for part in chain]:
                raise StorageError(f"{self.store.uri}/{_path(base)} is damaged: it is a difference to itself")
            chain.append(self._read(base))
            if chain[-1].key_id != chain[0].key_id:
                raise StorageError(f"{self.store.uri}/{_path(digest)} is damaged: its base is under another key")
        return chain

    def _read(self, digest: str) -> StoredDataAxis:
        name, content = f"{self.store.uri}/{_path(digest)}", self.store.read(_path(digest))
        try:
            body = json.loads(content)
            stored = StoredDataAxis.model_validate(body) if CHECKSUM in body else self._read_named(digest, body)
        except (ValueError, TypeError, AttributeError, ValidationError, RecursionError) as error:
            raise StorageError(f"{name} is damaged: {type(error).__name__}") from error  # a message could hold names
        if stored.digest != digest or (CHECKSUM in body and not has_checksum(body)):
            raise StorageError(f"{name} is damaged: its content has another digest than its name, or its checksum")
        return stored

    def _read_named(self, digest: str, parts: Mapping[str, Any]) -> StoredDataAxis:
        """Return an axis that an older program stored with the names of the recordings."""
        named = Axis(digest, parts)
        is_intact = is_named_data_axis(named)
        axis = with_pseudonyms(named, self.pseudonyms)
        return _complete(axis if is_intact else Axis("", axis.parts, axis.key_id))

    def remove_names(self, paths: Iterable[str]) -> None:
        """Replace the names in the files that older programs stored; a damaged one stays as it is."""
        for path in paths:
            if match := FILE.fullmatch(path):
                try:
                    is_named = CHECKSUM not in json.loads(self.store.read(path))
                    stored = self._read(match[1]) if is_named else None
                except (StorageError, ValueError, TypeError, RecursionError):
                    continue
                if stored:
                    self._write(stored)


def _path(digest: str) -> str:
    return f"axes/data-{digest}.json"


def _complete(axis: Axis) -> StoredDataAxis:
    return StoredDataAxis(digest=axis.digest, key_id=axis.key_id, parts=dict(axis.parts))


def _parts(chain: list[StoredDataAxis]) -> dict[str, str]:
    """Return the parts of the first axis of a chain."""
    parts: dict[str, str] = {}
    for stored in reversed(chain):
        for name in stored.removed:
            parts.pop(name, None)
        parts |= stored.parts
    return parts
