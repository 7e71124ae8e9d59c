"""The local target: a ``serving`` folder whose pointer says which package answers.

    serving/versions/7/     the package of version 7, never changed
    serving/serving.json    {"history": [{"version", "action", "at", ...}, ...]}, replaced whole

A version is copied and checked with its golden recordings before the pointer moves. The pointer is the history, so
what served at any time is known. Every verb may be killed and called again.
"""

from __future__ import annotations

import fcntl
import json
import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spira import files
from spira.deployment.target import DeploymentError, Plan, Release, Status
from spira.deployment.version_stack import change, versions
from spira.packaging import verify as proof

log = logging.getLogger(__name__)


class Local:
    """The target in a folder; see :class:`spira.deployment.target.Target`."""

    name = "local"

    def __init__(self, serving: Path) -> None:
        self.serving = serving

    def status(self) -> Status:
        """See :class:`~spira.deployment.target.Target`.

        Raises:
            DeploymentError: the pointer is damaged.
        """
        history = _read(self.serving)
        return Status(*versions(history), history=tuple(history))

    @property
    def package(self) -> Path | None:
        """The folder of the package that serves."""
        version = self.status().version
        return self._place(version) if version else None

    def plan(self, release: Release) -> Plan:
        """See :class:`~spira.deployment.target.Target`.

        Raises:
            DeploymentError: the version is there with other content.
            PackageError: the package is incomplete or was changed.
        """
        place, serves = self._place(release.version), self.status().version
        proof.check_files(release.package)
        steps = []
        if not _is_copied(place, release.package):
            steps.append(f"copy {release.package} to {place}")
        steps.append("check its golden recordings")
        if serves != release.version:
            steps.append(f"serve version {release.version} instead of {serves or 'nothing'}")
        return Plan(release.version, serves, tuple(steps))

    def apply(self, release: Release) -> Status:
        """See :class:`~spira.deployment.target.Target`.

        Raises:
            DeploymentError: the version is there with other content.
            PackageError: the package was changed, or its probabilities are not torch's.
        """
        place = self._place(release.version)
        with _locked(self.serving):
            log.info("checks the golden recordings of version %s", release.version)
            proof.check_files(release.package)
            if _is_copied(place, release.package):
                proof.verify(place)
            else:
                _copy(release.package, place)
            if self.status().version != release.version:
                _point(self.serving, release.version, "apply", reason=release.reason)
        return self.status()

    def verify(self) -> float:
        """See :class:`~spira.deployment.target.Target`.

        Raises:
            DeploymentError: nothing serves.
            PackageError: it was changed, or a probability is off.
        """
        package = self.package
        if package is None:
            raise DeploymentError(f"{self.serving} serves nothing yet: apply a version first")
        return proof.verify(package)

    def rollback(self, reason: str, bad: str | None = None) -> Status:
        """See :class:`~spira.deployment.target.Target`.

        Raises:
            DeploymentError: there is nothing to go back to.
            PackageError: what served before was changed, or its probabilities are off.
        """
        with _locked(self.serving):
            now = self.status()
            if bad is not None and now.version != bad:
                return now
            if now.previous is None:
                serves = now.version or "now"
                raise DeploymentError(f"{self.serving}: nothing served before {serves}: apply a version instead")
            proof.verify(self._place(now.previous))
            _point(self.serving, now.previous, "rollback", reason=reason, left=now.version)
        return self.status()

    def _place(self, version: str) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", version):
            raise DeploymentError(f"version {version!r}: use letters, digits, - and _ only")
        return self.serving / "versions" / version


def _is_copied(there: Path, package: Path) -> bool:
    if not there.exists():
        return False
    if proof.is_identical(there, package):
        return True
    raise DeploymentError(f"{there} holds another package: a version never changes, give this one a new number")


def _copy(package: Path, to: Path) -> None:
    """Copy under another name, check, then rename: what stands under ``versions`` has been checked."""
    copying = to.with_name(f".{to.name}.copying")
    shutil.rmtree(copying, ignore_errors=True)  # left by a kill
    shutil.copytree(package, copying, ignore=shutil.ignore_patterns("__pycache__"))
    try:
        proof.verify(copying)
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
    history = [*_read(serving), change(version, action, **told)]
    files.write_text(serving / "serving.json", json.dumps({"history": history}, indent=1))


@contextmanager
def _locked(serving: Path) -> Iterator[None]:
    """One change at a time; the lock goes with its process."""
    (serving / "versions").mkdir(parents=True, exist_ok=True)
    with (serving / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
