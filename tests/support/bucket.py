"""An emulator of Google Cloud Storage in the cluster, and this machine's way to what it holds."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from urllib.parse import quote

import requests

from tests.support.cluster_fixture import SECURE, Place

IMAGE = "spira-e2e/gcs:dev"
PORT = 4443
ADDRESS = f"http://gcs:{PORT}"
"""As pods of its namespace reach it: their ``STORAGE_EMULATOR_HOST``."""


class Buckets:
    """The emulator as a pod with a Service ``gcs``, forwarded to a port of this machine while it is open."""

    def __init__(self, place: Place) -> None:
        self.place = place
        container = {
            "name": "main",
            "image": IMAGE,
            "imagePullPolicy": "IfNotPresent",
            "args": ["-external-url", ADDRESS, "-public-host", f"gcs:{PORT}"],
            "securityContext": SECURE | {"readOnlyRootFilesystem": True},
            "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
        }
        metadata = {"name": "gcs", "labels": {"app": "gcs"}}
        place.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}})
        service = {"selector": {"app": "gcs"}, "ports": [{"port": PORT}]}
        place.create({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "gcs"}, "spec": service})
        place.kubectl("wait", "--for=condition=Ready", "pod/gcs", "--timeout=120s")
        self.here = Forward(place, "pod/gcs", PORT)

    def make(self, bucket: str) -> None:
        """A new bucket."""
        self._asked("POST", "/storage/v1/b?project=e2e", json={"name": bucket})

    def put(self, bucket: str, folder: Path) -> None:
        """Every file of a folder, by its path in it."""
        for file in sorted(each for each in folder.rglob("*") if each.is_file()):
            name = quote(str(file.relative_to(folder)), safe="")
            self._asked("POST", f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}", data=file.read_bytes())

    def bring(self, bucket: str, path: str) -> None:
        """The file or the folder that is called as a path of this machine, to there."""
        name = path.lstrip("/")
        listed = self._asked("GET", f"/storage/v1/b/{bucket}/o?prefix={quote(name, safe='')}").json().get("items", [])
        for found in (one["name"] for one in listed if one["name"] == name or one["name"].startswith(f"{name}/")):
            to = Path(f"/{found}")
            to.parent.mkdir(parents=True, exist_ok=True)
            content = self._asked("GET", f"/storage/v1/b/{bucket}/o/{quote(found, safe='')}?alt=media").content
            to.write_bytes(content)

    def _asked(self, method: str, path: str, **more: object) -> requests.Response:
        answer = requests.request(method, f"{self.here.address}{path}", timeout=60, **more)
        answer.raise_for_status()
        return answer

    def close(self) -> None:
        self.here.close()


class Forward:
    """A port of a pod or Service, forwarded to one of this machine."""

    def __init__(self, place: Place, target: str, port: int) -> None:
        command = ["kubectl", "--context", place.context, "-n", place.name, "port-forward", target, f":{port}"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("Forwarding from 127.0.0.1:"), line
        self.address = f"http://127.0.0.1:{line.split(':')[1].split()[0]}"
        time.sleep(0.2)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
