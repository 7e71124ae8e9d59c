"""Requests to the Inference Service as its clients make them: recordings in the bucket, messages over NATS."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from spira import files
from spira.deployment.inference_service.contract import (
    RECORDINGS,
    Answer,
    Channels,
    Service,
    new_id,
    read_answer,
    recording_key,
    request,
)
from spira.deployment.target import DeploymentError
from spira.packaging import verify

CONNECT_SECONDS = 5


class Messages:
    """A client of the service that sends synthetic recordings only."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def check(self, package: Path, channels: Channels, count: int | None = None, replies: int = 1) -> float:
        """Send the golden recordings of a package; return the largest difference from torch's probabilities.

        Args:
            package: package folder.
            channels: channels of the process or processes.
            count: number of golden recordings to send; None for all.
            replies: number of processes that listen. The call waits for all of them; one correct answer is enough.

        Raises:
            DeploymentError: no answer came in time, or NATS or the bucket is unreachable.
            PackageError: a probability differs by more than 1e-5, or an answer violates the contract.
        """
        compared = []
        for golden in read_golden(package)[:count]:
            answers = self._ask_all(channels, (package / "data" / golden.file).read_bytes(), replies)
            if not answers:
                seconds = self.service.answer_seconds
                raise DeploymentError(f"no answer to {golden.file} came on {channels.central} within {seconds:g} s")
            nearest = nearest_answer(answers, golden.probability)
            result = {"error": nearest.error} if nearest.probability is None else {"probability": nearest.probability}
            compared.append({"file": golden.file, "expected": golden.probability, **result})
        return verify.largest_difference(compared)

    def _ask_all(self, channels: Channels, wav: bytes, replies: int) -> list[Answer]:
        """Repeat a request, at most once per process, until all processes have answered the same request.

        SPIRA's API deletes the recordings of an inference after the first answer. A process that is still busy with
        clients' messages then finds no recording and does not answer, but it has caught up by the next request.
        """
        collected: list[Answer] = []
        for _ in range(replies):
            answers = self.ask(channels, wav, replies)
            collected += answers
            if len(answers) == replies:
                break
        return collected

    def ask(self, channels: Channels, wav: bytes, replies: int = 1) -> list[Answer]:
        """Send one request; return its answers once all have come, or those that came within ``answer_seconds``.

        Args:
            channels: channels of the process or processes.
            wav: content of each of the four recordings, which are deleted from the bucket at the end.
            replies: number of processes that listen. There is no queue group, so each of them answers.

        Returns:
            For each answer its probability or error. The service does not answer a request that fails.

        Raises:
            DeploymentError: NATS or the bucket is unreachable.
        """
        inference_id = new_id()
        with self._stored(inference_id, wav):
            return asyncio.run(self._exchange(channels, inference_id, replies))

    async def _exchange(self, channels: Channels, inference_id: str, replies: int) -> list[Answer]:
        import nats

        try:
            client = await nats.connect(
                self.service.nats_url, connect_timeout=CONNECT_SECONDS, allow_reconnect=False, error_cb=_ignore
            )
            try:
                answers = await client.subscribe(channels.central)
                await client.flush()
                await client.publish(channels.receiving, request(inference_id, self.service.model))
                return await self._collect(answers, inference_id, replies)
            finally:
                await client.close()
        except (OSError, nats.errors.Error) as error:
            raise DeploymentError(f"NATS cannot be reached, check nats_url: {error}") from error

    async def _collect(self, messages: Any, inference_id: str, replies: int) -> list[Answer]:
        """Return the answers to an inference; other clients' answers on the channel are skipped."""
        collected: list[Answer] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(self.service.answer_seconds):
                while len(collected) < replies:
                    answer = read_answer((await messages.next_msg(timeout=None)).data, inference_id)
                    if answer:
                        collected.append(answer)
        return collected

    @contextmanager
    def _stored(self, inference_id: str, wav: bytes) -> Iterator[None]:
        """Keep the recordings of an inference in the bucket while the block runs."""
        from botocore.exceptions import BotoCoreError, ClientError

        objects = [{"Bucket": self.service.bucket, "Key": recording_key(inference_id, name)} for name in RECORDINGS]
        try:
            for recording in objects:
                self._bucket.put_object(**recording, Body=wav)
            try:
                yield
            finally:
                for recording in objects:
                    self._bucket.delete_object(**recording)
        except (BotoCoreError, ClientError) as error:
            raise DeploymentError(f"bucket {self.service.bucket} at {self.service.minio}: {error}") from error

    @cached_property
    def _bucket(self) -> Any:
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=f"http://{self.service.minio}",
            aws_access_key_id=self.service.access_key,
            aws_secret_access_key=self.service.secret_key,
            region_name="us-east-1",
            config=Config(
                connect_timeout=CONNECT_SECONDS,
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",  # older MinIO supports no other checksums
                response_checksum_validation="when_required",
            ),
        )


async def _ignore(error: Exception) -> None:
    """Drop an error of the connection: the failing call raises it, and nats-py would log it as well."""


def nearest_answer(answers: Sequence[Answer], expected: float) -> Answer:
    """Return the answer with the probability nearest to the expected one; answers do not name their process."""

    def distance(answer: Answer) -> float:
        return math.inf if answer.probability is None else abs(answer.probability - expected)

    return min(answers, key=distance)


class GoldenRecording(NamedTuple):
    """An entry of a package's ``golden.json``."""

    file: str
    """Path below ``data``."""
    probability: float
    """Torch's probability."""


def read_golden(package: Path) -> list[GoldenRecording]:
    """Return the golden recordings of a package."""
    entries = files.read_json(package / "data" / "golden.json")
    return [GoldenRecording(entry["file"], entry["probability"]) for entry in entries]
