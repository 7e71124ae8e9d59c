"""The cluster file: the addresses of Kubeflow and MLflow, and the resources and placement of pods.

    host: http://ml-pipeline.kubeflow:8888
    # registry_uri: http://mlflow.mlflow:5000                        # as the manifests set it up
    claim: spira-state                                               # volume for the state of trainings
    secret: spira-data                                               # keys of the S3 store, for data at s3://…
    # signing_secret: spira-signing-key                              # private key of signatures
    # verify_config_map: spira-verify-key                            # public key of signatures
    gpu_count: 1
    node_selector: {cloud.google.com/gke-accelerator: nvidia-tesla-t4}  # on GKE
    # node_selector: {karpenter.sh/nodepool: gpu}                    # with Karpenter
    # target: {kind: kserve, namespace: spira-serving}               # a run deploys an approved version itself

Sizes, claim, keys, target and notify_url are fixed in a version of the pipeline: upload one with
--image after a change.
Never write a secret into this file: the dashboard shows its values in every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from pipelines.kubeflow.versions import PipelineVersion
from pipelines.parameters import GPU_TAINT, REGISTRY_URI, STATE, Parameters
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
    registry_uri: str = REGISTRY_URI
    """URL of MLflow, reachable from pods."""
    claim: str = ""
    """PersistentVolumeClaim in that namespace, for the state of trainings, mounted at ``/state``; none if empty."""
    secret: str = ""
    """Secret in that namespace with address and keys of the S3 store that has the data set, as environment variables:
    ``AWS_ENDPOINT_URL_S3``, ``AWS_DEFAULT_REGION``, ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``; and with
    ``SPIRA_PSEUDONYM_KEY``, the key of pseudonyms. None if empty."""
    signing_secret: str = ""
    """Secret in that namespace with the private key ``signing.pem``, with which push signs every version. None if
    empty."""
    verify_config_map: str = ""
    """ConfigMap in that namespace with the public key ``verify.pem``, by which a run checks the champion and what it
    deploys itself. None if empty."""
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

    def gpu_tolerations(self) -> tuple[dict[str, Any], ...]:
        """Return the tolerations of train pods; that of the usual taint if there is a GPU and none is given."""
        return self.tolerations or ((GPU_TAINT,) if self.gpu_count else ())

    def compile_options(self, cached: bool = False) -> CompileOptions:
        """Return the compile-time options of this cluster.

        Args:
            cached: Whether the cache may answer; only for runs whose data a digest pins.
        """
        return CompileOptions(
            claim=self.claim,
            secret=self.secret,
            signing_secret=self.signing_secret,
            verify_config_map=self.verify_config_map,
            cached=cached,
            cpu=self.cpu,
            memory=self.memory,
            gpu_count=self.gpu_count,
            node_selector=self.node_selector,
            tolerations=self.gpu_tolerations(),
            registry_uri=self.registry_uri,
            target=self.target.model_dump_json() if self.target else "",
            notify_url=self.notify_url,
        )

    def arguments(self, request: TrainingRequest, version: PipelineVersion) -> dict[str, Any]:
        """Return the pipeline's parameters for a training request, on a version of the pipeline.

        Raises:
            RunnerError: Pods cannot reach the data or MLflow, the version was compiled for another cluster, or the
                cache could answer although no digest pins the data.
        """
        self._check_reach(request.data)
        self._check_version(version)
        if version.cached and not request.data_digest:
            raise RunnerError(
                f"version {version.name} answers from the cache, and no digest pins the data: changed data would go "
                "unnoticed; give --data-digest, or upload a version without the cache with --image"
            )
        return Parameters.cluster(request, self, version).arguments()

    def _check_reach(self, data: str) -> None:
        if not self.registry_uri.startswith(("http://", "https://")):
            raise RunnerError(
                f"registry_uri {self.registry_uri or 'is empty'}: give the URL of MLflow for pods, http://…"
            )
        if "://" not in data and not data.startswith(f"{STATE}/"):
            raise RunnerError(
                f"data {data or 'is missing'}: pods cannot reach this machine; give a prefix gs://… or s3://…"
            )

    def _check_version(self, version: PipelineVersion) -> None:
        if not version.is_ours:
            raise RunnerError(
                f"version {version.name} is no pipeline of this project: delete it in Kubeflow, or upload another with "
                "--image"
            )
        if version.sizes is None:
            return
        wanted = self.compile_options()
        for name, actual in version.sizes._asdict().items():
            if actual != (value := getattr(wanted, name)):
                raise RunnerError(
                    f"version {version.name} was compiled for {name} {actual or 'none'}, and the cluster's is "
                    f"{value or 'none'}: upload a version for this cluster with --image"
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
