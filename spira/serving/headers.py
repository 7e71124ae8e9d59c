"""Strict parsing of the headers that decide how a body is read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus

from spira.serving.errors import RequestError, malformed

CONTENT_LENGTH = "content-length"
CONTENT_ENCODING = "content-encoding"
JSON_LENGTH = "inference-header-content-length"
"""Header of v2's binary form: length of the JSON in the inflated body, in bytes."""

ENCODINGS = {"": "", "identity": "", "gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}


@dataclass(frozen=True)
class BodyHeaders:
    """What the headers of a request declare about its body."""

    length: int | None
    """Bytes to be received; None if unknown."""
    encoding: str
    """``gzip``, ``deflate``, or empty."""
    json_bytes: int | None
    """Length of the JSON before a binary tensor; None if the whole body is JSON."""


def parse(headers: Iterable[tuple[str, str]]) -> BodyHeaders:
    """Parse headers with lower-case names.

    Raises:
        RequestError: a header is repeated, is not a whole number, or names an encoding that is not supported.
    """
    relevant = [(name, value) for name, value in headers if name in (CONTENT_LENGTH, CONTENT_ENCODING, JSON_LENGTH)]
    for name, count in Counter(name for name, _ in relevant).items():
        if count > 1:
            raise malformed("header", f"the header {name} was sent {count} times: send it once")
    values = dict(relevant)
    encoding = ENCODINGS.get(values.get(CONTENT_ENCODING, "").strip().lower())
    if encoding is None:
        message = "Content-Encoding must be gzip, deflate or identity: send the body with one of them"
        raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "content_encoding", message)
    return BodyHeaders(_number(values, CONTENT_LENGTH), encoding, _number(values, JSON_LENGTH))


def _number(headers: dict[str, str], name: str) -> int | None:
    """Return the number in a header, in ASCII digits: int() alone accepts signs and the digits of all scripts."""
    text = headers.get(name)
    if text is None:
        return None
    if not re.fullmatch("[0-9]{1,15}", text):
        raise malformed("content_length", f"{name} must be a whole number, in bytes")
    return int(text)
