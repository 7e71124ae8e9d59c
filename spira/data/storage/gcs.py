"""A store in Google Cloud Storage.

Google's client library retries requests itself: every request here is a read, or names a generation where repeating it
could do harm.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from spira.data.pseudonyms import shown_recording
from spira.data.storage.store import Bucket, Entry, MissingError, StorageError, clean, disk_errors
from spira.files import new_file


class GcsBucket(Bucket):
    """Objects under a prefix of a Google Cloud Storage bucket (or of the emulator STORAGE_EMULATOR_HOST)."""

    def __init__(self, bucket: str, prefix: str) -> None:
        from google.cloud import storage  # here: the import takes half a second

        self.uri = f"gs://{bucket}/{prefix}".rstrip("/")
        self.prefix = f"{clean(prefix)}/" if prefix else ""
        with _storage_errors(self.uri):
            self.bucket = storage.Client().bucket(bucket)

    def list(self) -> list[Entry]:
        """See :class:`Store`."""
        return list(self._list(replaced=False))

    def history(self) -> tuple[Entry, ...]:
        """See :class:`Store`; the versions that are not live."""
        return self._list(replaced=True)

    def _list(self, *, replaced: bool) -> tuple[Entry, ...]:
        with _storage_errors(self.uri):
            blobs = [
                blob
                for blob in self.bucket.list_blobs(prefix=self.prefix, versions=replaced)
                if bool(blob.time_deleted) == replaced
            ]
        entries = [
            # an object that was composed of others has no MD5
            Entry(b.name[len(self.prefix) :], b.size, str(b.generation), md5=b64decode(b.md5_hash or "").hex())
            for b in blobs
        ]
        return tuple(sorted((e for e in entries if not e.path.endswith("/")), key=lambda entry: entry.path))

    def read(self, path: str, generation: str | None = None) -> bytes:
        """See :class:`Store`."""
        with _storage_errors(f"{self.uri}/{shown_recording(path)}"):
            return self._blob(path, generation).download_as_bytes()

    def fetch(self, path: str, to: Path, generation: str | None = None) -> None:
        """See :class:`Store`."""
        with _storage_errors(f"{self.uri}/{shown_recording(path)}"), new_file(to, concurrent=True) as partial:
            self._blob(path, generation).download_to_filename(str(partial))

    def create(self, path: str, data: bytes) -> bool:
        """See :class:`Store`; generation 0 stands for an object that does not exist."""
        from google.api_core.exceptions import PreconditionFailed

        with _storage_errors(f"{self.uri}/{shown_recording(path)}"):
            try:
                self._blob(path).upload_from_string(data, if_generation_match=0)
            except PreconditionFailed:
                return False
        return True

    def write(self, path: str, data: bytes) -> None:
        """See :class:`Store`; a repeated request writes the same bytes, so it does no harm."""
        from google.cloud.storage.retry import DEFAULT_RETRY

        with _storage_errors(f"{self.uri}/{shown_recording(path)}"):
            self._blob(path).upload_from_string(data, retry=DEFAULT_RETRY)

    def replace(self, path: str, data: bytes, generation: str) -> None:
        """See :class:`Store`."""
        with _storage_errors(f"{self.uri}/{shown_recording(path)}"):
            self._blob(path).upload_from_string(data, if_generation_match=int(generation))

    def delete(self, entry: Entry) -> None:
        """See :class:`Store`; the generation is deleted, so no version of it stays."""
        from google.cloud.storage.retry import DEFAULT_RETRY

        with suppress(MissingError), _storage_errors(f"{self.uri}/{shown_recording(entry.path)}"):
            self._blob(entry.path, entry.generation).delete(retry=DEFAULT_RETRY)

    def kept_after_delete(self) -> str:
        """See :class:`Store`; the bucket's soft deletion."""
        try:
            with _storage_errors(self.uri):
                self.bucket.reload()
        except StorageError:
            return "these credentials may not see whether the bucket keeps deleted objects (soft deletion)"
        seconds = self.bucket.soft_delete_policy.retention_duration_seconds
        return f"the bucket keeps deleted objects for {int(seconds) / 86400:g} days (soft deletion)" if seconds else ""

    def _blob(self, path: str, generation: str | None = None) -> Any:
        return self.bucket.blob(self.prefix + clean(path), generation=None if generation is None else int(generation))


@contextmanager
def _storage_errors(name: str) -> Iterator[None]:
    """Turn a failure of disk, storage service or credentials into a StorageError that names the file or store."""
    with disk_errors(name):
        try:
            yield
        except Exception as error:
            if not type(error).__module__.startswith(("google.api_core", "google.auth")):
                raise
            kind = type(error).__name__
            error_class = MissingError if kind == "NotFound" else StorageError
            raise error_class(f"{name}: {_REASONS.get(kind, error)}") from error


_REASONS = {
    "NotFound": "not found, not visible to these credentials, or replaced since it was listed: run again",
    "PreconditionFailed": "replaced since it was listed: run again",
    "Forbidden": "these credentials may not do this",
    "Unauthorized": "no valid credentials: run 'gcloud auth application-default login'",
    "DefaultCredentialsError": "no credentials: run 'gcloud auth application-default login'",
}
