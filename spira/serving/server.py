"""The HTTP server: KServe's routes to one model, readiness after the package is checked, graceful shutdown.

It uses KServe's routes, data plane and model, but not its ``ModelServer``, which

- starts to listen only after a model is ready,
- lets any client unload the model,
- answers some invalid requests with 500 and with their audio,
- closes its port at the first signal, while the cluster still sends requests to it.
"""

from __future__ import annotations

import asyncio
import logging
import re
from http import HTTPStatus
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from kserve import ModelRepository
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.protocol.rest.server import metrics_handler
from kserve.protocol.rest.v1_endpoints import register_v1_endpoints
from kserve.protocol.rest.v2_endpoints import register_v2_endpoints
from starlette.types import ASGIApp, Receive, Scope, Send

from spira.serving import errors, messages
from spira.serving.connections import BACKLOG, IDLE_SECONDS, LimitedConnection
from spira.serving.detector import Detector
from spira.serving.errors import RequestError
from spira.serving.guard import Guard, Limits
from spira.serving.headers import JSON_LENGTH
from spira.serving.headers import parse as parse_headers

VERSIONED_PATH = re.compile(r"/v2/models/([^/]+)/versions/([^/]+)(|/infer|/ready)")

logger = logging.getLogger(__name__)


class RawBodyDataPlane(DataPlane):
    """KServe's data plane, without the parsing of request bodies and without CloudEvents.

    Args:
        repository: the repository of the model.
        max_bytes: limit of an inflated body.
    """

    def __init__(self, repository: ModelRepository, max_bytes: int) -> None:
        super().__init__(repository)
        self.max_bytes = max_bytes

    def decode(
        self, body: bytes, headers: dict[str, str], protocol_version: str = "v1", model_name: str | None = None
    ) -> tuple[messages.Body, dict[str, Any]]:
        """Return a body for :meth:`Detector.predict`."""
        declared = parse_headers(headers.items())
        v2 = protocol_version == "v2"
        return messages.Body(body, declared.json_bytes, v2, declared.encoding, self.max_bytes), {}

    def encode(
        self, model_name: str, response: Any, headers: dict[str, str], req_attributes: dict[str, Any]
    ) -> tuple[dict[str, Any] | bytes, dict[str, str]]:
        """Return the content and the headers of a response."""
        if isinstance(response, messages.BinaryResponse):
            return response.content, {JSON_LENGTH: str(response.json_bytes)}
        return response, {}


class VersionedPaths:
    """ASGI middleware for paths with a model version, which KServe's routes do not implement.

    The version that is served has the responses of the path without a version; other versions are not found.
    """

    def __init__(self, app: ASGIApp, model: str, version: str) -> None:
        self.app, self.model, self.version = app, model, version

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = VERSIONED_PATH.fullmatch(scope["path"]) if scope["type"] == "http" else None
        if path is None:
            return await self.app(scope, receive, send)
        model, version, rest = path.groups()
        if model == self.model and version != self.version:
            served = f"version {self.version}" if self.version else "one version, whose number is not known"
            message = f"this version is not served here; the server has {served}: use /v2/models/{self.model}{rest}"
            error = RequestError(HTTPStatus.NOT_FOUND, "version_not_found", message)
            return await errors.response(error)(scope, receive, send)
        return await self.app({**scope, "path": f"/v2/models/{model}{rest}"}, receive, send)


class SingleModelRepository(ModelRepositoryExtension):
    """A model repository with one model that clients can neither load nor unload."""

    async def load(self, model_name: str) -> None:
        """Refuse the request.

        Raises:
            RequestError: always.
        """
        await self.unload(model_name)

    async def unload(self, model_name: str) -> None:
        """Refuse the request.

        Raises:
            RequestError: always.
        """
        raise RequestError(
            HTTPStatus.FORBIDDEN, "fixed", "this server serves one model: deploy another version instead"
        )


class DrainingServer(uvicorn.Server):
    """A server that keeps answering for a while after a signal, until the cluster sends requests elsewhere.

    Args:
        drain_seconds: time from the signal to the end; a second signal ends the server at once.
    """

    def __init__(self, config: uvicorn.Config, guard: Guard, drain_seconds: float) -> None:
        super().__init__(config)
        self.guard, self.drain_seconds = guard, drain_seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal: start the shutdown, or end the server if the shutdown has started."""
        if self.guard.ending or not self.started:
            return super().handle_exit(sig, frame)
        self.guard.ending = True
        loop = asyncio.get_running_loop()
        loop.call_soon_threadsafe(loop.call_later, self.drain_seconds, super().handle_exit, sig, frame)


def application(detector: Detector, limits: Limits) -> FastAPI:
    """Return an application with KServe's routes to one model, and ``/metrics``."""
    repository = ModelRepository()
    repository.update(detector)
    data_plane, extension = RawBodyDataPlane(repository, limits.body_bytes), SingleModelRepository(repository)
    app = FastAPI(title="SPIRA", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_api_route("/metrics", metrics_handler)
    register_v1_endpoints(app, data_plane, extension)
    register_v2_endpoints(app, data_plane, extension)
    errors.install(app)
    app.add_middleware(VersionedPaths, model=detector.name, version=detector.version)
    return app


async def serve(detector: Detector, limits: Limits, port: int, drain_seconds: float) -> None:
    """Listen at once, become ready when the package is checked, and run until a signal ends the server.

    Raises:
        PackageError: the package must not be served.
    """
    guard = Guard(application(detector, limits), limits)
    config = uvicorn.Config(
        guard,
        host="0.0.0.0",
        port=port,
        http=LimitedConnection,
        backlog=BACKLOG,
        timeout_keep_alive=IDLE_SECONDS,
        log_config=None,
        access_log=False,
    )
    server = DrainingServer(config, guard, drain_seconds)
    listening = asyncio.create_task(server.serve())
    try:
        await asyncio.to_thread(detector.load)
    except BaseException:
        server.should_exit = True
        await listening
        raise
    await listening
