"""Runs in a task's pod, before and after its command, where Kubeflow's launcher would: artifacts come and go.

    launch.py BUCKET EXECUTOR_INPUT COMMAND...

Input artifacts come out of the bucket to the paths that the executor is told, output artifacts and what the executor
says of them go into it. Exit code: the command's.
"""

import json
import subprocess
import sys
from pathlib import Path

from google.cloud import storage


def main(bucket_name: str, executor_input: str, *command: str) -> int:
    told = json.loads(executor_input)
    bucket = storage.Client(project="e2e").bucket(bucket_name)
    for path in artifacts(told["inputs"]):
        fetch(bucket, path)
    code = subprocess.run(command, check=False).returncode
    said = Path(told["outputs"]["outputFile"])
    for path in [*artifacts(told["outputs"]), said]:
        keep(bucket, path)
    return code


def artifacts(side: dict) -> list[Path]:
    """Paths of all artifacts of one side, those of lists too."""
    listed = side.get("artifacts", {}).values()
    return [Path(one["uri"]) for each in listed for one in each["artifacts"]]


def fetch(bucket: storage.Bucket, path: Path) -> None:
    """A file or a folder, by the name that its path is in the bucket."""
    for blob in bucket.list_blobs(prefix=key(path)):
        rest = blob.name.removeprefix(key(path))
        if rest and not rest.startswith("/"):
            continue  # a longer name, not this one's folder
        to = Path(f"/{blob.name}")
        to.parent.mkdir(parents=True, exist_ok=True)
        blob.download_to_filename(to)


def keep(bucket: storage.Bucket, path: Path) -> None:
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    for file in files:
        bucket.blob(key(file)).upload_from_filename(file)


def key(path: Path) -> str:
    return str(path).lstrip("/")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
