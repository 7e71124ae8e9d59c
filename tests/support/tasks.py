"""The compiled pipeline in pods of a cluster: kfp's own local runner decides what runs when, a pod does it.

In place of Kubeflow's driver :class:`Field` makes a pod of what the compiled file says of a task: image, command,
resources, volumes, node selector, tolerations and deadline, by the run's arguments. In place of its launcher
``launcher.py`` brings artifacts out of a bucket and into it. What a task is told and what it hands on are kfp's.
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

from tests.support.bucket import ADDRESS, Buckets
from tests.support.cluster_fixture import SECURE, Place

ARTIFACTS = "artifacts"
"""The bucket."""
LAUNCHER = Path(__file__).parent / "launcher.py"
WAIT_SECONDS = 900


@dataclass
class Field:
    """Where tasks run, and everything that is known of a run.

    Args:
        place: a namespace that enforces ``restricted``.
        buckets: in it.
        compiled: the pipeline's file.
        arguments: of the run.
            account: service accounts by task, where it isn't the namespace's own.
    """

    place: Place
    buckets: Buckets
    compiled: Path
    arguments: dict[str, Any]
    account: dict[str, str] = field(default_factory=dict)
    pods: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Every pod as it ended, by task."""
    told: dict[str, str] = field(default_factory=dict)
    """What the executor of each task was told last."""

    def __post_init__(self) -> None:
        content = {"launcher.py": LAUNCHER.read_text()}
        self.place.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "launcher"}, "data": content})
        spec, platform = yaml.safe_load_all(self.compiled.read_text())
        self.containers = {
            name: one["container"] for name, one in spec["deploymentSpec"]["executors"].items() if "container" in one
        }
        self.platform = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]

    def handler(self, **given: Any) -> Pod:
        """Stands for kfp's own handler of subprocesses."""
        return Pod(self, **given)

    def pod(self, task: str, executor_input: str, command: list[str]) -> dict[str, Any]:
        """What Kubeflow's driver would create for a task; artifacts lie where the executor is told, below /tmp."""
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
            "automountServiceAccountToken": task in self.account,
            "serviceAccountName": self.account.get(task, "default"),
            "activeDeadlineSeconds": int(platform["activeDeadlineSeconds"]),
            "nodeSelector": self.argument(platform.get("nodeSelector", {}).get("nodeSelectorJson")) or {},
            "tolerations": [
                one for each in platform.get("tolerations", ()) for one in self.argument(each["tolerationJson"])
            ],
            "securityContext": {"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532},
            "containers": [main],
            "volumes": [{"name": f"v{n}", **volume} for n, volume in enumerate(volumes.values())],
        }
        labels = {"pipeline/runid": "e2e", "spira.internal/uses-mlflow": "true"}
        annotations = {"pipelines.kubeflow.org/task_name": task}
        name = f"{task}-{uuid.uuid4().hex[:6]}"
        metadata = {"name": name, "labels": labels, "annotations": annotations}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}

    def resources(self, told: dict[str, Any]) -> dict[str, dict[str, str]]:
        """Requests and limits, with a GPU only where its number isn't 0."""
        filled = {key: self.filled(value) for key, value in told.items() if isinstance(value, str)}
        accelerator = told.get("accelerator", {})
        count = self.filled(accelerator.get("resourceCount", "0"))
        gpu = {accelerator["resourceType"]: count} if int(count) else {}
        names = {"cpu": "resourceCpu", "memory": "resourceMemory"}
        requests = {kind: filled[f"{key}Request"] for kind, key in names.items() if f"{key}Request" in filled}
        limits = {kind: filled[f"{key}Limit"] for kind, key in names.items() if f"{key}Limit" in filled}
        return {"requests": requests, "limits": limits | gpu}

    def filled(self, text: str) -> str:
        """A placeholder of the compiled file, by the run's arguments."""
        found = re.fullmatch(r"\{\{\$\.inputs\.parameters\['pipelinechannel--(\w+)'\]\}\}", text)
        return str(self.arguments[found[1]]) if found else text

    def argument(self, reference: dict[str, str] | None) -> Any:
        """The argument that a reference of the platform's part means."""
        if reference is None:
            return None
        return self.arguments[reference["componentInputParameter"].removeprefix("pipelinechannel--")]


class Pod(task_handler_interface.ITaskHandler):
    """One task; kfp's own interface."""

    def __init__(self, where: Field, *, full_command: list[str], **_: Any) -> None:
        self.where, self.command = where, full_command
        self.task = self._after("--function_to_execute")
        self.executor_input = self._after("--executor_input")

    def run(self) -> status.Status:
        """To its end, its log to the standard output; then what it handed on comes to where kfp looks."""
        place = self.where.place
        self.where.told[self.task] = self.executor_input
        body = self.where.pod(self.task, self.executor_input, self.command)
        name = body["metadata"]["name"]
        place.create(body)
        place.wait_for_end(name, WAIT_SECONDS)
        print(place.kubectl("logs", name))
        ended = json.loads(place.kubectl("get", "pod", name, "-o", "json"))
        self.where.pods.setdefault(self.task, []).append(ended)
        if ended["status"]["phase"] != "Succeeded":
            return status.Status.FAILURE
        outputs = json.loads(self.executor_input)["outputs"]
        listed = [one["uri"] for each in outputs.get("artifacts", {}).values() for one in each["artifacts"]]
        for path in [*listed, outputs["outputFile"]]:
            self.where.buckets.bring(ARTIFACTS, path)
        return status.Status.SUCCESS

    def _after(self, flag: str) -> str:
        return self.command[self.command.index(flag) + 1]
