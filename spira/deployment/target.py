"""The protocol of a deployment target. Every method can be repeated, and killed at any moment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from spira.deployment.version_stack import Change
from spira.errors import SpiraError


class DeploymentError(SpiraError):
    """A release that cannot be served; the message names the reason and the remedy."""


@dataclass(frozen=True)
class Release:
    """A model version to serve."""

    version: str
    package: Path
    """Local folder of the version's package."""
    uri: str = ""
    """Immutable location of the version's artifacts, as the model repository gives it; empty if no target needs it."""
    reason: str = ""
    """Reason to serve a version that is not approved or was rolled back; recorded in the history."""
    digest: str = ""
    """Digest of the package: the identity of the release, for which the version is only a label. By default it is
    computed."""

    def __post_init__(self) -> None:
        if not self.digest:
            from spira.packaging.verify import package_digest  # a client of Kubeflow has no numpy, which this imports

            object.__setattr__(self, "digest", package_digest(self.package))


@dataclass(frozen=True)
class Status:
    """State of a target."""

    version: str | None
    """Version that serves; None before the first apply."""
    previous: str | None = None
    """Version that a rollback goes back to."""
    ready: bool = True
    """Whether the target answers requests."""
    message: str = ""
    """Why the target is not ready or has drifted, or other details for the operator."""
    history: tuple[Change, ...] = ()
    """All changes, oldest first."""
    drifted: bool = False
    """Whether the running state differs from the applied one; another apply repairs it."""
    digest: str = ""
    """Digest of the package that serves; empty if it is unknown, because an older program applied it."""

    def serves(self, release: Release) -> bool:
        """Return whether the target serves a release under its version."""
        return self.version == release.version and self.digest in ("", release.digest)


@dataclass(frozen=True)
class Plan:
    """Steps of an apply."""

    version: str
    serving: str | None
    """Version that serves now."""
    steps: tuple[str, ...]
    """Descriptions in order; only the golden check if the version already serves."""


class Target(Protocol):
    """A system that serves one version at a time."""

    @property
    def name(self) -> str:
        """Kind of the target: ``local``, ``kserve`` or ``inference-service``."""

    def status(self) -> Status:
        """Read the state from the serving system itself."""

    def plan(self, release: Release) -> Plan:
        """Return what :meth:`apply` would do; change nothing."""

    def apply(self, release: Release) -> Status:
        """Serve a version after it has passed the golden check on the target.

        On an error the version that served before keeps serving.

        Raises:
            DeploymentError: the target refuses the version or is unreachable.
            PackageError: the package was modified, or its probabilities differ from torch's.
        """

    def verify(self) -> float:
        """Send the golden recordings to the serving version as a client would; return the largest difference.

        Raises:
            DeploymentError: nothing serves, or the target does not answer.
            PackageError: a probability differs from torch's by more than 1e-5.
        """

    def rollback(self, reason: str, bad: str | None = None) -> Status:
        """Serve the previous version again after it has passed the golden check.

        Args:
            reason: recorded in the history.
            bad: roll back only while this version serves, so that the call can be repeated.

        Raises:
            DeploymentError: there is no previous version.
        """
