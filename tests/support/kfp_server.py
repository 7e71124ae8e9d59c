"""A stand-in for the API server of Kubeflow Pipelines 2.17, and for the pods of Kubernetes: as much as we call.

It keeps what it is sent, refuses what the real one refuses (an unknown version, parameters that the pipeline lacks,
a name twice where names are unique), pages and filters, and stamps whole seconds. A test moves runs on by writing
to ``runs``, and troubles answers by ``trouble``.
"""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

API = "/apis/v2beta1"
PODS = "/api/v1/namespaces/kubeflow/pods"


class RefusalError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class ServerState:
    """What the server holds; each by its id."""

    experiments: dict[str, dict] = field(default_factory=dict)
    pipelines: dict[str, dict] = field(default_factory=dict)
    versions: dict[str, dict] = field(default_factory=dict)
    runs: dict[str, dict] = field(default_factory=dict)
    recurring_runs: dict[str, dict] = field(default_factory=dict)
    pods: list[dict] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    """Every request: method and path."""
    trouble: Callable[[str], str | None] = lambda request: None
    """Of a request: ``lost`` (done, and the answer never comes), ``busy`` (503), or None."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, kind: str, body: dict, **more: Any) -> dict:
        """Keep a new thing under a new id."""
        name = {"versions": "pipeline_version"}.get(kind, kind.removesuffix("s"))
        made = body | more | {f"{name}_id": str(uuid.uuid4()), "created_at": _now()}
        getattr(self, kind)[made[f"{name}_id"]] = made
        return made


@contextmanager
def serving() -> Iterator[tuple[str, ServerState]]:
    """The server's URL and what it holds."""
    state = ServerState()
    handler = type("Handler", (_Handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    state: ServerState
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def log_message(self, *arguments: Any) -> None:
        pass

    def _answer(self, method: str) -> None:
        url = urlsplit(self.path)
        request = f"{method} {url.path.removeprefix(API)}"
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.state.asked.append(request)
        trouble = self.state.trouble(request)
        if trouble == "busy":
            self._send(503, {"message": "busy"})
            return
        try:
            with self.state.lock:
                answer = _routed(self.state, request, query, self._body(content))
            status = 200
        except RefusalError as error:
            status, answer = error.status, {"error": str(error), "code": 3, "message": f"{error}\nstack of Kubeflow's"}
        if trouble == "lost":
            self.close_connection = True
            return
        self._send(status, answer)

    def _body(self, content: bytes) -> Any:
        kind = self.headers.get("Content-Type") or ""
        if not content or kind.startswith("application/json"):
            return json.loads(content or b"null")
        parts = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + content)
        return next(part.get_payload(decode=True).decode() for part in parts.get_payload())

    def _send(self, status: int, answer: Any) -> None:
        text = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(answer, str) else "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def _routed(state: ServerState, request: str, query: dict[str, str], body: Any) -> Any:
    """The answer to a request."""
    for pattern, answer in ROUTES.items():
        if match := re.fullmatch(pattern, request):
            return answer(state, query, body, *match.groups())
    raise RefusalError(404, f"no such path: {request}")


def _list(kind: str) -> Callable[..., dict]:
    """A listing: filtered by display name, experiment and pipeline, sorted, a page of it."""

    def listed(state: ServerState, query: dict[str, str], body: Any, pipeline_id: str = "") -> dict:
        found = [each for each in getattr(state, kind).values() if pipeline_id in ("", each.get("pipeline_id"))]
        if "experiment_id" in query:
            found = [each for each in found if each["experiment_id"] == query["experiment_id"]]
        for predicate in json.loads(query.get("filter", "{}")).get("predicates", []):
            assert (predicate["operation"], predicate["key"]) == (1, "display_name")
            found = [each for each in found if each["display_name"] == predicate["stringValue"]]
        if query.get("sort_by") == "created_at desc":
            found.reverse()
        first = int(query.get("page_token") or 0)
        last = first + int(query["page_size"])
        page = {{"versions": "pipeline_versions", "recurring_runs": "recurringRuns"}.get(kind, kind): found[first:last]}
        return page | ({"next_page_token": str(last)} if last < len(found) else {})

    return listed


def _create_unique(kind: str) -> Callable[..., dict]:
    def create(state: ServerState, query: dict[str, str], body: dict) -> dict:
        _refuse_double(getattr(state, kind), body["display_name"])
        return state.add(kind, body)

    return create


def _refuse_double(there: dict[str, dict], name: str, status: int = 409) -> None:
    if any(each["display_name"] == name for each in there.values()):
        raise RefusalError(status, f"{name} already exists")


def _upload(state: ServerState, query: dict[str, str], body: str) -> dict:
    _refuse_double(state.versions, query["name"], 500)
    spec, platform = yaml.load_all(body, yaml.CSafeLoader)
    pipeline_spec = {"pipeline_spec": spec, "platform_spec": platform}
    return state.add(
        "versions", {"display_name": query["name"], "pipeline_id": query["pipelineid"], "pipeline_spec": pipeline_spec}
    )


def _start(kind: str, **more: Any) -> Callable[..., dict]:
    """A run or schedule: of an experiment, a version, and just the parameters that this takes."""

    def start(state: ServerState, query: dict[str, str], body: dict) -> dict:
        version = state.versions.get(body["pipeline_version_reference"]["pipeline_version_id"])
        if body["experiment_id"] not in state.experiments or version is None:
            raise RefusalError(404, "no such experiment or version")
        taken = set(version["pipeline_spec"]["pipeline_spec"]["root"]["inputDefinitions"]["parameters"])
        if odd := taken ^ set(body["runtime_config"]["parameters"]):
            raise RefusalError(400, f"parameters that are lacking or unknown: {sorted(odd)}")
        if "trigger" in body and len(body["trigger"]["cron_schedule"]["cron"].split()) != 6:
            raise RefusalError(400, "invalid cron")
        return state.add(kind, body, **more)

    return start


def _get(kind: str) -> Callable[..., dict]:
    def get(state: ServerState, query: dict[str, str], body: Any, id: str) -> dict:
        if id not in getattr(state, kind):
            raise RefusalError(404, f"{id} not found")
        return getattr(state, kind)[id]

    return get


def _delete(kind: str) -> Callable[..., dict]:
    def delete(state: ServerState, query: dict[str, str], body: Any, id: str) -> dict:
        if getattr(state, kind).pop(id, None) is None:
            raise RefusalError(404, f"{id} not found")
        return {}

    return delete


def _pods(state: ServerState, query: dict[str, str], body: Any) -> dict:
    (label, run_id), (_, phase) = (query[name].split("=") for name in ("labelSelector", "fieldSelector"))
    items = [
        pod for pod in state.pods if pod["metadata"]["labels"][label] == run_id and pod["status"]["phase"] == phase
    ]
    return {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}


def _log(state: ServerState, query: dict[str, str], body: Any, name: str) -> str:
    assert query["container"] == "main"
    return state.logs[name]


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


ROUTES: dict[str, Callable[..., Any]] = {
    "GET /healthz": lambda *_: {"multi_user": False, "pipeline_store": "database"},
    "GET /experiments": _list("experiments"),
    "POST /experiments": _create_unique("experiments"),
    "GET /pipelines": _list("pipelines"),
    "POST /pipelines": _create_unique("pipelines"),
    "GET /pipelines/([^/]+)/versions": _list("versions"),
    "POST /pipelines/upload_version": _upload,
    "GET /runs": _list("runs"),
    "POST /runs": _start("runs", state="PENDING"),
    "GET /runs/([^/]+)": _get("runs"),
    "DELETE /runs/([^/]+)": _delete("runs"),
    "GET /recurringruns": _list("recurring_runs"),
    "POST /recurringruns": _start("recurring_runs"),
    "DELETE /recurringruns/([^/]+)": _delete("recurring_runs"),
    f"GET {PODS}": _pods,
    f"GET {PODS}/([^/]+)/log": _log,
}
