"""A namespace of a real cluster with everything that serving needs, and a generator of load inside the cluster."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import tarfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT

IMAGE = "spira/serve:dev"
PYTHON = "/opt/serve/bin/python"
SECURE = {
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def kind_context() -> str:
    """Return the current context if it is a kind cluster; skip the tests otherwise."""
    if os.environ.get("SPIRA_E2E") != "1":
        pytest.skip("needs a kind cluster: set SPIRA_E2E=1")
    command = ["kubectl", "config", "current-context"]
    context = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    if not context.startswith("kind-"):
        pytest.skip("the current context is not a kind cluster, and the passwords in manifests/kind are public")
    return context


def load_image(context: str, image: str) -> None:
    """Load a local image into the nodes of a kind cluster; do nothing for other clusters, which pull it."""
    if context.startswith("kind-"):
        cluster = context.removeprefix("kind-")
        subprocess.run(["kind", "load", "docker-image", image, "--name", cluster], check=True, timeout=900)


class ClusterNamespace:
    """A namespace of a cluster, used through kubectl.

    Args:
        context: context of the kubeconfig.
        name: name of the namespace.
    """

    def __init__(self, context: str, name: str) -> None:
        self.context, self.name = context, name

    def kubectl(self, *arguments: str, content: bytes | None = None) -> str:
        """Run kubectl in the namespace and return its output."""
        command = ["kubectl", "--context", self.context, "-n", self.name, *arguments]
        result = subprocess.run(command, input=content, capture_output=True, timeout=300)
        assert result.returncode == 0, f"{' '.join(command)}: {result.stderr.decode()}"
        return result.stdout.decode()

    def create_for_serving(self, folder: Path) -> None:
        """Create the namespace from ``manifests/base/serving``, the claim ``models``, and a pod that mounts the claim.

        Args:
            folder: an empty folder for the overlay.
        """
        base = os.path.relpath(ROOT / "manifests" / "base" / "serving", folder.resolve())
        (folder / "kustomization.yaml").write_text(f"namespace: {self.name}\nresources: [{base}]\n")
        self.kubectl("apply", "-k", str(folder))
        claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        self.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "models"}, "spec": claim})
        self.run_script("models", "import time; time.sleep(86400)")
        self.kubectl("wait", "--for=condition=Ready", "pod/models", "--timeout=120s")

    def create_restricted(self, labels: dict[str, str]) -> None:
        """Create the namespace only, with further labels. It admits ``restricted`` pods only."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted", **labels}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.name, "labels": labels}})

    def wait_for_end(self, pod: str, seconds: float) -> None:
        """Wait until a pod has succeeded or failed."""
        end = time.monotonic() + seconds
        while self.kubectl("get", "pod", pod, "-o", "jsonpath={.status.phase}") not in ("Succeeded", "Failed"):
            assert time.monotonic() < end, self.kubectl("describe", "pod", pod)
            time.sleep(1)

    def wait_for_log(self, pod: str, text: str, seconds: float) -> None:
        """Wait until the log of a pod contains a text."""
        end = time.monotonic() + seconds
        command = ["kubectl", "--context", self.context, "-n", self.name, "logs", pod]
        while text not in (log := subprocess.run(command, capture_output=True, text=True, timeout=60).stdout):
            assert time.monotonic() < end, f"the log of {pod} does not contain {text!r}: {log}"
            time.sleep(0.5)

    def apply(self, manifest: dict[str, Any]) -> None:
        """Create or change an object."""
        self.kubectl("apply", "--server-side", "-f", "-", content=json.dumps(manifest).encode())

    def run_script(self, name: str, script: str, claim: str = "models") -> None:
        """Start a pod that runs a Python script, with a claim mounted at /models."""
        container = {
            "name": "main",
            "image": IMAGE,
            "imagePullPolicy": "IfNotPresent",
            "command": [PYTHON, "-c", script],
            "securityContext": SECURE,
            "volumeMounts": [{"name": "models", "mountPath": "/models"}],
        }
        spec = {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
            "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": claim}}],
        }
        self.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})

    def store_package(self, version: str, package: Path) -> str:
        """Copy a package into the claim ``models`` and return its URI."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.add(package, version, filter=lambda file: None if "__pycache__" in file.name else file)
        unpack = "import sys, tarfile; tarfile.open(fileobj=sys.stdin.buffer, mode='r|').extractall('/models')"
        self.kubectl("exec", "-i", "models", "--", PYTHON, "-c", unpack, content=packed.getvalue())
        return f"pvc://models/{version}"

    def write_kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig with only the rights of the service account ``spira-deployer``."""
        token = self.kubectl("create", "token", "spira-deployer", "--duration=2h").strip()
        kubeconfig = json.loads(self.kubectl("config", "view", "--raw", "--minify", "-o", "json"))
        kubeconfig["users"] = [{"name": "deployer", "user": {"token": token}}]
        kubeconfig["contexts"][0]["context"]["user"] = "deployer"
        path.write_text(json.dumps(kubeconfig))
        return path

    def delete(self) -> None:
        """Delete the namespace and everything in it."""
        subprocess.run(["kubectl", "--context", self.context, "delete", "namespace", self.name], timeout=300)


@dataclass(frozen=True)
class LoadResult:
    """Responses to a load generator so far."""

    answered: dict[str, int]
    """Number of right responses by version."""
    failed: list[str]
    """Errors of the other requests."""


class LoadGenerator:
    """A pod with two clients that send one recording again and again; one client keeps its connection open.

    Args:
        namespace: namespace of the pod.
        host: host name of the model inside the cluster.
        wav: the recording.
        probabilities: expected probability by version; a response of any other version is an error.
    """

    def __init__(self, namespace: ClusterNamespace, host: str, wav: bytes, probabilities: dict[str, float]) -> None:
        self.namespace, self.name = namespace, f"load-{uuid.uuid4().hex[:8]}"
        request = {"host": host, "path": "/v2/models/spira/infer", "probabilities": probabilities}
        content = {
            "request.json": json.dumps(request),
            "wav.b64": base64.b64encode(wav).decode(),
            "load.py": (Path(__file__).parent / "load.py").read_text(),
        }
        namespace.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": self.name}, "data": content})
        container = {
            "name": "main",
            "image": IMAGE,
            "imagePullPolicy": "IfNotPresent",
            "command": [PYTHON, "/load/load.py"],
            "securityContext": SECURE,
            "volumeMounts": [{"name": "load", "mountPath": "/load"}],
        }
        volumes = [{"name": "load", "configMap": {"name": self.name}}]
        spec = {"terminationGracePeriodSeconds": 0, "containers": [container], "volumes": volumes}
        namespace.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": self.name}, "spec": spec})
        namespace.kubectl("wait", "--for=condition=Ready", f"pod/{self.name}", "--timeout=120s")
        self.wait_for_answers(LoadResult({}, []))

    def result(self) -> LoadResult:
        """Return the responses so far."""
        line = self.namespace.kubectl("logs", self.name, "--tail=1").strip()
        return LoadResult(**json.loads(line)) if line else LoadResult({}, [])

    def wait_for_answers(self, before: LoadResult, answers: int = 20) -> LoadResult:
        """Wait for this many right responses more than in ``before`` and return the responses so far."""
        end = time.monotonic() + 60
        while sum((result := self.result()).answered.values()) < sum(before.answered.values()) + answers:
            assert time.monotonic() < end, f"no further right responses: {result}"
            time.sleep(0.5)
        return result

    def stop(self) -> None:
        """Delete the pod."""
        self.namespace.kubectl("delete", "pod", self.name, "--wait=false")
