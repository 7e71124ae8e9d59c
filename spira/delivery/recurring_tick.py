"""A tick as a task of a pipeline: the command of the CronJob, with settings as text and a pod that does not persist."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from spira import temporary
from spira.delivery import settings as settings_file
from spira.delivery.status import TickStatus
from spira.errors import SpiraError
from spira.stage_logging import StageResult, stage

KFP_RUNTIME = "_KFP_RUNTIME"
"""Environment variable by which kfp knows that it runs in a task, and leaves its compiler out."""
CLUSTER_FILE = "cluster.yaml"
"""Name by which the settings refer to the Kubeflow settings."""
PERSISTENT_PATHS = tuple(name for name in settings_file.PATHS if name != "kubeflow")
"""Settings with a path; each must outlive the pod."""


@dataclass(frozen=True, kw_only=True)
class TickResult(StageResult):
    """Numbers of a tick."""

    records: int
    """Records in the ledger."""
    done: int
    """Actions of the tick."""


@stage
def tick(text: str, cluster: str, status: Path) -> TickResult:
    """Run ``spira deliver tick`` and write its status.

    The tick is a process of its own because only ``spira.cli`` can compose the runners, and those need the pipelines
    that components make up.

    Args:
        text: content of the settings file. Its paths must outlive the pod: a bucket, a URL or a mounted volume.
        cluster: content of the Kubeflow settings, which the settings call ``cluster.yaml``; may be empty.
        status: file for the status, JSON.

    Raises:
        SpiraError: the settings are invalid, or something was unreachable; the next tick tries again.
    """
    with temporary.folder() as folder:
        path = _write_settings(text, cluster, folder.resolve())
        command = [sys.executable, "-m", "spira", "deliver", "tick", f"--settings={path}", "--json"]
        output = subprocess.run(command, stdout=subprocess.PIPE, env=_environment(), check=False).stdout
    if not output:
        raise SpiraError("the tick ended without a status: the lines above have the cause")
    status.write_bytes(output)
    result = TickStatus.model_validate_json(output)
    if result.troubles:
        raise SpiraError("\n".join(result.troubles))
    return TickResult(records=result.records, done=len(result.done))


def _environment() -> dict[str, str]:
    """Return this environment without kfp's mark of a task, with which ``kfp.compiler`` cannot be imported."""
    return {name: value for name, value in os.environ.items() if name != KFP_RUNTIME}


def _write_settings(text: str, cluster: str, folder: Path) -> Path:
    """Write the settings into a temporary folder, and refuse settings with a path inside of it."""
    path = folder / "delivery.yaml"
    (folder / CLUSTER_FILE).write_text(cluster)
    path.write_text(text)
    settings = settings_file.load(path)
    for name in PERSISTENT_PATHS:
        if Path(getattr(settings, name)).is_relative_to(folder):
            raise SpiraError(
                f"{name}: a relative path is lost with this pod; give a gs:// or s3:// prefix, a URL or an absolute "
                "path of a volume"
            )
    return path
