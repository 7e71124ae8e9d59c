"""A Kubernetes API server with KServe on 127.0.0.1, reduced to the calls of the target.

It stores InferenceServices with resource versions and conflicts like a real one. An InferenceService has ready pods at
once, unless its version is marked as broken. Their Services answer with the package's model.
"""

from __future__ import annotations

import base64
import copy
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from spira.inference.model import Model

Object = dict[str, Any]
NAMESPACE = "spira-serving"
RUNTIME = {
    "name": "kserve-container",
    "image": "spira/serve:1",
    "args": ["--model-dir=/mnt/models", "--name={{.Name}}"],
    "resources": {"requests": {"cpu": "100m", "memory": "384Mi"}, "limits": {"cpu": "1000m"}},
    "readinessProbe": {"httpGet": {"path": "/v2/models/spira/ready", "port": 8080}, "periodSeconds": 2},
}
"""Container of ServingRuntime ``spira`` as a person writes it; a cluster normalises it in the Deployment."""


@dataclass
class ServerState:
    """State of the cluster, which tests change."""

    locations: dict[str, Path]
    """Package folders by location."""
    objects: dict[str, Object] = field(default_factory=dict)
    serving: dict[str, Object] = field(default_factory=dict)
    """Objects whose pods answer, by name."""
    broken: dict[tuple[str, str], str] = field(default_factory=dict)
    """Last log line of the failing pods, by name and version of the InferenceService."""
    writes: list[str] = field(default_factory=list)
    """All writes in order, as ``name version`` or ``name gone``."""
    after: dict[str, Callable[[], None]] = field(default_factory=dict)
    """Functions that run right after a write."""
    conflicts: int = 0
    """Number of replacements to answer with a conflict."""
    forbidden: bool = False
    runtime: Object | None = field(default_factory=lambda: copy.deepcopy(RUNTIME))
    """Container of the ServingRuntime; None if the runtime does not exist."""
    runtime_forbidden: bool = False
    lags: set[str] = field(default_factory=set)
    """InferenceServices whose Deployments do not yet reflect their last write."""
    containers: dict[str, Object] = field(default_factory=dict)
    """Containers by name of the InferenceService, made from the runtime when the object was written."""
    revision: int = 0


class ApiServer:
    """The server, as a context manager; the kubeconfig connects to it."""

    def __init__(self, locations: dict[str, Path], kubeconfig: Path) -> None:
        self.state = ServerState(locations)
        handler = type("Handler", (_Handler,), {"state": self.state})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.kubeconfig = kubeconfig
        cluster = {"name": "a", "cluster": {"server": f"http://127.0.0.1:{self.http.server_port}"}}
        context = {"name": "a", "context": {"cluster": "a", "user": "a"}}
        content = {
            "clusters": [cluster],
            "contexts": [context],
            "users": [{"name": "a", "user": {}}],
            "current-context": "a",
        }
        kubeconfig.write_text(yaml.safe_dump(content))

    def __enter__(self) -> ApiServer:
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()


class RefusalError(Exception):
    """An HTTP status and its message."""


class _Handler(BaseHTTPRequestHandler):
    state: ServerState

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.answer(self.read)

    def do_POST(self) -> None:
        self.answer(self.create)

    def do_PUT(self) -> None:
        self.answer(self.replace)

    def do_DELETE(self) -> None:
        self.answer(self.delete)

    def answer(self, handle: Callable[[], Object]) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self.body = json.loads(self.rfile.read(length) or b"{}")
        self.parts = urlsplit(self.path)
        self.last = self.parts.path.rsplit("/", 1)[1]
        try:
            status, content = 200, handle()
        except RefusalError as refusal:
            status, content = refusal.args[0], {"kind": "Status", "message": refusal.args[1]}
        raw = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def read(self) -> Object:
        if self.last == "pods":
            return {"items": self.pods(parse_qs(self.parts.query)["labelSelector"][0].rsplit("=", 1)[1])}
        if "/deployments/" in self.parts.path:
            return deployment(self.find(self.last.removesuffix("-predictor")), self.state)
        if "/servingruntimes/" in self.parts.path:
            return self.runtime()
        return self.find(self.last)

    def runtime(self) -> Object:
        if self.state.runtime_forbidden:
            raise RefusalError(403, "servingruntimes is forbidden")
        if self.state.runtime is None or self.last != "spira":
            raise RefusalError(404, f'"{self.last}" not found')
        return {"spec": {"containers": [self.state.runtime]}}

    def find(self, name: str) -> Object:
        if self.state.forbidden:
            raise RefusalError(403, "inferenceservices is forbidden")
        if name not in self.state.objects:
            raise RefusalError(404, f'"{name}" not found')
        return self.state.objects[name]

    def create(self) -> Object:
        if "/proxy/" in self.parts.path:
            return self.infer(self.parts.path.split("/services/")[1].split(":")[0].removesuffix("-predictor"))
        return self.write(self.body, 0)

    def replace(self) -> Object:
        live = self.find(self.last)
        self.state.conflicts -= 1
        if self.state.conflicts >= 0 or self.body["metadata"]["resourceVersion"] != live["metadata"]["resourceVersion"]:
            raise RefusalError(409, "the object has been modified")
        return self.write(self.body, live["metadata"]["generation"])

    def write(self, inference_service: Object, generation: int) -> Object:
        inference_service = copy.deepcopy(inference_service)
        inference_service["spec"]["predictor"]["model"].setdefault("name", "")  # a default that KServe fills in
        if "dryRun" in self.parts.query:
            return inference_service
        state, name = self.state, inference_service["metadata"]["name"]
        state.revision += 1
        inference_service["metadata"] |= {"resourceVersion": str(state.revision), "generation": generation + 1}
        state.objects[name] = inference_service
        state.containers[name] = normalized_container(state.runtime or {}, name)
        if (name, version(inference_service)) not in state.broken:
            state.serving[name] = inference_service
        self.note(f"{name} {version(inference_service)}")
        return inference_service

    def note(self, write: str) -> None:
        self.state.writes.append(write)
        self.state.after.get(write, int)()

    def delete(self) -> Object:
        deleted = self.find(self.last)
        del self.state.objects[self.last]
        self.state.serving.pop(self.last, None)
        self.note(f"{self.last} gone")
        return deleted

    def pods(self, name: str) -> list[Object]:
        if name not in self.state.objects:
            return []
        last_line = self.state.broken.get((name, version(self.find(name))))
        ended = {"exitCode": 1, "message": f"loading\n{last_line}\n"}
        container = {"name": "c", "image": "i", "imageID": "", "ready": False, "restartCount": 2}
        container |= {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": ended}}
        metadata = {"name": f"{name}-{self.state.revision}", "creationTimestamp": "2026-01-01T00:00:00Z"}
        return [{"metadata": metadata, "status": {"containerStatuses": [container]} if last_line else {}}]

    def infer(self, name: str) -> Object:
        if name not in self.state.serving:
            raise RefusalError(503, f"no endpoints available for service {name}")
        inference_service = self.state.serving[name]
        location = inference_service["spec"]["predictor"]["model"]["storageUri"]
        model = load(self.state.locations.get(f"{location}/package") or self.state.locations[location])
        probability = model.probability(base64.b64decode(self.body["inputs"][0]["data"][0]))
        outputs = [{"name": "probability", "datatype": "FP64", "shape": [1], "data": [probability]}]
        return {"model_name": "spira", "model_version": version(inference_service), "id": "", "outputs": outputs}


@cache
def load(package: Path) -> Model:
    return Model.load(package / "data")


def normalized_container(runtime: Object, name: str) -> Object:
    """Return the container of a Deployment as a cluster stores it: templates and defaults filled in."""
    container = json.loads(json.dumps(runtime).replace("{{.Name}}", name).replace("1000m", "1"))
    for probe in (key for key in container if key.endswith("Probe")):
        container[probe] |= {"successThreshold": 1, "timeoutSeconds": 1}
    return container | {"terminationMessagePath": "/dev/termination-log"}


def version(inference_service: Object) -> str:
    return inference_service["spec"]["predictor"]["model"]["env"][0]["value"]


def deployment(inference_service: Object, state: ServerState) -> Object:
    """Return the Deployment of an InferenceService: rolled out, or with new pods that never become ready."""
    broken = (inference_service["metadata"]["name"], version(inference_service)) in state.broken
    counts = {"replicas": 1 + broken, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1}
    env = inference_service["spec"]["predictor"]["model"]["env"]
    container = state.containers[inference_service["metadata"]["name"]] | {"name": "kserve-container", "env": env}
    labels = {"app": inference_service["metadata"]["name"]}
    annotations = (
        {} if inference_service["metadata"]["name"] in state.lags else inference_service["metadata"]["annotations"]
    )
    metadata = {"labels": labels, "annotations": annotations}
    template = {"metadata": metadata, "spec": {"containers": [container]}}
    return {
        "metadata": {"name": f"{inference_service['metadata']['name']}-predictor", "generation": 1},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
        "status": counts | {"observedGeneration": 1},
    }
