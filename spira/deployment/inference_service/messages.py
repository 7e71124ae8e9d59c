"""Asking the Inference Service as its users do: recordings into the bucket, a request over NATS, the answers back."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from spira.deployment.inference_service.contract import (
    RECORDINGS,
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
    """A user of the service who has nothing but synthetic recordings."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def check(self, package: Path, channels: Channels, count: int | None = None, replies: int = 1) -> float:
        """Ask about a package's golden recordings; the largest difference from torch.

        Args:
            count: of recordings, all without it.
            replies: processes that listen. It is waited for all of them, but one right answer is enough.

        Raises:
            DeploymentError: no answer came in time, or NATS or the bucket can't be reached.
            PackageError: a probability is off by more than 1e-5, or an answer is none by the contract.
        """
        golden = json.loads((package / "data" / "golden.json").read_text())[:count]
        answers = []
        for entry in golden:
            told = self._ask_all(channels, (package / "data" / entry["file"]).read_bytes(), replies)
            if not told:
                seconds = self.service.answer_seconds
                raise DeploymentError(f"no answer to {entry['file']} came on {channels.central} within {seconds:g} s")
            answers.append(
                nearest(told, entry["probability"]) | {"file": entry["file"], "expected": entry["probability"]}
            )
        return verify.largest_difference(answers)

    def _ask_all(self, channels: Channels, wav: bytes, replies: int) -> list[dict[str, Any]]:
        """Ask as often as there are processes, until all of them have answered the same request.

        SPIRA's API removes the recordings of an inference that it hears an answer to. A process still busy with users'
        messages then finds none and says nothing, but has caught up when it is asked again.
        """
        told: list[dict[str, Any]] = []
        for _ in range(replies):
            answers = self.ask(channels, wav, replies)
            told += answers
            if len(answers) == replies:
                break
        return told

    def ask(self, channels: Channels, wav: bytes, replies: int = 1) -> list[dict[str, Any]]:
        """Ask about a recording; what is answered until so many answers have come, or ``answer_seconds`` are over.

        Args:
            wav: taken for each of the four recordings; removed from the bucket in the end.
            replies: processes that listen. There is no queue group: each answers.

        Returns:
            Probability and diagnosis, or error, an answer; the service doesn't answer what it can't do.

        Raises:
            DeploymentError: NATS or the bucket can't be reached.
        """
        inference_id = new_id()
        with self._stored(inference_id, wav):
            return asyncio.run(self._exchange(channels, inference_id, replies))

    async def _exchange(self, channels: Channels, inference_id: str, replies: int) -> list[dict[str, Any]]:
        import nats

        try:
            client = await nats.connect(
                self.service.nats_url, connect_timeout=CONNECT_SECONDS, allow_reconnect=False, error_cb=_unheard
            )
            try:
                answers = await client.subscribe(channels.central)
                await client.flush()
                await client.publish(channels.receiving, request(inference_id, self.service.model))
                return await self._collect(answers, inference_id, replies)
            finally:
                await client.close()
        except (OSError, nats.errors.Error) as error:
            raise DeploymentError(f"NATS can't be reached, check nats_url: {error}") from error

    async def _collect(self, messages: Any, inference_id: str, replies: int) -> list[dict[str, Any]]:
        """The answers to an inference among all that come by."""
        collected: list[dict[str, Any]] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(self.service.answer_seconds):
                while len(collected) < replies:
                    answer = read_answer((await messages.next_msg(timeout=None)).data, inference_id)
                    if answer:
                        collected.append(answer)
        return collected

    @contextmanager
    def _stored(self, inference_id: str, wav: bytes) -> Iterator[None]:
        """The recordings of an inference, in the bucket as long as it is asked about."""
        from botocore.exceptions import BotoCoreError, ClientError

        place = [{"Bucket": self.service.bucket, "Key": recording_key(inference_id, name)} for name in RECORDINGS]
        try:
            for recording in place:
                self._bucket.put_object(**recording, Body=wav)
            try:
                yield
            finally:
                for recording in place:
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
                request_checksum_calculation="when_required",  # older MinIO knows no others
                response_checksum_validation="when_required",
            ),
        )


async def _unheard(error: Exception) -> None:
    """What goes wrong is raised where it is asked for; nats-py would log it as well."""


def nearest(answers: list[dict[str, Any]], expected: float) -> dict[str, Any]:
    """The answer whose probability is nearest to that expected; processes don't sign what they say."""
    return min(answers, key=lambda answer: abs(answer.get("probability", math.inf) - expected))
