"""The compiled pipeline in pods of a cluster: kfp's local runner decides the order of tasks, a pod runs each task.

- :class:`PodRunner` replaces Kubeflow's driver. It creates the pod of a task from the compiled file (image, command,
  resources, volumes, node selector, tolerations, deadline) and the arguments of the run.
- ``launcher.py`` replaces Kubeflow's launcher. It moves artifacts from a bucket to the pod and back.
- The inputs of a task and the reading of its outputs are kfp's own.
"""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from kfp.local import status, task_handler_interface

from tests.support.bucket import ADDRESS, BucketEmulator
from tests.support.cluster_fixture import SECURE, ClusterNamespace

ARTIFACTS = "artifacts"
"""Name of the bucket for artifacts."""
LAUNCHER = Path(__file__).parent / "launcher.py"
WAIT_SECONDS = 900


@dataclass
class PodRunner:
    """A runner of tasks as pods, with a record of the run.

    Args:
        namespace: a namespace that enforces ``restricted``.
        buckets: the bucket emulator in that namespace.
        compiled: the file of the compiled pipeline.
        arguments: arguments of the run.
        accounts: service account by task, for tasks that need another than ``default``.
    """

    namespace: ClusterNamespace
    buckets: BucketEmulator
    compiled: Path
    arguments: dict[str, Any]
    accounts: dict[str, str] = field(default_factory=dict)
    pods: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Every pod after its end, by task."""
    executor_inputs: dict[str, str] = field(default_factory=dict)
    """Last executor input, by task."""

    def __post_init__(self) -> None:
        launcher = {"launcher.py": LAUNCHER.read_text()}
        self.namespace.apply(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "launcher"}, "data": launcher}
        )
        spec, platform = yaml.safe_load_all(self.compiled.read_text())
        self.containers = {
            name: executor["container"]
            for name, executor in spec["deploymentSpec"]["executors"].items()
            if "container" in executor
        }
        self.platform = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]

    def handler(self, **options: Any) -> PodTaskHandler:
        """Return the handler of a task, in place of kfp's handler of subprocesses."""
        return PodTaskHandler(self, **options)

    def pod(self, task: str, executor_input: str, command: list[str]) -> dict[str, Any]:
        """Return the pod that Kubeflow's driver would create for a task. Artifacts are stored below /tmp."""
        container, platform = self.containers[f"exec-{task}"], self.platform[f"exec-{task}"]
        volumes: dict[str, dict[str, Any]] = {
            "/tmp": {"emptyDir": {}},
            "/launcher": {"configMap": {"name": "launcher"}},
        }
        for mount in platform.get("pvcMount", ()):
            volumes[mount["mountPath"]] = {"persistentVolumeClaim": {"claimName": mount["constant"]}}
        for mount in platform.get("emptyDirMounts", ()):
            volumes[mount["mountPath"]] = {"emptyDir": {"medium": mount.get("medium", "")}}
        main = {
            "name": "main",
            "image": container["image"],
            "imagePullPolicy": "IfNotPresent",
            "command": ["python3", "/launcher/launcher.py", ARTIFACTS, executor_input, *command],
            "env": [{"name": "HOME", "value": "/tmp"}, {"name": "STORAGE_EMULATOR_HOST", "value": ADDRESS}],
            "resources": self.resources(container.get("resources", {})),
            "securityContext": SECURE | {"readOnlyRootFilesystem": True},
            "volumeMounts": [{"name": f"v{n}", "mountPath": path} for n, path in enumerate(volumes)],
        }
        spec = {
            "restartPolicy": "Never",
            "automountServiceAccountToken": task in self.accounts,
            "serviceAccountName": self.accounts.get(task, "default"),
            "activeDeadlineSeconds": int(platform["activeDeadlineSeconds"]),
            "nodeSelector": self.argument(platform.get("nodeSelector", {}).get("nodeSelectorJson")) or {},
            "tolerations": [
                toleration
                for entry in platform.get("tolerations", ())
                for toleration in self.argument(entry["tolerationJson"])
            ],
            "securityContext": {"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532},
            "containers": [main],
            "volumes": [{"name": f"v{n}", **volume} for n, volume in enumerate(volumes.values())],
        }
        labels = {"pipeline/runid": "e2e", "spira.internal/uses-mlflow": "true"}
        annotations = {"workflows.argoproj.io/node-name": f"spira-training(0).root(0).{task}(0).executor(0)"}
        name = f"{task}-{uuid.uuid4().hex[:6]}"
        metadata = {"name": name, "labels": labels, "annotations": annotations}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}

    def resources(self, compiled: dict[str, Any]) -> dict[str, dict[str, str]]:
        """Return the requests and limits of a task. A GPU count of 0 is omitted."""
        resolved = {key: self.resolve(value) for key, value in compiled.items() if isinstance(value, str)}
        accelerator = compiled.get("accelerator", {})
        count = self.resolve(accelerator.get("resourceCount", "0"))
        gpu = {accelerator["resourceType"]: count} if int(count) else {}
        names = {"cpu": "resourceCpu", "memory": "resourceMemory"}
        requests = {kind: resolved[f"{key}Request"] for kind, key in names.items() if f"{key}Request" in resolved}
        limits = {kind: resolved[f"{key}Limit"] for kind, key in names.items() if f"{key}Limit" in resolved}
        return {"requests": requests, "limits": limits | gpu}

    def resolve(self, text: str) -> str:
        """Replace a placeholder of the compiled file by the run's argument; return any other text unchanged."""
        match = re.fullmatch(r"\{\{\$\.inputs\.parameters\['pipelinechannel--(\w+)'\]\}\}", text)
        return str(self.arguments[match[1]]) if match else text

    def argument(self, reference: dict[str, str] | None) -> Any:
        """Return the run's argument for a reference in the platform part of the compiled file."""
        if reference is None:
            return None
        return self.arguments[reference["componentInputParameter"].removeprefix("pipelinechannel--")]


class PodTaskHandler(task_handler_interface.ITaskHandler):
    """A handler of one task, by kfp's interface."""

    def __init__(self, runner: PodRunner, /, *, full_command: list[str], **_: Any) -> None:
        self.runner, self.command = runner, full_command
        self.task = self._option("--function_to_execute")
        self.executor_input = self._option("--executor_input")

    def run(self) -> status.Status:
        """Run the task's pod to its end, print its log, and download its outputs to where kfp reads them."""
        namespace = self.runner.namespace
        self.runner.executor_inputs[self.task] = self.executor_input
        manifest = self.runner.pod(self.task, self.executor_input, self.command)
        name = manifest["metadata"]["name"]
        namespace.apply(manifest)
        namespace.wait_for_end(name, WAIT_SECONDS)
        print(namespace.kubectl("logs", name))
        pod = json.loads(namespace.kubectl("get", "pod", name, "-o", "json"))
        self.runner.pods.setdefault(self.task, []).append(pod)
        if pod["status"]["phase"] != "Succeeded":
            return status.Status.FAILURE
        outputs = json.loads(self.executor_input)["outputs"]
        lists = outputs.get("artifacts", {}).values()
        paths = [artifact["uri"] for artifact_list in lists for artifact in artifact_list["artifacts"]]
        for path in [*paths, outputs["outputFile"]]:
            self.runner.buckets.download(ARTIFACTS, path)
        return status.Status.SUCCESS

    def _option(self, flag: str) -> str:
        return self.command[self.command.index(flag) + 1]
