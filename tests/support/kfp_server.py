"""A stand-in for the API server of Kubeflow Pipelines 2.17 and for the pods of Kubernetes, with the calls in use.

It stores what it receives, pages and filters listings, and writes times in whole seconds. It refuses what the real
server refuses: an unknown version, missing or unknown parameters, a name that exists where names are unique. A test
changes a run by writing to ``runs`` or by :meth:`ServerState.show`, and makes requests fail by ``trouble``.

Schedules behave as seen on 2.17.0: a run belongs to its schedule and loses its pods with it, while its state stays
RUNNING; a schedule without a version follows the latest, and only its runs see their own name as the job's name.
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

from tests.support.argo_workflow import Workflow

API = "/apis/v2beta1"
VERSION = "2.17.0"
LOGIN_PAGE = "<!doctype html>\n<title>Log in</title>"
PODS = "/api/v1/namespaces/kubeflow/pods"


class RefusalError(Exception):
    """A response with an error status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class ServerState:
    """Objects of the server, by id."""

    experiments: dict[str, dict] = field(default_factory=dict)
    pipelines: dict[str, dict] = field(default_factory=dict)
    versions: dict[str, dict] = field(default_factory=dict)
    runs: dict[str, dict] = field(default_factory=dict)
    recurring_runs: dict[str, dict] = field(default_factory=dict)
    pods: list[dict] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    """Method and path of every request."""
    authorizations: list[str | None] = field(default_factory=list)
    """Header ``Authorization`` of every request."""
    trouble: Callable[[str], str | None] = lambda request: None
    """Function that returns the fault of a request: ``lost`` (it takes effect, but gets no response), ``absent`` (404),
    ``busy`` (503), ``expired`` (401, as JSON), ``login`` (a login page with status 200), ``redirect`` (302 to
    one) or None."""
    healthz: Any = field(default_factory=lambda: {"commit_sha": "unknown", "tag_name": VERSION, "multi_user": False})
    """Body of the health check."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, kind: str, body: dict, **more: Any) -> dict:
        """Store a new object under a new id."""
        id_field = {"versions": "pipeline_version"}.get(kind, kind.removesuffix("s")) + "_id"
        item = body | more | {id_field: str(uuid.uuid4()), "created_at": _now()}
        getattr(self, kind)[item[id_field]] = item
        return item

    def show(self, workflow: Workflow, **changes: Any) -> None:
        """Show the nodes of a workflow as the tasks and pods of its run.

        Args:
            changes: Fields of the run, such as ``state``.
        """
        self.runs[workflow.run_id].update(changes, run_details={"task_details": workflow.details()})
        self.pods += workflow.pods
        self.logs |= workflow.logs

    def fire(self, recurring_run_id: str) -> dict:
        """Start a run of a schedule, on its version or on the latest, and return it."""
        schedule = self.recurring_runs[recurring_run_id]
        reference = schedule["pipeline_version_reference"]
        if not reference.get("pipeline_version_id"):
            reference = reference | {"pipeline_version_id": _latest_version(self, reference["pipeline_id"])}
        kept = {name: schedule[name] for name in ("experiment_id", "runtime_config", "recurring_run_id")}
        number = sum(run.get("recurring_run_id") == recurring_run_id for run in self.runs.values()) + 1
        return self.add(
            "runs",
            kept,
            display_name=f"{schedule['display_name']}-{number}",
            pipeline_version_reference=reference,
            state="RUNNING",
        )

    def clone(self, run_id: str, display_name: str) -> dict:
        """Start a run as the dashboard's "Clone run" does: with all parameters of another."""
        copied = ("experiment_id", "pipeline_version_reference", "runtime_config")
        body = {name: self.runs[run_id][name] for name in copied}
        return self.add("runs", body, display_name=display_name, state="PENDING")

    def job_name(self, run: dict) -> str:
        """Return what ``PIPELINE_JOB_NAME_PLACEHOLDER`` is in the tasks of a run."""
        schedule = self.recurring_runs.get(run.get("recurring_run_id", ""))
        is_pinned = schedule and schedule["pipeline_version_reference"].get("pipeline_version_id")
        return "" if is_pinned else run["display_name"]


@contextmanager
def serving() -> Iterator[tuple[str, ServerState]]:
    """Run a server; give its URL and state."""
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
        self._respond("GET")

    def do_POST(self) -> None:
        self._respond("POST")

    def do_DELETE(self) -> None:
        self._respond("DELETE")

    def log_message(self, *arguments: Any) -> None:
        pass

    def _respond(self, method: str) -> None:
        url = urlsplit(self.path)
        request = f"{method} {url.path.removeprefix(API)}"
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.state.requests.append(request)
        self.state.authorizations.append(self.headers.get("Authorization"))
        fault = self.state.trouble(request)
        if fault in FAULTS:
            self._send(*FAULTS[fault])
            return
        try:
            with self.state.lock:
                response = _handle(self.state, request, query, self._body(content))
            status = 200
        except RefusalError as error:
            status = error.status
            response = {"error": str(error), "code": 3, "message": f"{error}\nstack trace of Kubeflow"}
        if fault == "lost":
            self.close_connection = True
            return
        self._send(status, response)

    def _body(self, content: bytes) -> Any:
        content_type = self.headers.get("Content-Type") or ""
        if not content or content_type.startswith("application/json"):
            return json.loads(content or b"null")
        parts = message_from_bytes(f"Content-Type: {content_type}\r\n\r\n".encode() + content)
        return next(part.get_payload(decode=True).decode() for part in parts.get_payload())

    def _send(self, status: int, response: Any) -> None:
        text = (response if isinstance(response, str) else json.dumps(response)).encode()
        self.send_response(status)
        plain = "text/html" if response == LOGIN_PAGE else "text/plain"
        self.send_header("Content-Type", plain if isinstance(response, str) else "application/json")
        if status == 302:
            self.send_header("Location", "/login")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def _handle(state: ServerState, request: str, query: dict[str, str], body: Any) -> Any:
    """Return the body of the response to a request."""
    for pattern, handler in ROUTES.items():
        if match := re.fullmatch(pattern, request):
            return handler(state, query, body, *match.groups())
    raise RefusalError(404, f"no such path: {request}")


def _list(kind: str) -> Callable[..., dict]:
    """Return a handler that filters by display name, experiment and pipeline, sorts, and returns a page."""

    def handler(state: ServerState, query: dict[str, str], body: Any, pipeline_id: str = "") -> dict:
        items = [item for item in getattr(state, kind).values() if pipeline_id in ("", item.get("pipeline_id"))]
        if "experiment_id" in query:
            items = [item for item in items if item["experiment_id"] == query["experiment_id"]]
        for predicate in json.loads(query.get("filter", "{}")).get("predicates", []):
            assert (predicate["operation"], predicate["key"]) == (1, "display_name")
            items = [item for item in items if item["display_name"] == predicate["stringValue"]]
        if query.get("sort_by") == "created_at desc":
            items.reverse()
        first = int(query.get("page_token") or 0)
        last = first + int(query["page_size"])
        page = {{"versions": "pipeline_versions", "recurring_runs": "recurringRuns"}.get(kind, kind): items[first:last]}
        return page | ({"next_page_token": str(last)} if last < len(items) else {})

    return handler


def _create_unique(kind: str) -> Callable[..., dict]:
    """Return a handler that creates an object whose name must be new."""

    def handler(state: ServerState, query: dict[str, str], body: dict) -> dict:
        _refuse_existing(getattr(state, kind), body["display_name"])
        return state.add(kind, body)

    return handler


def _refuse_existing(items: dict[str, dict], name: str, status: int = 409) -> None:
    if any(item["display_name"] == name for item in items.values()):
        raise RefusalError(status, f"{name} already exists")


def _upload(state: ServerState, query: dict[str, str], body: str) -> dict:
    _refuse_existing(state.versions, query["name"], 500)
    spec, platform = yaml.load_all(body, yaml.CSafeLoader)
    pipeline_spec = {"pipeline_spec": spec, "platform_spec": platform}
    return state.add(
        "versions",
        {"display_name": query["name"], "pipeline_id": query["pipelineid"], "pipeline_spec": pipeline_spec},
        description=query.get("description", ""),
    )


def _start(kind: str, **more: Any) -> Callable[..., dict]:
    """Return a handler that creates a run or schedule; experiment, version and its parameters must be valid.

    A schedule may leave the version out, if it names the pipeline. A parameter with a default may be left out.
    """

    def handler(state: ServerState, query: dict[str, str], body: dict) -> dict:
        reference = body["pipeline_version_reference"]
        version_id = reference.get("pipeline_version_id")
        if not version_id and kind == "recurring_runs":
            version_id = _latest_version(state, reference["pipeline_id"])
        version = state.versions.get(version_id)
        if body["experiment_id"] not in state.experiments or version is None:
            raise RefusalError(404, "no such experiment or version")
        parameters = version["pipeline_spec"]["pipeline_spec"]["root"].get("inputDefinitions", {}).get("parameters", {})
        required = {name for name, spec in parameters.items() if not {"defaultValue", "isOptional"} & set(spec)}
        given = set(body["runtime_config"]["parameters"])
        if wrong := (required - given) | (given - set(parameters)):
            raise RefusalError(400, f"parameters that are missing or unknown: {sorted(wrong)}")
        if "trigger" in body and len(body["trigger"]["cron_schedule"]["cron"].split()) != 6:
            raise RefusalError(400, "invalid cron")
        return state.add(kind, body, **more)

    return handler


def _get(kind: str) -> Callable[..., dict]:
    def handler(state: ServerState, query: dict[str, str], body: Any, id: str) -> dict:
        if id not in getattr(state, kind):
            raise RefusalError(404, f"{id} not found")
        return getattr(state, kind)[id]

    return handler


def _delete(kind: str) -> Callable[..., dict]:
    def handler(state: ServerState, query: dict[str, str], body: Any, id: str) -> dict:
        if getattr(state, kind).pop(id, None) is None:
            raise RefusalError(404, f"{id} not found")
        return {}

    return handler


def _terminate(state: ServerState, query: dict[str, str], body: Any, id: str) -> dict:
    """Terminate a run; its pods end later. A run that has ended is refused."""
    run = _get("runs")(state, query, body, id)
    if run["state"] in ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED"):
        raise RefusalError(400, f"Failed to terminate run {id}: it has ended")
    run["state"] = "CANCELING"
    return {}


def _delete_schedule(state: ServerState, query: dict[str, str], body: Any, id: str) -> dict:
    """Delete a schedule, and with it the workflows and pods of its runs; the runs keep their state."""
    _delete("recurring_runs")(state, query, body, id)
    orphans = {run_id for run_id, run in state.runs.items() if run.get("recurring_run_id") == id}
    state.pods = [pod for pod in state.pods if pod["metadata"]["labels"]["pipeline/runid"] not in orphans]
    return {}


def _latest_version(state: ServerState, pipeline_id: str) -> str | None:
    ids = [id for id, version in state.versions.items() if version["pipeline_id"] == pipeline_id]
    return ids[-1] if ids else None


def _disable_schedule(state: ServerState, query: dict[str, str], body: Any, id: str) -> dict:
    _get("recurring_runs")(state, query, body, id)["mode"] = "DISABLE"
    return {}


def _pods(state: ServerState, query: dict[str, str], body: Any) -> dict:
    label, run_id = query["labelSelector"].split("=")
    items = [pod for pod in state.pods if pod["metadata"]["labels"][label] == run_id]
    return {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}


def _log(state: ServerState, query: dict[str, str], body: Any, name: str) -> str:
    assert query["container"] == "main"
    if name not in state.logs:
        raise RefusalError(404, f"pods {name} not found")
    return state.logs[name]


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


FAULTS: dict[str, tuple[int, Any]] = {
    "absent": (404, {"error": "Not Found", "code": 5, "message": "Not Found"}),
    "busy": (503, {"message": "busy"}),
    "expired": (401, {"error": "token has expired", "code": 16, "message": "token has expired"}),
    "login": (200, LOGIN_PAGE),
    "redirect": (302, ""),
}
"""Status and body by fault."""
ROUTES: dict[str, Callable[..., Any]] = {
    "GET /healthz": lambda state, *_: state.healthz,
    "GET /apis/v1beta1/healthz": lambda state, *_: state.healthz,
    "GET /experiments": _list("experiments"),
    "POST /experiments": _create_unique("experiments"),
    "GET /pipelines": _list("pipelines"),
    "POST /pipelines": _create_unique("pipelines"),
    "GET /pipelines/([^/]+)/versions": _list("versions"),
    "POST /pipelines/upload_version": _upload,
    "GET /runs": _list("runs"),
    "POST /runs": _start("runs", state="PENDING"),
    "GET /runs/([^/]+)": _get("runs"),
    "POST /runs/([^/]+):terminate": _terminate,
    "DELETE /runs/([^/]+)": _delete("runs"),
    "GET /recurringruns": _list("recurring_runs"),
    "POST /recurringruns": _start("recurring_runs"),
    "DELETE /recurringruns/([^/]+)": _delete_schedule,
    "POST /recurringruns/([^/]+):disable": _disable_schedule,
    f"GET {PODS}": _pods,
    f"GET {PODS}/([^/]+)/log": _log,
}
