"""Requests and responses of KServe's two protocols.

    v1  {"instances": [{"audio": {"b64": "..."}}]}
    v2  {"inputs": [{"name": "audio", "datatype": "BYTES", "shape": [1], "data": ["<base64>"]}]}
        {"inputs": [{"name": "audio", "datatype": "UINT8", "shape": [n], "data": [82, 73, ...]}]}

Both datatypes can use the binary form of v2: JSON, then the bytes of the tensor. In a BYTES tensor each element follows
its length, an unsigned 4-byte integer. A v2 request may name the outputs it wants, each in JSON or binary.
"""

from __future__ import annotations

import json
import struct
import threading
from dataclasses import dataclass
from typing import Any

from spira.serving import bodies, tensors
from spira.serving.bodies import Body
from spira.serving.errors import malformed
from spira.serving.tensors import MAX_RECORDINGS

OUTPUTS = {"probability": "FP64", "diagnosis": "BYTES"}
"""Datatypes of the output tensors."""

_parsing = threading.Lock()
"""Held while a body is parsed. Parsing does not profit from threads, and its memory is needed once this way."""


@dataclass(frozen=True)
class Output:
    """An output that a v2 request wants."""

    name: str
    binary: bool = False


@dataclass(frozen=True)
class RequestRecordings:
    """The recordings of a request."""

    wavs: list[bytes]
    id: str = ""
    """Request id of the client, returned in the response; v2 only."""
    outputs: tuple[Output, ...] = ()
    """Outputs in the order of the response; v2 only."""


@dataclass(frozen=True)
class Prediction:
    """The result for one recording."""

    probability: float
    diagnosis: str


@dataclass(frozen=True)
class BinaryResponse:
    """A v2 response whose tensors, or some of them, follow the JSON."""

    content: bytes
    json_bytes: int


def decode_request(body: Body) -> RequestRecordings:
    """Return the WAV bytes of a request.

    Raises:
        RequestError: the body does not follow the protocol, or has no recording or too many.
    """
    with _parsing:
        content, binary = bodies.parse(body)
        request = _v2_request(content, binary) if body.v2 else _v1_request(content, binary)
    if not all(request.wavs):
        message = f"recording {request.wavs.index(b'')} is empty: send the bytes of a WAV file"
        raise malformed("empty_audio", message)
    return request


def encode_response(
    v2: bool, name: str, version: str, request: RequestRecordings, predictions: list[Prediction]
) -> dict[str, Any] | BinaryResponse:
    """Return a response: its JSON, or JSON and binary tensors. An unknown version is omitted."""
    model = {"model_name": name} | ({"model_version": version} if version else {})
    if not v2:
        values = [{"probability": each.probability, "diagnosis": each.diagnosis} for each in predictions]
        return {"predictions": values} | model
    outputs: list[dict[str, Any]] = []
    tail = b""
    for wanted in request.outputs:
        data = [getattr(prediction, wanted.name) for prediction in predictions]
        output: dict[str, Any] = {"name": wanted.name, "datatype": OUTPUTS[wanted.name], "shape": [len(predictions)]}
        if wanted.binary:
            tensor = _encode_tensor(OUTPUTS[wanted.name], data)
            tail += tensor
            outputs.append(output | {"parameters": {"binary_data_size": len(tensor)}})
        else:
            outputs.append(output | {"data": data})
    response = model | {"id": request.id, "outputs": outputs}
    if not tail:
        return response
    head = json.dumps(response).encode()
    return BinaryResponse(head + tail, len(head))


def _v1_request(request: dict[str, Any], binary: memoryview) -> RequestRecordings:
    instances = request.get("instances")
    if not isinstance(instances, list) or not instances or "inputs" in request or binary:
        message = 'the body needs a list of recordings and nothing else: {"instances": [{"audio": {"b64": "..."}}]}'
        raise malformed("no_audio", message)
    if len(instances) > MAX_RECORDINGS:
        message = f"the request has {len(instances)} recordings: send at most {MAX_RECORDINGS} in one request"
        raise malformed("too_many", message)
    return RequestRecordings([_instance(instance, f"instances[{i}]") for i, instance in enumerate(instances)])


def _instance(instance: Any, position: str) -> bytes:
    try:
        text = instance["audio"]["b64"]
    except (KeyError, TypeError, IndexError) as error:
        message = f'{position} has no audio: send {{"audio": {{"b64": "<WAV>"}}}}'
        raise malformed("no_audio", message) from error
    return tensors.decode_base64(text, position)


def _v2_request(request: dict[str, Any], binary: memoryview) -> RequestRecordings:
    inputs = request.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        message = 'the body needs one input, which may hold several recordings: {"inputs": [{"name": "audio", ...}]}'
        raise malformed("no_audio", message)
    outputs = _outputs(request)
    return RequestRecordings(tensors.recordings(inputs[0], binary), _id(request.get("id")), outputs)


def _id(value: Any) -> str:
    if value is None:
        return ""
    try:
        value.encode()  # a lone surrogate cannot be sent back
    except (AttributeError, UnicodeEncodeError) as error:
        raise malformed("id", "the id of the request must be a string of Unicode characters") from error
    return value


def _outputs(request: dict[str, Any]) -> tuple[Output, ...]:
    """Return the wanted outputs: all of them if the request names none."""
    binary = _flag(tensors.parameters(request, "the request"), "binary_data_output", default=False)
    wanted = request.get("outputs")
    if wanted is None or wanted == []:
        return tuple(Output(name, binary) for name in OUTPUTS)
    if not isinstance(wanted, list) or not all(isinstance(output, dict) for output in wanted):
        raise malformed("outputs", 'outputs must be a list of objects: [{"name": "probability"}]')
    names = [output.get("name") for output in wanted]
    if any(name not in tuple(OUTPUTS) or names.count(name) > 1 for name in names):
        raise malformed("outputs", f"the model has the outputs {' and '.join(OUTPUTS)}: request each at most once")
    flags = [_flag(tensors.parameters(output, "outputs"), "binary_data", binary) for output in wanted]
    return tuple(Output(name, flag) for name, flag in zip(names, flags, strict=True))


def _flag(values: dict[str, Any], name: str, default: bool) -> bool:
    value = values.get(name, default)
    if not isinstance(value, bool):
        raise malformed("parameters", f"the parameter {name} must be true or false")
    return value


def _encode_tensor(datatype: str, data: list[Any]) -> bytes:
    """Return a binary tensor: float64, or strings in UTF-8 that follow their lengths."""
    if datatype == "FP64":
        return struct.pack(f"<{len(data)}d", *data)
    return b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in data)
