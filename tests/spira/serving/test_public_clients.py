"""Tests with the public clients of the Open Inference Protocol: kserve's and Triton's."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException

from tests.support.server_process import V1, Server, v1
from tests.support.server_requests import voice

pytestmark = pytest.mark.integration

B = voice(4.0)
A = voice(3.0).ljust(len(B), b"\0")
ENCODED = [base64.b64encode(content) for content in (A, B)]


@pytest.fixture(scope="module")
def expected(server: Server) -> list[float]:
    """Return the probabilities of A and B, each asked for alone."""
    return [server.post(V1, v1(content)).json["predictions"][0]["probability"] for content in (A, B)]


def rows() -> np.ndarray:
    """Return A and B as a UINT8 tensor of two rows."""
    return np.frombuffer(A + B, np.uint8).reshape(2, -1)


def elements(*contents: bytes) -> np.ndarray:
    """Return a BYTES tensor."""
    return np.array(contents, dtype=np.object_)


def ask_kserve(server: Server, request: InferRequest | dict[str, Any], protocol: str = "v2", **headers: str) -> Any:
    async def ask() -> Any:
        async with InferenceRESTClient(RESTConfig(protocol=protocol)) as client:
            return await client.infer(server.url(""), request, model_name="spira", headers=headers)

    return asyncio.run(ask())


def kserve_request(data: np.ndarray, datatype: str, binary: bool, **options: Any) -> InferRequest:
    tensor = InferInput("audio", list(data.shape), datatype)
    tensor.set_data_from_numpy(data, binary_data=binary)
    return InferRequest("spira", [tensor], request_id="a-1", **options)


KSERVE_TENSORS = {
    "UINT8 in binary": (rows(), "UINT8", True),
    "UINT8 in JSON": (rows(), "UINT8", False),
    "BYTES in binary": (elements(A, B), "BYTES", True),
    "BYTES in JSON": (elements(*ENCODED), "BYTES", False),
}


@pytest.mark.parametrize("name", KSERVE_TENSORS)
@pytest.mark.parametrize("binary_outputs", [False, True])
def test_kserves_client_gets_its_answers(
    server: Server, expected: list[float], name: str, binary_outputs: bool
) -> None:
    """It sends v2 with each datatype, in JSON and in binary."""
    request = kserve_request(*KSERVE_TENSORS[name], parameters={"binary_data_output": binary_outputs})
    response = ask_kserve(server, request)
    assert (response.id, response.model_name) == ("a-1", "spira")  # kserve 0.21's client drops the version
    outputs = {output.name: output.as_numpy() for output in response.outputs}
    assert outputs["probability"].tolist() == expected
    assert len(outputs["diagnosis"]) == 2


def test_kserves_client_names_its_outputs(server: Server, expected: list[float]) -> None:
    """The client asks in binary and in JSON."""
    for binary in (True, False):
        output = RequestedOutput("probability", {"binary_data": binary})
        response = ask_kserve(server, kserve_request(rows(), "UINT8", True, request_outputs=[output]))
        assert [output.name for output in response.outputs] == ["probability"]
        assert response.outputs[0].as_numpy().tolist() == expected


def test_kserves_client_speaks_v1(server: Server, expected: list[float]) -> None:
    request = {"instances": [{"audio": {"b64": text.decode()}} for text in ENCODED]}
    response = ask_kserve(server, request, "v1")
    assert [prediction["probability"] for prediction in response["predictions"]] == expected


def test_kserves_client_shows_a_refusal(server: Server) -> None:
    """The reason is in the client's exception."""
    with pytest.raises(httpx.HTTPStatusError, match="recording 0"):
        ask_kserve(server, kserve_request(elements(b"I am no WAV"), "BYTES", True))


@pytest.fixture
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    """Connect Triton's client."""
    client = triton.InferenceServerClient(f"127.0.0.1:{server.port}")
    yield client
    client.close()


def triton_input(data: np.ndarray, datatype: str, binary: bool) -> triton.InferInput:
    tensor = triton.InferInput("audio", list(data.shape), datatype)
    tensor.set_data_from_numpy(data, binary_data=binary)
    return tensor


@pytest.mark.parametrize("name", KSERVE_TENSORS)
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_tritons_client_gets_its_answers(
    client: triton.InferenceServerClient, expected: list[float], name: str, compression: str | None
) -> None:
    """It requests all outputs in binary; bodies can be compressed, and the version can be named."""
    result = client.infer(
        "spira",
        [triton_input(*KSERVE_TENSORS[name])],
        model_version="7",
        request_id="a-1",
        request_compression_algorithm=compression,
        response_compression_algorithm=compression,
    )
    assert result.get_response()["id"] == "a-1"
    assert result.as_numpy("probability").tolist() == expected
    assert set(result.as_numpy("diagnosis")) <= {b"positive", b"negative", b"inconclusive"}


@pytest.mark.parametrize("binary", [True, False])
def test_tritons_client_names_its_outputs(
    client: triton.InferenceServerClient, expected: list[float], binary: bool
) -> None:
    """It names them in binary and in JSON; an output that does not exist is refused."""
    tensors = [triton_input(rows(), "UINT8", True)]
    result = client.infer("spira", tensors, outputs=[triton.InferRequestedOutput("probability", binary)])
    assert result.as_numpy("probability").tolist() == expected
    assert result.get_output("diagnosis") is None
    for output in (triton.InferRequestedOutput("cough"), triton.InferRequestedOutput("diagnosis", class_count=2)):
        with pytest.raises(InferenceServerException, match=r"probability and diagnosis|does not support"):
            client.infer("spira", tensors, outputs=[output])


def test_tritons_client_describes_the_server(client: triton.InferenceServerClient) -> None:
    """It reads health, readiness and metadata, with the version and without."""
    assert client.is_server_live()
    assert client.is_server_ready()
    for version in ("", "7"):
        assert client.is_model_ready("spira", version)
        assert client.get_model_metadata("spira", version)["inputs"][0]["name"] == "audio"
    assert not client.is_model_ready("spira", "8")
    with pytest.raises(InferenceServerException, match="the server has version 7"):
        client.infer("spira", [triton_input(rows(), "UINT8", True)], model_version="8")
