"""The targets as settings name them, and the way to each.

{"kind": "local", "serving": "work/serving"}
{"kind": "kserve", "namespace": "spira-serving", "artifacts": {"mlflow-artifacts:/": "s3://mlflow/"}}
{"kind": "inference-service", "folder": ..., "command": [...], "nats_url": ..., "minio": ...}
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from spira.config import ConfigError, FrozenModel, explain
from spira.deployment.target import DeploymentError, Target


class LocalTarget(FrozenModel):
    """A folder that the local server reads."""

    kind: Literal["local"] = "local"
    serving: str = ""
    """The folder; in ``delivery.yaml`` ``serving`` in the work folder if empty."""


class KServeTarget(FrozenModel):
    """An InferenceService of KServe; ``manifests/base/serving`` is applied in its namespace."""

    kind: Literal["kserve"]
    namespace: str
    model: str = "spira"
    """Name of the InferenceService."""
    runtime: str = "spira"
    """Name of the ServingRuntime."""
    service_account: str = Field("spira-predictor", min_length=1)
    """By whose rights the model is read from its bucket."""
    artifacts: dict[str, str] = Field(default_factory=dict)
    """Beginning of an address in MLflow -> what the cluster finds there, where it knows it by another name."""
    context: str | None = None
    """Of the kubeconfig; in a pod its ServiceAccount, elsewhere the current one, if not given."""
    timeout_seconds: float = Field(300.0, gt=0)
    """For a version's pods to become ready."""


class InferenceServiceTarget(FrozenModel):
    """SPIRA's own Inference Service; see :class:`spira.deployment.inference_service.contract.Service`."""

    kind: Literal["inference-service"]
    folder: str = ""
    """Its state, on a disk of this machine; in ``delivery.yaml`` ``inference-service`` in the work folder if empty."""
    command: tuple[str, ...]
    """Starts the service in the foreground; ``{env_file}`` in it stands for the file with its environment."""
    nats_url: str
    minio: str
    """Host and port, no scheme."""
    access_key_variable: str = "MINIO_ACCESS_KEY"
    """Environment variable with the key, and likewise the secret one: no settings hold either."""
    secret_key_variable: str = "MINIO_SECRET_KEY"
    bucket: str = "audio-files"
    variables: dict[str, str] = Field(default_factory=dict)
    """Further ones of the service's environment."""


AnyTarget = Annotated[LocalTarget | KServeTarget | InferenceServiceTarget, Field(discriminator="kind")]

ANY: TypeAdapter[AnyTarget] = TypeAdapter(AnyTarget)


def read(text: str) -> AnyTarget:
    """A target from JSON.

    Raises:
        ConfigError: it is none; the message names the key and the rule.
    """
    try:
        return ANY.validate_json(text)
    except ValidationError as error:
        raise ConfigError(f"target: {explain(error)}; give JSON as one of targets in delivery.yaml") from None


def connect(target: AnyTarget, registry: str, package: Callable[[str], Path]) -> Target:
    """The way to a target.

    Args:
        registry: MLflow URL, or a folder, where a server fetches versions itself.
        package: fetches the package of a version.

    Raises:
        DeploymentError: it can't be reached, or a key is missing.
    """
    match target:
        case LocalTarget():
            return _local(target)
        case KServeTarget():
            return _kserve(target, package)
        case InferenceServiceTarget():
            return _inference_service(target, registry)


def _local(target: LocalTarget) -> Target:
    from spira.deployment.local import Local

    return Local(_folder(target.serving, "serving"))


def _kserve(target: KServeTarget, package: Callable[[str], Path]) -> Target:
    from spira.deployment.kserve.cluster import KubernetesNamespace
    from spira.deployment.kserve.target import KServe

    return KServe(
        KubernetesNamespace(target.namespace, target.context),
        package,
        target.model,
        target.runtime,
        target.timeout_seconds,
        service_account=target.service_account,
        artifacts=target.artifacts,
    )


def _inference_service(target: InferenceServiceTarget, registry: str) -> Target:
    from spira.deployment.inference_service.contract import Service
    from spira.deployment.inference_service.target import InferenceService

    keys = [os.environ.get(name, "") for name in (target.access_key_variable, target.secret_key_variable)]
    if not all(keys):
        raise DeploymentError(f"set {target.access_key_variable} and {target.secret_key_variable} in the environment")
    service = Service(
        command=target.command,
        mlflow_uri=registry,
        nats_url=target.nats_url,
        minio=target.minio,
        access_key=keys[0],
        secret_key=keys[1],
        bucket=target.bucket,
        variables=target.variables,
    )
    return InferenceService(_folder(target.folder, "folder"), service)


def _folder(path: str, key: str) -> Path:
    if not path:
        raise DeploymentError(f"the target has no {key}: name the folder")
    return Path(path)
