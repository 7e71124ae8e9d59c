"""All of manifests/kind on the cluster, once for all tests that need it, and gone afterwards."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.cluster_fixture import Place, loaded

NAMESPACES = ("mlflow", "spira-serving", "spira-delivery")
IMAGES = ("spira/base:dev", "spira/serve:dev")
FETCHES = "clusterstoragecontainer/default"
"""KServe's object for what fetches models."""
CRD = "crd/deliveries.spira.internal"


@pytest.fixture(scope="session")
def spira_on_kind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The context of a kind cluster to which manifests/kind is applied, everything ready.

    The tick is suspended: tests begin theirs. What is found there under our names is somebody's, and is left alone.
    """
    context = _context()
    place = Place(context, "mlflow")
    for namespace in NAMESPACES:
        if _is_there(context, f"namespace/{namespace}"):
            pytest.skip(f"namespace {namespace} is in {context} already, and not by these tests: delete it first")
    subprocess.run([ROOT / "tests/e2e/images/load", context.removeprefix("kind-")], check=True, timeout=900)
    for image in IMAGES:
        loaded(context, image)
    had_crd = _is_there(context, CRD)
    fetches = json.loads(place.kubectl("get", FETCHES, "-o", "json"))["spec"]["container"]
    try:
        place.kubectl("patch", FETCHES, "--type=merge", "--patch-file", str(ROOT / "manifests/kserve/storage.yaml"))
        overlay = _suspended(tmp_path_factory.mktemp("kind"))
        subprocess.run(["kubectl", "--context", context, "apply", "-k", overlay], check=True, timeout=120)
        for what in ("statefulset/postgres", "statefulset/seaweedfs", "deployment/mlflow"):
            place.kubectl("rollout", "status", what, "--timeout=240s")
        yield context
    finally:
        _remove(place, had_crd, fetches)


def _context() -> str:
    """The current context, if it is kind's and all is there that must be."""
    if os.environ.get("SPIRA_E2E") != "1":
        pytest.skip("needs a kind cluster with KServe: set SPIRA_E2E=1")
    found = subprocess.run(["kubectl", "config", "current-context"], capture_output=True, text=True, check=False)
    context = found.stdout.strip()
    if not context.startswith("kind-"):
        pytest.skip("the kubeconfig's current context is no kind cluster, and manifests/kind has known passwords")
    if not _is_there(context, FETCHES):
        pytest.skip(f"no cluster {context} answers, or KServe isn't installed there")
    for image in IMAGES:
        if subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode:
            pytest.skip(f"{image} isn't here: make images")
    return context


def _is_there(context: str, thing: str) -> bool:
    command = ["kubectl", "--context", context, "get", thing]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0


def _suspended(folder: Path) -> Path:
    """An overlay of manifests/kind that begins no tick by itself."""
    suspend = [{"op": "add", "path": "/spec/suspend", "value": True}]
    patch = {"target": {"kind": "CronJob"}, "patch": json.dumps(suspend)}
    kind = os.path.relpath(ROOT / "manifests/kind", folder.resolve())
    (folder / "kustomization.yaml").write_text(json.dumps({"resources": [kind], "patches": [patch]}))
    return folder


def _remove(place: Place, had_crd: bool, fetches: dict[str, object]) -> None:
    """Whatever was made; models first, as KServe must be asked to let them go."""
    kubectl = ["kubectl", "--context", place.context]
    commands = [
        [*kubectl, "-n", "spira-serving", "delete", "inferenceservices", "--all", "--timeout=120s"],
        [*kubectl, "delete", "namespace", *NAMESPACES, "--ignore-not-found", "--timeout=240s"],
    ]
    if not had_crd:
        commands.append([*kubectl, "delete", CRD, "--ignore-not-found"])
    if "securityContext" not in fetches:
        undo = json.dumps({"spec": {"container": {"securityContext": None}}})
        commands.append([*kubectl, "patch", FETCHES, "--type=merge", "--patch", undo])
    failed = [command for command in commands if subprocess.run(command, timeout=300, check=False).returncode]
    assert not failed, f"left behind: {failed}"
