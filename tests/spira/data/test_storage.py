"""Folder and bucket behave alike; the bucket is an emulator's, asked through Google's own client."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spira.data import corpus
from spira.data.storage import StorageError, Store, clean, open_store
from tests.support import bad_datasets as bad_input


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Each kind of store in turn, empty."""
    return open_store(tmp_path if request.param == "folder" else request.getfixturevalue("bucket"))


def test_what_is_written_is_read(store: Store, tmp_path: Path) -> None:
    """Files come back by path: listed in order with their sizes, read, and fetched."""
    store.write("b/two.bin", b"\0\xff" * 5)
    store.write("a.txt", b"one")
    entries = store.list()
    assert [(entry.path, entry.size) for entry in entries] == [("a.txt", 3), ("b/two.bin", 10)]
    assert [store.read(entry.path, entry.generation) for entry in entries] == [b"one", b"\0\xff" * 5]
    store.fetch("a.txt", tmp_path / "fetched", entries[0].generation)
    assert (tmp_path / "fetched").read_bytes() == b"one"
    with store.local("b/two.bin", entries[1].generation) as file:
        assert file.read_bytes() == b"\0\xff" * 5


def test_generation_changes_with_the_content(store: Store) -> None:
    """A replaced file has another generation."""
    store.write("a.txt", b"one")
    before = store.list()[0].generation
    store.write("a.txt", b"two")
    assert store.list()[0].generation != before


def test_a_replaced_generation_is_refused(store: Store, tmp_path: Path) -> None:
    """Who listed a file reads that file or gets an error, not what came in its place."""
    store.write("a.txt", b"one")
    seen = store.list()[0]
    store.write("a.txt", b"two")
    with pytest.raises(StorageError, match=r"a\.txt.* since it was listed: run again"):
        store.read("a.txt", seen.generation)
    with pytest.raises(StorageError):
        store.fetch("a.txt", tmp_path / "fetched", seen.generation)
    assert not (tmp_path / "fetched").exists()


def test_one_of_many_creates(store: Store) -> None:
    """Of eight callers at once one creates the file, and its content stays."""
    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(lambda i: store.create("claim", str(i).encode()), range(8)))
    assert sum(created) == 1
    assert store.read("claim") == str(created.index(True)).encode()
    assert [entry.path for entry in store.list()] == ["claim"]


def test_missing_file(store: Store, tmp_path: Path) -> None:
    """Reading what is not there says so by its full name, and fetching leaves nothing."""
    with pytest.raises(StorageError, match=r"nowhere\.wav: not found"):
        store.read("nowhere.wav")
    with pytest.raises(StorageError, match=r"nowhere\.wav: not found"):
        store.fetch("nowhere.wav", tmp_path / "fetched")
    assert not list(tmp_path.glob("*fetched*"))


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "", ".", "a\0b"])
def test_paths_stay_inside(path: str, store: Store, tmp_path: Path) -> None:
    """A path that is empty or leads out is refused by every verb."""
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


def test_links_out_of_a_folder(tmp_path: Path) -> None:
    """A link to a file outside is neither listed nor read."""
    bad_input.write(tmp_path, "secret", b"key")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/innocent.wav").symlink_to(tmp_path / "secret")
    store = open_store(tmp_path / "data")
    assert store.list() == []
    with pytest.raises(StorageError, match="a link that leads out"):
        store.read("innocent.wav")


@pytest.mark.parametrize(
    ("uri", "words"), [("s3://bucket/data", "give a folder or gs://"), ("gs://", "bucket's name is missing")]
)
def test_unknown_places(uri: str, words: str) -> None:
    """A scheme that isn't known, or half an address, is refused by name."""
    with pytest.raises(StorageError, match=words):
        open_store(uri)


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    """Listing a folder that doesn't exist names it."""
    with pytest.raises(StorageError, match="nowhere: no such folder"):
        open_store(tmp_path / "nowhere").list()


def test_bucket_that_is_not_there(emulator: str) -> None:
    """Listing a bucket that doesn't exist names it."""
    with pytest.raises(StorageError, match="gs://nowhere/data: not found"):
        open_store("gs://nowhere/data").list()


def test_corpus_from_a_bucket(bucket: str, tmp_path: Path) -> None:
    """A data set in a bucket gives the very corpus that the same folder gives."""
    folder = bad_input.make(tmp_path / "data")
    store = open_store(bucket)
    for file in folder.rglob("*.*"):
        store.write(str(file.relative_to(folder)), file.read_bytes())
    corpus.build(folder, tmp_path / "one")
    corpus.build(bucket, tmp_path / "two")
    assert corpus.Corpus.open(tmp_path / "one").digest == corpus.Corpus.open(tmp_path / "two").digest
    for name in ("audio.npy", "noise.npy", "quality.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
