"""The addresses of notices, one apprise URL each: https://github.com/caronc/apprise lists the services.

A URL holds tokens and passwords. It comes from the environment or from a file that only the reconciler reads, and it
never leaves this module: others know an address by its position and its service, such as ``address 2 (slack)``.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from spira.delivery.notices.message import Message
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

    def send(self, message: Message) -> None:
        """Send a message; return after it was accepted.

        Raises:
            ChannelError: the URL is invalid, or the service refuses the message or cannot be reached in time.
        """
        import apprise

        _keep_log_inside()
        asset = apprise.AppriseAsset(
            app_id="SPIRA", app_desc="SPIRA", app_url="", service_timeout=TIMEOUT_SECONDS, allow_templates=False
        )
        service = apprise.Apprise.instantiate(self.url, asset=asset)
        if service is None:
            raise ChannelError("this is no URL that apprise knows: see https://appriseit.com/services")
        sender = apprise.Apprise(asset=asset)
        sender.add(service)
        result = sender.notify(
            message.body,
            title=message.title,
            notify_type=apprise.NotifyType(message.tone),
            body_format=apprise.NotifyFormat.TEXT,
            timeout=TIMEOUT_SECONDS,
        )
        if not result:
            raise ChannelError(self._cause(result))

    def _cause(self, result: Any) -> str:
        """Return why a message was not accepted."""
        if result.timeout_count:
            return f"no answer within {TIMEOUT_SECONDS:g} s"
        lines = dict.fromkeys(entry.message for entry in result.logs())
        return shorten(redacted(" ".join(lines), self.url), MAX_CAUSE_CHARACTERS) or "the service refused the notice"


@lru_cache(maxsize=64)
def _channel_id(url: str, salt: str) -> str:
    # scrypt, which is slow: a password in a URL may be short, and this name stands in the ledger's store
    return hashlib.scrypt(url.encode(), salt=salt.encode(), n=2**13, r=8, p=1, dklen=8).hex()


def _keep_log_inside() -> None:
    """Keep apprise's log, which has parts of URLs, out of this program's; results have its lines all the same."""
    logger = logging.getLogger("apprise")
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())


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
