"""An emulator of Google Cloud Storage in the cluster, reached from this machine by a forwarded port."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from urllib.parse import quote

import requests

from tests.support.cluster_fixture import SECURE, ClusterNamespace

IMAGE = "spira-e2e/gcs:dev"
PORT = 4443
ADDRESS = f"http://gcs:{PORT}"
"""Address for pods of the emulator's namespace: their ``STORAGE_EMULATOR_HOST``."""


class BucketEmulator:
    """The emulator: a pod and a Service, both named ``gcs``, and a forwarded port."""

    def __init__(self, namespace: ClusterNamespace) -> None:
        container = {
            "name": "main",
            "image": IMAGE,
            "imagePullPolicy": "IfNotPresent",
            "args": ["-external-url", ADDRESS, "-public-host", f"gcs:{PORT}"],
            "securityContext": SECURE | {"readOnlyRootFilesystem": True},
            "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
        }
        metadata = {"name": "gcs", "labels": {"app": "gcs"}}
        namespace.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}})
        service = {"selector": {"app": "gcs"}, "ports": [{"port": PORT}]}
        namespace.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "gcs"}, "spec": service})
        namespace.kubectl("wait", "--for=condition=Ready", "pod/gcs", "--timeout=120s")
        self.forward = PortForward(namespace, "pod/gcs", PORT)

    def create(self, bucket: str) -> None:
        """Create a bucket."""
        self._request("POST", "/storage/v1/b?project=e2e", json={"name": bucket})

    def upload(self, bucket: str, folder: Path) -> None:
        """Upload every file of a folder, named by its path in the folder."""
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = quote(str(file.relative_to(folder)), safe="")
            url = f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}"
            self._request("POST", url, data=file.read_bytes())

    def download(self, bucket: str, path: str) -> None:
        """Download the object, or the folder of objects, named like a local path to that path."""
        prefix = path.lstrip("/")
        url = f"/storage/v1/b/{bucket}/o?prefix={quote(prefix, safe='')}"
        names = [item["name"] for item in self._request("GET", url).json().get("items", [])]
        for name in names:
            if name != prefix and not name.startswith(f"{prefix}/"):
                continue  # another object whose name begins with the prefix
            file = Path(f"/{name}")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(self._request("GET", f"/storage/v1/b/{bucket}/o/{quote(name, safe='')}?alt=media").content)

    def _request(self, method: str, path: str, **options: object) -> requests.Response:
        response = requests.request(method, f"{self.forward.address}{path}", timeout=60, **options)
        response.raise_for_status()
        return response

    def close(self) -> None:
        """Stop forwarding the port."""
        self.forward.close()


class PortForward:
    """A port of a pod or a Service, forwarded to a free port of this machine."""

    def __init__(self, namespace: ClusterNamespace, target: str, port: int) -> None:
        command = ["kubectl", "--context", namespace.context, "-n", namespace.name, "port-forward", target, f":{port}"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("Forwarding from 127.0.0.1:"), line
        self.address = f"http://127.0.0.1:{line.split(':')[1].split()[0]}"
        time.sleep(0.2)

    def close(self) -> None:
        """Stop forwarding the port."""
        self.process.kill()
        self.process.wait()
