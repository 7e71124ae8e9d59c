"""Folder and buckets behave alike; the buckets are emulated ones, reached by Google's and Amazon's own clients."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spira.data import corpus
from spira.data.storage import MissingError, StorageError, Store, clean, open_store
from tests.conftest import s3_environment
from tests.support import bad_datasets


@pytest.fixture(params=["folder", "gs_bucket", "s3_bucket", "s3_versions"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Each kind of store in turn, empty."""
    return open_store(tmp_path if request.param == "folder" else request.getfixturevalue(request.param))


def test_a_written_file_is_listed_read_and_fetched(store: Store, tmp_path: Path) -> None:
    """Listed in order of paths with its size, then read by path."""
    store.write("b/two.bin", b"\0\xff" * 5)
    store.write("a.txt", b"one")
    entries = store.list()
    assert [(entry.path, entry.size) for entry in entries] == [("a.txt", 3), ("b/two.bin", 10)]
    assert [store.read(entry.path, entry.generation) for entry in entries] == [b"one", b"\0\xff" * 5]
    store.fetch("a.txt", tmp_path / "fetched", entries[0].generation)
    assert (tmp_path / "fetched").read_bytes() == b"one"
    with store.local("b/two.bin", entries[1].generation) as file:
        assert file.read_bytes() == b"\0\xff" * 5


def test_the_generation_changes_with_the_content(store: Store) -> None:
    """A replaced file has another generation."""
    store.write("a.txt", b"one")
    before = store.list()[0].generation
    store.write("a.txt", b"two")
    assert store.list()[0].generation != before


def test_a_replaced_generation_is_refused(store: Store, tmp_path: Path) -> None:
    """A listed file is read as it was listed, or not at all. A bucket with versions still has the listed one."""
    store.write("a.txt", b"one")
    seen = store.list()[0]
    store.write("a.txt", b"two")
    if store.uri.startswith("s3://versions"):
        assert store.read("a.txt", seen.generation) == b"one"
        boto3.client("s3").delete_object(
            Bucket="versions", Key=f"{store.uri.split('/')[-1]}/a.txt", VersionId=seen.generation.split()[1]
        )
    with pytest.raises(StorageError, match=r"a\.txt.* since it was listed: run again"):
        store.read("a.txt", seen.generation)
    with pytest.raises(StorageError):
        store.fetch("a.txt", tmp_path / "fetched", seen.generation)
    assert not (tmp_path / "fetched").exists()


def test_only_one_of_many_callers_creates_a_file(store: Store) -> None:
    """Eight callers write at once: the content of the one that created the file stays."""
    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(lambda i: store.create("claim", str(i).encode()), range(8)))
    assert sum(created) == 1
    assert store.read("claim") == str(created.index(True)).encode()
    assert [entry.path for entry in store.list()] == ["claim"]


def test_a_replacement_needs_the_present_generation(store: Store) -> None:
    """A change that came between is not lost."""
    store.write("a.txt", b"one")
    [listed] = store.list()
    store.replace("a.txt", b"two", listed.generation)
    assert store.read("a.txt") == b"two"
    with pytest.raises(StorageError, match=r"a\.txt.*since it was listed: run again"):
        store.replace("a.txt", b"three", listed.generation)
    assert store.read("a.txt") == b"two"


def test_a_deleted_file_is_gone_with_its_history(store: Store) -> None:
    """A second time is no error; other files stay."""
    for content in (b"one", b"two"):
        store.write("a.txt", content)
        store.write("b.txt", content)
    before = [entry for entry in store.history() if entry.path == "b.txt"]
    for entry in (*store.list(), *store.history()) * 2:
        if entry.path == "a.txt":
            store.delete(entry)
    assert [entry.path for entry in store.list()] == ["b.txt"]
    assert list(store.history()) == before
    assert store.kept_after_delete() == ""


def test_a_delete_marker_is_in_the_history(s3_versions: str) -> None:
    """Its name can be that of a recording. What was deleted can still be read, and then be deleted for good."""
    store = open_store(s3_versions)
    store.write("a.txt", b"one")
    boto3.client("s3").delete_object(Bucket="versions", Key=f"{s3_versions.removeprefix('s3://versions/')}/a.txt")
    assert store.list() == []
    contents = [entry for entry in store.history() if entry.size]
    assert [store.read(entry.path, entry.generation) for entry in contents] == [b"one"]
    assert len(store.history()) == 2
    for entry in store.history():
        store.delete(entry)
    assert store.history() == ()


def test_a_missing_file_is_reported_by_its_full_name(store: Store, tmp_path: Path) -> None:
    """A failed fetch leaves no file."""
    with pytest.raises(StorageError, match=r"nowhere\.wav: not found"):
        store.read("nowhere.wav")
    with pytest.raises(StorageError, match=r"nowhere\.wav: not found"):
        store.fetch("nowhere.wav", tmp_path / "fetched")
    assert not list(tmp_path.glob("*fetched*"))


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "", ".", "a\0b"])
def test_paths_out_of_the_store_are_refused(path: str, store: Store, tmp_path: Path) -> None:
    """Every method refuses it, and an empty path too."""
    for use in (store.read, lambda p: store.write(p, b""), lambda p: store.create(p, b"")):
        with pytest.raises(StorageError):
            use(path)
    with pytest.raises(StorageError):
        store.fetch(path, tmp_path / "fetched")


@given(st.text(alphabet="ab./", max_size=12))
def test_clean_paths_are_inside_and_stay_clean(path: str) -> None:
    """Any path is refused, or has a normal form that stays inside the root and is its own normal form."""
    try:
        normal = clean(path)
    except StorageError:
        return
    assert clean(normal) == normal
    assert os.path.normpath(os.path.join("/root", normal)).startswith("/root/")


def test_a_link_out_of_a_folder_is_not_followed(tmp_path: Path) -> None:
    """It is neither listed nor read."""
    bad_datasets.write(tmp_path, "secret", b"key")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/innocent.wav").symlink_to(tmp_path / "secret")
    store = open_store(tmp_path / "data")
    assert store.list() == []
    with pytest.raises(StorageError, match="a link that leads out"):
        store.read("innocent.wav")


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("ftp://bucket/data", "give a folder, gs://bucket/prefix or s3://bucket/prefix"),
        ("gs://", "bucket's name is missing, write gs://"),
        ("s3:///data", "bucket's name is missing, write s3://"),
    ],
)
def test_an_unknown_scheme_or_incomplete_address_is_refused(uri: str, words: str) -> None:
    """The message names the accepted forms."""
    with pytest.raises(StorageError, match=words):
        open_store(uri)


def test_a_missing_folder_is_reported(tmp_path: Path) -> None:
    """The error names the folder."""
    with pytest.raises(StorageError, match="nowhere: no such folder"):
        open_store(tmp_path / "nowhere").list()


def test_a_missing_bucket_is_reported(emulator: str) -> None:
    """The error names the bucket."""
    with pytest.raises(StorageError, match="gs://nowhere/data: not found"):
        open_store("gs://nowhere/data").list()


@pytest.mark.skipif("SPIRA_TEST_S3" in os.environ, reason="SeaweedFS creates a missing bucket when a file is written")
def test_a_missing_s3_bucket_is_reported(s3_emulator: str) -> None:
    """Each use names the bucket. It is no missing file, so that a ledger there does not look empty."""
    store = open_store("s3://nowhere/data")
    for use in (store.list, lambda: store.read("a"), lambda: store.write("a", b""), lambda: store.create("a", b"")):
        with pytest.raises(StorageError, match=r"s3://nowhere/data.*: no such bucket: create it") as error:
            use()
        assert not isinstance(error.value, MissingError)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}, "cannot be reached .*correct AWS_ENDPOINT_URL_S3"),
        ({"AWS_ENDPOINT_URL_S3": "nonsense"}, "Invalid endpoint: nonsense; correct AWS_ENDPOINT_URL_S3"),
        ({"AWS_ACCESS_KEY_ID": ""}, "half of the credentials: set both|no credentials: set AWS_ACCESS_KEY_ID"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "no credentials: set AWS_ACCESS_KEY_ID"),
    ],
)
def test_an_unreachable_s3_store_is_one_line(
    s3_bucket: str, environment: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The line names the address of the data and the variable to correct."""
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    with pytest.raises(StorageError, match=words) as error:
        open_store(s3_bucket).list()
    assert str(error.value).startswith(s3_bucket)
    assert "\n" not in str(error.value)


ANSWERS = [
    (403, "AccessDenied", "these credentials may not do this"),
    (403, "InvalidAccessKeyId", "does not know this access key: correct AWS_ACCESS_KEY_ID"),
    (403, "SignatureDoesNotMatch", "the secret does not belong to the access key"),
    (400, "ExpiredToken", "the credentials have expired: renew them"),
    (418, "Teapot", "Teapot"),
]


@pytest.mark.parametrize(("status", "code", "words"), ANSWERS)
def test_a_refusal_of_an_s3_store_is_one_line(
    status: int, code: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that refuses every request with an error of S3."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no\nno</Message></Error>".encode()
    with answering(status, body, monkeypatch), pytest.raises(StorageError, match=words) as error:
        open_store("s3://spira/data").read("a.wav")
    assert str(error.value).startswith("s3://spira/data/a.wav: ")
    assert "\n" not in str(error.value)


@pytest.mark.integration
def test_an_answer_of_another_server_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that answers with a page is no store."""
    with answering(200, b"<html>Sign in</p>", monkeypatch), pytest.raises(StorageError, match="not of an S3"):
        open_store("s3://spira/data").list()


@pytest.mark.integration
def test_a_download_that_breaks_off_starts_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two responses end too early; the third is whole, and nothing of the first two remains."""
    with answering(200, b"content", monkeypatch, broken=2) as requests:
        open_store("s3://spira/data").fetch("a.wav", tmp_path / "a.wav")
    assert (tmp_path / "a.wav").read_bytes() == b"content"
    assert len(requests) == 3


@contextmanager
def answering(status: int, body: bytes, monkeypatch: pytest.MonkeyPatch, broken: int = 0) -> Iterator[list[str]]:
    """Run a server that gives every request one answer, cut off for the first ``broken``; yield the requests."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: 3 if len(requests) <= broken else None])

        def log_message(self, format: str, *args: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, value in s3_environment(f"http://127.0.0.1:{server.server_port}").items():
        monkeypatch.setenv(name, value)
    try:
        yield requests
    finally:
        server.shutdown()
        server.server_close()


def test_any_file_name_survives_a_bucket(bucket: str) -> None:
    """A name that a person can type is listed and read as it was written."""
    store = open_store(bucket)

    @settings(max_examples=25)
    @given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=20))
    def check(name: str) -> None:
        try:
            path = clean(f"d/{name}")
        except StorageError:
            return
        store.write(path, name.encode())
        [entry] = [entry for entry in store.list() if entry.path == path]
        assert store.read(path, entry.generation) == name.encode()

    check()


def test_a_corpus_from_a_bucket_equals_one_from_a_folder(bucket: str, tmp_path: Path) -> None:
    """Byte for byte, for the same data set."""
    folder = bad_datasets.make(tmp_path / "data")
    store = open_store(bucket)
    for file in folder.rglob("*.*"):
        store.write(str(file.relative_to(folder)), file.read_bytes())
    corpus.build(folder, tmp_path / "one")
    corpus.build(bucket, tmp_path / "two")
    assert corpus.Corpus.open(tmp_path / "one").digest == corpus.Corpus.open(tmp_path / "two").digest
    for name in ("audio.npy", "noise.npy", "quality.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
