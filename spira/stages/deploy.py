"""The stage that serves a registered version on a target and makes it champion."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from spira import temporary
from spira.stage_logging import StageResult, stage

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DeployResult(StageResult):
    """A deployed version, or one that waits for continuous delivery."""

    model_version: int

    def metrics(self) -> dict[str, str | float]:
        """Return the numbers that a dashboard shows."""
        return {
            "display_name": f"deploy: version {self.model_version}",
            "model_version": self.model_version,
            "seconds": self.seconds,
        }


@stage
def deploy(package: Path, version: int, target: str, *, registry_uri: str, force_reason: str = "") -> DeployResult:
    """Serve a registered version on a target, then make it champion.

    Args:
        package: package folder of the version.
        target: JSON of a target (:mod:`spira.deployment.targets`); empty if continuous delivery deploys the version.
        registry_uri: MLflow URL, or a work folder.
        force_reason: reason to serve a version that is not approved or was rolled back; empty to refuse such a version.

    Raises:
        SpiraError: the golden check failed, or the version cannot be champion; the version before keeps serving.
    """
    if not target:
        log.info("deploy: version %d is challenger and waits for continuous delivery", version)
        return DeployResult(model_version=version)
    from spira.deployment import targets
    from spira.deployment.promotion import apply, move_champion
    from spira.deployment.target import Release, Target
    from spira.registry import open_at
    from spira.signature import is_required

    settings, registry = targets.read(target), open_at(registry_uri)

    def serve(target: Target) -> str | None:
        replaced = apply(target, release)
        log.info("deploy: version %d serves on target %s and passed the golden check", version, target.name)
        return replaced

    with temporary.folder() as folder:
        if is_required():  # the pipeline's own copy has no signature beside it
            package = registry.fetch(version, folder / str(version))
        release = Release(str(version), package, registry.show(version).uri, force_reason)

        def package_of(number: str) -> Path:
            return package if number == release.version else registry.fetch(number, folder / number)

        connected = targets.connect(settings, registry_uri, package_of)
        move_champion([connected], serve, lambda: registry.promote(version, force_reason or None))
    log.info("deploy: version %d is champion", version)
    return DeployResult(model_version=version)
