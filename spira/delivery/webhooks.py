"""Wake-ups by HTTP: what happened elsewhere brings the next tick forward, and no more.

    POST /wake/mlflow      a webhook of MLflow, signed (X-MLflow-Signature)
    POST /wake/git         a push, as GitHub, Gitea and Forgejo sign it (X-Hub-Signature-256)
    POST /wake/storage     a bucket's notification pushed by Pub/Sub, with ?token=SECRET
    GET  /health           200 while it listens

A call that is lost, doubled, late or forged changes only when a tick is: what a tick does follows from what it sees.
So the body is never read for meaning. Secrets come from the environment; a path without one is closed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from spira.errors import SpiraError

SECRETS = {"mlflow": "SPIRA_WAKE_MLFLOW", "git": "SPIRA_WAKE_GIT", "storage": "SPIRA_WAKE_STORAGE"}
"""The environment variable of each path's secret."""
MOST_BYTES = 1 << 20
OLDEST_SECONDS = 300
"""A signed call older than this is a replay."""
IDLE_SECONDS = 10


def serve(listen: str, wake: Callable[[], object]) -> ThreadingHTTPServer:
    """Listen in threads of its own, which end with the process.

    Args:
        listen: ``HOST:PORT``; port 0 for any that is free.
        wake: called for each call that is genuine.

    Raises:
        SpiraError: the address can't be listened on.
    """
    host, _, port = listen.rpartition(":")
    handler = type("Handler", (_Handler,), {"wake": staticmethod(wake)})
    try:
        server = _Server((host or "127.0.0.1", int(port)), handler)
    except (OSError, ValueError, OverflowError) as error:
        raise SpiraError(f"--listen {listen}: can't listen there ({error}); write HOST:PORT") from error
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that hangs up is no trouble of ours."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    wake: Callable[[], object]
    timeout = IDLE_SECONDS

    def do_GET(self) -> None:
        self._answer(HTTPStatus.OK if urlsplit(self.path).path == "/health" else HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        url = urlsplit(self.path)
        check = CHECKS.get(url.path.removeprefix("/wake/"))
        secret = os.environ.get(SECRETS.get(url.path.removeprefix("/wake/"), ""), "")
        if check is None or not secret:
            return self._answer(HTTPStatus.NOT_FOUND)
        length = _number(self.headers.get("Content-Length", ""))
        if length is None or length > MOST_BYTES:
            return self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        body = self.rfile.read(length)
        if not check(secret, self.headers, url.query, body):
            return self._answer(HTTPStatus.UNAUTHORIZED)
        self.wake()
        return self._answer(HTTPStatus.ACCEPTED)

    def _answer(self, status: HTTPStatus) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a query may hold a secret."""


def _is_mlflows(secret: str, headers: Message, query: str, body: bytes) -> bool:
    """As MLflow 3 signs: HMAC-SHA256 over ``delivery id.timestamp.body``, base64, and not an old call again."""
    call, at = headers.get("X-MLflow-Delivery-Id", ""), _number(headers.get("X-MLflow-Timestamp", ""))
    if at is None or abs(time.time() - at) > OLDEST_SECONDS:
        return False
    signed = f"{call}.{at}.".encode() + body
    expected = base64.b64encode(hmac.digest(secret.encode(), signed, hashlib.sha256)).decode()
    return _same(headers.get("X-MLflow-Signature", ""), f"v1,{expected}")


def _is_gits(secret: str, headers: Message, query: str, body: bytes) -> bool:
    expected = hmac.digest(secret.encode(), body, hashlib.sha256).hex()
    return _same(headers.get("X-Hub-Signature-256", ""), f"sha256={expected}")


def _is_storages(secret: str, headers: Message, query: str, body: bytes) -> bool:
    return _same(parse_qs(query).get("token", [""])[0], secret)


def _number(text: str) -> int | None:
    """What a header counts in; None of anything else, which may be meant to trip us up."""
    return int(text) if re.fullmatch("[0-9]{1,12}", text) else None


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


CHECKS = {"mlflow": _is_mlflows, "git": _is_gits, "storage": _is_storages}
