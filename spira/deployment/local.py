"""The local target: a ``serving`` folder whose pointer names the package that serves.

    serving/versions/7/     the package of version 7, never changed
    serving/serving.json    {"history": [{"version", "action", "at", ...}, ...]}, replaced as a whole

A version is copied and passes the golden check before the pointer moves. The pointer is the history, so the version
that served at any time is known. Every method can be killed and called again.
"""

from __future__ import annotations

import logging
import re
import shutil
from contextlib import AbstractContextManager
from pathlib import Path

from spira import files
from spira.deployment.target import DeploymentError, Plan, Release, Status
from spira.deployment.version_stack import Change, current_and_previous, read_history, to_json
from spira.packaging import attestation, verify
from spira.packaging.verify import PackageError

log = logging.getLogger(__name__)


class Local:
    """The target in a folder; see :class:`spira.deployment.target.Target`."""

    name = "local"

    def __init__(self, serving: Path) -> None:
        self.serving = serving

    def status(self) -> Status:
        """See :class:`~spira.deployment.target.Target`; the package that the pointer names must exist.

        Raises:
            DeploymentError: the pointer is damaged.
        """
        history = _read(self.serving)
        version, previous = current_and_previous(history)
        problem = self._problem(version) if version else ""
        return Status(version, previous, ready=not problem, message=problem, history=history)

    def _problem(self, version: str) -> str:
        """Return why the package of a version cannot be served; empty if its files exist."""
        try:
            verify.check_complete(self._version_folder(version))
        except PackageError:
            return f"{self._version_folder(version)} is missing or incomplete: remove it and apply the version again"
        return ""

    @property
    def package(self) -> Path | None:
        """Folder of the package that serves."""
        version = self.status().version
        return self._version_folder(version) if version else None

    def plan(self, release: Release) -> Plan:
        """See :class:`~spira.deployment.target.Target`.

        Raises:
            DeploymentError: the folder holds the version with another content.
            PackageError: the package is incomplete or was modified.
        """
        folder, serving = self._version_folder(release.version), self.status().version
        verify.check_files(release.package)
        attestation.check(release.package)
        steps = []
        if not _is_copied(folder, release.package):
            steps.append(f"copy {release.package} to {folder}")
        steps.append("check its golden recordings")
        if serving != release.version:
            steps.append(f"serve version {release.version} instead of {serving or 'nothing'}")
        return Plan(release.version, serving, tuple(steps))

    def apply(self, release: Release) -> Status:
        """See :class:`~spira.deployment.target.Target`.

        Raises:
            DeploymentError: the folder holds the version with another content.
            PackageError: the package was modified, or its probabilities differ from torch's.
        """
        folder = self._version_folder(release.version)
        with self._lock():
            log.info("checking the golden recordings of version %s", release.version)
            verify.check_files(release.package)
            attestation.check(release.package)
            if _is_copied(folder, release.package):
                verify.verify(folder)
            else:
                _copy(release.package, folder)
            if self.status().version != release.version:
                _append(self.serving, Change.now(release.version, "apply", reason=release.reason))
        return self.status()

    def verify(self) -> float:
        """See :class:`~spira.deployment.target.Target`.

        Raises:
            DeploymentError: no version serves.
            PackageError: the package was modified, or a probability differs.
        """
        package = self.package
        if package is None:
            raise DeploymentError(f"{self.serving} serves nothing yet: apply a version first")
        return verify.verify(package)

    def rollback(self, reason: str, bad: str | None = None) -> Status:
        """See :class:`~spira.deployment.target.Target`.

        Raises:
            DeploymentError: there is no previous version.
            PackageError: the previous package was modified, or its probabilities differ.
        """
        with self._lock():
            status = self.status()
            if bad is not None and status.version != bad:
                return status
            if status.previous is None:
                serving = status.version or "now"
                raise DeploymentError(f"{self.serving}: nothing served before {serving}: apply a version instead")
            verify.verify(self._version_folder(status.previous))
            _append(self.serving, Change.now(status.previous, "rollback", reason=reason, left=status.version or ""))
        return self.status()

    def _version_folder(self, version: str) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", version):
            raise DeploymentError(f"version {version!r}: use letters, digits, - and _ only")
        return self.serving / "versions" / version

    def _lock(self) -> AbstractContextManager[object]:
        """Allow one change at a time; the kernel releases the lock when the process ends."""
        return files.lock(self.serving / ".lock")


def _is_copied(folder: Path, package: Path) -> bool:
    if not folder.exists():
        return False
    if verify.is_identical(folder, package):
        return True
    raise DeploymentError(
        f"{folder} holds another package: a version never changes, register this one as a new version"
    )


def _copy(package: Path, folder: Path) -> None:
    """Copy under a temporary name, check, then rename: every folder under ``versions`` has passed the golden check."""
    with files.new_folder(folder) as copying:
        envelope = attestation.envelope_of(package)
        if envelope.exists():  # first: a server that requires a signature finds it as soon as it finds the package
            shutil.copyfile(envelope, attestation.envelope_of(folder))
        shutil.copytree(package, copying, symlinks=True, dirs_exist_ok=True)
        verify.verify(copying)


def _read(serving: Path) -> tuple[Change, ...]:
    pointer = serving / "serving.json"
    try:
        return read_history(files.read_json(pointer)["history"])
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DeploymentError(f"{pointer} is damaged ({error}): restore it, or delete it and apply again") from error


def _append(serving: Path, change: Change) -> None:
    files.write_json(serving / "serving.json", {"history": to_json([*_read(serving), change])})
