"""A stand-in for Kubeflow's launcher, run in the pod of a task: it moves artifacts before and after the command.

    launcher.py BUCKET EXECUTOR_INPUT COMMAND...

Input artifacts are downloaded from the bucket to the paths in the executor input. Output artifacts and the executor's
output file are uploaded to it. The exit code is that of the command.
"""

import json
import subprocess
import sys
from pathlib import Path

from google.cloud import storage


def main(bucket_name: str, executor_input: str, *command: str) -> int:
    """Run a command between the download of its inputs and the upload of its outputs; return its exit code."""
    task = json.loads(executor_input)
    bucket = storage.Client(project="e2e").bucket(bucket_name)
    for path in artifacts(task["inputs"]):
        download(bucket, path)
    code = subprocess.run(command, check=False).returncode
    output_file = Path(task["outputs"]["outputFile"])
    for path in [*artifacts(task["outputs"]), output_file]:
        upload(bucket, path)
    return code


def artifacts(side: dict) -> list[Path]:
    """Return the paths of all artifacts of the inputs or the outputs, including those in lists."""
    lists = side.get("artifacts", {}).values()
    return [Path(artifact["uri"]) for artifact_list in lists for artifact in artifact_list["artifacts"]]


def download(bucket: storage.Bucket, path: Path) -> None:
    """Download the object, or the folder of objects, named like a path to that path."""
    for blob in bucket.list_blobs(prefix=key(path)):
        rest = blob.name.removeprefix(key(path))
        if rest and not rest.startswith("/"):
            continue  # another object whose name begins with the path
        file = Path(f"/{blob.name}")
        file.parent.mkdir(parents=True, exist_ok=True)
        blob.download_to_filename(file)


def upload(bucket: storage.Bucket, path: Path) -> None:
    """Upload a file, or every file of a folder."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    for file in files:
        bucket.blob(key(file)).upload_from_filename(file)


def key(path: Path) -> str:
    """Return the object name of a path."""
    return str(path).lstrip("/")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
