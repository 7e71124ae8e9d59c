"""Folder and bucket behave alike; the bucket is an emulated one, reached by Google's own client."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spira.data import corpus
from spira.data.storage import StorageError, Store, clean, open_store
from tests.support import bad_datasets


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Each kind of store in turn, empty."""
    return open_store(tmp_path if request.param == "folder" else request.getfixturevalue("bucket"))


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
    """A listed file is read as it was listed, or not at all."""
    store.write("a.txt", b"one")
    seen = store.list()[0]
    store.write("a.txt", b"two")
    with pytest.raises(StorageError, match=r"a\.txt.* since it was listed: run again"):
        store.read("a.txt", seen.generation)
    with pytest.raises(StorageError):
        store.fetch("a.txt", tmp_path / "fetched", seen.generation)
    assert not (tmp_path / "fetched").exists()


def test_only_one_of_many_callers_creates_a_file(store: Store) -> None:
    """Eight callers at once: the content of the one that created the file stays."""
    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(lambda i: store.create("claim", str(i).encode()), range(8)))
    assert sum(created) == 1
    assert store.read("claim") == str(created.index(True)).encode()
    assert [entry.path for entry in store.list()] == ["claim"]


def test_a_missing_file_is_reported_by_its_full_name(store: Store, tmp_path: Path) -> None:
    """A failed fetch leaves no file."""
    with pytest.raises(StorageError, match=r"nowhere\.wav: not found"):
        store.read("nowhere.wav")
    with pytest.raises(StorageError, match=r"nowhere\.wav: not found"):
        store.fetch("nowhere.wav", tmp_path / "fetched")
    assert not list(tmp_path.glob("*fetched*"))


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "", ".", "a\0b"])
def test_paths_out_of_the_store_are_refused(path: str, store: Store, tmp_path: Path) -> None:
    """By every method; an empty path too."""
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
    ("uri", "words"), [("s3://bucket/data", "give a folder or gs://"), ("gs://", "bucket's name is missing")]
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
