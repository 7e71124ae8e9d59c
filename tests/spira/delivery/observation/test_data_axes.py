"""Data axes in the ledger's store: without names, and no larger than the change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spira.data.content_hash import Hashed
from spira.data.pseudonyms import Pseudonyms
from spira.data.storage import Folder, StorageError, open_store
from spira.delivery.history.ledger import OLD_CACHE, Ledger
from spira.delivery.observation.data_axes import MAX_CHANGES, DataAxes
from spira.delivery.observation.fingerprints import Axis, Change, changes, data_axis, with_pseudonyms
from tests.support.in_memory_world import Effects, MemoryStore
from tests.support.ledger_builder import FIRST

NAMES, OTHER = Pseudonyms(lambda: "first key of tests"), Pseudonyms(lambda: "second key of tests")

Contents = dict[str, int]


def axis(contents: Contents, names: Pseudonyms = NAMES) -> Axis:
    """Return the axis of recordings with numbered contents, by pseudonym."""
    files = {path: Hashed(10, f"{number:064x}", "1") for path, number in contents.items()}
    return with_pseudonyms(data_axis(files), names)


def size(folder: Path, stored: Axis) -> int:
    return (folder / "axes" / f"data-{stored.digest}.json").stat().st_size


@settings(max_examples=60)
@given(st.lists(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 3), min_size=1), min_size=1, max_size=30))
def test_every_axis_of_a_history_can_be_loaded(history: list[Contents]):
    """Each is stored as the difference to the one before."""
    store, since = MemoryStore(Effects()), ""
    axes = DataAxes(store, NAMES)
    for contents in history:
        axes.save(axis(contents), since)
        since = axis(contents).digest
    assert [axes.load(axis(contents).digest) for contents in history] == [axis(contents) for contents in history]


def test_one_recording_more_stores_one_recording(tmp_path: Path):
    """After many changes a complete axis is stored, so that loading one stays cheap."""
    axes, contents = DataAxes(Folder(tmp_path), NAMES), {f"{number}.wav": number for number in range(1000)}
    first = since = axis(contents)
    axes.save(first, "")
    sizes = []
    for number in range(1000, 1000 + MAX_CHANGES + 2):
        contents[f"{number}.wav"] = number
        axes.save(axis(contents), since.digest)
        since = axis(contents)
        sizes.append(size(tmp_path, since))
    assert max(sizes[:MAX_CHANGES]) < 600
    assert [count for count in sizes if count > size(tmp_path, first)] == [sizes[MAX_CHANGES]]


def test_a_damaged_axis_is_refused_and_repaired(tmp_path: Path):
    """Whatever is damaged: the axis, its base, or the base of another name."""
    axes = DataAxes(Folder(tmp_path), NAMES)
    first, second = axis({"a": 1}), axis({"a": 1, "b": 2})
    axes.save(first, "")
    axes.save(second, first.digest)
    base = tmp_path / "axes" / f"data-{first.digest}.json"
    intact = base.read_text()
    for damage in (intact.replace("rec-", "rec-0"), intact.replace(first.digest, second.digest), "[]", "{", '{"a": 1}'):
        base.write_text(damage)
        with pytest.raises(StorageError, match="damaged"):
            axes.load(second.digest)
    axes.save(second, first.digest)
    assert axes.load(second.digest) == second


def test_under_another_key_recordings_are_compared_by_content(tmp_path: Path):
    """A lost key must not make every recording look changed."""
    before, after = axis({"a": 1, "b": 2}), axis({"a": 1, "b": 3}, OTHER)
    DataAxes(Folder(tmp_path), NAMES).save(before, "")
    axes = DataAxes(Folder(tmp_path), OTHER)
    axes.save(after, before.digest)
    stored = {name: {"data": axes.load(part.digest), "model": FIRST.model, "code": FIRST.code}
              for name, part in (("before", before), ("after", after))}  # fmt: skip
    differences = changes(stored["before"], stored["after"])
    assert sorted(change.what for change in differences) == ["added", "removed"]
    assert Change("data", "removed", NAMES.recording("b")) in differences


def test_the_names_that_an_older_program_stored_are_replaced(tmp_path: Path):
    """The axes can still be loaded, and the cache of hashes has moved to the work folder."""
    ledger = Ledger(open_store(tmp_path), "a test", NAMES)
    named = tmp_path / "axes" / f"data-{FIRST.data.digest}.json"
    named.parent.mkdir()
    named.write_text(json.dumps(dict(FIRST.data.parts)))
    (tmp_path / OLD_CACHE).parent.mkdir()
    (tmp_path / OLD_CACHE).write_text('{"files": {"a.wav": []}}')
    before = ledger.load_axis("data", FIRST.data.digest)
    ledger.remove_names()
    ledger.remove_names()
    assert before == ledger.load_axis("data", FIRST.data.digest) == with_pseudonyms(FIRST.data, NAMES)
    assert ".wav" not in named.read_text() + (tmp_path / OLD_CACHE).read_text()
