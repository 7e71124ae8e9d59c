"""Admission control: accept as many requests as can be served; answer 429 to the rest at once.

- A request is admitted, with its declared size, before its body is read. A flood of requests therefore needs no memory.
- A client that sends too slowly is refused after a while and frees its place.
- The body of a refused request is read and discarded before the response, because many clients read the response only
  after they have sent everything.
- KServe's routes get every body as plain bytes, whatever its content type: their own parsing runs in the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from prometheus_client import Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spira.serving import errors
from spira.serving.errors import RequestError, malformed

REQUESTS = Counter("spira_requests", "Requests with a body, by status", ["status"])
SECONDS = Histogram("spira_request_seconds", "Seconds from the admission of a request to the end of its response")
INSIDE = Gauge("spira_requests_inside", "Admitted requests: being read, waiting or being computed")


@dataclass(frozen=True)
class Limits:
    """Limits on admitted requests."""

    requests: int
    """Number of requests, computed and waiting, at a time."""
    body_bytes: int = 32 * 2**20
    """Size of one body. A WAV file in base64 may have three quarters of it."""
    all_bytes: int = 128 * 2**20
    """Size of all admitted bodies together."""
    body_seconds: float = 30.0
    """Time for a body to arrive."""


class Guard:
    """ASGI middleware that limits the requests to an application."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app, self.limits = app, limits
        self.requests = self.bytes = 0  # admitted now
        self.ending = False
        """Whether the server is shutting down. If so, responses close their connections and clients go elsewhere."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        send = self.instrumented(scope, send)
        if scope["method"] != "POST":
            return await self.app(scope, receive, send)
        try:
            with self.admit(declared_bytes(scope, self.limits)):
                body = await self.read(receive)
                await self.app(as_bytes(scope), replay(body, receive), send)
        except RequestError as error:
            await self.drain(receive)
            await errors.response(error)(scope, receive, send)

    @contextmanager
    def admit(self, size: int) -> Iterator[None]:
        """Admit a request with a body of ``size`` bytes for the duration of the block.

        Raises:
            RequestError: the limits are reached.
        """
        if self.requests >= self.limits.requests or self.bytes + size > self.limits.all_bytes:
            message = "the server is at its limit: try again in a second"
            raise RequestError(HTTPStatus.TOO_MANY_REQUESTS, "saturated", message)
        self.requests, self.bytes = self.requests + 1, self.bytes + size
        try:
            with INSIDE.track_inprogress(), SECONDS.time():
                yield
        finally:
            self.requests, self.bytes = self.requests - 1, self.bytes - size

    async def read(self, receive: Receive) -> bytes:
        """Read the body of a request.

        Raises:
            RequestError: the body is too large, arrives too slowly, or ends early.
        """
        body = bytearray()
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                async for chunk in chunks(receive):
                    body += chunk
                    if len(body) > self.limits.body_bytes:
                        raise too_large(self.limits)
        except TimeoutError as error:
            message = f"the body did not arrive within {self.limits.body_seconds:g} s: send it faster or send less"
            raise RequestError(HTTPStatus.REQUEST_TIMEOUT, "too_slow", message) from error
        return bytes(body)

    async def drain(self, receive: Receive) -> None:
        """Read and discard the rest of a body, up to four times the size limit and within the time limit."""
        remaining = 4 * self.limits.body_bytes
        with suppress(TimeoutError, RequestError):
            async with asyncio.timeout(self.limits.body_seconds):
                async for chunk in chunks(receive):
                    remaining -= len(chunk)
                    if remaining < 0:
                        return

    def instrumented(self, scope: Scope, send: Send) -> Send:
        """Return a ``send`` that counts the statuses of POST requests and closes connections during shutdown."""

        async def instrumented_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                if scope["method"] == "POST":
                    REQUESTS.labels(message["status"]).inc()
                if self.ending:
                    message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        return instrumented_send


async def chunks(receive: Receive) -> AsyncIterator[bytes]:
    """Yield the body of a request as it arrives.

    Raises:
        RequestError: the client closed the connection before the end of the body.
    """
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise malformed("disconnected", "the client closed the connection before the end of its request")
        yield message.get("body", b"")
        more = message.get("more_body", False)


def declared_bytes(scope: Scope, limits: Limits) -> int:
    """Return the Content-Length of a request, or the largest allowed size if it has none.

    Raises:
        RequestError: the length is too large or not a number.
    """
    length = dict(scope["headers"]).get(b"content-length", str(limits.body_bytes).encode())
    if not length.isdigit():
        raise malformed("content_length", "Content-Length must be a whole number")
    if int(length) > limits.body_bytes:
        raise too_large(limits)
    return int(length)


def too_large(limits: Limits) -> RequestError:
    """Return the error for a body above the size limit (413)."""
    message = f"the body has more than {limits.body_bytes} bytes: send a shorter recording, or fewer in one request"
    return RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", message)


def as_bytes(scope: Scope) -> dict[str, Any]:
    """Return a scope whose content type is plain bytes."""
    headers = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
    return {**scope, "headers": [*headers, (b"content-type", b"application/octet-stream")]}


def replay(body: bytes, receive: Receive) -> Receive:
    """Return a ``receive`` that returns a body already read, then the messages after it."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed_receive() -> Message:
        return messages.pop() if messages else await receive()

    return replayed_receive
