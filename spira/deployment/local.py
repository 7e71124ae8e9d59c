"""The local target: a ``serving`` folder whose pointer names the package that serves.

    serving/versions/7-1f2e3d4c5b6a/    the package of version 7: its number is a label, its digest the identity
    serving/serving.json                {"history": [{"version", "action", "digest", "at", ...}, ...], "checksum"},
                                        replaced as a whole

A version is copied and passes the golden check before the pointer moves. The pointer is the history, so the version
that served at any time is known. Every method can be killed and called again.

Damage
    Every status compares the package with its digest, and the pointer has a checksum. Applying a version again
    restores its package. A folder ``versions/7`` and an entry without a digest were written by an older program.
"""

from __future__ import annotations

import logging
import re
import shutil
from contextlib import AbstractContextManager
from pathlib import Path

from spira import files
from spira.deployment.target import DeploymentError, Plan, Release, Status
from spira.deployment.version_stack import Action, Change, current_and_previous, read_history, to_json
from spira.packaging import attestation, verify
from spira.packaging.verify import PackageError

log = logging.getLogger(__name__)

FOLDER_DIGEST_CHARACTERS = 12
"""Characters of the digest in a folder's name."""


class Local:
    """The target in a folder; see :class:`spira.deployment.target.Target`.

    Args:
        serving: folder of the target.
        verify_key: path of the public key of signatures; see :mod:`spira.signature`.
    """

    name = "local"

    def __init__(self, serving: Path, verify_key: str = "") -> None:
        self.serving, self.verify_key = serving, verify_key

    def status(self) -> Status:
        """See :class:`~spira.deployment.target.Target`; every file of the package that serves is read.

        Raises:
            DeploymentError: the pointer is damaged.
        """
        history = _read(self.serving)
        current, previous = current_and_previous(history)
        if current is None:
            return Status(None, history=history)
        damage = self._damage(current)
        return Status(
            current.version,
            previous.version if previous else None,
            ready=not damage,
            message=f"{damage}: apply version {current.version} again" if damage else "",
            history=history,
            drifted=bool(damage),
            digest=current.digest or ("" if damage else verify.package_digest(self._folder(current))),
        )

    def _damage(self, change: Change) -> str:
        """Return why the package of a change cannot be served; empty if it is complete and unchanged."""
        folder = self._folder(change)
        if damage := verify.find_damage(folder):
            return f"{folder}: {damage}"
        if change.digest and verify.package_digest(folder) != change.digest:
            return f"{folder}: {verify.DESCRIPTION} is not that of the package that was applied"
        return ""

    @property
    def package(self) -> Path | None:
        """Folder of the package that serves."""
        current, _ = current_and_previous(_read(self.serving))
        return self._folder(current) if current else None

    @property
    def previous_package(self) -> Path | None:
        """Folder of the package that a rollback goes back to."""
        _, previous = current_and_previous(_read(self.serving))
        return self._folder(previous) if previous else None

    def plan(self, release: Release) -> Plan:
        """See :class:`~spira.deployment.target.Target`.

        Raises:
            PackageError: the package is incomplete or was modified.
        """
        serving = self.status()
        verify.check_files(release.package)
        attestation.check(release.package, self.verify_key)
        folder = self._folder(_change(release, "apply"))
        steps = []
        if not _holds(folder, release.digest):
            steps.append(f"copy {release.package} to {folder}")
        steps.append("check its golden recordings")
        if not serving.serves(release):
            steps.append(f"serve version {release.version} instead of {serving.version or 'nothing'}")
        elif serving.drifted:
            steps.append(f"restore version {release.version}: {serving.message}")
        return Plan(release.version, serving.version, tuple(steps))

    def apply(self, release: Release) -> Status:
        """See :class:`~spira.deployment.target.Target`; a damaged copy of the package is replaced.

        Raises:
            PackageError: the package was modified, or its probabilities differ from torch's.
        """
        with self._lock():
            log.info("checking the golden recordings of version %s", release.version)
            verify.check_files(release.package)
            attestation.check(release.package, self.verify_key)
            before = self.status()
            is_repair = before.version == release.version and before.drifted and before.digest in ("", release.digest)
            change = _change(release, "repair" if is_repair else "apply")
            folder = self._folder(change)
            for path in files.unfinished(self.serving / "versions"):  # perhaps of another version
                files.remove_unfinished(path)
            if _holds(folder, release.digest):
                verify.verify(folder)
                _copy_envelope(release.package, folder)  # it may be signed since
            else:
                _copy(release.package, folder)
            if is_repair or not before.serves(release):
                _append(self.serving, change)
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
            current, previous = current_and_previous(_read(self.serving))
            if bad is not None and (current is None or current.version != bad):
                return self.status()
            if current is None or previous is None:
                serving = current.version if current else "now"
                raise DeploymentError(f"{self.serving}: nothing served before {serving}: apply a version instead")
            if damage := self._damage(previous):
                raise PackageError(f"{damage}: version {previous.version} cannot serve; apply it, or another version")
            attestation.check(self._folder(previous), self.verify_key)
            verify.check_golden(self._folder(previous))
            change = Change.now(
                previous.version, "rollback", reason=reason, left=current.version, digest=previous.digest
            )
            _append(self.serving, change)
        return self.status()

    def _folder(self, change: Change) -> Path:
        """Return the folder of the package of a change; that of an older program if it holds the package."""
        if not re.fullmatch(r"[A-Za-z0-9_-]+", change.version):
            raise DeploymentError(f"version {change.version!r}: use letters, digits, - and _ only")
        versions = self.serving / "versions"
        by_version = versions / change.version
        if not change.digest or _holds(by_version, change.digest):
            return by_version
        return versions / f"{change.version}-{change.digest[:FOLDER_DIGEST_CHARACTERS]}"

    def _lock(self) -> AbstractContextManager[object]:
        """Allow one change at a time; the kernel releases the lock when the process ends."""
        return files.lock(self.serving / ".lock")


def _change(release: Release, action: Action) -> Change:
    """Return the entry of the history for a release."""
    return Change.now(release.version, action, reason=release.reason, digest=release.digest)


def _holds(folder: Path, digest: str) -> bool:
    """Return whether a folder has the package of a digest, complete and unchanged."""
    return folder.is_dir() and not verify.find_damage(folder) and verify.package_digest(folder) == digest


def _copy(package: Path, folder: Path) -> None:
    """Copy under a temporary name, check, then rename: every folder under ``versions`` has passed the golden check."""
    with files.new_folder(folder) as copying:
        _copy_envelope(package, folder)  # first: a server that requires a signature finds it with the package
        shutil.copytree(package, copying, symlinks=True, dirs_exist_ok=True)
        verify.verify(copying)


def _copy_envelope(package: Path, folder: Path) -> None:
    """Copy the signature beside a package to its place beside another folder, if there is one."""
    envelope = attestation.envelope_of(package)
    if envelope.exists():
        with files.new_file(attestation.envelope_of(folder)) as copying:
            shutil.copyfile(envelope, copying)


def _read(serving: Path) -> tuple[Change, ...]:
    """Return the history of the pointer; a pointer without a checksum was written by an older program."""
    pointer = serving / "serving.json"
    try:
        content = files.read_json(pointer)
        if files.CHECKSUM in content and not files.has_checksum(content):
            raise ValueError("it differs from its checksum")
        return read_history(content["history"])
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DeploymentError(f"{pointer} is damaged ({error}): restore it, or delete it and apply again") from error


def _append(serving: Path, change: Change) -> None:
    history = to_json([*_read(serving), change])
    files.write_json(serving / "serving.json", files.with_checksum({"history": history}))
