"""What is observed of the three axes of change, data, model and code, and what changed between two observations.

An axis is its parts by name (a recording and its hash, a setting and its value, a source and its hash) and one digest
over them. Three digests make a fingerprint: what is trained, judged and delivered at most once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from spira.config import Config
from spira.data import content_hash
from spira.data.content_hash import Hashed
from spira.evaluation.gate import Gate

Name = Literal["data", "model", "code"]
NAMES: tuple[Name, ...] = ("data", "model", "code")


@dataclass(frozen=True)
class Axis:
    """One axis as it was found."""

    digest: str
    parts: Mapping[str, str]
    """What the digest stands for, by name."""


@dataclass(frozen=True)
class Fingerprint:
    """The digests of the three axes."""

    data: str
    model: str
    code: str

    @property
    def digest(self) -> str:
        """One for the three."""
        return _sha256([self.data, self.model, self.code])


@dataclass(frozen=True)
class Axes:
    """All three axes at one moment."""

    data: Axis
    model: Axis
    code: Axis

    @property
    def fingerprint(self) -> Fingerprint:
        return Fingerprint(*(axis.digest for axis in self.axes.values()))

    @property
    def axes(self) -> dict[Name, Axis]:
        """By name."""
        return {"data": self.data, "model": self.model, "code": self.code}


@dataclass(frozen=True)
class InvalidInput:
    """No observation: what is there can't be trained on, or can't be looked at."""

    problem: str


@dataclass(frozen=True)
class Change:
    """One part that two observations don't share."""

    axis: Name
    what: Literal["added", "removed", "changed", "renamed"]
    name: str
    before: str = ""
    """The value, where a person can read it, or the old name."""
    after: str = ""


def data_axis(files: content_hash.Files) -> Axis:
    """Of a data set's files; the digest is that of a corpus made of them."""
    return Axis(
        content_hash.digest(files), {path: f"{file.sha256} {file.size}" for path, file in sorted(files.items())}
    )


def files_of(data: Axis) -> dict[str, Hashed]:
    """The files that a data axis was made of; which generations they had is not kept."""
    pairs = {path: part.split() for path, part in data.parts.items()}
    return {path: Hashed(int(size), sha256, "") for path, (sha256, size) in pairs.items()}


def model_axis(config: Config, gate: Gate, skip_bad: bool) -> Axis:
    """Of what was asked for: every setting as it is resolved, and what a model must show to be approved."""
    settings = {**config.model_dump(mode="json"), "gate": gate.model_dump(mode="json"), "skip_bad": skip_bad}
    return axis_of(dict(_flat(settings)))


def axis_of(parts: Mapping[str, str]) -> Axis:
    """Of named parts in any order."""
    return Axis(_sha256(dict(sorted(parts.items()))), parts)


def changes(before: Mapping[Name, Axis], after: Mapping[Name, Axis]) -> list[Change]:
    """What changed from one observation to the other, axis by axis, by name; a file that only moved is renamed."""
    return [
        change
        for axis in NAMES
        if before[axis].digest != after[axis].digest
        for change in _parts_changed(axis, before[axis].parts, after[axis].parts)
    ]


def _parts_changed(axis: Name, before: Mapping[str, str], after: Mapping[str, str]) -> list[Change]:
    removed = {name: before[name] for name in sorted(before.keys() - after.keys())}
    added = {name: after[name] for name in sorted(after.keys() - before.keys())}
    renamed = _renamed(removed, added) if axis != "model" else {}
    found = [Change(axis, "renamed", new, before=old, after=new) for old, new in renamed.items()]
    found += [Change(axis, "removed", name) for name in removed if name not in renamed]
    found += [Change(axis, "added", name) for name in added if name not in renamed.values()]
    both = (name for name in before.keys() & after.keys() if before[name] != after[name])
    found += [Change(axis, "changed", name, *_readable(axis, before[name], after[name])) for name in both]
    return sorted(found, key=lambda change: change.name)


def _renamed(removed: Mapping[str, str], added: Mapping[str, str]) -> dict[str, str]:
    """Old name -> new name of equal content."""
    free = {content: name for name, content in added.items()}
    return {name: free.pop(content) for name, content in removed.items() if content in free}


def _readable(axis: Name, before: str, after: str) -> tuple[str, str]:
    """A setting's values; of files there are only hashes, which tell a person nothing."""
    return (before, after) if axis == "model" else ("", "")


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", json.dumps(value)


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, separators=(",", ":")).encode()).hexdigest()
