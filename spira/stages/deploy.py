"""Registered version to a target that serves it."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

from spira.errors import SpiraError
from spira.stage_logging import stage

log = logging.getLogger(__name__)


@stage
def deploy(package: Path, version: int, target: str, *, registry_uri: str, force_reason: str = "") -> dict[str, Any]:
    """A registered version -> it serves, and only then is champion.

    Args:
        package: the version's package folder.
        target: where, as JSON of :mod:`spira.deployment.targets`; empty where continuous delivery promotes and serves.
        force_reason: why a version that isn't approved, or was rolled back, may serve; empty if it may not.

    Raises:
        SpiraError: its golden recordings come out wrong or it can't be champion; what served before serves on.
    """
    if not target:
        log.info("deploy: version %d waits as challenger for continuous delivery", version)
        return {"model_version": version}
    from spira.deployment import targets
    from spira.deployment.target import Release
    from spira.registry import open_at

    chosen, registry = targets.read(target), open_at(registry_uri)
    release = Release(str(version), package, registry.show(version).uri, force_reason)
    with tempfile.TemporaryDirectory() as folder:

        def packages(which: str) -> Path:
            return package if which == release.version else registry.fetch(which, Path(folder) / which)

        place = targets.connect(chosen, registry_uri, packages)
        before = place.status().version
        place.apply(release)
        log.info("deploy: version %d serves in %s, its golden recordings are right", version, place.name)
        try:
            registry.promote(version, force_reason or None)
        except SpiraError as error:
            if before not in (None, release.version):
                place.rollback(str(error), bad=release.version)
            raise
    log.info("deploy: version %d is champion", version)
    return {"model_version": version}
