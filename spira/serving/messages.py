"""Bodies of KServe's two protocols: what they hold as WAV bytes, and the answers.

    v1  {"instances": [{"audio": {"b64": "..."}}]}
    v2  {"inputs": [{"name": "audio", "datatype": "BYTES", "shape": [1], "data": ["<base64>"]}]}
        {"inputs": [{"name": "audio", "datatype": "UINT8", "shape": [n], "data": [82, 73, ...]}]}

Either datatype may come in v2's binary form: JSON, then the tensor's bytes (BYTES: each after its length, 4 bytes).
"""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass
from typing import Any

import orjson

from spira.serving.errors import RequestError, malformed

MAX_RECORDINGS = 16
"""In one request; more belong into more requests, which then share the cores."""


@dataclass(frozen=True)
class Body:
    """A prediction request as it came: it is parsed where it is computed, so that the event loop never waits."""

    content: bytes
    json_bytes: int | None = None
    """How much of the content is JSON, where a binary tensor follows; None where all is."""
    v2: bool = True


@dataclass(frozen=True)
class Recordings:
    """What a body asks about."""

    id: str
    """The client's, given back; v2 only."""
    wavs: list[bytes]


@dataclass(frozen=True)
class Answer:
    """About one recording."""

    probability: float
    diagnosis: str


def recordings(body: Body) -> Recordings:
    """The WAV bytes in a body.

    Raises:
        RequestError: it is not what the protocol says, or holds none or too many.
    """
    parsed = _json(body)
    wavs = _v2_recordings(parsed, body) if body.v2 else _v1_recordings(parsed)
    if not wavs:
        raise malformed("no_audio", "the request holds no recording: send at least one")
    if len(wavs) > MAX_RECORDINGS:
        raise malformed("too_many", f"the request holds {len(wavs)} recordings: send at most {MAX_RECORDINGS} in one")
    if not all(wavs):
        raise malformed("empty_audio", f"recording {wavs.index(b'')} is empty: send the bytes of a WAV file")
    return Recordings(str(parsed.get("id") or ""), wavs)


def answer(v2: bool, name: str, version: str, request_id: str, answers: list[Answer]) -> dict[str, Any]:
    """The response's JSON; the version is left out where it is unknown."""
    about = {"model_name": name} | ({"model_version": version} if version else {})
    if not v2:
        told = [{"probability": one.probability, "diagnosis": one.diagnosis} for one in answers]
        return {"predictions": told} | about
    shape = [len(answers)]
    outputs = [
        {"name": "probability", "datatype": "FP64", "shape": shape, "data": [one.probability for one in answers]},
        {"name": "diagnosis", "datatype": "BYTES", "shape": shape, "data": [one.diagnosis for one in answers]},
    ]
    return about | {"id": request_id, "outputs": outputs}


def _json(body: Body) -> dict[str, Any]:
    content = body.content if body.json_bytes is None else body.content[: body.json_bytes]
    try:
        parsed = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise malformed("not_json", f"the body is no JSON (line {error.lineno}, column {error.colno})") from error
    if not isinstance(parsed, dict):
        raise malformed("not_json", "the body must be a JSON object with instances (v1) or inputs (v2)")
    return parsed


def _v1_recordings(parsed: dict[str, Any]) -> list[bytes]:
    instances = parsed.get("instances")
    if not isinstance(instances, list):
        raise malformed("no_audio", 'the body needs a list: {"instances": [{"audio": {"b64": "..."}}]}')
    return [_instance(instance, f"instances[{i}]") for i, instance in enumerate(instances)]


def _instance(instance: Any, where: str) -> bytes:
    try:
        return _base64(instance["audio"]["b64"], where)
    except (KeyError, TypeError, IndexError) as error:
        raise malformed("no_audio", f'{where} has no audio: write {{"audio": {{"b64": "<WAV>"}}}}') from error


def _v2_recordings(parsed: dict[str, Any], body: Body) -> list[bytes]:
    inputs = parsed.get("inputs")
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
            raise malformed("no_audio", "the input has no data: a list, or a binary tensor after the JSON")
    raise malformed("datatype", "the input's datatype must be BYTES (a WAV in base64) or UINT8 (its bytes)")


def _flat(data: list[Any]) -> list[Any]:
    """The values of a tensor of shape [n] or [1, n]."""
    return data[0] if len(data) == 1 and isinstance(data[0], list) else data


def _base64(text: Any, where: str) -> bytes:
    if not isinstance(text, str):
        raise malformed("base64", f"{where} must be a string: a WAV in base64")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise malformed("base64", f"{where} is no base64 ({error}): standard alphabet, no line breaks") from error


def _bytes(values: list[Any]) -> bytes:
    try:
        return bytes(values)
    except (ValueError, TypeError) as error:
        raise malformed("no_bytes", "data must be the WAV's bytes, whole numbers from 0 to 255") from error


def _length_prefixed(binary: bytes) -> list[bytes]:
    """The elements of a binary BYTES tensor: each its length, unsigned little endian, then itself."""
    elements, start = [], 0
    while start < len(binary):
        try:
            (size,) = struct.unpack_from("<I", binary, start)
        except struct.error as error:
            raise _cut_short() from error
        if start + 4 + size > len(binary):
            raise _cut_short()
        elements.append(binary[start + 4 : start + 4 + size])
        start += 4 + size
    return elements


def _cut_short() -> RequestError:
    return malformed("no_bytes", "the binary tensor is cut short: before each recording come 4 bytes of its length")
