"""Versions of the pipeline on a Kubeflow server: each has the name of its content, and is uploaded once.

The name is also the ``code_digest`` of its runs: another pipeline or image is another name, which no cached result
of an earlier one answers to.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kfp.compiler.compiler_utils import KubernetesManifestOptions
from kfp_server_api import ApiException

from pipelines.kubeflow.server import SECONDS, Server
from pipelines.training import NAME, CompileOptions
from spira import lineage
from spira.delivery.runner import RunnerError
from spira.errors import SpiraError

PACKAGE = "pipeline.yaml"
NOT_UPLOADED = "not uploaded"
UNCACHED = "-uncached"
"""How the name of a version ends whose tasks are never answered from the cache."""


class Source(Protocol):
    """A pipeline in one of its forms, as these sources make it."""

    @property
    def name(self) -> str:
        """Of the pipeline."""

    @property
    def cached(self) -> bool:
        """Whether tasks may be answered from the cache."""

    def compile(self, out: Path, image: str) -> None:
        """Write it."""


@dataclass(frozen=True)
class PipelineVersion:
    """A version that is on the server."""

    name: str
    version_id: str
    pipeline_id: str
    claim: str | None = None
    """The volume claim that it mounts, empty for none; None where the server doesn't show the version's content."""

    @property
    def cached(self) -> bool:
        """Whether its tasks may be answered from the cache."""
        return not self.name.endswith(UNCACHED)


def check_image(image: str, tag_ok: bool) -> None:
    """Refuse an image that may be another one tomorrow.

    Raises:
        SpiraError: it is not named by its digest, and that is not said to be right.
    """
    if not tag_ok and "@sha256:" not in image:
        raise SpiraError(
            f"image {image}: name it by its digest (name@sha256:…), as a tag can move; "
            "--tag-ok takes it all the same, for nodes that only know tags (kind)"
        )


def content(image: str, form: Source) -> tuple[str, bytes]:
    """The version that these sources make: its name, which is the digest of the rest, and the compiled file."""
    with tempfile.TemporaryDirectory() as temporary:
        form.compile(Path(temporary) / PACKAGE, image)
        compiled = (Path(temporary) / PACKAGE).read_bytes()
    digest = hashlib.sha256(compiled)
    if "@sha256:" not in image:  # a tag doesn't say what the image holds: these sources, it is to be hoped
        digest.update(lineage.code_digest().encode())
    return f"{form.name}-{digest.hexdigest()[:12]}{'' if form.cached else UNCACHED}", compiled


def manifest(image: str, form: CompileOptions, namespace: str) -> KubernetesManifestOptions:
    """The names of the resources ``Pipeline`` and ``PipelineVersion``."""
    return KubernetesManifestOptions(
        pipeline_name=NAME,
        pipeline_display_name=NAME,
        pipeline_version_name=content(image, form)[0],
        namespace=namespace or None,
        include_pipeline_manifest=True,
    )


def upload(server: Server, image: str, form: Source) -> PipelineVersion:
    """The version that these sources make with an image; uploaded if it isn't there.

    Raises:
        RunnerError: the server can't be asked, or refuses it.
    """
    name, compiled = content(image, form)
    with server.asked(f"version {name} can't be uploaded"), tempfile.TemporaryDirectory() as temporary:
        package = Path(temporary) / PACKAGE
        package.write_bytes(compiled)
        pipeline_id = _pipeline_id(server, form.name) or _new_pipeline(server, form.name)
        if not _listed(server, pipeline_id, name):
            _new_version(server, package, pipeline_id, name)
        found = _listed(server, pipeline_id, name)
    if not found:
        raise RunnerError(f"version {name} was uploaded, and isn't there: look at Kubeflow's log")
    return found[0]


def find(server: Server, image: str, form: Source) -> PipelineVersion:
    """The same, where nothing must be changed: with ``NOT_UPLOADED`` for its id if it isn't there.

    Raises:
        RunnerError: the server can't be asked.
    """
    name, _ = content(image, form)
    with server.asked(f"version {name} can't be looked up"):
        pipeline_id = _pipeline_id(server, form.name)
        found = _listed(server, pipeline_id, name) if pipeline_id else []
    return found[0] if found else PipelineVersion(name, NOT_UPLOADED, "")


def latest(server: Server) -> PipelineVersion:
    """The version of the training pipeline that was uploaded last.

    Raises:
        RunnerError: there is none, or the server can't be asked.
    """
    with server.asked("the latest version can't be looked up"):
        pipeline_id = _pipeline_id(server, NAME)
        found = _listed(server, pipeline_id) if pipeline_id else []
    if not found:
        raise RunnerError(f"Kubeflow at {server.host} has no version of {NAME}: upload one with --image")
    return found[0]


def _pipeline_id(server: Server, pipeline: str) -> str | None:
    namespace = {"namespace": server.namespace} if server.namespace else {}
    found = server.all(server.client.pipelines.pipeline_service_list_pipelines, "pipelines", pipeline, **namespace)
    return found[0].pipeline_id if found else None


def _listed(server: Server, pipeline_id: str, name: str = "") -> list[PipelineVersion]:
    """Versions, the latest first."""
    call = server.client.pipelines.pipeline_service_list_pipeline_versions
    found = server.all(call, "pipeline_versions", name, pipeline_id=pipeline_id, sort_by="created_at desc")
    return [
        PipelineVersion(each.display_name, each.pipeline_version_id, pipeline_id, _claim(each.pipeline_spec))
        for each in found
    ]


def _claim(spec: dict[str, Any] | None) -> str | None:
    if not spec:
        return None
    platforms = spec.get("platform_spec", {}).get("platforms", {})
    executors = platforms.get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
    mounts = [mount for executor in executors.values() for mount in executor.get("pvcMount", [])]
    return mounts[0]["constant"] if mounts else ""


def _new_pipeline(server: Server, pipeline: str) -> str:
    """A pipeline without a version: one that is uploaded brings a first version of its own name along."""
    body = {"name": pipeline, "display_name": pipeline} | ({"namespace": server.namespace} if server.namespace else {})
    try:
        made = server.client.pipelines.pipeline_service_create_pipeline(pipeline=body, _request_timeout=SECONDS)
        return made.pipeline_id
    except ApiException:
        if found := _pipeline_id(server, pipeline):
            return found  # of another process, just now
        raise


def _new_version(server: Server, package: Path, pipeline_id: str, name: str) -> None:
    try:
        server.client.pipeline_uploads.upload_pipeline_version(
            str(package), name=name, pipelineid=pipeline_id, _request_timeout=SECONDS
        )
    except ApiException:
        if not _listed(server, pipeline_id, name):  # else of another process, just now: its status is no telling
            raise
