"""Versions of a pipeline on a Kubeflow server: each is named by its content and uploaded once.

The training pipeline is uploaded in two forms (see :mod:`pipelines.training`): one whose tasks the cache may answer,
for runs whose data a digest pins, and one without. The form without is uploaded last, as the dashboard and schedules
follow the version that was uploaded last.
"""

from __future__ import annotations

import hashlib
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from kfp.compiler.compiler_utils import KubernetesManifestOptions
from kfp_server_api import ApiException

from pipelines.kubeflow import delivery
from pipelines.kubeflow.delivery import DeliveryCompileOptions
from pipelines.kubeflow.server import SECONDS, Server
from pipelines.parameters import ADDED, OPTIONAL
from pipelines.training import NAME, CompileOptions
from spira import lineage, temporary
from spira.delivery.runner import RunnerError
from spira.errors import SpiraError

PACKAGE = "pipeline.yaml"
NOT_UPLOADED = "not uploaded"
UNCACHED = "-uncached"
"""Suffix of the name of a version whose tasks the cache never answers."""
CLOCK_SECONDS = 1.0
"""Resolution of Kubeflow's creation times: of two versions of the same second, either may be the latest."""
CACHED_USE = "for runs whose data is pinned by a digest: the cache may answer preprocess and train"
UNCACHED_USE = "for any run, also from the dashboard and by a schedule: the cache never answers"
DESCRIPTIONS = {
    NAME: "Train SPIRA's detector of respiratory insufficiency, evaluate it by the gate, and register it if approved.",
    delivery.NAME: "One tick of SPIRA's continuous delivery: observe, and do all that is due.",
}
"""Description by pipeline."""

AnyCompileOptions = CompileOptions | DeliveryCompileOptions
"""Compile-time options of the training or of the delivery pipeline."""


class Sizes(NamedTuple):
    """What a version fixes for a cluster; fields as in the compile-time options."""

    claim: str
    cpu: str
    memory: str
    gpu_count: int


_compiled_files: dict[tuple[str, str], bytes] = {}
"""Image and compile-time options -> compiled file. It takes up to a second, and an upload needs each form often."""


@dataclass(frozen=True)
class PipelineVersion:
    """A version on the server."""

    name: str
    version_id: str
    pipeline_id: str
    sizes: Sizes | None = None
    """None if the server does not return the content, and for a pipeline that does not train."""
    is_ours: bool = True
    """Whether it has the tasks of this project's training, or the server does not return the content."""
    code_digest: str = ""
    """Digest of the code with which the version trains; empty if unknown."""
    parameters: frozenset[str] = frozenset()
    """Those of the parameters that not every version has, which this one has."""
    cached: bool = True
    """Whether the cache may answer its tasks."""


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
    """Compile these sources, and return the name of the version and the file.

    The name holds a digest of the form without cache, so that both forms share it, and a suffix that tells them apart.
    """
    uncached = replace(options, cached=False) if isinstance(options, CompileOptions) else options
    compiled = _compiled(image, uncached)
    digest = hashlib.sha256(compiled)
    if "@sha256:" not in image:  # a tag does not identify the image's code: assume that it was built from these sources
        digest.update(lineage.code_digest().encode())
    name = f"{options.name}-{digest.hexdigest()[:12]}{'' if options.cached else UNCACHED}"
    return name, compiled if options == uncached else _compiled(image, options)


def _compiled(image: str, options: AnyCompileOptions) -> bytes:
    key = image, repr(options)
    if key not in _compiled_files:
        with temporary.folder() as folder:
            options.compile(folder / PACKAGE, image)
            _compiled_files[key] = (folder / PACKAGE).read_bytes()
    return _compiled_files[key]


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
    with server.explain_errors(f"version {name} cannot be uploaded"), temporary.folder() as folder:
        package = folder / PACKAGE
        package.write_bytes(compiled)
        pipeline_id = _pipeline_id(server, options.name) or _create_pipeline(server, options.name)
        if not _list_versions(server, pipeline_id, name):
            _refuse_foreign(server, options.name, _list_versions(server, pipeline_id))
            _upload_version(server, package, pipeline_id, name, _describe(image, options))
        versions = _list_versions(server, pipeline_id, name)
    if not versions:
        raise RunnerError(f"version {name} was uploaded, but Kubeflow does not list it: see Kubeflow's log")
    return versions[0]


def upload_both(server: Server, image: str, options: CompileOptions) -> PipelineVersion:
    """Upload both forms of a version, the one without cache last; return the form that the options name.

    Raises:
        RunnerError: The server cannot be reached, or refuses a version.
    """
    cached = upload(server, image, replace(options, cached=True))
    if find(server, image, replace(options, cached=False)).version_id == NOT_UPLOADED:
        time.sleep(CLOCK_SECONDS)
    uncached = upload(server, image, replace(options, cached=False))
    return cached if options.cached else uncached


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
    return versions[0] if versions else PipelineVersion(name, NOT_UPLOADED, "", cached=options.cached)


def latest(server: Server, cached: bool | None = None) -> PipelineVersion:
    """Return the version of the training pipeline that was uploaded last.

    Args:
        cached: Form of that version, if it was uploaded in this form too; None for the form that was uploaded last.

    Raises:
        RunnerError: There is no version, or the server cannot be reached.
    """
    with server.explain_errors("the latest version cannot be looked up"):
        pipeline_id = _pipeline_id(server, NAME)
        every_version = _list_versions(server, pipeline_id) if pipeline_id else []
        versions = _refuse_foreign(server, NAME, every_version)
    if not versions:
        raise RunnerError(f"Kubeflow at {server.host} has no version of {NAME}: upload one with --image")
    base = versions[0].name.removesuffix(UNCACHED)
    forms = [version for version in versions if version.name.removesuffix(UNCACHED) == base]
    return next((version for version in forms if version.cached == cached), versions[0])


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
    return [_to_version(version, pipeline_id) for version in versions]


def _to_version(version: Any, pipeline_id: str) -> PipelineVersion:
    """Return a version with what its compiled file fixes; unknown where the server does not return the file."""
    name, ids = version.display_name, (version.pipeline_version_id, pipeline_id)
    if not version.pipeline_spec:
        return PipelineVersion(name, *ids, cached=not name.endswith(UNCACHED))
    spec = version.pipeline_spec.get("pipeline_spec", version.pipeline_spec)  # the second document is optional
    tasks = {task: body for dag in _dags(spec) for task, body in dag.get("tasks", {}).items()}
    code = _at(tasks, "train", "inputs", "parameters", "code_digest", "runtimeValue", "constant")
    return PipelineVersion(
        name,
        *ids,
        sizes=_sizes(spec, version.pipeline_spec.get("platform_spec", {})) if "train" in tasks else None,
        is_ours={"preprocess", "train", "evaluate"} <= set(tasks),
        code_digest=code if isinstance(code, str) else "",
        parameters=frozenset((*OPTIONAL, *ADDED)) & set(_at(spec, "root", "inputDefinitions", "parameters") or {}),
        cached=_at(tasks, "preprocess", "cachingOptions", "enableCache") is True,
    )


def _sizes(spec: dict[str, Any], platform_spec: dict[str, Any]) -> Sizes:
    train = _at(spec, "deploymentSpec", "executors", "exec-train", "container", "resources") or {}
    executors = _at(platform_spec, "platforms", "kubernetes", "deploymentSpec", "executors") or {}
    mounts = [mount for executor in executors.values() for mount in executor.get("pvcMount", [])]
    count = str(_at(train, "accelerator", "resourceCount") or "0")
    return Sizes(
        claim=mounts[0].get("constant", "") if mounts else "",
        cpu=str(train.get("resourceCpuRequest", "")),
        memory=str(train.get("resourceMemoryRequest", "")),
        gpu_count=int(count) if count.isdigit() else -1,  # a parameter, in a version of an earlier program
    )


def _dags(spec: dict[str, Any]) -> list[dict[str, Any]]:
    parts = [spec.get("root", {}), *spec.get("components", {}).values()]
    return [part["dag"] for part in parts if "dag" in part]


def _at(body: Any, *keys: str) -> Any:
    """Return the value under nested keys, or None if one of them is absent."""
    for key in keys:
        body = body.get(key) if isinstance(body, dict) else None
    return body


def _describe(image: str, options: AnyCompileOptions) -> str:
    """Return the description of a version for a person who chooses one in the dashboard."""
    parts = [f"Image {image}", f"sources at commit {lineage.git_commit()}", f"claim {options.claim or 'none'}"]
    if isinstance(options, CompileOptions):
        parts += [f"train pods with cpu {options.cpu}, memory {options.memory}, {options.gpu_count} GPUs"]
        parts += [CACHED_USE if options.cached else UNCACHED_USE]
    return "; ".join(parts)


def _create_pipeline(server: Server, name: str) -> str:
    """Create a pipeline without a version; an uploaded one would get a first version of the pipeline's name."""
    body = {"name": name, "display_name": name, "description": DESCRIPTIONS[name]}
    body |= {"namespace": server.namespace} if server.namespace else {}
    try:
        return server.client.pipelines.pipeline_service_create_pipeline(
            pipeline=body, _request_timeout=SECONDS
        ).pipeline_id
    except ApiException:
        if pipeline_id := _pipeline_id(server, name):
            return pipeline_id  # another process has just created it
        raise


def _upload_version(server: Server, package: Path, pipeline_id: str, name: str, description: str) -> None:
    try:
        server.client.pipeline_uploads.upload_pipeline_version(
            str(package), name=name, description=description, pipelineid=pipeline_id, _request_timeout=SECONDS
        )
    except ApiException:
        # another process may have just uploaded it; the status of the error is not specific
        if not _list_versions(server, pipeline_id, name):
            raise
