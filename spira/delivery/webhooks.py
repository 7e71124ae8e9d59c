"""Webhooks, which are HTTP calls that bring the next tick forward, and the status page.

    GET  /                 the status page, read only
    POST /wake/mlflow      a webhook of MLflow, signed (X-MLflow-Signature)
    POST /wake/git         a push, signed as by GitHub, Gitea and Forgejo (X-Hub-Signature-256)
    POST /wake/storage     a notification of a bucket, pushed by Pub/Sub with ?token=SECRET
    GET  /health           200 while the server listens

A lost, repeated, late or forged call only changes the time of a tick, because a tick acts on what it observes. The
body is therefore never interpreted. Secrets come from the environment; a path without a secret responds 404.

The page is made after each tick and kept, so a caller who asks often costs no tick and reads nothing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from spira.errors import SpiraError

SECRETS = {"mlflow": "SPIRA_WAKE_MLFLOW", "git": "SPIRA_WAKE_GIT", "storage": "SPIRA_WAKE_STORAGE"}
"""Environment variable with the secret of each path."""
MAX_BODY_BYTES = 1 << 20
MAX_AGE_SECONDS = 300
"""A signed call that is older is refused as a replay."""
PAGE_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
IDLE_TIMEOUT_SECONDS = 10
MAX_CONNECTIONS = 32
"""Open connections; each has a thread and a file descriptor of the process that watches."""


class PageSlot:
    """The page that the server has now; another thread replaces it."""

    def __init__(self) -> None:
        self.content: bytes | None = None
        """HTML in UTF-8; None before the first tick."""

    def replace(self, html: str) -> None:
        """Serve another page from now on."""
        self.content = html.encode()


def serve(listen: str, wake: Callable[[], object] | None = None, page: PageSlot | None = None) -> ThreadingHTTPServer:
    """Start a server in threads that end with the process.

    Args:
        listen: ``HOST:PORT``; port 0 for any free port.
        wake: called for each authentic call; None for a server that has no webhooks.
        page: the status page; None for a server that has none.

    Raises:
        SpiraError: the address is invalid or in use.
    """
    host, _, port = listen.rpartition(":")
    handler = type("Handler", (_Handler,), {"wake": staticmethod(wake) if wake else None, "page": page})
    try:
        server = _Server((host or "127.0.0.1", int(port)), handler)
    except (OSError, ValueError, OverflowError) as error:
        raise SpiraError(f"--listen {listen}: cannot listen on this address ({error}); write HOST:PORT") from error
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class _Server(ThreadingHTTPServer):
    """A server that ends the oldest connection when there are too many, so that slow callers block nobody."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *args: Any) -> None:
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._open: dict[socket.socket, None] = {}
        self._open_lock = threading.Lock()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Handle a connection in a thread, as soon as one is free."""
        if not self._free.acquire(blocking=False):
            self._end_oldest()
            self._free.acquire()  # the thread of that connection reads its end, and frees its place
        with self._open_lock:
            self._open[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection and free its place."""
        with self._open_lock:
            counted = request in self._open
            self._open.pop(request, None)
        super().shutdown_request(request)
        if counted:
            self._free.release()

    def _end_oldest(self) -> None:
        with self._open_lock, suppress(OSError, StopIteration):
            next(iter(self._open)).shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a caller that closes the connection."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    wake: Callable[[], object] | None
    page: PageSlot | None
    timeout = IDLE_TIMEOUT_SECONDS

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/" and self.page is not None:
            return self._show(self.page.content)
        return self._respond(HTTPStatus.OK if path == "/health" else HTTPStatus.NOT_FOUND)

    def _show(self, content: bytes | None) -> None:
        if content is None:
            return self._respond(HTTPStatus.SERVICE_UNAVAILABLE)  # before the first tick
        self.send_response(HTTPStatus.OK)
        for name, value in (PAGE_HEADERS | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        return None

    def do_POST(self) -> None:
        try:
            url = urlsplit(self.path)
        except ValueError:
            return self._respond(HTTPStatus.BAD_REQUEST)
        check = CHECKS.get(url.path.removeprefix("/wake/"))
        secret = os.environ.get(SECRETS.get(url.path.removeprefix("/wake/"), ""), "")
        if self.wake is None or check is None or not secret:
            return self._respond(HTTPStatus.NOT_FOUND)
        lengths = self.headers.get_all("Content-Length", [])
        length = _parse_number(lengths[0]) if len(lengths) == 1 else None
        if length is None or length > MAX_BODY_BYTES:
            return self._respond(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        body = self.rfile.read(length)
        if not check(secret, self.headers, url.query, body):
            return self._respond(HTTPStatus.UNAUTHORIZED)
        self.wake()
        return self._respond(HTTPStatus.ACCEPTED)

    def _respond(self, status: HTTPStatus) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the query may contain a secret."""


def _is_from_mlflow(secret: str, headers: Message, query: str, body: bytes) -> bool:
    """Check MLflow 3's signature, base64 of HMAC-SHA256 over ``delivery id.timestamp.body``, and its age."""
    delivery_id, at = headers.get("X-MLflow-Delivery-Id", ""), _parse_number(headers.get("X-MLflow-Timestamp", ""))
    if at is None or abs(time.time() - at) > MAX_AGE_SECONDS:
        return False
    signed = f"{delivery_id}.{at}.".encode() + body
    expected = base64.b64encode(hmac.digest(secret.encode(), signed, hashlib.sha256)).decode()
    return _is_equal(headers.get("X-MLflow-Signature", ""), f"v1,{expected}")


def _is_from_git(secret: str, headers: Message, query: str, body: bytes) -> bool:
    expected = hmac.digest(secret.encode(), body, hashlib.sha256).hex()
    return _is_equal(headers.get("X-Hub-Signature-256", ""), f"sha256={expected}")


def _is_from_storage(secret: str, headers: Message, query: str, body: bytes) -> bool:
    return _is_equal(parse_qs(query).get("token", [""])[0], secret)


def _parse_number(text: str) -> int | None:
    """Return the number in a header, or None if it is none: int() alone would accept other digits and signs."""
    return int(text) if re.fullmatch("[0-9]{1,12}", text) else None


def _is_equal(given: str, expected: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(given.encode(), expected.encode())


CHECKS = {"mlflow": _is_from_mlflow, "git": _is_from_git, "storage": _is_from_storage}
