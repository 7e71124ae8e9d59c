"""The parameters of the training pipeline, and their values on one machine and on a cluster.

A new parameter is a field here with its values in :meth:`Parameters.local` and :meth:`Parameters.cluster`, an argument
in ``pipelines/training.py``, and an argument of the component that takes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from spira.config import FrozenModel
from spira.delivery.training_request import TrainingRequest
from spira.deployment.targets import LocalTarget
from spira.errors import SpiraError

if TYPE_CHECKING:
    from pipelines.kubeflow.settings import KubeflowSettings
    from pipelines.kubeflow.versions import PipelineVersion

GPU_TAINT = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
STATE = "/state"
"""Mount path of the claim in a pod, and the ``state_uri`` of a cluster."""


class Parameters(FrozenModel):
    """All parameters of one run, as the compiled pipeline takes them; their meaning is described there."""

    data: str
    data_digest: str
    code_digest: str
    config: str
    gate: str
    seeds: tuple[int, ...]
    skip_bad: bool
    device: str
    require_gpu: bool
    cpu: str = "1"
    memory: str = "1Gi"
    gpu_count: str = "0"
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: tuple[dict[str, Any], ...] = ()
    state_uri: str
    registry_uri: str
    target: str
    notify_url: str = ""
    run_name: str

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
            code_digest="",  # the key of a cluster's cache; the state folder has the code in its own keys
            device=device,
            require_gpu=require_gpu,
            state_uri=str(work / "state"),
            registry_uri=registry_uri or str(work),
            target=LocalTarget(serving=str(work / "serving")).model_dump_json() if serve else "",
        )

    @classmethod
    def cluster(cls, request: TrainingRequest, settings: KubeflowSettings, version: PipelineVersion) -> Parameters:
        """Return the parameters of a run on Kubeflow, for a version of the pipeline."""
        has_gpu = settings.gpu_count > 0
        return cls(
            **_of_request(request),
            # where the data is not pinned by a digest, no result of another run may answer from the cache
            code_digest=version.name if request.data_digest else f"{version.name} {request.name}".strip(),
            device="cuda" if has_gpu else "auto",
            require_gpu=has_gpu,
            cpu=settings.cpu,
            memory=settings.memory,
            gpu_count=str(settings.gpu_count),
            node_selector=settings.node_selector,
            tolerations=settings.tolerations or ((GPU_TAINT,) if has_gpu else ()),
            state_uri=STATE if settings.claim else "",
            registry_uri=settings.registry_uri,
            target=settings.target.model_dump_json() if settings.target else "",
            notify_url=settings.notify_url,
        )

    def arguments(self) -> dict[str, Any]:
        """Return the values by name, as kfp and Kubeflow's API take them."""
        return self.model_dump(mode="json")


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
        "config": request.config.model_dump_json(),
        "gate": request.gate.model_dump_json(),
        "seeds": request.config.training.seeds,
        "skip_bad": request.skip_bad,
        "run_name": request.name,
    }
