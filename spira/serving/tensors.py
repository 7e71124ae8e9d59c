"""The input tensor of a v2 request, to WAV bytes. What the tensor declares is compared with what it brings.

BYTES   each element is a recording: shapes [2] and [2, 1] declare two
UINT8   each row of the last dimension is a recording: shapes [n] and [1, n] declare one of n bytes, [2, n] two
"""

from __future__ import annotations

import base64
import math
import struct
from typing import Any

from spira.serving.errors import RequestError, malformed

MAX_RECORDINGS = 16
"""Recordings in one request. Several requests are better than one large one: they share the cores."""
MAX_DIMENSIONS = 4
MAX_SIZE = 2**40
"""Largest size in a declaration; larger than any body."""

UNSUPPORTED_PARAMETERS = {
    "classification",
    "shared_memory_region",
    "shared_memory_offset",
    "shared_memory_byte_size",
}
"""Parameters of tensors that change what is read or returned. Other unknown parameters are ignored."""


def recordings(tensor: dict[str, Any], binary: memoryview) -> list[bytes]:
    """Return the recordings of the only input of a request.

    Args:
        tensor: the input in JSON.
        binary: the bytes after the JSON.

    Raises:
        RequestError: the declaration is incomplete, or the data differs from it.
    """
    datatype, shape, data = tensor.get("datatype"), _shape(tensor.get("shape")), tensor.get("data")
    if datatype not in ("BYTES", "UINT8"):
        raise malformed(
            "datatype", "the datatype of the input must be BYTES (a WAV file in base64) or UINT8 (its bytes)"
        )
    _refuse_too_many(math.prod(shape if datatype == "BYTES" else shape[:-1]))
    _check_binary_size(parameters(tensor, "inputs[0]").get("binary_data_size"), data, binary)
    if data is not None and not isinstance(data, list):
        raise malformed("no_audio", "the data of the input must be a list")
    if datatype == "BYTES":
        if data is None:
            return _length_prefixed(binary, math.prod(shape))
        return [decode_base64(text, f"data[{i}]") for i, text in enumerate(_flat(data, shape))]
    content = bytes(binary) if data is None else _bytes(_flat(data, shape))
    _check_count(len(content), shape)
    return [content[start : start + shape[-1]] for start in range(0, len(content), shape[-1])]


def parameters(tensor: dict[str, Any], position: str) -> dict[str, Any]:
    """Return the parameters of a tensor, empty if it has none.

    Raises:
        RequestError: they are no object, or one of them is not supported.
    """
    values = tensor.get("parameters")
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise malformed("parameters", f"{position}.parameters must be an object")
    for name in sorted(UNSUPPORTED_PARAMETERS & values.keys()):
        raise malformed("parameters", f"{position}.parameters: this server does not support {name}")
    return values


def decode_base64(text: Any, position: str) -> bytes:
    """Return the bytes of a string in base64.

    Raises:
        RequestError: it is no string or not valid base64.
    """
    if not isinstance(text, str):
        raise malformed("base64", f"{position} must be a string: a WAV file in base64")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        message = f"{position} is not valid base64 ({error}): use the standard alphabet without line breaks"
        raise malformed("base64", message) from error


def _shape(shape: Any) -> list[int]:
    valid = isinstance(shape, list) and 1 <= len(shape) <= MAX_DIMENSIONS
    if not valid or not all(_is_size(size) for size in shape):
        message = f"the shape of the input must be a list of 1 to {MAX_DIMENSIONS} sizes, such as [1]"
        raise malformed("shape", message)
    if 0 in shape:
        raise malformed("no_audio", "the shape of the input declares no recording: send at least one")
    return shape


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_SIZE  # isinstance() would accept true


def _refuse_too_many(count: int) -> None:
    if count > MAX_RECORDINGS:
        message = (
            f"the request declares more than {MAX_RECORDINGS} recordings: send at most {MAX_RECORDINGS} in one request"
        )
        raise malformed("too_many", message)


def _check_binary_size(size: Any, data: Any, binary: memoryview) -> None:
    """Check that a tensor has its data in one place: in the JSON, or in as many bytes after it as it declares."""
    if size is not None and not _is_size(size):
        raise malformed("binary_size", "binary_data_size must be a whole number: the length of the tensor in bytes")
    if size is not None and data is not None:
        raise malformed("binary_size", "the input has both data and binary_data_size: send one of them")
    if size is None and data is None:
        message = "the input has no data: send a list, or binary_data_size and a binary tensor after the JSON"
        raise malformed("no_audio", message)
    if (size or 0) != len(binary):
        message = f"binary_data_size is {'missing' if size is None else size}, but {len(binary)} bytes follow the JSON"
        raise malformed("binary_size", f"{message} (its length is the header inference-header-content-length)")


def _flat(data: list[Any], shape: list[int]) -> list[Any]:
    """Return the values of a tensor in row-major order. The data is flat, or nested as the shape is."""
    rows = [data]
    if isinstance(data[0] if data else None, list):
        for size in shape[:-1]:
            if any(not isinstance(row, list) or len(row) != size for row in rows):
                raise _nested_otherwise()
            rows = [inner for row in rows for inner in row]
        if any(not isinstance(row, list) or len(row) != shape[-1] for row in rows):
            raise _nested_otherwise()
    values = rows[0] if len(rows) == 1 else [value for row in rows for value in row]
    _check_count(len(values), shape)
    return values


def _nested_otherwise() -> RequestError:
    return malformed(
        "shape", "the data of the input is not nested as its shape declares: send it flat, or correct the shape"
    )


def _check_count(count: int, shape: list[int]) -> None:
    if count != math.prod(shape):
        raise malformed("shape", f"the input has {count} elements, which is not what its shape declares")


def _bytes(values: list[Any]) -> bytes:
    try:
        if not all(type(value) is int for value in values):  # bytes() alone accepts true and false
            raise TypeError("a value is no whole number")
        return bytes(values)
    except (ValueError, TypeError) as error:
        raise malformed("no_bytes", "data must be the bytes of a WAV file, whole numbers from 0 to 255") from error


def _length_prefixed(binary: memoryview, count: int) -> list[bytes]:
    """Return the elements of a binary BYTES tensor: each follows its length, unsigned little endian."""
    elements: list[bytes] = []
    start = 0
    while start < len(binary) and len(elements) < count:
        if start + 4 > len(binary):
            raise _truncated()
        (size,) = struct.unpack_from("<I", binary, start)
        if start + 4 + size > len(binary):
            raise _truncated()
        elements.append(bytes(binary[start + 4 : start + 4 + size]))
        start += 4 + size
    if start < len(binary) or len(elements) < count:
        raise malformed("shape", "the binary tensor does not have as many elements as its shape declares")
    return elements


def _truncated() -> RequestError:
    return malformed("no_bytes", "the binary tensor is truncated: each recording must follow its length in 4 bytes")
