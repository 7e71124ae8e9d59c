"""Tests of requests whose declarations agree, or disagree, with what they bring."""

from __future__ import annotations

import base64
import gzip
import json
import struct
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.server_process import V1, V2, Reply, Server, prefixed, v1, v2_base64
from tests.support.server_requests import refusal, voice

pytestmark = pytest.mark.integration

B = voice(4.0)
A = voice(3.0).ljust(len(B), b"\0")  # rows of a UINT8 tensor are equally long; a WAV file may be followed by zeros
TEXT_A, TEXT_B = (base64.b64encode(content).decode() for content in (A, B))


@pytest.fixture(scope="module")
def expected(server: Server) -> list[float]:
    """Return the probabilities of A and B, each asked for alone."""
    probabilities = [server.post(V1, v1(content)).json["predictions"][0]["probability"] for content in (A, B)]
    assert len(set(probabilities)) == 2
    return probabilities


def tensor(**fields: Any) -> dict[str, Any]:
    return {"name": "audio", **fields}


def in_json(datatype: str, shape: Any, data: Any, **request: Any) -> tuple[bytes, dict[str, str]]:
    body = {"inputs": [tensor(datatype=datatype, shape=shape, data=data)], **request}
    return json.dumps(body).encode(), {}


def in_binary(
    datatype: str, shape: Any, raw: bytes, size: Any = None, after: bytes = b"", length: str = "", **fields: Any
) -> tuple[bytes, dict[str, str]]:
    """Return a binary request: with another ``binary_data_size``, bytes after it, or another length of the JSON."""
    parameters = {"binary_data_size": len(raw) if size is None else size}
    fields = {"parameters": parameters} | fields
    head = json.dumps({"inputs": [tensor(datatype=datatype, shape=shape, **fields)]}).encode()
    return head + raw + after, {"Inference_Header_Content_Length": length or str(len(head))}


TWO_RECORDINGS = {
    "BYTES [2]": in_json("BYTES", [2], [TEXT_A, TEXT_B]),
    "BYTES [2, 1], flat": in_json("BYTES", [2, 1], [TEXT_A, TEXT_B]),
    "BYTES [2, 1], nested": in_json("BYTES", [2, 1], [[TEXT_A], [TEXT_B]]),
    "BYTES [1, 2], nested": in_json("BYTES", [1, 2], [[TEXT_A, TEXT_B]]),
    "BYTES [1, 2, 1], nested": in_json("BYTES", [1, 2, 1], [[[TEXT_A], [TEXT_B]]]),
    "UINT8 [2, n], flat": in_json("UINT8", [2, len(A)], list(A + B)),
    "UINT8 [2, n], nested": in_json("UINT8", [2, len(A)], [list(A), list(B)]),
    "binary BYTES [2]": in_binary("BYTES", [2], prefixed(A, B)),
    "binary BYTES [2, 1]": in_binary("BYTES", [2, 1], prefixed(A, B)),
    "binary UINT8 [2, n]": in_binary("UINT8", [2, len(A)], A + B),
    "data that is null": in_binary("UINT8", [2, len(A)], A + B, data=None),
}


@pytest.mark.parametrize("name", TWO_RECORDINGS)
def test_two_recordings_have_two_answers_in_order(server: Server, expected: list[float], name: str) -> None:
    """In every form that the protocol has for them."""
    body, headers = TWO_RECORDINGS[name]
    reply = server.post(V2, body, **headers)
    assert reply.status == 200, reply.content
    assert reply.json["outputs"][0]["data"] == expected


CONTRADICTIONS = {
    "BYTES [3] with two": (in_json("BYTES", [3], [TEXT_A, TEXT_B]), "shape"),
    "BYTES [1] with two": (in_json("BYTES", [1], [TEXT_A, TEXT_B]), "shape"),
    "BYTES [2, 2] with two": (in_json("BYTES", [2, 2], [TEXT_A, TEXT_B]), "shape"),
    "nested otherwise": (in_json("BYTES", [2, 1], [[TEXT_A, TEXT_B]]), "shape"),
    "ragged": (in_json("UINT8", [2, 2], [[82, 73, 70], [70]]), "shape"),
    "partly nested": (in_json("BYTES", [2], [TEXT_A, [TEXT_B]]), "base64"),
    "nested and then flat": (in_json("BYTES", [2, 1], [[TEXT_A], TEXT_B]), "shape"),
    "nested too deeply": (in_json("BYTES", [2], [[TEXT_A], [TEXT_B]]), "base64"),
    "UINT8 with a byte too few": (in_json("UINT8", [len(A)], list(A[:-1])), "shape"),
    "UINT8 of many rows": (in_json("UINT8", [100, 1], [1] * 100), "too_many"),
    "no shape": (in_json("BYTES", None, [TEXT_A]), "shape"),
    "an empty shape": (in_json("BYTES", [], [TEXT_A]), "shape"),
    "a shape with a fraction": (in_json("BYTES", [1.0], [TEXT_A]), "shape"),
    "a shape with true": (in_json("BYTES", [True], [TEXT_A]), "shape"),
    "a negative shape": (in_json("BYTES", [-1], [TEXT_A]), "shape"),
    "a shape of five dimensions": (in_json("BYTES", [1] * 5, [TEXT_A]), "shape"),
    "a shape that is astronomic": (in_json("BYTES", [10**4000], [TEXT_A]), "shape"),
    "an empty dimension": (in_json("UINT8", [2, 0], []), "no_audio"),
    "a datatype in lower case": (in_json("bytes", [1], [TEXT_A]), "datatype"),
    "true as a byte": (in_json("UINT8", [2], [True, 1]), "no_bytes"),
    "data that is no list": (in_json("BYTES", [1], TEXT_A), "no_audio"),
    "data and binary data": (in_binary("BYTES", [1], prefixed(A), data=[TEXT_A]), "binary_size"),
    "binary_data_size is too small": (in_binary("UINT8", [len(A)], A, len(A) - 1), "binary_size"),
    "binary_data_size is too large": (in_binary("UINT8", [len(A)], A, len(A) + 1), "binary_size"),
    "binary_data_size is text": (in_binary("UINT8", [len(A)], A, str(len(A))), "binary_size"),
    "binary_data_size is astronomic": (in_binary("UINT8", [len(A)], A, 10**4000), "binary_size"),
    "binary_data_size is missing": (in_binary("UINT8", [len(A)], A, parameters={}), "no_audio"),
    "bytes after the tensor": (in_binary("UINT8", [len(A)], A, after=b"junkjunk"), "binary_size"),
    "a shape other than the binary data": (in_binary("UINT8", [len(A) + 1], A), "shape"),
    "fewer binary elements": (in_binary("BYTES", [3], prefixed(A, B)), "shape"),
    "more binary elements": (in_binary("BYTES", [1], prefixed(A, B)), "shape"),
    "bytes after the JSON": (in_binary("BYTES", [1], A, parameters={}, data=[TEXT_A]), "binary_size"),
    "a length beyond the body": (in_binary("UINT8", [len(A)], A, length="999999999"), "content_length"),
    "two inputs": ((json.dumps({"inputs": [tensor(), tensor()]}).encode(), {}), "no_audio"),
    "a name twice": ((b'{"inputs": [], ' + in_json("BYTES", [1], [TEXT_A])[0][1:], {}), "repeated_name"),
    "an output that does not exist": (in_json("BYTES", [1], [TEXT_A], outputs=[{"name": "cough"}]), "outputs"),
    "an output twice": (in_json("BYTES", [1], [TEXT_A], outputs=[{"name": "diagnosis"}] * 2), "outputs"),
    "an output that is a list": (in_json("BYTES", [1], [TEXT_A], outputs=[[]]), "outputs"),
    "outputs that are an object": (in_json("BYTES", [1], [TEXT_A], outputs={"name": "diagnosis"}), "outputs"),
    "a name that is a list": (in_json("BYTES", [1], [TEXT_A], outputs=[{"name": []}]), "outputs"),
    "classes": (
        in_json("BYTES", [1], [TEXT_A], outputs=[{"name": "diagnosis", "parameters": {"classification": 2}}]),
        "parameters",
    ),
    "binary_data is text": (
        in_json("BYTES", [1], [TEXT_A], outputs=[{"name": "diagnosis", "parameters": {"binary_data": "yes"}}]),
        "parameters",
    ),
    "parameters that are a list": (in_json("BYTES", [1], [TEXT_A], parameters=[]), "parameters"),
    "an id that is a number": (in_json("BYTES", [1], [TEXT_A], id=0), "id"),
    "an id that is half a character": (in_json("BYTES", [1], [TEXT_A], id="\ud800"), "id"),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_request_that_contradicts_itself_is_refused(server: Server, name: str) -> None:
    """No recording is dropped, and none is answered that was not declared."""
    (body, headers), code = CONTRADICTIONS[name]
    assert refusal(server.post(V2, body, **headers), 400)["code"] == code


@pytest.mark.parametrize("value", ["\xb2", "5\xb9", "٣", "-1", "+5", "5 5", "1e3", "0x10", "9" * 5000, ""])
def test_a_length_that_is_no_number_is_refused(server: Server, value: str) -> None:
    """Only ASCII digits count: int() accepts others, and isdigit() accepts what int() does not."""
    for sent in (value.encode(), value.encode("latin-1", "ignore")):
        headers = {"Inference_Header_Content_Length": sent.decode("latin-1")}
        assert refusal(server.post(V2, v2_base64(A), **headers), 400, "whole number")["code"] == "content_length"


OUTPUTS = [
    ([{"name": "diagnosis"}], ["diagnosis"]),
    ([{"name": "diagnosis"}, {"name": "probability"}], ["diagnosis", "probability"]),
    ([], ["probability", "diagnosis"]),
    (None, ["probability", "diagnosis"]),
]


@pytest.mark.parametrize(("outputs", "names"), OUTPUTS)
def test_the_outputs_asked_for_are_returned(server: Server, outputs: Any, names: list[str]) -> None:
    """They are in the order of the request; all of them if the request names none."""
    body, _ = in_json("BYTES", [1], [TEXT_A], outputs=outputs)
    assert [output["name"] for output in server.post(V2, body).json["outputs"]] == names


def test_outputs_can_be_binary(server: Server, expected: list[float]) -> None:
    """Each output is in the form that the request names for it."""
    outputs = [{"name": "probability", "parameters": {"binary_data": True}}, {"name": "diagnosis"}]
    reply = server.post(V2, in_json("BYTES", [2], [TEXT_A, TEXT_B], outputs=outputs)[0])
    length = int(reply.headers["inference-header-content-length"])
    content = json.loads(reply.content[:length])
    assert content["outputs"][0]["parameters"] == {"binary_data_size": 16}
    assert "data" in content["outputs"][1]
    assert list(struct.unpack("<2d", reply.content[length:])) == expected


def raw_deflate(content: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(content) + compressor.flush()


COMPRESSIONS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("GZIP", gzip.compress),
    ("x-gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("identity", bytes),
]


@pytest.mark.parametrize(("encoding", "compress"), COMPRESSIONS)
def test_a_compressed_body_is_answered(
    server: Server, expected: list[float], encoding: str, compress: Callable
) -> None:
    """Both protocols are tried; the length of the JSON in a binary request is that of the inflated body."""
    headers = {"Content_Encoding": encoding}
    first = server.post(V1, compress(v1(A)), **headers)
    assert first.json["predictions"][0]["probability"] == expected[0]
    body, lengths = in_binary("BYTES", [2], prefixed(A, B))
    second = server.post(V2, compress(body), **headers, **lengths)
    assert second.json["outputs"][0]["data"] == expected


BAD_COMPRESSIONS = [
    ("br", v1(A), 415, "Content-Encoding must be gzip, deflate or identity"),
    ("zstd", v1(A), 415, "Content-Encoding"),
    ("gzip, gzip", gzip.compress(gzip.compress(v1(A))), 415, "Content-Encoding"),
    ("gzip", v1(A), 400, "not valid gzip"),
    ("gzip", b"", 400, "empty|truncated"),
    ("gzip", gzip.compress(v1(A))[:-1], 400, "truncated"),
    ("gzip", gzip.compress(v1(A)) + b"more", 400, "other bytes follow"),
    ("gzip", gzip.compress(v1(A)) * 2, 400, "other bytes follow"),
    ("deflate", v1(A), 400, "not valid deflate"),
    ("gzip", gzip.compress(bytes(10**8)), 413, "inflated body"),
    ("deflate", zlib.compress(bytes(10**8)), 413, "inflated body"),
    ("identity", gzip.compress(v1(A)), 400, "not valid JSON"),
]


@pytest.mark.parametrize(("encoding", "body", "status", "message"), BAD_COMPRESSIONS)
def test_a_badly_compressed_body_is_refused(
    server: Server, encoding: str, body: bytes, status: int, message: str
) -> None:
    """The size after inflating is limited as that of any body."""
    refusal(server.post(V1, body, Content_Encoding=encoding), status, message)


@pytest.mark.parametrize("rest", ["", "/ready"])
def test_the_version_that_is_served_has_a_path(server: Server, rest: str) -> None:
    """Its responses are those of the path without a version."""
    versioned = server.get(f"/v2/models/spira/versions/7{rest}")
    assert (versioned.status, versioned.json) == (200, server.get(f"/v2/models/spira{rest}").json)


def test_predictions_name_a_version(server: Server, expected: list[float]) -> None:
    """The version that is served answers; every other one is not found, with the version that is."""
    path = "/v2/models/spira/versions/{}/infer"
    assert server.post(path.format(7), v2_base64(A)).json["outputs"][0]["data"] == expected[:1]
    for version in ("8", "07", "7 ", "%37%37", "latest"):
        reply = server.post(path.format(version).replace(" ", "%20"), v2_base64(A))
        refusal(reply, 404, "the server has version 7: use /v2/models/spira/infer")
    refusal(server.get("/v2/models/spira/versions/8/ready"), 404, "use /v2/models/spira/ready")
    refusal(server.post("/v2/models/other/versions/7/infer", v2_base64(A)), 404, "GET /v2/models lists")


V1_BODIES = {
    "instances and inputs": ({"instances": [{"audio": {"b64": TEXT_A}}], "inputs": []}, "no_audio"),
    "one without audio": ({"instances": [{"audio": {"b64": TEXT_A}}, {}]}, "no_audio"),
    "one is null": ({"instances": [{"audio": {"b64": TEXT_A}}, None]}, "no_audio"),
    "two in one instance": ({"instances": [{"audio": {"b64": TEXT_A}, "second": {"b64": TEXT_B}}]}, "no_audio"),
    "audio is null": ({"instances": [{"audio": None}]}, "no_audio"),
    "b64 is null": ({"instances": [{"audio": {"b64": None}}]}, "base64"),
    "one is bad base64": ({"instances": [{"audio": {"b64": TEXT_A}}, {"audio": {"b64": TEXT_A[:-1]}}]}, "base64"),
    "one is empty": ({"instances": [{"audio": {"b64": TEXT_A}}, {"audio": {"b64": ""}}]}, "empty_audio"),
    "instances are null": ({"instances": None}, "no_audio"),
}


@pytest.mark.parametrize("name", V1_BODIES)
def test_a_v1_request_with_one_bad_instance_is_refused(server: Server, name: str) -> None:
    """It is refused as a whole: the others are not answered in its place."""
    body, code = V1_BODIES[name]
    assert refusal(server.post(V1, json.dumps(body).encode()), 400)["code"] == code


def test_v1_refuses_a_repeated_name_and_bytes_after_its_json(server: Server) -> None:
    """Two readers could take them for different requests."""
    twice = f'{{"instances": [{{"audio": {{"b64": "{TEXT_A}", "b64": "{TEXT_B}"}}}}]}}'.encode()
    assert refusal(server.post(V1, twice), 400)["code"] == "repeated_name"
    headers = {"Inference_Header_Content_Length": str(len(v1(A)))}
    assert refusal(server.post(V1, v1(A) + A, **headers), 400)["code"] == "no_audio"


def test_a_recording_that_is_sent_twice_is_answered_twice(server: Server, expected: list[float]) -> None:
    """Repeated recordings are no mistake of the protocol."""
    predictions = server.post(V1, v1(A, B, A)).json["predictions"]
    assert [prediction["probability"] for prediction in predictions] == [*expected, expected[0]]


def test_headers_of_cloud_events_change_nothing(server: Server, expected: list[float]) -> None:
    """KServe alone would answer them with a CloudEvent, or with 500."""
    headers = {"Ce_Specversion": "9", "Ce_Source": "a", "Ce_Type": "b", "Ce_Id": "c"}
    for content_type in ("application/json", "application/cloudevents+json", "text/plain"):
        reply: Reply = server.post(V1, v1(A), Content_Type=content_type, **headers)
        assert reply.json["predictions"][0]["probability"] == expected[0]
