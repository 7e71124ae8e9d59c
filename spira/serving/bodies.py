"""Request bodies: inflated and parsed to a JSON object, within limits on the memory that this needs.

The size of a body does not bound the memory of its JSON: an empty object has 2 bytes in a body and 64 in Python. The
parts of the JSON are therefore counted before it is parsed.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from spira.serving.errors import RequestError, malformed

MAX_JSON_NUMBERS = 4 * 2**20
"""Values of a UINT8 tensor in JSON: two minutes of 16-bit samples at 16 kHz are 3.7 Mi bytes."""
MAX_JSON_STRINGS = 2048
MAX_JSON_CONTAINERS = 1024
"""Objects and lists. Sixteen recordings need 33 in v1, and 20 in v2."""

WINDOW_BITS = {"gzip": 31, "deflate": 15}
"""Numbers of zlib's formats. HTTP's ``deflate`` is zlib's own format, but some clients send the raw one."""


@dataclass(frozen=True)
class Body:
    """The unparsed body of a prediction request; it is parsed in a thread, so that the event loop is not blocked."""

    content: bytes
    json_bytes: int | None = None
    """Length of the JSON before a binary tensor; None if the whole content is JSON."""
    v2: bool = True
    encoding: str = ""
    """``gzip``, ``deflate``, or empty."""
    max_bytes: int = 32 * 2**20
    """Limit of the inflated content."""


def parse(body: Body) -> tuple[dict[str, Any], memoryview]:
    """Return the JSON object of a body, and the bytes after it.

    Raises:
        RequestError: the body is damaged, too large, or no JSON object.
    """
    content = inflate(body) if body.encoding else body.content
    length = len(content) if body.json_bytes is None else body.json_bytes
    if length > len(content):
        message = f"inference-header-content-length is {length}, more than the {len(content)} bytes of the body"
        raise malformed("content_length", message)
    return _json(content[:length]), memoryview(content)[length:]


def inflate(body: Body) -> bytes:
    """Decompress the content of a body.

    Raises:
        RequestError: it is damaged, incomplete, followed by other bytes, or larger than the limit.
    """
    decompressor = zlib.decompressobj(_window_bits(body))
    try:
        content = decompressor.decompress(body.content, body.max_bytes + 1)
    except zlib.error as error:
        raise malformed("content_encoding", f"the body is not valid {body.encoding}: see Content-Encoding") from error
    if len(content) > body.max_bytes:
        message = f"the inflated body has more than {body.max_bytes} bytes: send fewer recordings in one request"
        raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", message)
    if not decompressor.eof or decompressor.unused_data:
        message = f"the body must be one complete {body.encoding} stream: it is truncated, or other bytes follow"
        raise malformed("content_encoding", message)
    return content


def _window_bits(body: Body) -> int:
    """Return zlib's number of the format; ``deflate`` without a valid zlib header is the raw format."""
    head = body.content[:2]
    if body.encoding == "deflate" and (len(head) < 2 or head[0] & 15 != 8 or int.from_bytes(head) % 31):
        return -15
    return WINDOW_BITS[body.encoding]


def _json(content: bytes) -> dict[str, Any]:
    """Parse a JSON object. A lone surrogate, NaN and a repeated name are refused."""
    _refuse_complex(content)
    try:
        request = json.loads(content.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        message = f"the body is not valid JSON (line {error.lineno}, column {error.colno})"
        raise malformed("not_json", message) from error
    except (ValueError, RecursionError) as error:  # bytes that are not UTF-8, numbers of 5,000 digits, deep nesting
        raise malformed("not_json", "the body is not valid JSON in UTF-8") from error
    if not isinstance(request, dict):
        raise malformed("not_json", "the body must be a JSON object with instances (v1) or inputs (v2)")
    return request


def _refuse_complex(content: bytes) -> None:
    """Refuse JSON that would need much memory. Base64 contains none of the counted characters."""
    numbers, strings, containers = (
        content.count(b","),
        content.count(b'"') // 2,
        content.count(b"{") + content.count(b"["),
    )
    if numbers > MAX_JSON_NUMBERS or strings > MAX_JSON_STRINGS or containers > MAX_JSON_CONTAINERS:
        message = (
            f"the JSON has more than {MAX_JSON_NUMBERS} values, {MAX_JSON_STRINGS} strings or {MAX_JSON_CONTAINERS} "
            "objects and lists: send recordings in base64 or as a binary tensor"
        )
        raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_complex", message)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; refuse a repeated name, because another reader of the same JSON may use the other value."""
    values = dict(pairs)
    if len(values) < len(pairs):
        raise malformed("repeated_name", "an object in the JSON has a name twice: send each name once")
    return values


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
