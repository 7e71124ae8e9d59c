"""The local target: a ``serving`` folder whose pointer says which package answers.

    serving/versions/7/     the package of version 7, never changed
    serving/serving.json    {"history": [{"version", "action", "at", ...}, ...]}, replaced whole

A version is copied and checked with its golden recordings before the pointer moves. The pointer is the history, so
what served at any time is known. Every verb may be killed and called again.
"""

from __future__ import annotations

import fcntl
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spira import files, packaging
from spira.errors import SpiraError


class DeploymentError(SpiraError):
    """What is asked can't be served; the message says why and what to do."""


@dataclass(frozen=True)
class Status:
    """What a ``serving`` folder serves."""

    version: str | None
    """None before the first apply."""
    package: Path | None
    """Its folder."""
    previous: str | None
    """What a rollback goes back to."""
    history: tuple[dict[str, Any], ...]
    """Every change, oldest first: version, action (apply or rollback), at (UTC), reason of a rollback."""


@dataclass(frozen=True)
class Plan:
    """What :func:`apply` would do."""

    version: str
    serving: str | None
    """What serves now."""
    steps: tuple[str, ...]
    """In order; the check alone where the version serves already."""


def status(serving: Path) -> Status:
    """Read the pointer.

    Raises:
        DeploymentError: it is damaged.
    """
    history = _read(serving)
    line = _line(history)
    version = line[-1] if line else None
    return Status(
        version,
        serving / "versions" / version if version else None,
        line[-2] if len(line) > 1 else None,
        tuple(history),
    )


def plan(serving: Path, package: Path, version: str | int) -> Plan:
    """Say what applying a package as a version would do; changes nothing.

    Raises:
        DeploymentError: the version is there with other content.
        PackageError: the package is incomplete or was changed.
    """
    version, now = _name(version), status(serving)
    packaging.check_files(package)
    steps = []
    if not _is_copied(serving, package, version):
        steps.append(f"copy {package} to {serving / 'versions' / version}")
    steps.append("check its golden recordings")
    if now.version != version:
        steps.append(f"serve version {version} instead of {now.version or 'nothing'}")
    return Plan(version, now.version, tuple(steps))


def apply(serving: Path, package: Path, version: str | int) -> Status:
    """Serve a package as a version, if its golden recordings come out right; else what served goes on.

    Raises:
        DeploymentError: the version is there with other content.
        PackageError: the package was changed, or its probabilities are not torch's.
    """
    version = _name(version)
    with _locked(serving):
        packaging.check_files(package)
        if _is_copied(serving, package, version):
            packaging.verify(serving / "versions" / version)
        else:
            _copy(package, serving / "versions" / version)
        if status(serving).version != version:
            _point(serving, version, "apply")
    return status(serving)


def verify(serving: Path) -> float:
    """Check what serves with its golden recordings; gives the largest difference from torch.

    Raises:
        DeploymentError: nothing serves.
        PackageError: it was changed, or a probability is off.
    """
    package = status(serving).package
    if package is None:
        raise DeploymentError(f"{serving} serves nothing yet: apply a version first")
    return packaging.verify(package)


def rollback(serving: Path, reason: str, bad: str | int | None = None) -> Status:
    """Serve what served before, if it still checks.

    Args:
        reason: kept in the history.
        bad: only while this version serves (makes the call safe to repeat).

    Raises:
        DeploymentError: there is nothing to go back to.
        PackageError: what served before was changed, or its probabilities are off.
    """
    with _locked(serving):
        now = status(serving)
        if bad is not None and now.version != _name(bad):
            return now
        if now.previous is None:
            raise DeploymentError(f"{serving}: nothing served before {now.version or 'now'}: apply a version instead")
        packaging.verify(serving / "versions" / now.previous)
        _point(serving, now.previous, "rollback", reason=reason, left=now.version)
    return status(serving)


def _name(version: str | int) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", str(version)):
        raise DeploymentError(f"version {version!r}: use letters, digits, - and _ only")
    return str(version)


def _line(history: list[dict[str, Any]]) -> list[str]:
    """The versions that rollbacks go back along, the one that serves last."""
    line: list[str] = []
    for entry in history:
        if entry["action"] == "rollback":
            line.pop()
        else:
            line.append(entry["version"])
    return line


def _is_copied(serving: Path, package: Path, version: str) -> bool:
    there = serving / "versions" / version
    if not there.exists():
        return False
    if packaging.same(there, package):
        return True
    raise DeploymentError(f"{there} holds another package: a version never changes, give this one a new number")


def _copy(package: Path, to: Path) -> None:
    """Copy under another name, check, then rename: what stands under ``versions`` has been checked."""
    copying = to.with_name(f".{to.name}.copying")
    shutil.rmtree(copying, ignore_errors=True)  # left by a kill
    shutil.copytree(package, copying, ignore=shutil.ignore_patterns("__pycache__"))
    try:
        packaging.verify(copying)
        copying.rename(to)
    finally:
        shutil.rmtree(copying, ignore_errors=True)


def _read(serving: Path) -> list[dict[str, Any]]:
    pointer = serving / "serving.json"
    try:
        return json.loads(pointer.read_text())["history"]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DeploymentError(f"{pointer} is damaged ({error}): restore it, or delete it and apply again") from error


def _point(serving: Path, version: str, action: str, **told: Any) -> None:
    entry = {"version": version, "action": action, "at": datetime.now(UTC).isoformat(timespec="seconds")}
    files.replace(serving / "serving.json", json.dumps({"history": [*_read(serving), entry | told]}, indent=1))


@contextmanager
def _locked(serving: Path) -> Iterator[None]:
    """One change at a time; the lock goes with its process."""
    (serving / "versions").mkdir(parents=True, exist_ok=True)
    with (serving / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
