"""The parameters of the training pipeline, and their values on one machine and on a cluster.

A new parameter is a field here with its values in :meth:`Parameters.local` and :meth:`Parameters.cluster`, an argument
with a default in ``pipelines/training.py``, and an argument of the component that takes it. The name of a run is no
parameter: "Clone run" in the dashboard copies all parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from spira.config import FrozenModel
from spira.delivery.runner import RunnerError
from spira.delivery.training_request import TrainingRequest
from spira.deployment.targets import LocalTarget
from spira.errors import SpiraError
from spira.evaluation import gate as gates
from spira.language import Language

if TYPE_CHECKING:
    from pipelines.kubeflow.settings import KubeflowSettings
    from pipelines.kubeflow.versions import PipelineVersion

GPU_TAINT = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
STATE = "/state"
"""Mount path of the claim in a pod, and the ``state_uri`` of a cluster."""
REGISTRY_URI = "http://mlflow.mlflow:5000"
"""Address in the cluster of the MLflow server of manifests/base/mlflow."""
OPTIONAL = ("target", "notify_url")
"""Parameters that a compiled pipeline has only if its compile-time options use them."""
MAX_DESCRIPTION_LENGTH = 400


class Parameters(FrozenModel):
    """All parameters of one run, as the compiled pipeline takes them; their meaning is described there."""

    data: str
    data_digest: str
    preprocess_config: str
    config: str
    gate: str
    seeds: tuple[int, ...]
    skip_bad: bool
    language: Language
    device: str
    require_gpu: bool
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: tuple[dict[str, Any], ...] = ()
    state_uri: str
    registry_uri: str
    target: str | None = None
    """None if the compiled pipeline has no such parameter."""
    notify_url: str | None = None
    """None if the compiled pipeline has no such parameter."""

    @classmethod
    def local(
        cls,
        request: TrainingRequest,
        work: Path,
        *,
        device: str = "auto",
        require_gpu: bool = False,
        registry_uri: str = "",
        serve: bool = True,
    ) -> Parameters:
        """Return the parameters of a run in local processes; those of pods keep their defaults and have no effect.

        Args:
            work: Folder of state, served package and, without ``registry_uri``, MLflow's SQLite file.
            registry_uri: MLflow URL; SQLite in ``work`` if empty.
            serve: Serve an approved model from ``work``; False leaves that to continuous delivery.

        Raises:
            SpiraError: kfp would change a path.
        """
        check_path("work", work)
        check_path("data", Path("" if "://" in request.data else request.data))
        return cls(
            **_of_request(request),
            device=device,
            require_gpu=require_gpu,
            state_uri=str(work / "state"),
            registry_uri=registry_uri or str(work),
            target=LocalTarget(serving=str(work / "serving")).model_dump_json() if serve else None,
        )

    @classmethod
    def cluster(cls, request: TrainingRequest, settings: KubeflowSettings, version: PipelineVersion) -> Parameters:
        """Return the parameters of a run on Kubeflow, for a version of the pipeline.

        Raises:
            RunnerError: The settings have a value that the version has no parameter for.
        """
        optional = {
            "target": settings.target.model_dump_json() if settings.target else "",
            "notify_url": settings.notify_url,
        }
        for name, value in optional.items():
            if value and name not in version.parameters:
                raise RunnerError(
                    f"version {version.name} was compiled without {name}, and the cluster has one: upload a version "
                    "for this cluster with --image"
                )
        return cls(
            **_of_request(request),
            device="cuda" if settings.gpu_count else "auto",
            require_gpu=settings.gpu_count > 0,
            node_selector=settings.node_selector,
            tolerations=settings.gpu_tolerations(),
            state_uri=STATE if settings.claim else "",
            registry_uri=settings.registry_uri,
            **{name: value for name, value in optional.items() if name in version.parameters},
        )

    def arguments(self) -> dict[str, Any]:
        """Return the values by name, as kfp and Kubeflow's API take them."""
        return self.model_dump(mode="json", exclude_none=True)


def describe(request: TrainingRequest) -> str:
    """Return what a run trains: the data set, and the settings and limits that differ from the defaults."""
    changed = [*_changes(request.config, type(request.config)()), *_changes(request.gate, gates.load(), "gate.")]
    parts = [
        f"Data {request.data}{f' (pinned by {request.data_digest[:12]})' if request.data_digest else ' (not pinned)'}",
        ", ".join(changed) or "default settings and gate",
        f"commit {request.git_commit}" if request.git_commit else "",
    ]
    text = "; ".join(filter(None, parts))
    return text if len(text) <= MAX_DESCRIPTION_LENGTH else f"{text[: MAX_DESCRIPTION_LENGTH - 1]}…"


def _changes(model: BaseModel, default: BaseModel, prefix: str = "") -> Iterator[str]:
    """Yield ``section.key=value`` for every value that differs from the default."""
    for name in type(model).model_fields:
        value, normal = getattr(model, name), getattr(default, name)
        if isinstance(value, BaseModel) and isinstance(normal, BaseModel):
            yield from _changes(value, normal, f"{prefix}{name}.")
        elif value != normal:
            yield f"{prefix}{name}={list(value) if isinstance(value, tuple) else value}"


def check_path(name: str, path: Path) -> None:
    """Refuse a path that kfp's local runner would change: it replaces ``{{$...}}`` in every value.

    Raises:
        SpiraError: the absolute path contains ``{{$``.
    """
    if "{{$" in str(path.resolve()):
        raise SpiraError(f"{name} {path.resolve()}: Kubeflow's runner replaces {{{{$...}}}}; use a path without {{{{$")


def _of_request(request: TrainingRequest) -> dict[str, Any]:
    """Return the parameters that a training request decides; seeds come from its configuration."""
    return {
        "data": request.data,
        "data_digest": request.data_digest,
        "preprocess_config": request.config.preprocess.model_dump_json(),
        "config": request.config.model_dump_json(exclude={"preprocess"}),
        "gate": request.gate.model_dump_json(),
        "seeds": request.config.training.seeds,
        "skip_bad": request.skip_bad,
        "language": request.language,
    }
