"""Continuous delivery as a pipeline of one task, for a recurring run: what manifests/base/delivery has as a CronJob.

It is the same tick with the same ledger, so both may run side by side, or one take over from the other. The image is
that of Dockerfile.base: a tick needs no torch. On a cluster, with a service account that may do what it must:

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
from pipelines.training import HOUR, timed, uncached

NAME = "spira-delivery"
COMPILED = Path(__file__).with_suffix(".yaml")
LIMITS = dsl.PipelineConfig(active_deadline_seconds=HOUR, ttl_seconds_after_finished=24 * HOUR)
"""A tick is ended after an hour; the next is then free to begin. Its pods are removed a day after it ended."""


@dataclass(frozen=True)
class CompileOptions:
    """As :class:`pipelines.training.CompileOptions`, for :mod:`pipelines.kubeflow.versions`."""

    claim: str = ""
    """PersistentVolumeClaim mounted at ``STATE``, where the settings name folders; none if empty."""
    cached: ClassVar[bool] = False
    """A tick is never answered from the cache."""
    name: ClassVar[str] = NAME
    """Of the pipeline."""

    def compile(self, out: Path, image: str) -> None:
        """See :func:`compile_delivery`."""
        compile_delivery(out, image, self.claim)


def pipeline(claim: str = "") -> GraphComponent:
    """The composition.

    Args:
        claim: PersistentVolumeClaim mounted at ``STATE``, where the settings name folders; none if empty.
    """

    @dsl.pipeline(name=NAME, display_name="SPIRA delivery", pipeline_config=LIMITS)
    def delivery(settings: str, cluster: str):
        """Look once at data, settings, code, runs and what serves, and do all that is to be done now.

        Args:
            settings: Text of the settings file (delivery.yaml); its places must outlive a pod.
            cluster: Text of the file that it calls cluster.yaml, where Kubeflow trains; empty for none.
        """
        task = timed(uncached(tick(settings=settings, cluster=cluster)).set_display_name("Tick"), 1)
        task.set_cpu_request("100m").set_memory_request("512Mi").set_memory_limit("2Gi")
        if claim:
            kubernetes.mount_pvc(task, claim, STATE)

    return delivery


def compile_delivery(out: Path, image: str = IMAGE, claim: str = "") -> None:
    """Write the compiled pipeline; the same sources give the same bytes.

    Args:
        image: of the task; on a cluster by digest.
        claim: see :func:`pipeline`.
    """
    temporary = out.with_name(f".{out.stem}.writing.yaml")
    compiler.Compiler().compile(pipeline(claim), str(temporary))
    temporary.write_text(temporary.read_text().replace(f"image: {IMAGE}\n", f"image: {image}\n"))
    temporary.replace(out)
