"""A node of the cluster with simulated GPUs: the scheduler counts them like real ones, nothing computes on them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

RESOURCE = "nvidia.com/gpu"
LABEL = "spira.internal/gpu-pool"
TAINT = {"key": RESOURCE, "value": "present", "effect": "NoSchedule"}
"""Taint that GKE puts on its GPU nodes."""


@contextmanager
def fake_gpu_node(context: str, count: int = 1) -> Iterator[str]:
    """Give a worker node simulated GPUs, a label and the taint, and yield its name; undo it afterwards."""

    def kubectl(*arguments: str) -> str:
        command = ["kubectl", "--context", context, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout

    def change(gpus: str | None, label: str | None, taints: list[dict[str, str]]) -> None:
        resources = {RESOURCE: gpus}
        status = {"status": {"capacity": resources, "allocatable": resources}}
        kubectl("patch", "node", node, "--subresource=status", "--type=merge", "-p", json.dumps(status))
        patch = {"metadata": {"labels": {LABEL: label}}, "spec": {"taints": taints}}
        kubectl("patch", "node", node, "--type=merge", "-p", json.dumps(patch))

    nodes = json.loads(kubectl("get", "nodes", "-o", "json"))["items"]
    if any(RESOURCE in node["status"]["capacity"] for node in nodes):
        pytest.skip(f"a node of the cluster already has {RESOURCE}: no GPU is simulated")
    workers = [node for node in nodes if "node-role.kubernetes.io/control-plane" not in node["metadata"]["labels"]]
    if not workers or len(nodes) < 2:
        pytest.skip("the cluster has no second node for a simulated GPU: create it with make kind-up")
    node, taints_before = workers[-1]["metadata"]["name"], workers[-1]["spec"].get("taints", [])
    try:
        change(str(count), "faked", [*taints_before, TAINT])
        yield node
    finally:
        change(None, None, taints_before)
