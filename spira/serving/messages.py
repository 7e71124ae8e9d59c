"""Requests and responses of KServe's two protocols.

    v1  {"instances": [{"audio": {"b64": "..."}}]}
    v2  {"inputs": [{"name": "audio", "datatype": "BYTES", "shape": [1], "data": ["<base64>"]}]}
        {"inputs": [{"name": "audio", "datatype": "UINT8", "shape": [n], "data": [82, 73, ...]}]}

Both datatypes can use the binary form of v2: JSON, then the bytes of the tensor. In a BYTES tensor each element follows
its length, an unsigned 4-byte integer.
"""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass
from typing import Any

import orjson

from spira.serving.errors import RequestError, malformed

MAX_RECORDINGS = 16
"""Recordings in one request. Several requests are better than one large one: they share the cores."""


@dataclass(frozen=True)
class Body:
    """The unparsed body of a prediction request; it is parsed in a thread, so that the event loop is not blocked."""

    content: bytes
    json_bytes: int | None = None
    """Length of the JSON before a binary tensor; None if the whole content is JSON."""
    v2: bool = True


@dataclass(frozen=True)
class RequestRecordings:
    """The recordings of a request."""

    id: str
    """Request id of the client, returned in the response; v2 only."""
    wavs: list[bytes]


@dataclass(frozen=True)
class Prediction:
    """The result for one recording."""

    probability: float
    diagnosis: str


def decode_request(body: Body) -> RequestRecordings:
    """Return the WAV bytes of a request.

    Raises:
        RequestError: the body does not follow the protocol, or has no recording or too many.
    """
    request = _json(body)
    wavs = _v2_recordings(request, body) if body.v2 else _v1_recordings(request)
    if not wavs:
        raise malformed("no_audio", "the request has no recording: send at least one")
    if len(wavs) > MAX_RECORDINGS:
        message = f"the request has {len(wavs)} recordings: send at most {MAX_RECORDINGS} in one request"
        raise malformed("too_many", message)
    if not all(wavs):
        raise malformed("empty_audio", f"recording {wavs.index(b'')} is empty: send the bytes of a WAV file")
    return RequestRecordings(str(request.get("id") or ""), wavs)


def encode_response(
    v2: bool, name: str, version: str, request_id: str, predictions: list[Prediction]
) -> dict[str, Any]:
    """Return the JSON of a response; an unknown version is omitted."""
    model = {"model_name": name} | ({"model_version": version} if version else {})
    probabilities = [prediction.probability for prediction in predictions]
    diagnoses = [prediction.diagnosis for prediction in predictions]
    if not v2:
        pairs = zip(probabilities, diagnoses, strict=True)
        return {"predictions": [{"probability": p, "diagnosis": d} for p, d in pairs]} | model
    shape = [len(predictions)]
    outputs = [
        {"name": "probability", "datatype": "FP64", "shape": shape, "data": probabilities},
        {"name": "diagnosis", "datatype": "BYTES", "shape": shape, "data": diagnoses},
    ]
    return model | {"id": request_id, "outputs": outputs}


def _json(body: Body) -> dict[str, Any]:
    content = body.content if body.json_bytes is None else body.content[: body.json_bytes]
    try:
        request = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        message = f"the body is not valid JSON (line {error.lineno}, column {error.colno})"
        raise malformed("not_json", message) from error
    if not isinstance(request, dict):
        raise malformed("not_json", "the body must be a JSON object with instances (v1) or inputs (v2)")
    return request


def _v1_recordings(request: dict[str, Any]) -> list[bytes]:
    instances = request.get("instances")
    if not isinstance(instances, list):
        raise malformed("no_audio", 'the body needs a list: {"instances": [{"audio": {"b64": "..."}}]}')
    return [_instance(instance, f"instances[{i}]") for i, instance in enumerate(instances)]


def _instance(instance: Any, position: str) -> bytes:
    try:
        return _base64(instance["audio"]["b64"], position)
    except (KeyError, TypeError, IndexError) as error:
        message = f'{position} has no audio: send {{"audio": {{"b64": "<WAV>"}}}}'
        raise malformed("no_audio", message) from error


def _v2_recordings(request: dict[str, Any], body: Body) -> list[bytes]:
    inputs = request.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise malformed("no_audio", 'the body needs one input: {"inputs": [{"name": "audio", ...}]}')
    tensor, binary = inputs[0], None
    if body.json_bytes is not None:
        binary = body.content[body.json_bytes :]
    match tensor.get("datatype"), tensor.get("data"):
        case "BYTES", list(data):
            return [_base64(text, f"data[{i}]") for i, text in enumerate(_flat(data))]
        case "UINT8", list(data):
            return [_bytes(_flat(data))]
        case "BYTES", None if binary is not None:
            return _length_prefixed(binary)
        case "UINT8", None if binary is not None:
            return [binary]
        case "BYTES" | "UINT8", _:
            raise malformed("no_audio", "the input has no data: send a list, or a binary tensor after the JSON")
    raise malformed("datatype", "the datatype of the input must be BYTES (a WAV file in base64) or UINT8 (its bytes)")


def _flat(data: list[Any]) -> list[Any]:
    """Return the values of a tensor of shape [n] or [1, n]."""
    return data[0] if len(data) == 1 and isinstance(data[0], list) else data


def _base64(text: Any, position: str) -> bytes:
    if not isinstance(text, str):
        raise malformed("base64", f"{position} must be a string: a WAV file in base64")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        message = f"{position} is not valid base64 ({error}): use the standard alphabet without line breaks"
        raise malformed("base64", message) from error


def _bytes(values: list[Any]) -> bytes:
    try:
        return bytes(values)
    except (ValueError, TypeError) as error:
        raise malformed("no_bytes", "data must be the bytes of a WAV file, whole numbers from 0 to 255") from error


def _length_prefixed(binary: bytes) -> list[bytes]:
    """Return the elements of a binary BYTES tensor: each follows its length, unsigned little endian."""
    elements, start = [], 0
    while start < len(binary):
        try:
            (size,) = struct.unpack_from("<I", binary, start)
        except struct.error as error:
            raise _truncated() from error
        if start + 4 + size > len(binary):
            raise _truncated()
        elements.append(binary[start + 4 : start + 4 + size])
        start += 4 + size
    return elements


def _truncated() -> RequestError:
    return malformed("no_bytes", "the binary tensor is truncated: each recording must follow its length in 4 bytes")
