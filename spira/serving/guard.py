"""What stands before the application: as much as can be answered comes in, the rest is told so at once.

A body takes a place and its bytes before any of it is kept, so a flood costs no memory; a client that sends slowly
loses its place after a while. What is refused is read and forgotten first: many clients listen only then. Bodies
reach KServe's routes as plain bytes, whatever type they claim: its own parsing would run in the event loop.
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
SECONDS = Histogram("spira_request_seconds", "From a body's admission to the end of its answer")
INSIDE = Gauge("spira_requests_inside", "Requests being read, waiting or computed")


@dataclass(frozen=True)
class Limits:
    """What is taken in."""

    requests: int
    """Computed and waiting, at a time."""
    body_bytes: int = 32 * 2**20
    """Of one body; in base64 that is a WAV of three quarters of it."""
    all_bytes: int = 128 * 2**20
    """Of all bodies inside together."""
    body_seconds: float = 30.0
    """For a body to arrive."""


class Guard:
    """An ASGI application that lets only so much through to another."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app, self.limits = app, limits
        self.requests = self.bytes = 0  # inside now
        self.ending = False
        """Once true, answers close their connections, so that clients go elsewhere."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        send = self.watching(scope, send)
        if scope["method"] != "POST":
            return await self.app(scope, receive, send)
        try:
            with self.place(declared_bytes(scope, self.limits)):
                body = await self.read(receive)
                await self.app(as_bytes(scope), replay(body, receive), send)
        except RequestError as refused:
            await self.forget(receive)
            await errors.response(refused)(scope, receive, send)

    @contextmanager
    def place(self, size: int) -> Iterator[None]:
        """A place inside for a body of so many bytes.

        Raises:
            RequestError: all are taken.
        """
        if self.requests >= self.limits.requests or self.bytes + size > self.limits.all_bytes:
            raise RequestError(HTTPStatus.TOO_MANY_REQUESTS, "saturated", "all places are taken: try again in a second")
        self.requests, self.bytes = self.requests + 1, self.bytes + size
        try:
            with INSIDE.track_inprogress(), SECONDS.time():
                yield
        finally:
            self.requests, self.bytes = self.requests - 1, self.bytes - size

    async def read(self, receive: Receive) -> bytes:
        """A request's whole body.

        Raises:
            RequestError: it is larger than announced, comes too slowly, or not at all.
        """
        body = bytearray()
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                async for piece in pieces(receive):
                    body += piece
                    if len(body) > self.limits.body_bytes:
                        raise too_large(self.limits)
        except TimeoutError as error:
            told = f"the body didn't arrive within {self.limits.body_seconds:g} s: send it faster or send less"
            raise RequestError(HTTPStatus.REQUEST_TIMEOUT, "too_slow", told) from error
        return bytes(body)

    async def forget(self, receive: Receive) -> None:
        """Read what is left of a body, as far as it is of a size or a speed that a client of good will sends."""
        left = 4 * self.limits.body_bytes
        with suppress(TimeoutError, RequestError):
            async with asyncio.timeout(self.limits.body_seconds):
                async for piece in pieces(receive):
                    left -= len(piece)
                    if left < 0:
                        return

    def watching(self, scope: Scope, send: Send) -> Send:
        """``send`` that counts the statuses of posts, and bids farewell once the server is ending."""

        async def watch(message: Message) -> None:
            if message["type"] == "http.response.start":
                if scope["method"] == "POST":
                    REQUESTS.labels(message["status"]).inc()
                if self.ending:
                    message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        return watch


async def pieces(receive: Receive) -> AsyncIterator[bytes]:
    """A request's body as it arrives.

    Raises:
        RequestError: the client left before its end.
    """
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise malformed("disconnected", "the client left before its request was whole")
        yield message.get("body", b"")
        more = message.get("more_body", False)


def declared_bytes(scope: Scope, limits: Limits) -> int:
    """The announced size of a body; the largest allowed where none is announced.

    Raises:
        RequestError: it is larger than allowed, or no number.
    """
    length = dict(scope["headers"]).get(b"content-length", str(limits.body_bytes).encode())
    if not length.isdigit():
        raise malformed("content_length", "Content-Length must be a whole number")
    if int(length) > limits.body_bytes:
        raise too_large(limits)
    return int(length)


def too_large(limits: Limits) -> RequestError:
    """413."""
    message = f"the body has more than {limits.body_bytes} bytes: send a shorter recording, or fewer in one request"
    return RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", message)


def as_bytes(scope: Scope) -> dict[str, Any]:
    """A scope whose body is plain bytes."""
    headers = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
    return {**scope, "headers": [*headers, (b"content-type", b"application/octet-stream")]}


def replay(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that gives a body that was read, then what comes after it."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def give() -> Message:
        return messages.pop() if messages else await receive()

    return give
