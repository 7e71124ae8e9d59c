"""A store in S3, or in an object store that speaks its protocol, such as SeaweedFS, MinIO or Ceph.

Address and credentials come from the environment, as for every client of S3: ``AWS_ENDPOINT_URL_S3`` or
``AWS_ENDPOINT_URL`` (Amazon's if unset), ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY`` and ``AWS_DEFAULT_REGION``.
boto3 also reads its configuration files and the role of a pod.

A generation is an object's ETag, and also its version where the bucket keeps versions. Without versions a replaced
object is refused by its ETag; with them the listed version is still read.
"""

from __future__ import annotations

import base64
import hashlib
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import stamina

from spira.data.pseudonyms import shown_recording
from spira.data.storage.store import Bucket, Entry, MissingError, StorageError, clean, disk_errors
from spira.files import new_file

MAX_ATTEMPTS = 4
"""Attempts of a request, and of a body that breaks off."""
CHUNK_BYTES = 1 << 20
MD5 = re.compile(r"[0-9a-f]{32}")


class S3Bucket(Bucket):
    """Objects under a prefix of a bucket."""

    def __init__(self, bucket: str, prefix: str) -> None:
        import boto3  # here: the import takes a third of a second
        from botocore.config import Config

        self.uri = f"s3://{bucket}/{prefix}".rstrip("/")
        self.name, self.prefix = bucket, f"{clean(prefix)}/" if prefix else ""
        config = Config(
            retries={"mode": "standard", "total_max_attempts": MAX_ATTEMPTS},
            connect_timeout=10,
            max_pool_connections=32,
            # Many stores do not know the newer checksums; every upload here has Content-MD5, which all of them check.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        with _storage_errors(self.uri):
            try:
                # a session of its own: boto3's shared one keeps the first credentials
                self.client = boto3.Session().client("s3", config=config)
            except ValueError as error:  # not of botocore's own classes
                raise StorageError(f"{self.uri}: {error}; {_ADDRESS}") from error

    def list(self) -> list[Entry]:
        """See :class:`Store`."""
        with _storage_errors(self.uri):
            entries = self._list_versions() if self._keeps_versions else self._list_objects()
            return sorted((e for e in entries if not e.path.endswith("/")), key=lambda entry: entry.path)

    def _list_objects(self) -> Iterator[Entry]:
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=self.prefix):
            for item in page.get("Contents", []):
                yield self._entry(item)

    def _list_versions(self) -> Iterator[Entry]:
        for page in self.client.get_paginator("list_object_versions").paginate(Bucket=self.name, Prefix=self.prefix):
            for item in page.get("Versions", []):
                if item["IsLatest"]:
                    yield self._entry(item)

    def history(self) -> tuple[Entry, ...]:
        """See :class:`Store`; also delete markers, which have no content but the name. Their generation has no ETag."""
        entries = []
        with _storage_errors(self.uri):
            for page in self.client.get_paginator("list_object_versions").paginate(
                Bucket=self.name, Prefix=self.prefix
            ):
                entries += [self._entry(item) for item in page.get("Versions", []) if not item["IsLatest"]]
                entries += [
                    Entry(item["Key"][len(self.prefix) :], 0, f" {item['VersionId']}")
                    for item in page.get("DeleteMarkers", [])
                ]
        return tuple(sorted(entries, key=lambda entry: entry.path))

    def delete(self, entry: Entry) -> None:
        """See :class:`Store`; the version is deleted, so no delete marker is left."""
        version = entry.generation.partition(" ")[2]
        with suppress(MissingError), _storage_errors(f"{self.uri}/{shown_recording(entry.path)}"):
            self.client.delete_object(
                Bucket=self.name, Key=self._key(entry.path), **({"VersionId": version} if version else {})
            )

    def kept_after_delete(self) -> str:
        """See :class:`Store`; an object under a lock or a retention rule is refused by :meth:`delete`."""
        return ""

    def _entry(self, item: dict[str, Any]) -> Entry:
        """Return the entry of an item of a listing."""
        etag = item["ETag"].strip('"')
        generation = f"{etag} {item['VersionId']}" if "VersionId" in item else etag
        # the ETag of an object uploaded in parts is no MD5 and has a dash
        return Entry(item["Key"][len(self.prefix) :], item["Size"], generation, md5=etag if MD5.fullmatch(etag) else "")

    @cached_property
    def _keeps_versions(self) -> bool:
        """Whether the bucket keeps replaced objects; taken as not where the store or the credentials do not say."""
        from botocore.exceptions import ClientError

        try:
            return self.client.get_bucket_versioning(Bucket=self.name).get("Status") == "Enabled"
        except ClientError as error:
            if error.response["Error"]["Code"] == "NoSuchBucket":
                raise
            return False

    def read(self, path: str, generation: str | None = None) -> bytes:
        """See :class:`Store`."""
        with (
            _storage_errors(f"{self.uri}/{shown_recording(path)}"),
            tempfile.SpooledTemporaryFile(64 * CHUNK_BYTES) as content,
        ):
            self._download(path, generation, content)
            content.seek(0)
            return content.read()

    def fetch(self, path: str, to: Path, generation: str | None = None) -> None:
        """See :class:`Store`."""
        with (
            _storage_errors(f"{self.uri}/{shown_recording(path)}"),
            new_file(to, concurrent=True) as partial,
            partial.open("wb") as file,
        ):
            self._download(path, generation, file)

    def _download(self, path: str, generation: str | None, to: BinaryIO | tempfile.SpooledTemporaryFile[bytes]) -> None:
        """Write the content of an object to an open file; start again if the connection breaks.

        boto3 repeats a request that fails, but not one whose response breaks off.
        """
        from botocore.exceptions import HTTPClientError, IncompleteReadError

        etag, _, version = (generation or "").partition(" ")
        conditions = ({"IfMatch": f'"{etag}"'} if etag else {}) | ({"VersionId": version} if version else {})
        broken = (HTTPClientError, IncompleteReadError)
        for attempt in stamina.retry_context(on=broken, attempts=MAX_ATTEMPTS, wait_initial=0.2, wait_max=5):
            with attempt:
                to.seek(0)
                to.truncate()
                response = self.client.get_object(Bucket=self.name, Key=self._key(path), **conditions)
                for chunk in response["Body"].iter_chunks(CHUNK_BYTES):
                    to.write(chunk)

    def create(self, path: str, data: bytes) -> bool:
        """See :class:`Store`; a conditional write, which the store carries out for one caller alone."""
        from botocore.exceptions import ClientError

        with _storage_errors(f"{self.uri}/{shown_recording(path)}"):
            try:
                self._put(path, data, IfNoneMatch="*")
            except ClientError as error:
                if error.response["Error"]["Code"] not in ("PreconditionFailed", "412"):
                    raise
                return False
        return True

    def write(self, path: str, data: bytes) -> None:
        """See :class:`Store`; a repeated request writes the same bytes, so it does no harm."""
        with _storage_errors(f"{self.uri}/{shown_recording(path)}"):
            self._put(path, data)

    def replace(self, path: str, data: bytes, generation: str) -> None:
        """See :class:`Store`; a conditional write."""
        with _storage_errors(f"{self.uri}/{shown_recording(path)}"):
            self._put(path, data, IfMatch=f'"{generation.partition(" ")[0]}"')

    def _put(self, path: str, data: bytes, **conditions: str) -> None:
        """Upload an object. The store refuses one that arrives damaged, or asks to repeat a write that met another."""
        from botocore.exceptions import ClientError

        def is_conflict(error: Exception) -> bool:
            return isinstance(error, ClientError) and error.response["Error"]["Code"] == "ConditionalRequestConflict"

        md5 = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
        for attempt in stamina.retry_context(on=is_conflict, attempts=MAX_ATTEMPTS, wait_initial=0.1, wait_max=2):
            with attempt:
                self.client.put_object(Bucket=self.name, Key=self._key(path), Body=data, ContentMD5=md5, **conditions)

    def _key(self, path: str) -> str:
        return self.prefix + clean(path)


@contextmanager
def _storage_errors(name: str) -> Iterator[None]:
    """Turn a failure of disk, storage service or credentials into a StorageError that names the object or store."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    with disk_errors(name):
        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            error_class = MissingError if code in _MISSING else StorageError
            raise error_class(f"{name}: {_REASONS.get(code) or _one_line(error)}") from error
        except (BotoCoreError, ResponseParserError) as error:
            raise StorageError(
                f"{name}: {_CLIENT_REASONS.get(type(error).__name__) or _client_reason(error)}"
            ) from error


_MISSING = ("NoSuchKey", "NoSuchVersion", "404")
_REPLACED = "replaced since it was listed: run again"
_ADDRESS = "correct AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL"
_FOREIGN = f"the response is not of an S3 store, or the store is broken (a proxy, or another server?): {_ADDRESS}"
_SECRET = "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_REASONS = {
    "NoSuchKey": "not found",
    "NoSuchVersion": "deleted since it was listed: run again",
    "404": "not found",
    "PreconditionFailed": _REPLACED,
    "412": _REPLACED,
    "NoSuchBucket": "no such bucket: create it, or correct its name or AWS_ENDPOINT_URL_S3",
    "AccessDenied": "these credentials may not do this",
    "403": "these credentials may not do this",
    "InvalidAccessKeyId": f"the store does not know this access key: {_SECRET}",
    "SignatureDoesNotMatch": f"the secret does not belong to the access key: {_SECRET}",
    "ExpiredToken": "the credentials have expired: renew them",
    "500": _FOREIGN,  # boto3's code for a response that it cannot parse
}
"""Error code of the store -> what to do."""
_CLIENT_REASONS = {
    "NoCredentialsError": "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "PartialCredentialsError": "half of the credentials: set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
}
"""Name of a class of botocore's errors -> what to do."""


def _client_reason(error: Exception) -> str:
    """Return the reason of an error that arose in the client: mostly an address without a store behind it."""
    from botocore.exceptions import ConnectionError, HTTPClientError
    from botocore.parsers import ResponseParserError

    if isinstance(error, ResponseParserError):
        return _FOREIGN
    if isinstance(error, HTTPClientError | ConnectionError):
        return f"the object store cannot be reached ({_one_line(error)}): {_ADDRESS}"
    return _one_line(error)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
