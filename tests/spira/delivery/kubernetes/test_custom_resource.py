"""Publishing the status of a tick, to a server that stores resources as Kubernetes does, and to no server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from spira.config import ConfigError
from spira.delivery import settings as settings_file
from spira.delivery.kubernetes.custom_resource import publish_report
from spira.delivery.settings import Settings
from tests.support.in_memory_world import InMemoryWorld

PATH = "/apis/spira.internal/v1alpha1/namespaces/here/deliveries"
SETTINGS = Settings(data="voices", resource="here/spira")


class Api(BaseHTTPRequestHandler):
    """API server with the Deliveries of one namespace; an update with an old resource version is a conflict."""

    resources: dict[str, dict[str, Any]]
    """Objects are stored by path."""
    interfere: list[str]
    """Values of ``wanted`` that another process writes before the next updates."""
    error_status: int
    """Status of every response; 0 for normal responses."""

    def do_GET(self) -> None:
        self._respond(self.resources.get(self.path))

    def do_POST(self) -> None:
        resource = self._body()
        resource["metadata"] |= {"resourceVersion": "1", "generation": 1}
        self.resources[f"{PATH}/{resource['metadata']['name']}"] = resource
        self._respond(resource)

    def do_PUT(self) -> None:
        sent, stored = self._body(), self.resources[self.path.removesuffix("/status")]
        if self.interfere:
            self._write(stored, {"conditions": [], "wanted": self.interfere.pop()})
        if sent["metadata"]["resourceVersion"] != stored["metadata"]["resourceVersion"]:
            return self._respond({"reason": "Conflict"}, 409)
        return self._respond(self._write(stored, sent["status"]))

    def _write(self, resource: dict[str, Any], status: dict[str, Any]) -> dict[str, Any]:
        resource["status"] = status
        resource["metadata"]["resourceVersion"] += "1"
        return resource

    def _body(self) -> dict[str, Any]:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def _respond(self, body: dict[str, Any] | None, status: int = 200) -> None:
        status = self.error_status or (404 if body is None else status)
        content = json.dumps(body or {}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@pytest.fixture
def api() -> Iterator[type[Api]]:
    """A server without resources; ``address`` is its URL."""
    handler = type("Handler", (Api,), {"resources": {}, "interfere": [], "error_status": 0})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    handler.address = f"http://127.0.0.1:{server.server_port}"
    yield handler
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def kubeconfig(api: type[Api], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's kubeconfig, which points to the server."""
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(kubeconfig_for(api.address)))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(file))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    return file


def kubeconfig_for(address: str) -> dict[str, Any]:
    return {
        "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": address}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "users": [{"name": "me", "user": {}}],
    }


@pytest.fixture
def world() -> InMemoryWorld:
    """One delivered version."""
    world = InMemoryWorld()
    world.deliver()
    return world


def test_the_first_tick_creates_the_resource(api: type[Api], world: InMemoryWorld):
    report = world.reconciler().tick()
    assert publish_report(SETTINGS, report) == report
    resource = api.resources[f"{PATH}/spira"]
    status = resource["status"]
    assert (resource["kind"], status["wanted"], status["observedGeneration"]) == ("Delivery", "1", 1)


def test_the_next_tick_replaces_the_status(api: type[Api], world: InMemoryWorld):
    """A condition whose status is the same keeps its transition time."""
    publish_report(SETTINGS, world.reconciler().tick())
    api.resources[f"{PATH}/spira"]["status"]["conditions"][0]["lastTransitionTime"] = "2026-01-01T00:00:00Z"
    world.data = "1"
    publish_report(SETTINGS, world.reconciler().tick())
    assert api.resources[f"{PATH}/spira"]["status"]["training"] == "running"
    publish_report(SETTINGS, world.reconciler().tick())
    assert api.resources[f"{PATH}/spira"]["status"]["conditions"][0]["lastTransitionTime"] == "2026-01-01T00:00:00Z"


def test_a_conflict_is_resolved_by_reading_and_writing_again(api: type[Api], world: InMemoryWorld):
    publish_report(SETTINGS, world.reconciler().tick())
    api.interfere += ["8", "9"]
    assert not publish_report(SETTINGS, world.reconciler().tick()).troubles
    assert api.resources[f"{PATH}/spira"]["status"]["wanted"] == "1"
    assert api.interfere == []


def test_without_a_resource_no_cluster_is_used(world: InMemoryWorld, kubeconfig: Path):
    kubeconfig.unlink()
    report = world.reconciler().tick()
    assert publish_report(Settings(data="voices"), report) is report


@pytest.mark.parametrize(("status", "advice"), [(403, "grants it"), (404, "base/delivery"), (500, "responded 500")])
def test_a_refused_request_is_a_trouble_with_advice(api: type[Api], world: InMemoryWorld, status: int, advice: str):
    """The rest of the report stays."""
    api.error_status = status
    report = publish_report(SETTINGS, world.reconciler().tick())
    (trouble,) = report.troubles
    assert trouble.startswith("resource here/spira: ")
    assert advice in trouble


def test_an_unreachable_cluster_is_a_trouble_in_one_line(world: InMemoryWorld, kubeconfig: Path):
    kubeconfig.write_text(yaml.safe_dump(kubeconfig_for("http://127.0.0.1:9")))
    (trouble,) = publish_report(SETTINGS, world.reconciler().tick()).troubles
    assert "the cluster is unreachable: " in trouble
    assert "\n" not in trouble


def test_without_any_kubeconfig_the_trouble_names_the_setting(world: InMemoryWorld, kubeconfig: Path):
    kubeconfig.unlink()
    (trouble,) = publish_report(SETTINGS, world.reconciler().tick()).troubles
    assert "leave resource out" in trouble


@pytest.mark.parametrize("name", ["spira", "here/", "Here/spira", "a/b/c"])
def test_a_resource_without_its_namespace_is_refused(name: str, tmp_path: Path):
    (tmp_path / "delivery.yaml").write_text(f"data: voices\nresource: {name}\n")
    with pytest.raises(ConfigError, match="resource"):
        settings_file.load(tmp_path / "delivery.yaml")
