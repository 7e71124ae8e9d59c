"""The connection to a cluster: a pod's service account, ``$KUBECONFIG``, a named context."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from spira.kubernetes_connection import NoClusterError, connect


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kubeconfig with contexts a and b; the default file does not exist, and this process runs in no pod."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "absent"))
    path = tmp_path / "kubeconfig"
    content = {
        "clusters": [{"name": name, "cluster": {"server": f"http://{name}:80"}} for name in "ab"],
        "contexts": [{"name": name, "context": {"cluster": name, "user": "u"}} for name in "ab"],
        "users": [{"name": "u", "user": {}}],
        "current-context": "a",
    }
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def pod(kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment and files of a pod's service account."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    for name, content in (("TOKEN", "secret"), ("CERT", "certificate")):
        (tmp_path / name).write_text(content)
        monkeypatch.setattr(f"kubernetes.config.incluster_config.SERVICE_{name}_FILENAME", str(tmp_path / name))


def host(context: str | None = None, kubeconfig: Path | None = None) -> str:
    return connect(context, kubeconfig).configuration.host


def test_the_kubeconfig_of_the_environment_is_read_at_each_call(
    kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kubernetes library alone reads the variable at import."""
    with pytest.raises(NoClusterError, match=r"no cluster: .*; set KUBECONFIG, or name a context"):
        connect()
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    assert (host(), host("b"), host(None, kubeconfig)) == ("http://a:80", "http://b:80", "http://a:80")
    with pytest.raises(NoClusterError, match=r"no cluster: .*c"):
        connect("c")


@pytest.mark.usefixtures("pod")
def test_a_pod_uses_its_service_account_unless_a_context_is_named(kubeconfig: Path) -> None:
    """A named context or kubeconfig comes first."""
    assert host() == "https://10.0.0.1:443"
    assert host("b", kubeconfig) == "http://b:80"


def test_retries_can_be_turned_off(kubeconfig: Path) -> None:
    """A caller with its own deadline needs the first error."""
    assert connect(kubeconfig=kubeconfig, retries=False).configuration.retries is False
