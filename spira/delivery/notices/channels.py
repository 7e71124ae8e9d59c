"""The addresses of notices, one apprise URL each: https://github.com/caronc/apprise lists the services.

A URL holds tokens and passwords. It comes from the environment or from a file that only the reconciler reads, and it
never leaves this module: others know an address by its position and its service, such as ``address 2 (slack)``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote

from spira.delivery.notices import service
from spira.delivery.notices.message import Message
from spira.delivery.notices.service import UNKNOWN, Answer, Request
from spira.delivery.wording import shorten
from spira.errors import SpiraError

URLS_VARIABLE = "SPIRA_NOTICE_URLS"
"""Environment variable with the URLs, separated by spaces or line ends."""
TIMEOUT_SECONDS = 10.0
"""Time for one notice to be accepted."""
MAX_CAUSE_CHARACTERS = 200
MIN_SECRET_CHARACTERS = 3
"""A shorter part of a URL is no secret, and would be found in ordinary words."""


class ChannelError(SpiraError):
    """A notice that was not accepted; the message has the cause, without any part of the URL."""


@dataclass(frozen=True)
class Channel:
    """One address."""

    number: int
    """Position, counted from 1."""
    url: str = field(repr=False)
    """Secret."""

    @property
    def name(self) -> str:
        """Return how people know the address."""
        scheme = re.match("([a-z0-9]{1,20})://", self.url)
        return f"address {self.number}" + (f" ({scheme[1]})" if scheme else "")

    def id(self, salt: str) -> str:
        """Return a name that is the same in every process, and from which the URL cannot be found out."""
        return _channel_id(self.url, salt)


class ServiceProcess:
    """The process that talks to the services (:mod:`spira.delivery.notices.service`); it starts at the first notice."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def send(self, channel: Channel, message: Message) -> None:
        """Send a message; return after it was accepted.

        Raises:
            ChannelError: the URL is invalid, or the service refuses the message or cannot be reached in time.
        """
        request = Request(channel.url, message.title, message.body, message.tone, TIMEOUT_SECONDS)
        answer = self._ask(request)
        if answer is None:
            self.close()
            raise ChannelError(f"no answer within {TIMEOUT_SECONDS:g} s")
        if answer == UNKNOWN:
            raise ChannelError(answer.cause)
        if not answer.accepted:
            cause = shorten(redacted(answer.cause, channel.url), MAX_CAUSE_CHARACTERS)
            raise ChannelError(cause or "the service refused the notice")

    def _ask(self, request: Request) -> Answer | None:
        """Return the answer to a request; None if the process has ended without one."""
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._process = subprocess.Popen(
                [sys.executable, "-m", service.__name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # apprise logs parts of URLs
                text=True,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
                start_new_session=True,  # Ctrl-C ends the command, not a notice on its way
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(asdict(request)) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            return None
        return Answer(**json.loads(line)) if line.endswith("\n") else None

    def close(self) -> None:
        """End the process."""
        if self._process:
            self._process.kill()
            with suppress(BrokenPipeError):
                self._process.communicate()
            self._process = None


@lru_cache(maxsize=64)
def _channel_id(url: str, salt: str) -> str:
    # scrypt, which is slow: a password in a URL may be short, and this name stands in the ledger's store
    return hashlib.scrypt(url.encode(), salt=salt.encode(), n=2**13, r=8, p=1, dklen=8).hex()


def redacted(text: str, url: str) -> str:
    """Return a text without any part of a URL, apart from its scheme."""
    scheme, _, rest = url.partition("://")
    parts = {part for form in (rest, unquote(rest)) for part in re.split(r"[^\w.-]+", form)}
    parts |= {url, rest, unquote(rest)}
    for part in sorted(parts - {scheme}, key=len, reverse=True):
        if len(part) >= MIN_SECRET_CHARACTERS:
            text = re.sub(re.escape(part), "…", text, flags=re.IGNORECASE)
    return text


def channels(urls_file: str = "") -> list[Channel]:
    """Return the addresses of the environment variable, and of a file with one URL a line.

    Args:
        urls_file: the file; empty for none. Lines that begin with ``#`` are comments.

    Raises:
        ChannelError: the file cannot be read.
    """
    urls = os.environ.get(URLS_VARIABLE, "").split()
    if urls_file:
        urls += _read(Path(urls_file))
    return [Channel(number, url) for number, url in enumerate(dict.fromkeys(urls), start=1)]


def _read(path: Path) -> Iterable[str]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        cause = (error.strerror or "") if isinstance(error, OSError) else "it is no text"
        raise ChannelError(f"the file of notices.urls_file cannot be read: {cause}") from error
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
