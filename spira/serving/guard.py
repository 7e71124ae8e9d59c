"""Admission control: accept as many requests as can be served; answer 429 to the rest at once.

- A request takes one of the places when its body is complete. Clients that send slowly therefore block nobody.
- Bodies count with the bytes received so far. A flood of requests therefore needs no more memory than the limit.
- A client that sends too slowly is refused after a while.
- If no place is free, a request is refused before its body is read.
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

from spira.serving import errors, headers
from spira.serving.errors import RequestError, malformed

REQUESTS = Counter("spira_requests", "Requests with a body, by status", ["status"])
SECONDS = Histogram("spira_request_seconds", "Seconds from the admission of a request to the end of its response")
INSIDE = Gauge("spira_requests_inside", "Admitted requests: waiting or being computed")


@dataclass(frozen=True)
class Limits:
    """Limits on admitted requests."""

    requests: int
    """Number of requests, computed and waiting, at a time."""
    body_bytes: int = 32 * 2**20
    """Size of one body. A WAV file in base64 may have three quarters of it."""
    all_bytes: int = 96 * 2**20
    """Size of all bodies together, of admitted requests and of those being read: a fourth one of the largest size would
    not fit beside the others into a container of 1 GiB."""
    body_seconds: float = 30.0
    """Time for a body to arrive."""


class Guard:
    """ASGI middleware that limits the requests to an application."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app, self.limits = app, limits
        self.requests = 0  # admitted now
        self.bytes = 0  # of their bodies, and of the bodies being read
        self.ending = False
        """Whether the server is shutting down. If so, responses close their connections and clients go elsewhere."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        send = self.instrumented(scope, send)
        if scope["method"] != "POST":
            return await self.app(scope, receive, send)
        stream = BodyStream(receive)
        try:
            self.refuse_declared(scope)
            body = await self.read(stream)
            try:
                with self.admit():
                    await self.app(as_bytes(scope), replay(body, receive), send)
            finally:
                self.bytes -= len(body)
        except RequestError as error:
            await self.drain(stream)
            await errors.response(error)(scope, receive, send)

    def refuse_declared(self, scope: Scope) -> None:
        """Refuse a request by its headers, or because no place is free.

        Raises:
            RequestError: the declared body is too large, a header is invalid, or the server is at its limit.
        """
        names = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        declared = headers.parse(names).length
        if declared is not None and declared > self.limits.body_bytes:
            raise too_large(self.limits)
        if self.requests >= self.limits.requests or self.bytes + (declared or 0) > self.limits.all_bytes:
            raise saturated()

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Occupy a place for the duration of the block.

        Raises:
            RequestError: no place is free.
        """
        if self.requests >= self.limits.requests:
            raise saturated()
        self.requests += 1
        try:
            with INSIDE.track_inprogress(), SECONDS.time():
                yield
        finally:
            self.requests -= 1

    async def read(self, stream: BodyStream) -> bytes:
        """Read the body of a request. Its bytes stay counted until the caller discards it.

        Raises:
            RequestError: the body is too large, arrives too slowly or ends early, or all bodies together are too large.
        """
        body = bytearray()
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                async for chunk in stream:
                    if len(body) + len(chunk) > self.limits.body_bytes:
                        raise too_large(self.limits)
                    if self.bytes + len(chunk) > self.limits.all_bytes:
                        raise saturated()
                    body += chunk
                    self.bytes += len(chunk)
        except BaseException as error:
            self.bytes -= len(body)
            if isinstance(error, TimeoutError):
                message = f"the body did not arrive within {self.limits.body_seconds:g} s: send it faster or send less"
                raise RequestError(HTTPStatus.REQUEST_TIMEOUT, "too_slow", message) from error
            raise
        return bytes(body)

    async def drain(self, stream: BodyStream) -> None:
        """Read and discard the rest of a body, up to four times the size limit and within the time limit."""
        remaining = 4 * self.limits.body_bytes
        with suppress(TimeoutError, RequestError):
            async with asyncio.timeout(self.limits.body_seconds):
                async for chunk in stream:
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


class BodyStream:
    """The body of a request as it arrives; a second iteration continues where the first one stopped."""

    def __init__(self, receive: Receive) -> None:
        self.receive, self.more = receive, True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the parts of the body.

        Raises:
            RequestError: the client closed the connection before the end of the body.
        """
        while self.more:
            message = await self.receive()
            self.more = message.get("more_body", False)
            if message["type"] != "http.request":
                raise malformed("disconnected", "the client closed the connection before the end of its request")
            yield message.get("body", b"")


def saturated() -> RequestError:
    """Return the error for a request beyond the limits of the server (429)."""
    message = "the server is at its limit: try again in a second"
    return RequestError(HTTPStatus.TOO_MANY_REQUESTS, "saturated", message)


def too_large(limits: Limits) -> RequestError:
    """Return the error for a body above the size limit (413)."""
    message = f"the body has more than {limits.body_bytes} bytes: send a shorter recording, or fewer in one request"
    return RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", message)


def as_bytes(scope: Scope) -> dict[str, Any]:
    """Return a scope whose content type is plain bytes."""
    others = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
    return {**scope, "headers": [*others, (b"content-type", b"application/octet-stream")]}


def replay(body: bytes, receive: Receive) -> Receive:
    """Return a ``receive`` that returns a body already read, then the messages after it."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed_receive() -> Message:
        return messages.pop() if messages else await receive()

    return replayed_receive
