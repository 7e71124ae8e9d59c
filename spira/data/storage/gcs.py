"""A store in Google Cloud Storage.

Google's client library retries requests itself: every request here is a read, or names a generation where repeating it
could do harm.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
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
        with _storage_errors(self.uri):
            blobs = list(self.bucket.list_blobs(prefix=self.prefix))
        entries = [
            # an object that was composed of others has no MD5
            Entry(b.name[len(self.prefix) :], b.size, str(b.generation), md5=b64decode(b.md5_hash or "").hex())
            for b in blobs
        ]
        return sorted((e for e in entries if not e.path.endswith("/")), key=lambda entry: entry.path)

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
    "Forbidden": "these credentials may not do this",
    "Unauthorized": "no valid credentials: run 'gcloud auth application-default login'",
    "DefaultCredentialsError": "no credentials: run 'gcloud auth application-default login'",
}
