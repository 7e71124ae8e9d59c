"""Real receivers of notices on this machine: a web server and an SMTP server."""

from __future__ import annotations

import email
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from email.message import EmailMessage
from email.policy import default
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session


class Webhook:
    """A web server that records the JSON objects it receives."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.received: list[dict[str, Any]] = []
        self.status = 200
        """Status of the responses: with another one than 2xx a notice is not accepted."""
        self.paths: list[str] = []

    @property
    def url(self) -> str:
        """Address for apprise, with a token."""
        return f"json://{TOKEN}:{PASSWORD}@127.0.0.1:{self.port}/{PATH_TOKEN}"

    @property
    def titles(self) -> list[str]:
        return [notice["title"] for notice in self.received]


TOKEN, PASSWORD, PATH_TOKEN = "hook-user-77", "pa55-w0rd-of-hook", "T0KEN-in-path"
SECRETS = (TOKEN, PASSWORD, PATH_TOKEN)


@contextmanager
def webhook() -> Iterator[Webhook]:
    """Run a web server."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            hook.paths.append(self.path)
            if hook.status < 300:
                hook.received.append(body)
            self.send_response(hook.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    hook = Webhook(server.server_port)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield hook
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Mailbox:
    """The messages that an SMTP server has accepted."""

    def __init__(self) -> None:
        self.messages: list[EmailMessage] = []
        self.port = 0

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        content = envelope.content
        assert isinstance(content, bytes)
        message = email.message_from_bytes(content, policy=default)
        assert isinstance(message, EmailMessage)
        self.messages.append(message)
        return "250 OK"

    @property
    def url(self) -> str:
        """Address for apprise."""
        return f"mailto://127.0.0.1:{self.port}?from=spira@ward.example&to=team@ward.example&mode=insecure"


@contextmanager
def mail_server() -> Iterator[Mailbox]:
    """Run an SMTP server."""
    mailbox = Mailbox()
    with closing(socket.create_server(("127.0.0.1", 0))) as free_socket:
        mailbox.port = free_socket.getsockname()[1]
    controller = Controller(mailbox, hostname="127.0.0.1", port=mailbox.port)
    controller.start()
    try:
        yield mailbox
    finally:
        controller.stop()
