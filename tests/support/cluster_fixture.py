"""A namespace of a real cluster with everything that serving needs, and pods that ask all the time."""

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

from tests.support import ROOT

IMAGE = "spira/serve:dev"
PYTHON = "/opt/serve/bin/python"
SECURE = {
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def loaded(context: str, image: str) -> None:
    """See that kind's nodes have an image of this machine; another cluster must find it by itself."""
    if context.startswith("kind-"):
        cluster = context.removeprefix("kind-")
        subprocess.run(["kind", "load", "docker-image", image, "--name", cluster], check=True, timeout=900)


class Place:
    """A namespace; its claim ``models`` holds a folder a version."""

    def __init__(self, context: str, name: str) -> None:
        self.context, self.name = context, name

    def kubectl(self, *arguments: str, content: bytes | None = None) -> str:
        command = ["kubectl", "--context", self.context, "-n", self.name, *arguments]
        done = subprocess.run(command, input=content, capture_output=True, timeout=300)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.decode()}"
        return done.stdout.decode()

    def make(self, temporary: Path) -> None:
        """The namespace by ``manifests/base/serving``, the claim, and a pod that keeps it open."""
        base = os.path.relpath(ROOT / "manifests" / "base" / "serving", temporary.resolve())
        (temporary / "kustomization.yaml").write_text(f"namespace: {self.name}\nresources: [{base}]\n")
        self.kubectl("apply", "-k", str(temporary))
        claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        self.create(
            {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "models"}, "spec": claim}
        )
        self.run("models", "import time; time.sleep(86400)")
        self.kubectl("wait", "--for=condition=Ready", "pod/models", "--timeout=120s")

    def make_restricted(self, labels: dict[str, str]) -> None:
        """The namespace alone, with further labels; it takes ``restricted`` pods only."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted", **labels}
        self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.name, "labels": labels}})

    def wait_for_end(self, pod: str, seconds: float) -> None:
        """Until a pod has ended, well or not."""
        end = time.monotonic() + seconds
        while self.kubectl("get", "pod", pod, "-o", "jsonpath={.status.phase}") not in ("Succeeded", "Failed"):
            assert time.monotonic() < end, self.kubectl("describe", "pod", pod)
            time.sleep(1)

    def wait_for_words(self, pod: str, words: str, seconds: float) -> None:
        """Until a pod has said something."""
        end = time.monotonic() + seconds
        command = ["kubectl", "--context", self.context, "-n", self.name, "logs", pod]
        while words not in (said := subprocess.run(command, capture_output=True, text=True, timeout=60).stdout):
            assert time.monotonic() < end, f"{pod} doesn't say {words!r}, but: {said}"
            time.sleep(0.5)

    def create(self, thing: dict[str, Any]) -> None:
        self.kubectl("apply", "--server-side", "-f", "-", content=json.dumps(thing).encode())

    def run(self, name: str, script: str, claim: str = "models") -> None:
        """A pod with the claim's content at /models that runs a script."""
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
        self.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})

    def store(self, version: str, package: Path) -> str:
        """Copy a package into the claim; gives its location."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.add(package, version, filter=lambda file: None if "__pycache__" in file.name else file)
        unpack = "import sys, tarfile; tarfile.open(fileobj=sys.stdin.buffer, mode='r|').extractall('/models')"
        self.kubectl("exec", "-i", "models", "--", PYTHON, "-c", unpack, content=packed.getvalue())
        return f"pvc://models/{version}"

    def kubeconfig(self, file: Path) -> Path:
        """One of the service account that deploys, and of nobody else."""
        token = self.kubectl("create", "token", "spira-deployer", "--duration=2h").strip()
        given = json.loads(self.kubectl("config", "view", "--raw", "--minify", "-o", "json"))
        given["users"] = [{"name": "deployer", "user": {"token": token}}]
        given["contexts"][0]["context"]["user"] = "deployer"
        file.write_text(json.dumps(given))
        return file

    def remove(self) -> None:
        subprocess.run(["kubectl", "--context", self.context, "delete", "namespace", self.name], timeout=300)


@dataclass(frozen=True)
class Heard:
    """What a load got so far."""

    answered: dict[str, int]
    """Right answers by version."""
    failed: list[str]


class Load:
    """Two clients in the cluster that ask one recording over and over, one on connections that it keeps.

    Args:
        host: of the model, as the place's pods reach it.
        wav: the recording.
        probabilities: what each version must answer; a version that is not named must not answer at all.
    """

    def __init__(self, place: Place, host: str, wav: bytes, probabilities: dict[str, float]) -> None:
        self.place, self.name = place, f"load-{uuid.uuid4().hex[:8]}"
        ask = {"host": host, "path": "/v2/models/spira/infer", "probabilities": probabilities}
        content = {
            "ask.json": json.dumps(ask),
            "wav.b64": base64.b64encode(wav).decode(),
            "load.py": (Path(__file__).parent / "load.py").read_text(),
        }
        place.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": self.name}, "data": content})
        container = {
            "name": "main",
            "image": IMAGE,
            "imagePullPolicy": "IfNotPresent",
            "command": [PYTHON, "/asks/load.py"],
            "securityContext": SECURE,
            "volumeMounts": [{"name": "asks", "mountPath": "/asks"}],
        }
        volumes = [{"name": "asks", "configMap": {"name": self.name}}]
        spec = {"terminationGracePeriodSeconds": 0, "containers": [container], "volumes": volumes}
        place.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": self.name}, "spec": spec})
        place.kubectl("wait", "--for=condition=Ready", f"pod/{self.name}", "--timeout=120s")
        self.heard_more(Heard({}, []))

    def heard(self) -> Heard:
        lines = self.place.kubectl("logs", self.name, "--tail=1").strip()
        return Heard(**json.loads(lines)) if lines else Heard({}, [])

    def heard_more(self, before: Heard, answers: int = 20) -> Heard:
        """Once so many more answers came."""
        end = time.monotonic() + 60
        while sum((now := self.heard()).answered.values()) < sum(before.answered.values()) + answers:
            assert time.monotonic() < end, f"no more answers: {now}"
            time.sleep(0.5)
        return now

    def stop(self) -> None:
        self.place.kubectl("delete", "pod", self.name, "--wait=false")
