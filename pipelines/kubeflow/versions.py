"""Versions of a pipeline on a Kubeflow server: each is named by its content and uploaded once.

The name is also the ``code_digest`` of the runs of a version. Another pipeline or image has another name, so the cache
never answers its runs with results of an earlier version.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp.compiler.compiler_utils import KubernetesManifestOptions
from kfp_server_api import ApiException

from pipelines.kubeflow.delivery import DeliveryCompileOptions
from pipelines.kubeflow.server import SECONDS, Server
from pipelines.training import NAME, CompileOptions
from spira import lineage
from spira.delivery.runner import RunnerError
from spira.errors import SpiraError

PACKAGE = "pipeline.yaml"
NOT_UPLOADED = "not uploaded"
UNCACHED = "-uncached"
"""Suffix of the name of a version whose tasks the cache never answers."""

AnyCompileOptions = CompileOptions | DeliveryCompileOptions
"""Compile-time options of the training or of the delivery pipeline."""


@dataclass(frozen=True)
class PipelineVersion:
    """A version on the server."""

    name: str
    version_id: str
    pipeline_id: str
    claim: str | None = None
    """Volume claim that the version mounts, empty for none; None if the server does not return the content."""

    @property
    def cached(self) -> bool:
        """Whether the cache may answer its tasks."""
        return not self.name.endswith(UNCACHED)


def check_image(image: str, tag_ok: bool) -> None:
    """Refuse an image that is not named by its digest.

    Args:
        tag_ok: Accept a tag.

    Raises:
        SpiraError: The image has no digest.
    """
    if not tag_ok and "@sha256:" not in image:
        raise SpiraError(
            f"image {image}: name it by its digest (name@sha256:…), as a tag can move; "
            "--tag-ok accepts a tag, for nodes that have images by tag only (kind)"
        )


def content(image: str, options: AnyCompileOptions) -> tuple[str, bytes]:
    """Compile these sources, and return the name of the version, which holds a digest of the file, and the file."""
    with tempfile.TemporaryDirectory() as temporary:
        options.compile(Path(temporary) / PACKAGE, image)
        compiled = (Path(temporary) / PACKAGE).read_bytes()
    digest = hashlib.sha256(compiled)
    if "@sha256:" not in image:  # a tag does not identify the image's code: assume that it was built from these sources
        digest.update(lineage.code_digest().encode())
    return f"{options.name}-{digest.hexdigest()[:12]}{'' if options.cached else UNCACHED}", compiled


def manifest(image: str, options: CompileOptions, namespace: str) -> KubernetesManifestOptions:
    """Return the names of the resources ``Pipeline`` and ``PipelineVersion``."""
    return KubernetesManifestOptions(
        pipeline_name=NAME,
        pipeline_display_name=NAME,
        pipeline_version_name=content(image, options)[0],
        namespace=namespace or None,
        include_pipeline_manifest=True,
    )


def upload(server: Server, image: str, options: AnyCompileOptions) -> PipelineVersion:
    """Return the version that these sources make with an image; upload it if it is not on the server.

    Raises:
        RunnerError: The server cannot be reached, or refuses the version.
    """
    name, compiled = content(image, options)
    with server.explain_errors(f"version {name} cannot be uploaded"), tempfile.TemporaryDirectory() as temporary:
        package = Path(temporary) / PACKAGE
        package.write_bytes(compiled)
        pipeline_id = _pipeline_id(server, options.name) or _create_pipeline(server, options.name)
        if not _list_versions(server, pipeline_id, name):
            _refuse_foreign(server, options.name, _list_versions(server, pipeline_id))
            _upload_version(server, package, pipeline_id, name)
        versions = _list_versions(server, pipeline_id, name)
    if not versions:
        raise RunnerError(f"version {name} was uploaded, but Kubeflow does not list it: see Kubeflow's log")
    return versions[0]


def find(server: Server, image: str, options: AnyCompileOptions) -> PipelineVersion:
    """Return the version that these sources make with an image, without uploading it.

    The id of a version that is not on the server is ``NOT_UPLOADED``.

    Raises:
        RunnerError: The server cannot be reached.
    """
    name, _ = content(image, options)
    with server.explain_errors(f"version {name} cannot be looked up"):
        pipeline_id = _pipeline_id(server, options.name)
        versions = _list_versions(server, pipeline_id, name) if pipeline_id else []
    return versions[0] if versions else PipelineVersion(name, NOT_UPLOADED, "")


def latest(server: Server) -> PipelineVersion:
    """Return the version of the training pipeline that was uploaded last.

    Raises:
        RunnerError: There is no version, or the server cannot be reached.
    """
    with server.explain_errors("the latest version cannot be looked up"):
        pipeline_id = _pipeline_id(server, NAME)
        every_version = _list_versions(server, pipeline_id) if pipeline_id else []
        versions = _refuse_foreign(server, NAME, every_version)
    if not versions:
        raise RunnerError(f"Kubeflow at {server.host} has no version of {NAME}: upload one with --image")
    return versions[0]


def _refuse_foreign(server: Server, pipeline: str, versions: list[PipelineVersion]) -> list[PipelineVersion]:
    """Return the versions that this program uploaded.

    Raises:
        RunnerError: Another tool uploaded all of them: the pipeline is not ours.
    """
    own_name = re.compile(rf"{pipeline}-[0-9a-f]{{12}}({UNCACHED})?")
    own = [version for version in versions if own_name.fullmatch(version.name)]
    if versions and not own:
        raise RunnerError(
            f"pipeline {pipeline} at {server.host} is not SPIRA's: another tool uploaded its version "
            f"{versions[0].name}; rename or delete that pipeline in Kubeflow"
        )
    return own


def _pipeline_id(server: Server, pipeline: str) -> str | None:
    namespace = {"namespace": server.namespace} if server.namespace else {}
    call = server.client.pipelines.pipeline_service_list_pipelines
    pipelines = server.list_all(call, "pipelines", pipeline, **namespace)
    return pipelines[0].pipeline_id if pipelines else None


def _list_versions(server: Server, pipeline_id: str, name: str = "") -> list[PipelineVersion]:
    """Return the versions of a name, or all, the latest first."""
    call = server.client.pipelines.pipeline_service_list_pipeline_versions
    versions = server.list_all(call, "pipeline_versions", name, pipeline_id=pipeline_id, sort_by="created_at desc")
    return [
        PipelineVersion(
            version.display_name, version.pipeline_version_id, pipeline_id, _mounted_claim(version.pipeline_spec)
        )
        for version in versions
    ]


def _mounted_claim(spec: dict[str, Any] | None) -> str | None:
    if not spec:
        return None
    platforms = spec.get("platform_spec", {}).get("platforms", {})
    executors = platforms.get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
    mounts = [mount for executor in executors.values() for mount in executor.get("pvcMount", [])]
    return mounts[0]["constant"] if mounts else ""


def _create_pipeline(server: Server, name: str) -> str:
    """Create a pipeline without a version; an uploaded one would get a first version of the pipeline's name."""
    body = {"name": name, "display_name": name} | ({"namespace": server.namespace} if server.namespace else {})
    try:
        return server.client.pipelines.pipeline_service_create_pipeline(
            pipeline=body, _request_timeout=SECONDS
        ).pipeline_id
    except ApiException:
        if pipeline_id := _pipeline_id(server, name):
            return pipeline_id  # another process has just created it
        raise


def _upload_version(server: Server, package: Path, pipeline_id: str, name: str) -> None:
    try:
        server.client.pipeline_uploads.upload_pipeline_version(
            str(package), name=name, pipelineid=pipeline_id, _request_timeout=SECONDS
        )
    except ApiException:
        # another process may have just uploaded it; the status of the error is not specific
        if not _list_versions(server, pipeline_id, name):
            raise
