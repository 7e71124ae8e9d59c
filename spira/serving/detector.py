"""The ``kserve.Model``: request body in, the package's probabilities and diagnoses out, computed in threads."""

from __future__ import annotations

import asyncio
import io
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import Any

import kserve

from spira import audio
from spira.inference.model import ModelError
from spira.serving import messages, package
from spira.serving.errors import RequestError

logger = logging.getLogger(__name__)


MAX_CPU_SECONDS = 10.0
"""CPU time after which a request gets no further recording: others wait for the same thread."""


class Detector(kserve.Model):
    """A package behind KServe's protocols.

    Args:
        name: model name in the URL paths.
        folder: the package.
        version: model version in responses; empty if unknown.
        threads: number of recordings computed at a time.
        digest: digest of the package that was deployed; empty to accept any.
    """

    def __init__(self, name: str, folder: Path, version: str, threads: int, digest: str = "") -> None:
        super().__init__(name)
        self.folder, self.version, self.digest = folder, version, digest
        self.threads = ThreadPoolExecutor(threads, thread_name_prefix="predict")
        self.package: package.Package | None = None

    def load(self) -> bool:
        """Load and check the package, then set the model ready.

        Raises:
            PackageError: the package must not be served.
        """
        self.package = package.load(self.folder, self.digest)
        logger.info("%s: golden recordings differ from torch by at most %.2g", self.folder, self.package.difference)
        self.ready = True
        return self.ready

    async def predict(self, payload: messages.Body, *_: Any) -> dict[str, Any] | messages.BinaryResponse:
        """Answer a request in a thread, without blocking the event loop.

        Raises:
            RequestError: the body or a recording is refused.
        """
        return await asyncio.get_running_loop().run_in_executor(self.threads, self.predict_body, payload)

    def predict_body(self, body: messages.Body) -> dict[str, Any] | messages.BinaryResponse:
        """Return the response to a request body.

        Raises:
            RequestError: the body or a recording is refused.
        """
        request = messages.decode_request(body)
        began, predictions = time.thread_time(), list[messages.Prediction]()
        for number, wav in enumerate(request.wavs):
            if time.thread_time() - began > MAX_CPU_SECONDS:
                raise too_much_work(number, len(request.wavs))
            predictions.append(self.predict_one(wav, number))
        return messages.encode_response(body.v2, self.name, self.version, request, predictions)

    def predict_one(self, recording: bytes, number: int) -> messages.Prediction:
        """Return the package's prediction for one recording.

        The recording is decoded here, as training decodes it, and handed on as a WAV file that every package reads.

        Args:
            recording: content of an audio file.
            number: position of the recording in its request, for the error message.

        Raises:
            RequestError: the recording is refused, or the model fails.
        """
        assert self.package is not None  # KServe calls predict only if the model is ready
        model = self.package.model
        try:
            probability = model.probability(audio.as_wav(io.BytesIO(recording), model.limits["max_seconds"]))
        except ModelError as error:
            raise RequestError(HTTPStatus.INTERNAL_SERVER_ERROR, "model", str(error)) from error
        except ValueError as error:
            message = f"recording {number}: {error}; correct the recording and send it again"
            raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, "unusable_audio", message) from error
        return messages.Prediction(probability, model.diagnose(probability))

    def get_input_types(self) -> list[dict[str, Any]]:
        """Return the description of the input in ``GET /v2/models/NAME``."""
        return [{"name": "audio", "datatype": "BYTES", "shape": [-1]}]

    def get_output_types(self) -> list[dict[str, Any]]:
        """Return the description of the outputs in ``GET /v2/models/NAME``."""
        return [
            {"name": "probability", "datatype": "FP64", "shape": [-1]},
            {"name": "diagnosis", "datatype": "BYTES", "shape": [-1]},
        ]


def too_much_work(done: int, count: int) -> RequestError:
    """Return the error for a request whose recordings need too much CPU time together (413)."""
    message = (
        f"{done} of the {count} recordings needed more than {MAX_CPU_SECONDS:g} s of CPU time: send fewer or shorter "
        "recordings in one request"
    )
    return RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_much_work", message)
