"""The cluster file: the addresses of Kubeflow and MLflow, and the resources and placement of pods.

    host: http://ml-pipeline.kubeflow:8888
    registry_uri: http://mlflow.mlflow:5000
    claim: spira-state                                               # volume for the state of trainings
    secret: spira-data                                               # keys of the S3 store, for data at s3://…
    gpu_count: 1
    node_selector: {cloud.google.com/gke-accelerator: nvidia-tesla-t4}  # on GKE
    # node_selector: {karpenter.sh/nodepool: gpu}                    # with Karpenter
    # target: {kind: kserve, namespace: spira-serving}               # a run deploys an approved version itself

Never write a secret into it: the dashboard shows its values in every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from pipelines.kubeflow.versions import PipelineVersion
from pipelines.parameters import STATE, Parameters
from pipelines.training import CompileOptions
from spira.config import ConfigError, FrozenModel, explain
from spira.delivery.runner import RunnerError
from spira.delivery.training_request import TrainingRequest
from spira.deployment.targets import KServeTarget

CPU, MEMORY = r"^(\d+(\.\d+)?|\d+m)$", r"^\d+(Ki|Mi|Gi|Ti|K|M|G|T)?$"


class KubeflowSettings(FrozenModel):
    """Settings of a cluster; see the module."""

    host: str = ""
    """URL of Kubeflow Pipelines, reachable from this machine."""
    experiment: str = "spira"
    """Name under which the dashboard groups the runs."""
    namespace: str = "kubeflow"
    """Namespace of the runs' pods."""
    registry_uri: str = ""
    """URL of MLflow, reachable from pods."""
    claim: str = ""
    """PersistentVolumeClaim in that namespace, for the state of trainings, mounted at ``/state``; none if empty."""
    secret: str = ""
    """Secret in that namespace with address and keys of the S3 store that has the data set, as environment variables:
    ``AWS_ENDPOINT_URL_S3``, ``AWS_DEFAULT_REGION``, ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``; none if empty."""
    cpu: str = Field("1", pattern=CPU)
    """CPU request of train and evaluate pods, such as 2 or 500m."""
    memory: str = Field("4Gi", pattern=MEMORY)
    """Memory request and limit of train and evaluate pods, such as 4Gi."""
    gpu_count: int = Field(0, ge=0)
    """GPUs of a train pod. With one or more, training fails where there is no GPU."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels of the nodes for train pods."""
    tolerations: tuple[dict[str, Any], ...] = ()
    """Tolerations of train pods, as in a pod; if empty and there is a GPU, one of the taint ``nvidia.com/gpu``."""
    target: KServeTarget | None = None
    """Target to which a run deploys an approved version, by the service account of its pods. None leaves deployment to
    continuous delivery, whose own runs ignore this setting."""
    notify_url: str = ""
    """URL that gets a POST request when a run has ended; none if empty."""

    def compile_options(self, cached: bool = True) -> CompileOptions:
        """Return the compile-time options of this cluster."""
        return CompileOptions(claim=self.claim, secret=self.secret, cached=cached, notifies=True)

    def arguments(self, request: TrainingRequest, version: PipelineVersion) -> dict[str, Any]:
        """Return the pipeline's parameters for a training request, on a version of the pipeline.

        Raises:
            RunnerError: Pods cannot reach the data, MLflow or the state.
        """
        self._check_reach(request.data, version)
        return Parameters.cluster(request, self, version).arguments()

    def _check_reach(self, data: str, version: PipelineVersion) -> None:
        if not self.registry_uri.startswith(("http://", "https://")):
            raise RunnerError(
                f"registry_uri {self.registry_uri or 'is empty'}: give the URL of MLflow for pods, http://…"
            )
        if "://" not in data and not data.startswith(f"{STATE}/"):
            raise RunnerError(
                f"data {data or 'is missing'}: pods cannot reach this machine; give a prefix gs://… or s3://…"
            )
        if version.claim not in (None, self.claim):
            raise RunnerError(
                f"version {version.name} mounts claim {version.claim or 'none'}, and the cluster's is "
                f"{self.claim or 'none'}: upload a version for this cluster with --image"
            )


def load(path: Path | None = None, settings: Sequence[str] = ()) -> KubeflowSettings:
    """Return the settings of a YAML file, and ``key=value`` settings over it (values are YAML).

    Raises:
        ConfigError: The file cannot be read, or a key or value is refused.
    """
    try:
        values = (yaml.safe_load(path.read_text()) or {}) if path else {}
        values = dict(values) | {key: yaml.safe_load(value) for key, value in map(_split_setting, settings)}
        return KubeflowSettings.model_validate(values)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, ValueError) as error:
        reason = explain(error) if isinstance(error, ValidationError) else " ".join(str(error).split())
        raise ConfigError(f"{path or 'cluster'}: {reason}") from None


def _split_setting(setting: str) -> tuple[str, str]:
    key, equals, value = setting.partition("=")
    if not equals:
        raise ConfigError(f"--on {setting}: write key=value, for example gpu_count=1")
    return key.strip(), value
