"""A node of the cluster that pretends to have GPUs: Kubernetes counts them like real ones, nothing computes on them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

RESOURCE = "nvidia.com/gpu"
LABEL = "spira.internal/gpu-pool"
TAINT = {"key": RESOURCE, "value": "present", "effect": "NoSchedule"}
"""As GKE puts it on its GPU nodes."""


@contextmanager
def faked(context: str, count: int = 1) -> Iterator[str]:
    """The name of a worker that says it has GPUs, carries a label of its own and the taint; undone afterwards."""

    def kubectl(*arguments: str) -> str:
        command = ["kubectl", "--context", context, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout

    def change(amount: str | None, label: str | None, taints: list[dict[str, str]]) -> None:
        amounts = {RESOURCE: amount}
        status = {"status": {"capacity": amounts, "allocatable": amounts}}
        kubectl("patch", "node", node, "--subresource=status", "--type=merge", "-p", json.dumps(status))
        rest = {"metadata": {"labels": {LABEL: label}}, "spec": {"taints": taints}}
        kubectl("patch", "node", node, "--type=merge", "-p", json.dumps(rest))

    nodes = json.loads(kubectl("get", "nodes", "-o", "json"))["items"]
    if any(RESOURCE in node["status"]["capacity"] for node in nodes):
        pytest.skip(f"a node of the cluster has {RESOURCE} already: nothing is faked there")
    workers = [node for node in nodes if "node-role.kubernetes.io/control-plane" not in node["metadata"]["labels"]]
    if not workers or len(nodes) < 2:
        pytest.skip("the cluster has no second node that could pretend to have a GPU: make kind-up")
    node, before = workers[-1]["metadata"]["name"], workers[-1]["spec"].get("taints", [])
    try:
        change(str(count), "faked", [*before, TAINT])
        yield node
    finally:
        change(None, None, before)
