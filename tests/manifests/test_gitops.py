"""The pipeline as Kubernetes resources: accepted by Kubeflow's definitions, and up to date in the GitOps example."""

from __future__ import annotations

import copy
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from pipelines.kubeflow import settings as cluster
from spira.cli.main import app
from spira.delivery import settings
from tests.support import ROOT

GITOPS = ROOT / "manifests" / "gitops"
CRDS = ROOT / "tests" / "support" / "crds" / "pipelines.yaml"
IMAGE = f"registry.example/spira-train@sha256:{'0' * 64}"


def schemas() -> dict[str, dict[str, Any]]:
    """Return kind -> schema that refuses unknown fields, as an API server does under strict validation."""
    definitions = {item["spec"]["names"]["kind"]: item["spec"] for item in yaml.safe_load_all(CRDS.read_text())}
    return {
        kind: closed(spec["versions"][0]["schema"]["openAPIV3Schema"], root=True) for kind, spec in definitions.items()
    }


def closed(schema: dict[str, Any], root: bool = False) -> dict[str, Any]:
    """Return a schema whose objects with properties have no others; metadata is the API server's own."""
    schema = copy.deepcopy(schema)
    if "properties" in schema:
        schema["additionalProperties"] = False
        schema["properties"] = {
            name: value if root and name == "metadata" else closed(value)
            for name, value in schema["properties"].items()
        }
    return schema


def compiled(folder: Path, *options: str) -> Path:
    """Return the file that the command writes."""
    out = folder / "out.yaml"
    result = CliRunner().invoke(app, ["pipeline", "compile", "--kubernetes", "--out", str(out), *options])
    assert result.exit_code == 0, result.output
    return out


@pytest.mark.integration
@pytest.mark.parametrize(
    "options", [(), ("--image", IMAGE, "--claim", "c", "--secret", "s", "--namespace", "kubeflow")]
)
def test_the_resources_meet_kubeflows_definitions(options: tuple[str, ...], tmp_path: Path):
    """They have no unknown field, which an API server refuses."""
    kinds = []
    for item in yaml.safe_load_all(compiled(tmp_path, *options).read_text()):
        jsonschema.validate(item, schemas()[item["kind"]])
        assert re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", item["metadata"]["name"])
        kinds.append(item["kind"])
    assert kinds == ["Pipeline", "PipelineVersion"]


def test_an_unknown_field_is_found():
    """The check can fail."""
    item = {"kind": "Pipeline", "metadata": {"name": "a"}, "spec": {"displayName": "A"}}
    with pytest.raises(jsonschema.ValidationError, match="displayName"):
        jsonschema.validate(item, schemas()["Pipeline"])


def kubectl(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run kubectl against the cluster of KUBECONFIG."""
    return subprocess.run(["kubectl", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.e2e
def test_an_api_server_accepts_the_resources(tmp_path: Path):
    """One with the definitions, which are installed where they are absent, and removed again."""
    if shutil.which("kubectl") is None or not kubectl("config", "current-context").stdout.startswith("kind-"):
        pytest.skip("the current context is not a kind cluster, and definitions are installed on it")
    if kubectl("version").returncode:
        pytest.skip("the cluster cannot be reached")
    is_installed = kubectl("get", "crd", "pipelineversions.pipelines.kubeflow.org").returncode == 0
    if not is_installed:
        assert kubectl("create", "-f", str(CRDS)).returncode == 0
    try:
        for name in ("pipelines", "pipelineversions"):
            kubectl("wait", "--for=condition=Established", f"crd/{name}.pipelines.kubeflow.org", "--timeout=30s")
        out = compiled(tmp_path, "--image", IMAGE, "--namespace", "default")
        result = kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", str(out))
        assert result.returncode == 0, result.stderr
    finally:
        if not is_installed:
            kubectl("delete", "-f", str(CRDS))


def command() -> list[str]:
    """Return the command that makes the version's file, as the comment of the kustomization has it."""
    text = (GITOPS / "kustomization.yaml").read_text()
    lines = re.search(r"^#   (spira pipeline compile .*\\\n#.*)$", text, re.MULTILINE)
    assert lines
    return shlex.split(lines[1].replace("\\\n#", " "), comments=True)


@pytest.mark.integration
def test_the_pipeline_of_the_example_is_up_to_date(tmp_path: Path):
    """The command in its kustomization makes the same file, with the image that it has."""
    (image,) = set(re.findall(r"image: (\S+@sha256:\w{64})", (GITOPS / "pipeline.yaml").read_text()))
    arguments = [image if part.startswith("IMAGE@") else part for part in command()[3:]]
    out = Path(arguments[arguments.index("--out") + 1])
    arguments[arguments.index("--out") + 1] = str(tmp_path / "out.yaml")
    assert CliRunner().invoke(app, ["pipeline", "compile", *arguments]).exit_code == 0
    made, stored = (tmp_path / "out.yaml").read_bytes(), (ROOT / out).read_bytes()
    assert made == stored, f"make it again: {' '.join(command())}"


def test_the_settings_of_the_example_load():
    """Delivery and the schedule watch the same data, on the same cluster."""
    delivery = settings.load(GITOPS / "delivery.yaml")
    assert cluster.load(Path(delivery.kubeflow)).registry_uri == delivery.registry
    container = yaml.safe_load((GITOPS / "schedule.yaml").read_text())["spec"]["jobTemplate"]["spec"]["template"][
        "spec"
    ]["containers"][0]
    assert f"--data={delivery.data}" in container["args"]
    resource = yaml.safe_load((GITOPS / "resource.yaml").read_text())
    assert f"{resource['metadata']['namespace']}/{resource['metadata']['name']}" == delivery.resource


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl, which renders the manifests, is not installed")
def test_the_example_renders():
    """It has the pipeline, its version, the schedule and the delivery."""
    result = kubectl("kustomize", str(GITOPS))
    assert result.returncode == 0, result.stderr
    kinds = {item["kind"] for item in yaml.safe_load_all(result.stdout)}
    assert {"Pipeline", "PipelineVersion", "CronJob", "Delivery"} <= kinds
