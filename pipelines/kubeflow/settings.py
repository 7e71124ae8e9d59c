"""What must be known of a cluster: where Kubeflow and MLflow are, and where pods go. One file says it.

    host: http://ml-pipeline.kubeflow:8888
    registry_uri: http://mlflow.mlflow:5000
    claim: spira-state                                               # keeps the state of trainings
    gpu_count: 1
    node_selector: {cloud.google.com/gke-accelerator: nvidia-tesla-t4}  # GKE; with Karpenter, for example
    # node_selector: {karpenter.sh/nodepool: gpu}
    # target: {kind: kserve, namespace: spira-serving}               # a run deploys by itself what is approved

There is no place for a secret in it: what it says stands in every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from pipelines.kubeflow.versions import PipelineVersion
from pipelines.training import STATE, CompileOptions
from spira.config import ConfigError, FrozenModel, explain
from spira.delivery.runner import RunnerError
from spira.delivery.training_request import TrainingRequest
from spira.deployment.targets import KServeTarget

GPU_TAINT = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
CPU, MEMORY = r"^(\d+(\.\d+)?|\d+m)$", r"^\d+(Ki|Mi|Gi|Ti|K|M|G|T)?$"


class KubeflowSettings(FrozenModel):
    """Where runs are begun, and what they are told of it; see the module."""

    host: str = ""
    """URL of Kubeflow Pipelines, as this machine reaches it."""
    experiment: str = "spira"
    """Under which the dashboard shows the runs together."""
    namespace: str = "kubeflow"
    """Of the runs' pods."""
    registry_uri: str = ""
    """URL of MLflow, as pods reach it."""
    claim: str = ""
    """PersistentVolumeClaim in that namespace, for the state of trainings, mounted at ``/state``; none if empty."""
    cpu: str = Field("1", pattern=CPU)
    """Requested by a training, and by the evaluation."""
    memory: str = Field("4Gi", pattern=MEMORY)
    """Likewise, and the limit."""
    gpu_count: int = Field(0, ge=0)
    """Of a training; with one, it refuses to train without."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels of the nodes to train on."""
    tolerations: tuple[dict[str, Any], ...] = ()
    """Taints that a training bears, as in a pod; ``nvidia.com/gpu`` with a GPU, if none are given."""
    target: KServeTarget | None = None
    """Where a run deploys what is approved, by the service account of its pods; without it that is left to continuous
    delivery, whose own runs take no notice of it."""
    notify_url: str = ""
    """Gets a POST when a run has ended."""

    def form(self, cached: bool = True) -> CompileOptions:
        """The form of the pipeline that is compiled for this cluster."""
        return CompileOptions(claim=self.claim, cached=cached, notified=True)

    def arguments(self, request: TrainingRequest, version: PipelineVersion) -> dict[str, Any]:
        """The pipeline's parameters for a training request, on a version of the pipeline.

        Raises:
            RunnerError: pods can't reach the data, MLflow or the state.
        """
        self._check_reach(request.data, version)
        tolerations = self.tolerations or ((GPU_TAINT,) if self.gpu_count else ())
        return {
            "data": request.data,
            "data_digest": request.data_digest,
            # no other run's results answer where the data isn't pinned
            "code_digest": version.name if request.data_digest else f"{version.name} {request.name}".strip(),
            "config": request.config.model_dump_json(),
            "gate": request.gate.model_dump_json(),
            "seeds": list(request.config.training.seeds),
            "skip_bad": request.skip_bad,
            "device": "cuda" if self.gpu_count else "auto",
            "require_gpu": self.gpu_count > 0,
            "cpu": self.cpu,
            "memory": self.memory,
            "gpu_count": str(self.gpu_count),
            "node_selector": self.node_selector,
            "tolerations": [dict(each) for each in tolerations],
            "state_uri": STATE if self.claim else "",
            "registry_uri": self.registry_uri,
            "target": self.target.model_dump_json() if self.target else "",
            "notify_url": self.notify_url,
            "run_name": request.name,
        }

    def _check_reach(self, data: str, version: PipelineVersion) -> None:
        if not self.registry_uri.startswith(("http://", "https://")):
            raise RunnerError(
                f"registry_uri {self.registry_uri or 'is empty'}: give the URL of MLflow for pods, http://…"
            )
        if "://" not in data and not data.startswith(f"{STATE}/"):
            raise RunnerError(f"data {data or 'is not named'}: pods don't see this machine; give a prefix gs://…")
        if version.claim not in (None, self.claim):
            raise RunnerError(
                f"version {version.name} mounts claim {version.claim or 'none'}, and the cluster's is "
                f"{self.claim or 'none'}: upload one for this cluster with --image"
            )


def load(path: Path | None = None, settings: Sequence[str] = ()) -> KubeflowSettings:
    """The YAML file, and ``key=value`` settings over it (values are YAML).

    Raises:
        ConfigError: the file can't be read, or a key or value is refused.
    """
    try:
        values = (yaml.safe_load(path.read_text()) or {}) if path else {}
        values = dict(values) | {key: yaml.safe_load(value) for key, value in map(_setting, settings)}
        return KubeflowSettings.model_validate(values)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, ValueError) as error:
        told = explain(error) if isinstance(error, ValidationError) else " ".join(str(error).split())
        raise ConfigError(f"{path or 'cluster'}: {told}") from None


def _setting(setting: str) -> tuple[str, str]:
    key, equals, value = setting.partition("=")
    if not equals:
        raise ConfigError(f"--on {setting}: write key=value, for example gpu_count=1")
    return key.strip(), value
