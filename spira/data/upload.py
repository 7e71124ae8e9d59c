"""Upload of a data set into a bucket.

An upload can be interrupted anywhere and repeated: objects that are there with the same content are skipped. Tables go
last, the metadata of the splits after everything else. A prefix without all of its tables is no data set, so a half
upload of new data never starts a training. At the end what the bucket's store computed from each object is compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from spira.config import FrozenModel
from spira.data import content_hash
from spira.data.corpus import READMES
from spira.data.metadata import FOLDERS, NOISE_LISTS, SPLITS, DataError, is_external_table, read_dataset
from spira.data.storage import Entry, Folder, StorageError, Store, is_bucket, open_store

MAX_CONCURRENT_UPLOADS = 8
TABLES = {
    *NOISE_LISTS,
    *(f"{folder}{name}" for folder in FOLDERS for name in ("metadata.csv", *(f"metadata_{s}.csv" for s in SPLITS))),
}
"""Every path at which a table is looked for, apart from those of external test sets."""


class UploadSummary(FrozenModel):
    """Result of an upload."""

    uri: str
    files: int
    """Files of the data set, all of them verified in the bucket."""
    uploaded: int
    """Files that this call uploaded; the others were there."""
    uploaded_bytes: int
    others: int
    """Objects under the prefix that do not belong to the data set; a run ignores them."""
    digest: str
    """SHA-256 digest of the data set: what a run can be pinned to by ``--data-digest``."""


def upload(
    folder: Path, uri: str, *, replace: bool = False, progress: Callable[[int, int], None] | None = None
) -> UploadSummary:
    """Upload the tables of a data set, the recordings and noises that they name, and its README; nothing else.

    Args:
        uri: ``gs://bucket/prefix`` or ``s3://bucket/prefix``.
        replace: Replace recordings that are there with another content.
        progress: Called with the number of files that are done, and of all.

    Raises:
        DataError: The data set breaks a rule, or a recording is there with another content.
        StorageError: A file cannot be read, written or verified. Repeating the call continues.
    """
    if not is_bucket(uri):
        raise StorageError(f"{uri}: give gs://bucket/prefix or s3://bucket/prefix")
    source, target = Folder(folder), open_store(uri)
    files = read_dataset(source).files | {entry.path: entry for entry in source.list() if entry.path in READMES}
    hashes = content_hash.hash_files(source, files, {})
    present = {entry.path: entry for entry in target.list()}
    _refuse_other_layout(present, files, target)
    new = [path for path in sorted(files, key=_upload_order) if not _is_same(source, files[path], target, present)]
    replaced = [path for path in new if path in present and not _is_table(path) and path not in READMES]
    if replaced and not replace:
        raise DataError(
            f"{target.uri}/{path} holds another recording: upload to another prefix, or replace it with --replace"
            for path in replaced
        )
    _upload(source, target, files, new, progress)
    _verify(source, target, files)
    return UploadSummary(
        uri=target.uri,
        files=len(files),
        uploaded=len(new),
        uploaded_bytes=sum(files[path].size for path in new),
        others=len(present.keys() - files.keys()),
        digest=content_hash.digest({path: hashed for path, hashed in hashes.items() if path not in READMES}),
    )


def _is_table(path: str) -> bool:
    return path in TABLES or is_external_table(path)


def _upload_order(path: str) -> tuple[int, str]:
    """Return a key that sorts recordings first, then other tables and the README, and the splits' metadata last."""
    is_metadata = path in TABLES and path not in NOISE_LISTS
    return (2 if is_metadata else int(_is_table(path) or path in READMES), path)


def _refuse_other_layout(present: Iterable[str], files: Iterable[str], target: Store) -> None:
    """Refuse a prefix with a table that the data set lacks: the two would be read together."""
    foreign = sorted({path for path in present if _is_table(path)}.difference(files))
    if foreign:
        raise DataError(
            f"{target.uri}/{path} is a table that this data set does not have: delete it, or upload to another prefix"
            for path in foreign
        )


def _upload(
    source: Store,
    target: Store,
    files: dict[str, Entry],
    new: list[str],
    progress: Callable[[int, int], None] | None,
) -> None:
    """Upload files in their order; tables one after another, everything else in parallel."""

    def send(path: str) -> None:
        target.write(path, source.read(path, files[path].generation))

    recordings = [path for path in new if not _is_table(path)]
    with ThreadPoolExecutor(MAX_CONCURRENT_UPLOADS) as pool:
        for done, _ in enumerate(pool.map(send, recordings), start=1):
            if progress:
                progress(done, len(new))
    for path in new:
        if _is_table(path):
            send(path)


def _verify(source: Store, target: Store, files: dict[str, Entry]) -> None:
    """Refuse an upload whose objects differ from the files."""
    stored = {entry.path: entry for entry in target.list()}
    for path in sorted(files):
        if not _is_same(source, files[path], target, stored):
            raise StorageError(
                f"{target.uri}/{path} differs from the file after the upload (did another process write it?): run again"
            )


def _is_same(source: Store, file: Entry, target: Store, stored: dict[str, Entry]) -> bool:
    """Return whether an object has the content of a file: by the store's digest, or by reading it where that differs.

    A store's digest is no MD5 of the content where it encrypts with a key of its own, or where an object was uploaded
    in parts.
    """
    entry = stored.get(file.path)
    if entry is None or entry.size != file.size:
        return False
    with source.local(file.path, file.generation) as local:
        content = local.read_bytes()
    if entry.md5 == hashlib.md5(content, usedforsecurity=False).hexdigest():
        return True
    return target.read(entry.path, entry.generation) == content
