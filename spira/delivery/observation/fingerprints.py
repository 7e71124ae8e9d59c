"""Fingerprints of the three axes of change (data, model, code), and the differences between two observations.

An axis consists of named parts (a recording and its hash, a setting and its value, a source and its hash) and one
digest over them. The digests of the three axes make a fingerprint, which is trained, evaluated and delivered at most
once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from spira.config import Config
from spira.data import content_hash
from spira.data.pseudonyms import Pseudonyms
from spira.evaluation.gate import Gate

AxisName = Literal["data", "model", "code"]
AXIS_NAMES: tuple[AxisName, ...] = ("data", "model", "code")


@dataclass(frozen=True)
class Axis:
    """One axis at the time of an observation."""

    digest: str
    parts: Mapping[str, str]
    """Content of each part by its name; the digest covers them all."""
    key_id: str = ""
    """Key of the pseudonyms that stand for names of recordings; empty if the parts have their own names."""


@dataclass(frozen=True)
class Fingerprint:
    """Digests of the three axes."""

    data: str
    model: str
    code: str

    @property
    def digest(self) -> str:
        """One digest over the three."""
        return _sha256([self.data, self.model, self.code])


@dataclass(frozen=True)
class Axes:
    """The three axes at the time of one observation."""

    data: Axis
    model: Axis
    code: Axis

    @property
    def fingerprint(self) -> Fingerprint:
        return Fingerprint(self.data.digest, self.model.digest, self.code.digest)

    @property
    def by_name(self) -> dict[AxisName, Axis]:
        return {"data": self.data, "model": self.model, "code": self.code}


@dataclass(frozen=True)
class InvalidInput:
    """An observation of data or settings that cannot be trained on."""

    problem: str
    """``data: ...`` or ``settings: ...`` with the file or key and the rule."""


def describe_problem(problem: str) -> str:
    """Return the sentence for people that belongs to :attr:`InvalidInput.problem`."""
    source, _, cause = problem.partition(": ")
    if source == "data":
        return f"the data cannot be trained on: {cause}"
    if source == "settings":
        return f"the settings are invalid: {cause}"
    return f"the input is invalid: {problem}"


@dataclass(frozen=True)
class Change:
    """One part in which two observations differ."""

    axis: AxisName
    what: Literal["added", "removed", "changed", "renamed"]
    name: str
    before: str = ""
    """Old value of a setting, or old name of a renamed part; otherwise empty."""
    after: str = ""
    """New value of a setting, or new name of a renamed part; otherwise empty."""


def data_axis(files: content_hash.Files) -> Axis:
    """Return the axis of a data set's files; its digest equals that of a corpus built from them."""
    parts = {path: f"{file.sha256} {file.size}" for path, file in sorted(files.items())}
    return Axis(content_hash.digest(files), parts)


def model_axis(config: Config, gate: Gate, skip_bad: bool) -> Axis:
    """Return the axis of the resolved settings and of the gate."""
    settings = {**config.model_dump(mode="json"), "gate": gate.model_dump(mode="json"), "skip_bad": skip_bad}
    return axis_of(dict(_flatten(settings)))


def axis_of(parts: Mapping[str, str]) -> Axis:
    """Return the axis of named parts; their order does not matter."""
    return Axis(_sha256(dict(sorted(parts.items()))), parts)


def is_named_data_axis(axis: Axis) -> bool:
    """Return whether the digest of a data axis is that of its parts, which is so only if they have their own names.

    Raises:
        ValueError: a part has another form than those of a data axis.
    """
    files = {}
    for path, part in axis.parts.items():
        sha256, size = part.split(" ")
        files[path] = content_hash.Hashed(int(size), sha256, generation="")
    return axis.digest == content_hash.digest(files)


def changes(before: Mapping[AxisName, Axis], after: Mapping[AxisName, Axis]) -> list[Change]:
    """Return the differences between two observations, axis by axis and sorted by name.

    A file with the same content under another name counts as renamed.
    """
    return [
        change
        for axis in AXIS_NAMES
        if before[axis].digest != after[axis].digest
        for change in _axis_changes(axis, before[axis], after[axis])
    ]


def _axis_changes(name: AxisName, before: Axis, after: Axis) -> list[Change]:
    """Return the differences of one axis; under two keys, recordings with equal content count as the same."""
    differences = _part_changes(name, before.parts, after.parts)
    if before.key_id == after.key_id:
        return differences
    return [change for change in differences if change.what != "renamed"]


def with_pseudonyms(axis: Axis, pseudonyms: Pseudonyms) -> Axis:
    """Return the data axis with pseudonyms instead of the names of recordings."""
    parts = {pseudonyms.file(path): part for path, part in axis.parts.items()}
    return Axis(axis.digest, dict(sorted(parts.items())), pseudonyms.key_id)


def _part_changes(axis: AxisName, before: Mapping[str, str], after: Mapping[str, str]) -> list[Change]:
    removed = {name: before[name] for name in sorted(before.keys() - after.keys())}
    added = {name: after[name] for name in sorted(after.keys() - before.keys())}
    # Settings with equal values are common, so a setting is never taken for renamed.
    renamed = _renamed(removed, added) if axis != "model" else {}
    result = [Change(axis, "renamed", new, before=old, after=new) for old, new in renamed.items()]
    result += [Change(axis, "removed", name) for name in removed if name not in renamed]
    result += [Change(axis, "added", name) for name in added if name not in renamed.values()]
    changed = (name for name in before.keys() & after.keys() if before[name] != after[name])
    result += [Change(axis, "changed", name, *_readable(axis, before[name], after[name])) for name in changed]
    return sorted(result, key=lambda change: change.name)


def _renamed(removed: Mapping[str, str], added: Mapping[str, str]) -> dict[str, str]:
    """Return old name -> new name of the parts with equal content."""
    unmatched = {content: name for name, content in added.items()}
    return {name: unmatched.pop(content) for name, content in removed.items() if content in unmatched}


def _readable(axis: AxisName, before: str, after: str) -> tuple[str, str]:
    """Return the values of a setting; the other axes have only hashes, which do not help a reader."""
    return (before, after) if axis == "model" else ("", "")


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", json.dumps(value)


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, separators=(",", ":")).encode()).hexdigest()
