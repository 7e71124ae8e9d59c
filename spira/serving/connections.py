"""Limits on connections: their number, the time for which they wait for a request, and the size of its head.

A connection that has no complete request is *waiting*. If too many are open, the one that has waited longest is closed,
so that clients that send nothing, or send slowly, cannot keep others out.
"""

from __future__ import annotations

import asyncio
import resource
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

IDLE_SECONDS = 65
"""Time for the head of a request to arrive. Load balancers keep connections for 60 s, and should close them first."""
MAX_HEAD_BYTES = 64 * 2**10
"""Size of the request line and the headers of a request."""
BACKLOG = 128
"""Connections that the event loop accepts at a time, before it handles them."""


def max_connections() -> int:
    """Return the limit of open connections; half of the file descriptors stay free for files and for closed ones."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1024 if descriptors == resource.RLIM_INFINITY else min(1024, descriptors // 2)


class LimitedConnection(HttpToolsProtocol):
    """A connection of uvicorn's that closes itself, or the one that has waited longest, at the limits."""

    limit: ClassVar[int] = max_connections()
    by_age: ClassVar[dict[LimitedConnection, None]] = {}
    """Open connections. The first has waited longest, or has a request that is being computed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.head_timer: asyncio.TimerHandle | None = None
        self.overhead_bytes = 0
        """Bytes since the end of the last head or the last byte of a body: an incomplete head, or trailers."""

    @property
    def waiting(self) -> bool:
        """Whether the client has something to do: to send the rest of a request, or to read a response."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body or self.flow.write_paused

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to wait for a request, and close another connection if there are too many."""
        super().connection_made(transport)
        self._wait()
        if len(self.by_age) > self.limit:
            oldest = next(connection for connection in self.by_age if connection.waiting)
            del self.by_age[oldest]  # at once: its connection_lost is called later
            oldest.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Parse data; refuse a head, or trailers after a body, that are too large."""
        self.overhead_bytes += len(data)
        super().data_received(data)
        if self.overhead_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"The headers have more than {MAX_HEAD_BYTES} bytes.")

    def on_body(self, body: bytes) -> None:
        """Receive a part of a body; the guard limits its size."""
        self.overhead_bytes = 0
        super().on_body(body)

    def on_headers_complete(self) -> None:
        """Stop the limits for the head of a request; the guard limits the time for a body."""
        self._stop_timer()
        self.overhead_bytes = 0
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        if not self.transport.is_closing() and not self.pipeline:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_timer()
        self.by_age.pop(self, None)
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._stop_timer()
        self.by_age.pop(self, None)
        self.by_age[self] = None
        self.overhead_bytes = 0
        self.head_timer = self.loop.call_later(IDLE_SECONDS, self.transport.abort)

    def _stop_timer(self) -> None:
        if self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None
