"""The ``kserve.Model``: a body in, the package's probabilities and diagnoses out, computed in threads."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import Any

import kserve

from spira.serving import messages, package
from spira.serving.errors import RequestError

logger = logging.getLogger(__name__)


class Detector(kserve.Model):
    """A package behind KServe's protocols.

    Args:
        name: in the paths.
        folder: of the package.
        version: told in every answer; empty where it is unknown.
        threads: recordings computed at a time.
    """

    def __init__(self, name: str, folder: Path, version: str, threads: int) -> None:
        super().__init__(name)
        self.folder, self.version = folder, version
        self.threads = ThreadPoolExecutor(threads, thread_name_prefix="predict")
        self.package: package.Package | None = None

    def load(self) -> bool:
        """Load and check the package; only then is the model ready.

        Raises:
            PackageError: it must not be served.
        """
        self.package = package.load(self.folder)
        logger.info("%s: golden recordings within %.2g of torch", self.folder, self.package.difference)
        self.ready = True
        return self.ready

    async def predict(self, payload: messages.Body, *_: Any) -> dict[str, Any]:
        """Answer a body; the event loop goes on meanwhile.

        Raises:
            RequestError: the body or a recording can't be used.
        """
        return await asyncio.get_running_loop().run_in_executor(self.threads, self.answer, payload)

    def answer(self, body: messages.Body) -> dict[str, Any]:
        """The response's JSON to a body.

        Raises:
            RequestError: the body or a recording can't be used.
        """
        asked = messages.recordings(body)
        answers = [self.hear(wav, i) for i, wav in enumerate(asked.wavs)]
        return messages.answer(body.v2, self.name, self.version, asked.id, answers)

    def hear(self, wav: bytes, number: int) -> messages.Answer:
        """The package's answer about one recording."""
        assert self.package is not None  # KServe asks a ready model only
        try:
            probability = self.package.model.probability(wav)
        except self.package.model_error as error:
            raise RequestError(HTTPStatus.INTERNAL_SERVER_ERROR, "model", str(error)) from error
        except ValueError as error:
            message = f"recording {number}: {error}; send a WAV that keeps this rule"
            raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, "unusable_audio", message) from error
        return messages.Answer(probability, self.package.model.diagnose(probability))

    def get_input_types(self) -> list[dict[str, Any]]:
        """What ``GET /v2/models/NAME`` says of the input."""
        return [{"name": "audio", "datatype": "BYTES", "shape": [-1]}]

    def get_output_types(self) -> list[dict[str, Any]]:
        """What ``GET /v2/models/NAME`` says of the outputs."""
        return [
            {"name": "probability", "datatype": "FP64", "shape": [-1]},
            {"name": "diagnosis", "datatype": "BYTES", "shape": [-1]},
        ]
