"""The settings of the targets, and the connection to each.

{"kind": "local", "serving": "work/serving"}
{"kind": "kserve", "namespace": "spira-serving", "artifacts": {"mlflow-artifacts:/": "s3://mlflow/"}}
{"kind": "inference-service", "folder": ..., "command": [...], "nats_url": ..., "minio": ...}
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError, field_validator

from spira.config import ConfigError, FrozenModel, explain
from spira.deployment.target import DeploymentError, Target

SUBJECT = r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*"
"""NATS subject without wildcards."""

RESERVED = {"model_path", "receiving_channel", "central_channel"}
"""Variables that the target sets for each process."""


class LocalTarget(FrozenModel):
    """A folder that a local server reads."""

    kind: Literal["local"] = "local"
    serving: str = ""
    """Folder of the target. In ``delivery.yaml`` the default is ``serving`` in the work folder."""


class KServeTarget(FrozenModel):
    """An InferenceService of KServe; ``manifests/base/serving`` must be applied in its namespace."""

    kind: Literal["kserve"]
    namespace: str
    """Namespace of the InferenceService."""
    model: str = "spira"
    """Name of the InferenceService."""
    runtime: str = "spira"
    """Name of the ServingRuntime."""
    service_account: str = Field("spira-predictor", min_length=1)
    """ServiceAccount with read access to the model's bucket."""
    artifacts: dict[str, str] = Field(default_factory=dict)
    """Prefix of a location in MLflow -> prefix of the same location as the cluster reads it."""
    context: str | None = None
    """Context of the kubeconfig. Default: the ServiceAccount in a pod, else the current context."""
    timeout_seconds: float = Field(300.0, gt=0)
    """Maximum time for the pods of a version to become ready."""


class InferenceServiceTarget(FrozenModel):
    """SPIRA's own Inference Service; see :class:`spira.deployment.inference_service.contract.Service`."""

    kind: Literal["inference-service"]
    folder: str = ""
    """State folder on a local disk. In ``delivery.yaml`` the default is ``inference-service`` in the work folder."""
    command: tuple[str, ...]
    """Command that runs the service in the foreground; ``{env_file}`` is replaced by the path of its environment."""
    nats_url: str
    """URL of the NATS server."""
    minio: str
    """Host and port of the bucket, without a scheme."""
    access_key_variable: str = "MINIO_ACCESS_KEY"
    """Environment variable with the access key. The settings hold no keys."""
    secret_key_variable: str = "MINIO_SECRET_KEY"
    """Environment variable with the secret key."""
    bucket: str = "audio-files"
    """Name of the bucket with the recordings."""
    model: str = Field("spira", pattern=r"^[a-zA-Z0-9_-]+$")
    """Name of the registered model, in requests and in the address of a version."""
    receiving_channel: str = Field("", pattern=rf"^({SUBJECT})?$")
    """NATS subject of the clients' requests; empty for ``<model>-topic``. SPIRA's deployment has ``model_channel``."""
    central_channel: str = Field("result_updates", pattern=f"^{SUBJECT}$")
    """NATS subject of the answers to clients."""
    start_seconds: float = Field(120.0, gt=0)
    """Maximum time from the start of a process until it listens."""
    answer_seconds: float = Field(30.0, gt=0)
    """Maximum time for the answer to one request."""
    stop_seconds: float = Field(30.0, gt=0)
    """Time for a process to end before it is killed."""
    variables: dict[str, str] = Field(default_factory=dict)
    """Additional variables for the service's environment."""

    @field_validator("variables")
    @classmethod
    def _no_setting(cls, variables: dict[str, str]) -> dict[str, str]:
        if named := sorted(RESERVED & variables.keys()):
            raise ValueError(f"{', '.join(named)} would have no effect: use the setting of the target instead")
        return variables


AnyTarget = Annotated[LocalTarget | KServeTarget | InferenceServiceTarget, Field(discriminator="kind")]

ANY: TypeAdapter[AnyTarget] = TypeAdapter(AnyTarget)


def read(text: str) -> AnyTarget:
    """Return the target settings in a JSON text.

    Raises:
        ConfigError: the JSON or a key is invalid; the message names the key and the rule.
    """
    try:
        return ANY.validate_json(text)
    except ValidationError as error:
        raise ConfigError(f"target: {explain(error)}; give JSON as one of targets in delivery.yaml") from None


def connect(target: AnyTarget, registry: str, package: Callable[[str], Path], verify_key: str = "") -> Target:
    """Return the target of the settings.

    Args:
        target: settings of the target.
        registry: MLflow URL or folder, for a service that loads versions from MLflow itself.
        package: returns the package folder of a version.
        verify_key: path of the public key of signatures; by default that in the environment, if there is one.

    Raises:
        DeploymentError: the target is unreachable, or a key is missing.
    """
    match target:
        case LocalTarget():
            return _local(target, verify_key)
        case KServeTarget():
            return _kserve(target, package, verify_key)
        case InferenceServiceTarget():
            return _inference_service(target, registry, verify_key)


def _local(target: LocalTarget, verify_key: str) -> Target:
    from spira.deployment.local import Local

    return Local(_folder(target.serving, "serving"), verify_key)


def _kserve(target: KServeTarget, package: Callable[[str], Path], verify_key: str) -> Target:
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
        verify_key=verify_key,
    )


def _inference_service(target: InferenceServiceTarget, registry: str, verify_key: str) -> Target:
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
        model=target.model,
        receiving_channel=target.receiving_channel,
        central_channel=target.central_channel,
        variables=target.variables,
        start_seconds=target.start_seconds,
        answer_seconds=target.answer_seconds,
        stop_seconds=target.stop_seconds,
    )
    return InferenceService(_folder(target.folder, "folder"), service, verify_key)


def _folder(path: str, key: str) -> Path:
    if not path:
        raise DeploymentError(f"the target has no {key}: name the folder")
    return Path(path)
