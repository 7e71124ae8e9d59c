"""Upload of a data set into emulated buckets, interrupted and repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from spira.data import upload as uploads
from spira.data.content_hash import digest
from spira.data.metadata import DataError, read_dataset
from spira.data.storage import StorageError, Store, open_store
from spira.data.upload import TABLES, upload
from spira.delivery.observation.observe import data_files
from tests.support import bad_datasets

FILES = 17
"""12 recordings, a noise, three tables and the noise list of the small data set."""


@pytest.fixture
def voices(tmp_path: Path) -> Path:
    """The small data set."""
    return bad_datasets.make(tmp_path / "voices")


def test_an_upload_is_read_as_the_folder_is(voices: Path, bucket: str, tmp_path: Path) -> None:
    """Delivery observes the digest that the upload reports."""
    done = []
    summary = upload(voices, bucket, progress=lambda count, total: done.append((count, total)))
    assert (summary.files, summary.uploaded, summary.others) == (FILES, FILES, 0)
    assert summary.uploaded_bytes == sum(file.stat().st_size for file in voices.rglob("*.*"))
    assert summary.digest == digest(data_files(bucket, open_store(tmp_path / "cache")))
    assert summary.digest == digest(data_files(str(voices), open_store(tmp_path / "cache2")))
    assert done == [(count, FILES) for count in range(1, 14)]


def test_a_second_upload_sends_what_changed(voices: Path, bucket: str) -> None:
    """It sends nothing at first, then the new recording and its table."""
    upload(voices, bucket)
    assert upload(voices, bucket).uploaded == 0
    bad_datasets.write(voices, "train/new.wav", bad_datasets.wav_bytes(bad_datasets.voice(77)))
    with (voices / "metadata_train.csv").open("a") as table:
        table.write("train/new.wav,1,new,50\n")
    assert upload(voices, bucket).uploaded == 2


def test_files_that_no_table_names_stay_here(voices: Path, bucket: str) -> None:
    """Only the README goes along; objects of others are counted."""
    bad_datasets.write(voices, "patients.txt", "names")
    bad_datasets.write(voices, "README.md", "About these voices")
    open_store(bucket).write("notes.txt", b"of a colleague")
    assert upload(voices, bucket).others == 1
    paths = {entry.path for entry in open_store(bucket).list()}
    assert "README.md" in paths
    assert "patients.txt" not in paths


class InterruptedStore:
    """A store that fails at its ninth write, as if the connection broke."""

    def __init__(self, store: Store) -> None:
        self.uri, self.list, self.read, self._write, self.writes = store.uri, store.list, store.read, store.write, 0

    def write(self, path: str, data: bytes) -> None:
        """Write a file, or fail."""
        self.writes += 1
        if self.writes >= 9:
            raise StorageError("the connection broke")
        self._write(path, data)


def test_an_interrupted_upload_is_no_data_set_and_continues(
    voices: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No table is there yet; the repetition skips what is."""
    with monkeypatch.context() as patch:
        patch.setattr(uploads, "open_store", lambda uri: InterruptedStore(open_store(uri)))
        with pytest.raises(StorageError, match="connection broke"):
            upload(voices, bucket)
    paths = {entry.path for entry in open_store(bucket).list()}
    assert len(paths) == 8
    assert not paths & TABLES
    with pytest.raises(DataError, match="no metadata found"):
        read_dataset(bucket)
    assert upload(voices, bucket).uploaded == FILES - 8


def test_the_metadata_of_the_splits_is_last(voices: Path, gs_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables follow the noise list, which follows every recording."""
    order: list[str] = []

    def recording_store(uri: str) -> Store:
        store = open_store(uri)
        write = store.write
        store.write = lambda path, data: (order.append(path), write(path, data))[1]  # type: ignore[method-assign]
        return store

    monkeypatch.setattr(uploads, "open_store", recording_store)
    upload(voices, gs_bucket)
    assert order[-4:] == ["noise.csv", "metadata_eval.csv", "metadata_test.csv", "metadata_train.csv"]


def test_another_recording_of_the_same_name_is_refused(voices: Path, bucket: str) -> None:
    """Until it is to be replaced; nothing is changed before."""
    upload(voices, bucket)
    bad_datasets.write(voices, "train/00.wav", bad_datasets.wav_bytes(bad_datasets.voice(78)))
    with pytest.raises(DataError, match=r"train/00\.wav holds another recording.*--replace"):
        upload(voices, bucket)
    assert upload(voices, bucket, replace=True).uploaded == 1


def test_a_prefix_of_another_layout_is_refused(voices: Path, bucket: str) -> None:
    """The tables of both would be read together, and refused."""
    open_store(bucket).write("metadata.csv", b"file_path,class,speaker\n")
    with pytest.raises(DataError, match=r"/metadata\.csv is a table that this data set does not have"):
        upload(voices, bucket)


def test_an_object_without_a_known_digest_is_compared_by_content(voices: Path, s3_bucket: str) -> None:
    """Another tool may have uploaded it in parts."""
    import boto3

    client, key = boto3.client("s3"), f"{s3_bucket.split('/')[-1]}/train/00.wav"
    part = client.create_multipart_upload(Bucket="spira", Key=key)["UploadId"]
    content = (voices / "train/00.wav").read_bytes()
    tag = client.upload_part(Bucket="spira", Key=key, UploadId=part, PartNumber=1, Body=content)["ETag"]
    parts = {"Parts": [{"ETag": tag, "PartNumber": 1}]}
    client.complete_multipart_upload(Bucket="spira", Key=key, UploadId=part, MultipartUpload=parts)
    assert "-" in open_store(s3_bucket).list()[0].generation
    assert upload(voices, s3_bucket).uploaded == FILES - 1


def test_a_folder_is_no_target(voices: Path, tmp_path: Path) -> None:
    """Copying to a folder needs no upload."""
    with pytest.raises(StorageError, match="give gs://bucket/prefix or s3://bucket/prefix"):
        upload(voices, str(tmp_path / "copy"))
