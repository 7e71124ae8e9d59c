"""A tick as a task of a pipeline: the very command of the CronJob; its settings come as text, and its pod goes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from spira.delivery import settings as settings_file
from spira.errors import SpiraError
from spira.stage_logging import stage

CLUSTER = "cluster.yaml"
"""What the settings call the file of Kubeflow."""
PLACES = tuple(name for name in settings_file.PATHS if name != "kubeflow")


@stage
def tick(text: str, cluster: str, status: Path) -> dict[str, Any]:
    """Observation at data, settings, code, runs and what serves, and do all that is to be done now.

    It is a process of its own, as the reconciler knows the runners, and those the pipelines that components make up.

    Args:
        text: the settings file's. What it says of places must outlive the pod: a bucket, a URL, a mounted volume.
        cluster: likewise, of the file of Kubeflow, which the settings name by ``kubeflow: cluster.yaml``; may be empty.
        status: gets what is going on, JSON.

    Raises:
        SpiraError: the settings are refused, or not everything could be reached: the next tick tries again.
    """
    with tempfile.TemporaryDirectory(prefix="spira-") as folder:
        file = _written(text, cluster, Path(folder).resolve())
        command = [sys.executable, "-m", "spira", "deliver", "tick", f"--settings={file}", "--json"]
        said = subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout
    if not said:
        raise SpiraError("nothing could be done: the lines above say why")
    status.write_bytes(said)
    told = json.loads(said)
    if told["troubles"]:
        raise SpiraError("\n".join(told["troubles"]))
    return {"records": told["records"], "done": len(told["done"])}


def _written(text: str, cluster: str, folder: Path) -> Path:
    """The settings as a file, in a folder that is soon gone: none of its places may be there."""
    file = folder / "delivery.yaml"
    (folder / CLUSTER).write_text(cluster)
    file.write_text(text)
    chosen = settings_file.load(file)
    for name in PLACES:
        if Path(getattr(chosen, name)).is_relative_to(folder):
            raise SpiraError(f"{name}: would go with this pod; give a gs:// prefix, a URL or a whole path of a volume")
    return file
