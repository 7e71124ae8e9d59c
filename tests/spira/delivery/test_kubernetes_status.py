"""Publishing a tick: against an API server that keeps resources as Kubernetes does, and against none at all."""

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
from spira.delivery.kubernetes_status import published
from spira.delivery.settings import Settings
from tests.support.in_memory_world import World

PATH = "/apis/spira.internal/v1alpha1/namespaces/here/deliveries"
SETTINGS = Settings(data="voices", resource="here/spira")


class Api(BaseHTTPRequestHandler):
    """Keeps Deliveries of one namespace: by name, and refuses what was read before another wrote."""

    kept: dict[str, dict[str, Any]]
    interfere: list[str]
    """Names that another writes to, before they are written to here."""
    refuses: int

    def do_GET(self) -> None:
        self._answer(self.kept.get(self.path))

    def do_POST(self) -> None:
        made = self._body()
        made["metadata"] |= {"resourceVersion": "1", "generation": 1}
        self.kept[f"{PATH}/{made['metadata']['name']}"] = made
        self._answer(made)

    def do_PUT(self) -> None:
        sent, own = self._body(), self.kept[self.path.removesuffix("/status")]
        if self.interfere:
            self._write(own, {"conditions": [], "wanted": self.interfere.pop()})
        if sent["metadata"]["resourceVersion"] != own["metadata"]["resourceVersion"]:
            return self._answer({"reason": "Conflict"}, 409)
        return self._answer(self._write(own, sent["status"]))

    def _write(self, own: dict[str, Any], status: dict[str, Any]) -> dict[str, Any]:
        own["status"] = status
        own["metadata"]["resourceVersion"] += "1"
        return own

    def _body(self) -> dict[str, Any]:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, body: dict[str, Any] | None, code: int = 200) -> None:
        code = self.refuses or (404 if body is None else code)
        content = json.dumps(body or {}).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def api() -> Iterator[type[Api]]:
    """An empty one; ``address`` is where it listens."""
    handler = type("Handler", (Api,), {"kept": {}, "interfere": [], "refuses": 0})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    handler.address = f"http://127.0.0.1:{server.server_port}"
    yield handler
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def kubeconfig(api: type[Api], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's, which leads to that server."""
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(told_of(api.address)))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(file))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    return file


def told_of(address: str) -> dict[str, Any]:
    return {
        "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": address}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "users": [{"name": "me", "user": {}}],
    }


@pytest.fixture
def world() -> World:
    """A first version was delivered."""
    world = World()
    world.deliver()
    return world


def test_what_is_not_there_is_made_and_told(api: type[Api], world: World):
    """The first tick of all makes the resource."""
    report = world.reconciler().tick()
    assert published(SETTINGS, report) == report
    kept = api.kept[f"{PATH}/spira"]
    assert (kept["kind"], kept["status"]["wanted"], kept["status"]["observedGeneration"]) == ("Delivery", "1", 1)


def test_the_next_tick_tells_anew(api: type[Api], world: World):
    """What no longer holds is gone, and what still does keeps its time."""
    published(SETTINGS, world.reconciler().tick())
    api.kept[f"{PATH}/spira"]["status"]["conditions"][0]["lastTransitionTime"] = "2026-01-01T00:00:00Z"
    world.data = "1"
    published(SETTINGS, world.reconciler().tick())
    assert api.kept[f"{PATH}/spira"]["status"]["training"] == "running"
    published(SETTINGS, world.reconciler().tick())
    assert api.kept[f"{PATH}/spira"]["status"]["conditions"][0]["lastTransitionTime"] == "2026-01-01T00:00:00Z"


def test_who_writes_at_the_same_time_is_heard_first(api: type[Api], world: World):
    """A conflict is read again, and written again."""
    published(SETTINGS, world.reconciler().tick())
    api.interfere += ["8", "9"]
    assert not published(SETTINGS, world.reconciler().tick()).troubles
    assert api.kept[f"{PATH}/spira"]["status"]["wanted"] == "1"
    assert api.interfere == []


def test_without_a_resource_no_cluster_is_asked(world: World, kubeconfig: Path):
    """Which is so on one machine."""
    kubeconfig.unlink()
    report = world.reconciler().tick()
    assert published(Settings(data="voices"), report) is report


@pytest.mark.parametrize(("code", "advice"), [(403, "gives the right"), (404, "base/delivery"), (500, "says 500")])
def test_a_refusal_is_a_trouble_that_says_what_to_do(api: type[Api], world: World, code: int, advice: str):
    """And no more: what the tick did is reported."""
    api.refuses = code
    report = published(SETTINGS, world.reconciler().tick())
    (trouble,) = report.troubles
    assert trouble.startswith("resource here/spira: ")
    assert advice in trouble


def test_a_cluster_that_cannot_be_reached_is_a_trouble(world: World, kubeconfig: Path):
    """Known at once, in one line."""
    kubeconfig.write_text(yaml.safe_dump(told_of("http://127.0.0.1:9")))
    (trouble,) = published(SETTINGS, world.reconciler().tick()).troubles
    assert "the cluster can't be reached: " in trouble
    assert "\n" not in trouble


def test_no_cluster_at_all_is_a_trouble(world: World, kubeconfig: Path):
    """It says which setting to leave out."""
    kubeconfig.unlink()
    (trouble,) = published(SETTINGS, world.reconciler().tick()).troubles
    assert "leave resource out" in trouble


@pytest.mark.parametrize("name", ["spira", "here/", "Here/spira", "a/b/c"])
def test_a_resource_is_named_with_its_namespace(name: str, tmp_path: Path):
    """Anything else is refused with the settings."""
    (tmp_path / "delivery.yaml").write_text(f"data: voices\nresource: {name}\n")
    with pytest.raises(ConfigError, match="resource"):
        settings_file.load(tmp_path / "delivery.yaml")
