"""A fixture that applies manifests/kind to the cluster once for all tests, and deletes everything afterwards."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.cluster_fixture import ClusterNamespace, kind_context, load_image

NAMESPACES = ("mlflow", "spira-serving", "spira-delivery")
IMAGES = ("spira/base:dev", "spira/serve:dev")
STORAGE_CONTAINER = "clusterstoragecontainer/default"
"""KServe's object with the container that downloads models."""
CRD = "crd/deliveries.spira.internal"


@pytest.fixture(scope="session")
def spira_on_kind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Apply manifests/kind to a kind cluster, wait until everything is ready, and return the context.

    The CronJob of the tick is suspended: tests start ticks themselves. Namespaces that exist already belong to someone
    else, so the tests are skipped.
    """
    context = _context()
    mlflow = ClusterNamespace(context, "mlflow")
    for namespace in NAMESPACES:
        if _exists(context, f"namespace/{namespace}"):
            pytest.skip(f"namespace {namespace} already exists in {context}: delete it first")
    subprocess.run([ROOT / "tests/e2e/images/load", context.removeprefix("kind-")], check=True, timeout=900)
    for image in IMAGES:
        load_image(context, image)
    had_crd = _exists(context, CRD)
    container = json.loads(mlflow.kubectl("get", STORAGE_CONTAINER, "-o", "json"))["spec"]["container"]
    try:
        mlflow.kubectl(
            "patch", STORAGE_CONTAINER, "--type=merge", "--patch-file", str(ROOT / "manifests/kserve/storage.yaml")
        )
        overlay = _suspended(tmp_path_factory.mktemp("kind"))
        subprocess.run(["kubectl", "--context", context, "apply", "-k", overlay], check=True, timeout=120)
        for workload in ("statefulset/postgres", "statefulset/seaweedfs", "deployment/mlflow"):
            mlflow.kubectl("rollout", "status", workload, "--timeout=240s")
        yield context
    finally:
        _delete(mlflow, had_crd, container)


def _context() -> str:
    """Return the current context if it is a kind cluster with everything that the tests need; skip otherwise."""
    context = kind_context()
    if not _exists(context, STORAGE_CONTAINER):
        pytest.skip(f"the cluster {context} does not answer, or has no KServe")
    for image in IMAGES:
        if subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode:
            pytest.skip(f"the image {image} does not exist: run make images")
    return context


def _exists(context: str, name: str) -> bool:
    command = ["kubectl", "--context", context, "get", name]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0


def _suspended(folder: Path) -> Path:
    """Write an overlay of manifests/kind with a suspended CronJob."""
    suspend = [{"op": "add", "path": "/spec/suspend", "value": True}]
    patch = {"target": {"kind": "CronJob"}, "patch": json.dumps(suspend)}
    kind = os.path.relpath(ROOT / "manifests/kind", folder.resolve())
    (folder / "kustomization.yaml").write_text(json.dumps({"resources": [kind], "patches": [patch]}))
    return folder


def _delete(mlflow: ClusterNamespace, had_crd: bool, container: dict[str, object]) -> None:
    """Delete everything that was applied. Models come first, because KServe must remove their finalizers."""
    kubectl = ["kubectl", "--context", mlflow.context]
    commands = [
        [*kubectl, "-n", "spira-serving", "delete", "inferenceservices", "--all", "--timeout=120s"],
        [*kubectl, "delete", "namespace", *NAMESPACES, "--ignore-not-found", "--timeout=240s"],
    ]
    if not had_crd:
        commands.append([*kubectl, "delete", CRD, "--ignore-not-found"])
    if "securityContext" not in container:
        undo = json.dumps({"spec": {"container": {"securityContext": None}}})
        commands.append([*kubectl, "patch", STORAGE_CONTAINER, "--type=merge", "--patch", undo])
    failed = [command for command in commands if subprocess.run(command, timeout=300, check=False).returncode]
    assert not failed, f"not deleted: {failed}"
