"""The application around a detector, and its life: listen, check, answer, go without losing a request.

KServe's own routes, data plane and model, without its ``ModelServer``: that one starts listening only once a model is
ready, lets anyone unload it, answers some bad requests with 500 and their audio, and closes its port the moment it is
told to end, while the cluster still sends requests there.
"""

from __future__ import annotations

import asyncio
import logging
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

from spira.serving import errors, messages
from spira.serving.detector import Detector
from spira.serving.errors import RequestError, malformed
from spira.serving.guard import Guard, Limits

HEADER = "inference-header-content-length"
"""Of v2's binary form: how many bytes of the body are JSON."""

logger = logging.getLogger(__name__)


class Requests(DataPlane):
    """KServe's data plane, which hands bodies on unparsed."""

    def decode(
        self, body: bytes, headers: dict[str, str], protocol_version: str = "v1", model_name: str | None = None
    ) -> tuple[messages.Body, dict[str, Any]]:
        """A body for :meth:`Detector.predict`.

        Raises:
            RequestError: the length of its JSON is no number.
        """
        length = headers.get(HEADER)
        if length is not None and not length.isdigit():
            raise malformed("content_length", f"{HEADER} must be a whole number: the bytes of JSON")
        return messages.Body(body, None if length is None else int(length), v2=protocol_version == "v2"), {}


class Fixed(ModelRepositoryExtension):
    """One model, there from start to end."""

    async def load(self, model_name: str) -> None:
        """RequestError; see :meth:`unload`."""
        await self.unload(model_name)

    async def unload(self, model_name: str) -> None:
        """RequestError.

        Raises:
            RequestError: always.
        """
        raise RequestError(
            HTTPStatus.FORBIDDEN, "fixed", "this server serves one model: deploy another version instead"
        )


class Server(uvicorn.Server):
    """Told to end, it answers for a while longer: the cluster takes some time to send requests elsewhere.

    Args:
        drain_seconds: how long; a second signal ends it at once.
    """

    def __init__(self, config: uvicorn.Config, guard: Guard, drain_seconds: float) -> None:
        super().__init__(config)
        self.guard, self.drain_seconds = guard, drain_seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called by a signal."""
        if self.guard.ending or not self.started:
            return super().handle_exit(sig, frame)
        self.guard.ending = True
        loop = asyncio.get_running_loop()
        loop.call_soon_threadsafe(loop.call_later, self.drain_seconds, super().handle_exit, sig, frame)


def application(detector: Detector) -> FastAPI:
    """KServe's routes to one model, and ``/metrics``."""
    repository = ModelRepository()
    repository.update(detector)
    plane, fixed = Requests(repository), Fixed(repository)
    app = FastAPI(title="SPIRA", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_api_route("/metrics", metrics_handler)
    register_v1_endpoints(app, plane, fixed)
    register_v2_endpoints(app, plane, fixed)
    errors.install(app)
    return app


async def serve(detector: Detector, limits: Limits, port: int, drain_seconds: float) -> None:
    """Listen at once, be ready once the package is checked, end when told to.

    Raises:
        PackageError: the package must not be served.
    """
    guard = Guard(application(detector), limits)
    config = uvicorn.Config(guard, host="0.0.0.0", port=port, log_config=None, access_log=False, timeout_keep_alive=65)
    server = Server(config, guard, drain_seconds)
    listening = asyncio.create_task(server.serve())
    try:
        await asyncio.to_thread(detector.load)
    except BaseException:
        server.should_exit = True
        await listening
        raise
    await listening
