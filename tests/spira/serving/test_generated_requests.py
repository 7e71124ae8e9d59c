"""Properties of every request: an answer for each declared recording, in order, or a refusal with its reason."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import math
import socket
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spira.serving import bodies, headers, messages
from spira.serving.errors import RequestError
from tests.support.server_process import V1, V2, Server, prefixed, v1, v2_base64
from tests.support.server_requests import voice

SHORT = st.binary(min_size=1, max_size=6)
SHAPES = st.lists(st.integers(-1, 8), min_size=0, max_size=5)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4),
    max_leaves=12,
)


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def nested(values: list[Any], shape: list[int]) -> list[Any]:
    """Return values nested as a shape declares."""
    for size in reversed(shape[1:]):
        values = [values[start : start + size] for start in range(0, len(values), size)]
    return values


@st.composite
def good_requests(draw: st.DrawFn) -> tuple[messages.Body, list[bytes]]:
    """Return a valid body, and the recordings that it declares."""
    datatype, binary = draw(st.sampled_from(["BYTES", "UINT8"])), draw(st.booleans())
    count = draw(st.integers(1, 5))
    size = draw(st.integers(1, 6))
    contents = draw(st.lists(st.binary(min_size=size, max_size=size), min_size=count, max_size=count))
    if datatype == "BYTES":
        contents = draw(st.lists(SHORT, min_size=count, max_size=count))
        shape = draw(st.sampled_from([[count], [count, 1], [1, count], [1, count, 1]]))
        values: list[Any] = [encoded(content) for content in contents]
        raw = prefixed(*contents)
    else:
        shape = draw(st.sampled_from([[count, size], [1, count, size], *([[size]] if count == 1 else [])]))
        values = list(b"".join(contents))
        raw = b"".join(contents)
    tensor: dict[str, Any] = {"name": "audio", "datatype": datatype, "shape": shape}
    if binary:
        tensor["parameters"] = {"binary_data_size": len(raw)}
        head = json.dumps({"inputs": [tensor]}).encode()
        return messages.Body(head + raw, len(head)), contents
    tensor["data"] = nested(values, shape) if draw(st.booleans()) else values
    return messages.Body(json.dumps({"inputs": [tensor]}).encode()), contents


@given(good_requests(), st.booleans())
def test_a_valid_request_has_exactly_its_recordings(request: tuple[messages.Body, list[bytes]], compress: bool) -> None:
    """The answers have the order of the recordings, in every form, compressed or not."""
    body, contents = request
    if compress:
        body = messages.Body(gzip.compress(body.content), body.json_bytes, encoding="gzip")
    assert messages.decode_request(body).wavs == contents


def refused_or_decoded(body: messages.Body) -> list[bytes] | None:
    """Return the recordings of a request, or None if it is refused with a reason."""
    try:
        return messages.decode_request(body).wavs
    except RequestError as error:
        refused = error
    assert 400 <= refused.status < 500
    assert 0 < len(refused.message) < 400
    return None


@given(good_requests(), SHAPES)
def test_another_shape_is_obeyed_or_refused(request: tuple[messages.Body, list[bytes]], shape: list[int]) -> None:
    """As many recordings are answered as the shape declares, and together they have the bytes that were sent."""
    body, contents = request
    head = json.loads(body.content[: body.json_bytes])
    tensor = head["inputs"][0] | {"shape": shape}
    changed = json.dumps(head | {"inputs": [tensor]}).encode()
    raw = b"" if body.json_bytes is None else body.content[body.json_bytes :]
    length = None if body.json_bytes is None else len(changed)
    wavs = refused_or_decoded(messages.Body(changed + raw, length))
    if wavs is not None:
        assert len(wavs) == math.prod(shape if tensor["datatype"] == "BYTES" else shape[:-1])
        assert b"".join(wavs) == b"".join(contents)


@given(good_requests(), st.data())
def test_a_changed_declaration_never_changes_the_recordings(
    request: tuple[messages.Body, list[bytes]], data: st.DataObject
) -> None:
    """Any JSON value in place of, or beside, the parts of a request: the recordings stay, or it is refused."""
    body, contents = request
    head = json.loads(body.content[: body.json_bytes])
    tensor = head["inputs"][0]
    place, name = data.draw(
        st.sampled_from(
            [(tensor, name) for name in ("name", "datatype", "parameters")]
            + [(head, name) for name in ("id", "outputs", "parameters", "instances", "model_name")]
        )
    )
    place[name] = data.draw(JSON_VALUES)
    changed = json.dumps(head).encode()
    raw = b"" if body.json_bytes is None else body.content[body.json_bytes :]
    length = None if body.json_bytes is None else len(changed)
    assert refused_or_decoded(messages.Body(changed + raw, length)) in (None, contents)


@given(st.lists(SHORT, min_size=1, max_size=4), st.data())
def test_a_changed_v1_request_is_refused_as_a_whole(contents: list[bytes], data: st.DataObject) -> None:
    """An instance that is something else refuses the request; nothing moves to another position."""
    instances: list[Any] = [{"audio": {"b64": encoded(content)}} for content in contents]
    assert refused_or_decoded(messages.Body(json.dumps({"instances": instances}).encode(), v2=False)) == contents
    instances[data.draw(st.integers(0, len(contents) - 1))] = data.draw(JSON_VALUES)
    assert refused_or_decoded(messages.Body(json.dumps({"instances": instances}).encode(), v2=False)) is None


@given(JSON_VALUES, st.booleans(), st.none() | st.integers(0, 40))
def test_any_json_is_refused_with_a_reason(value: Any, v2: bool, length: int | None) -> None:
    refused_or_decoded(messages.Body(json.dumps({"inputs": value, "instances": value}).encode(), length, v2))
    refused_or_decoded(messages.Body(json.dumps(value).encode(), length, v2))


@given(st.binary(max_size=200), st.booleans(), st.sampled_from(["", "gzip", "deflate"]))
def test_any_bytes_are_refused_with_a_reason(content: bytes, v2: bool, encoding: str) -> None:
    assert refused_or_decoded(messages.Body(content, None, v2, encoding)) is None


@given(st.text(max_size=20), st.sampled_from([headers.CONTENT_LENGTH, headers.JSON_LENGTH]))
def test_a_length_is_a_number_or_refused(text: str, name: str) -> None:
    """No other spelling of a number is accepted."""
    try:
        declared = headers.parse([(name, text)])
    except RequestError:
        return
    number = declared.length if name == headers.CONTENT_LENGTH else declared.json_bytes
    assert text.isascii()
    assert text == str(number).zfill(len(text))


@pytest.mark.parametrize("name", [headers.CONTENT_LENGTH, headers.JSON_LENGTH, headers.CONTENT_ENCODING])
def test_a_repeated_header_is_refused(name: str) -> None:
    """Proxies and servers disagree on which one counts."""
    with pytest.raises(RequestError, match="2 times"):
        headers.parse([(name, "1"), (name, "1")])


def test_a_body_at_the_limits_of_json_is_parsed() -> None:
    """The limits are inclusive."""
    numbers = b'{"a": [' + b"1," * bodies.MAX_JSON_NUMBERS + b"1]}"
    assert len(bodies.parse(messages.Body(numbers))[0]["a"]) == bodies.MAX_JSON_NUMBERS + 1
    with pytest.raises(RequestError, match="send recordings in base64"):
        bodies.parse(messages.Body(numbers.replace(b"[", b"[1,")))


HEADER_VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=12)
NAMES = [
    "Inference-Header-Content-Length",
    "Content-Encoding",
    "Content-Type",
    "Accept-Encoding",
    "Ce-Id",
    "Ce-Specversion",
    "Ce-Type",
    "Ce-Source",
    "Expect",
    "Upgrade",
    "Authorization",
]


@pytest.mark.integration
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.sampled_from([v1(voice(3)), v2_base64(voice(3)), b"{}", b""]) | st.binary(max_size=60),
    path=st.sampled_from([V1, V2, "/v2/models/spira/versions/7/infer", "/v2/models/spira/versions/²/infer"]),
    values=st.dictionaries(st.sampled_from(NAMES), HEADER_VALUES, max_size=4),
)
def test_no_request_makes_the_server_fail(server: Server, body: bytes, path: str, values: dict[str, str]) -> None:
    """Over HTTP, with any headers: 200 or a refusal with its reason; the log has no error."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("POST", path.replace("²", "%C2%B2"), body, values)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    assert response.status == 200 or 400 <= response.status < 500, (response.status, content)
    assert content
    assert "Traceback" not in server.log.read_text()
    if response.status == 200:
        assert len(json.loads(content).get("predictions") or json.loads(content)["outputs"][0]["data"]) == 1


@pytest.mark.integration
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.sampled_from(
        [b"POST /v2/models/spira/infer HTTP/1.1\r\n", b"GET / HTTP/1.1\r\n", b"POST /\xff HTTP/1.1\r\n", b""]
    ),
    lines=st.lists(
        st.sampled_from(
            [
                b"Host: a",
                b"Content-Length: 5",
                b"Content-Length: 05",
                b"Content-Length: \xb2",
                b"Transfer-Encoding: chunked",
                b"Transfer-Encoding: gzip",
                b"Connection: upgrade",
                b"Upgrade: websocket",
                b"Content-Encoding: gzip",
                b"Expect: 100-continue",
                b"Host: \xff",
            ]
        )
        | st.binary(max_size=12),
        max_size=5,
    ),
    rest=st.binary(max_size=20) | st.just(b"0\r\n\r\n"),
)
def test_no_bytes_make_the_server_fail(server: Server, start: bytes, lines: list[bytes], rest: bytes) -> None:
    """Requests that are no valid HTTP: refused or disconnected, never 5xx."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(start + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + rest)
        client.shutdown(socket.SHUT_WR)
        response = client.makefile("rb").read()
    assert not response.startswith(b"HTTP/1.1 5"), response
    assert "Traceback" not in server.log.read_text()
    assert server.readiness() == 200
