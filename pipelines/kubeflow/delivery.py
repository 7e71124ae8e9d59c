"""Continuous delivery as a pipeline of one task, for a recurring run.

It does what the CronJob in manifests/base/delivery does, with the same ledger: both may run side by side, and either
may replace the other. The image is that of Dockerfile.base, as a tick needs no torch. On a cluster, with a service
account that has the rights of delivery:

    spira pipeline schedule-delivery --host URL --settings delivery.yaml --image REGISTRY/spira-base@sha256:…
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from kfp import compiler, dsl, kubernetes
from kfp.dsl.graph_component import GraphComponent

from components import IMAGE
from components.tick import tick
from pipelines.parameters import STATE
from pipelines.training import HOUR, with_timeout, with_verify_key, without_cache

NAME = "spira-delivery"
COMPILED = Path(__file__).with_suffix(".yaml")
LIMITS = dsl.PipelineConfig(active_deadline_seconds=HOUR, ttl_seconds_after_finished=24 * HOUR)
"""A tick is ended after an hour, so that the next can start. Its pods are removed a day after its end."""


@dataclass(frozen=True)
class DeliveryCompileOptions:
    """Compile-time options of the delivery pipeline."""

    claim: str = ""
    """PersistentVolumeClaim mounted at ``STATE``, for settings that name folders; none if empty."""
    verify_config_map: str = ""
    """ConfigMap with the public key ``verify.pem``, by which ticks check signatures; none if empty."""
    cached: ClassVar[bool] = False
    """Whether the cache may answer a tick: never."""
    name: ClassVar[str] = NAME
    """Name of the pipeline."""

    def compile(self, out: Path, image: str) -> None:
        """Write the compiled pipeline; see :func:`compile_delivery`."""
        compile_delivery(out, image, self.claim, self.verify_config_map)


def pipeline(claim: str = "", verify_config_map: str = "") -> GraphComponent:
    """Return the composition.

    Args:
        claim: PersistentVolumeClaim mounted at ``STATE``, for settings that name folders; none if empty.
        verify_config_map: ConfigMap with the public key of signatures; none if empty.
    """

    @dsl.pipeline(name=NAME, display_name="SPIRA delivery", pipeline_config=LIMITS)
    def delivery(settings: str, cluster: str):
        """Observe data, settings, code, runs and targets once, and do all that is due.

        Args:
            settings: Text of the settings file (delivery.yaml); its folders and URLs must outlive a pod.
            cluster: Text of the cluster file (cluster.yaml), which names the Kubeflow that trains; empty for none.
        """
        task = with_timeout(without_cache(tick(settings=settings, cluster=cluster)).set_display_name("Tick"), 1)
        task.set_cpu_request("100m").set_memory_request("512Mi").set_memory_limit("2Gi")
        if claim:
            kubernetes.mount_pvc(task, claim, STATE)
        with_verify_key(task, verify_config_map)

    return delivery


def compile_delivery(out: Path, image: str = IMAGE, claim: str = "", verify_config_map: str = "") -> None:
    """Write the compiled pipeline; the same sources give the same bytes.

    Args:
        image: Image of the task; on a cluster it has a digest.
        claim: See :func:`pipeline`.
        verify_config_map: See :func:`pipeline`.
    """
    temporary = out.with_name(f".{out.stem}.writing.yaml")
    compiler.Compiler().compile(pipeline(claim, verify_config_map), str(temporary))
    temporary.write_text(temporary.read_text().replace(f"image: {IMAGE}\n", f"image: {image}\n"))
    temporary.replace(out)
