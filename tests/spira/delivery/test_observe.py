"""Looking: by content where something moved, by a listing alone where nothing did."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from spira import lineage
from spira.data import content_hash
from spira.data.corpus import Corpus
from spira.data.storage import Folder, Store, open_store
from spira.delivery import observe
from spira.delivery.fingerprints import Axes, InvalidInput
from spira.delivery.settings import Settings, load

MANY = 10_000


class Counted(Folder):
    """A folder that tells which files were opened."""

    opened: list[str]

    def read(self, path: str, generation: str | None = None) -> bytes:
        self.opened.append(path)
        return super().read(path, generation)

    @contextmanager
    def local(self, path: str, generation: str | None = None) -> Iterator[Path]:
        self.opened.append(path)
        with super().local(path, generation) as file:
            yield file


@dataclass
class Place:
    """A data set, the store that hashes are kept in, and what was opened since it was last asked."""

    data: Path
    kept: Store
    opened: list[str]

    def look(self) -> tuple[str, set[str]]:
        """The digest, and the files that were opened for it."""
        self.opened.clear()
        return content_hash.digest(observe.data_files(str(self.data), self.kept)), set(self.opened)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A small data set that was looked at once."""
    write_dataset(tmp_path / "voices", recordings=20)
    return watched(tmp_path / "voices", open_store(tmp_path / "kept"), monkeypatch)


def watched(data: Path, kept: Store, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The place, its store counted, looked at once; what was written just now counts as settled."""
    opened: list[str] = []

    def counted(uri: str) -> Counted:
        store = Counted(Path(uri))
        store.opened = opened
        return store

    monkeypatch.setattr(content_hash, "SETTLED_SECONDS", -1.0)
    monkeypatch.setattr(observe, "open_store", counted)
    place = Place(data, kept, opened)
    place.look()
    return place


def write_dataset(data: Path, recordings: int) -> None:
    """SPIRA's layout; a look doesn't decode, so the recordings are their own names."""
    (data / "wav").mkdir(parents=True)
    names = [f"wav/{number:05d}.wav" for number in range(recordings)]
    for name in [*names, "noise.wav"]:
        (data / name).write_bytes(name.encode())
    (data / "noise.csv").write_text("file_path\nnoise.wav\n")
    for part, split in enumerate(("train", "eval", "test")):
        rows = [f"{name},{place % 2}\n" for place, name in enumerate(names[part::3])]
        (data / f"metadata_{split}.csv").write_text("file_path,class\n" + "".join(rows))


def test_where_nothing_moved_no_file_is_opened(place: Place) -> None:
    """The same digest, from a listing."""
    first, _ = place.look()
    again, opened = place.look()
    assert (again, opened) == (first, set())


def test_ten_thousand_recordings_that_did_not_move_cost_a_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property
) -> None:
    """No file of them is opened; how long that takes is printed."""
    write_dataset(tmp_path / "many", MANY)
    place = watched(tmp_path / "many", open_store(tmp_path / "kept"), monkeypatch)
    began = time.monotonic()
    files = observe.data_files(str(place.data), place.kept)
    seconds = time.monotonic() - began
    place.opened.clear()
    _, opened = place.look()
    assert (len(files), opened) == (MANY + 5, set())
    record_property("seconds", seconds)
    print(f"a look at {MANY} unchanged recordings: {seconds:.2f} s")


def test_only_what_moved_is_read(place: Place) -> None:
    """The tables, and the one recording that was replaced."""
    before, _ = place.look()
    (place.data / "wav" / "00003.wav").write_bytes(b"another")
    after, opened = place.look()
    assert after != before
    assert {path for path in opened if path.endswith(".wav")} == {"wav/00003.wav"}


def test_a_change_of_equal_size_with_its_time_set_back_is_seen(place: Place) -> None:
    """What copying tools do: the other time of the file gives it away."""
    before, _ = place.look()
    file = place.data / "wav" / "00003.wav"
    times, content = file.stat(), file.read_bytes()
    file.write_bytes(content[::-1])
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)
    after, _ = place.look()
    assert after != before


def test_a_touched_file_is_no_change(place: Place) -> None:
    """It is read again, and found to be the same."""
    before, _ = place.look()
    (place.data / "wav" / "00003.wav").touch()
    after, opened = place.look()
    assert after == before
    assert "wav/00003.wav" in opened
    assert place.look() == (before, set())


def test_a_file_that_no_table_names_is_no_change(place: Place) -> None:
    """A README, say."""
    before, _ = place.look()
    (place.data / "README").write_text("new")
    assert place.look()[0] == before


def test_files_that_changed_just_now_are_read_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the clock's grain they may change once more, without a trace."""
    monkeypatch.setattr(content_hash, "SETTLED_SECONDS", 3600)
    (place.data / "wav" / "00003.wav").write_bytes(b"one")
    place.look()
    assert "wav/00003.wav" in place.look()[1]


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", '"x"', "{}", '{"uri": 1}', "bytes", "short", "files"])
def test_a_damaged_cache_is_none(place: Place, damage: str) -> None:
    """Everything is read again; the digest is the same, and the cache good once more."""
    before, _ = place.look()
    kept = json.loads(place.kept.read(observe.CACHE))
    broken = {
        "bytes": b"\xff\xfe\x00",
        "short": place.kept.read(observe.CACHE)[:-40],
        "files": json.dumps({**kept, "listing": "", "files": {"wav/00003.wav": [1]}}).encode(),
    }
    place.kept.write(observe.CACHE, broken.get(damage, damage.encode()))
    after, opened = place.look()
    assert after == before
    assert "wav/00003.wav" in opened
    assert place.look() == (before, set())


def test_the_cache_of_another_place_is_none(place: Place, tmp_path: Path) -> None:
    """Equal listings of different folders are not taken for each other."""
    moved = tmp_path / "elsewhere"
    shutil.copytree(place.data, moved)
    before, _ = place.look()
    after, opened = Place(moved, place.kept, place.opened).look()
    assert after == before
    assert "wav/00003.wav" in opened


def test_the_digest_is_that_of_the_corpus(delivered: Path) -> None:
    """So a run can tell whether it trains on what was seen."""
    settings = load(delivered / "delivery.yaml")
    seen = observe.look(settings, open_store(settings.ledger))
    (corpus,) = (delivered / "work" / "state").glob("corpus*/")
    assert isinstance(seen.seen, Axes)
    assert seen.request is not None
    assert seen.request.data_digest == seen.seen.data.digest == Corpus.open(corpus).digest


@pytest.fixture
def settings(place: Place) -> Settings:
    """Of the place, with the code's parts such as nobody edits meanwhile."""
    return Settings(data=str(place.data))


def see(settings: Settings, place: Place) -> Axes | InvalidInput:
    return observe.look(settings, place.kept).seen


def test_half_an_upload_is_unfit_and_heals(place: Place, settings: Settings) -> None:
    """A recording that a table names and that isn't there yet: told by name; there, it is an observation."""
    before = see(settings, place)
    with (place.data / "metadata_train.csv").open("a") as table:
        table.write("wav/late.wav,1\n")
    missing = see(settings, place)
    assert isinstance(missing, InvalidInput)
    assert "wav/late.wav" in missing.problem
    (place.data / "wav" / "late.wav").write_bytes(b"late")
    after = see(settings, place)
    assert isinstance(before, Axes)
    assert isinstance(after, Axes)
    assert after.data.parts.keys() - before.data.parts.keys() == {"wav/late.wav"}


def test_bad_recordings_may_be_left_out(place: Place, settings: Settings) -> None:
    """With ``skip_bad`` a missing one is no reason to wait; and saying so is a change of what is asked for."""
    before = see(settings, place)
    (place.data / "wav" / "00003.wav").unlink()
    assert isinstance(see(settings, place), InvalidInput)
    after = see(settings.model_copy(update={"skip_bad": True}), place)
    assert isinstance(before, Axes)
    assert isinstance(after, Axes)
    assert before.data.parts.keys() - after.data.parts.keys() == {"wav/00003.wav"}
    assert (before.model.parts["skip_bad"], after.model.parts["skip_bad"]) == ("false", "true")


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ({"set": ("training.max_epochs=0",)}, "settings: training.max_epochs"),
        ({"config": "/nowhere.yaml"}, "settings: /nowhere.yaml"),
        ({"gate": "/nowhere.yaml"}, "settings: gate /nowhere.yaml"),
    ],
)
def test_settings_that_are_refused_are_unfit(
    place: Place, settings: Settings, setting: dict[str, object], problem: str
) -> None:
    """By key and file; what serves is looked after meanwhile."""
    unfit = see(settings.model_copy(update=setting), place)
    assert isinstance(unfit, InvalidInput)
    assert unfit.problem.startswith(problem)


def test_comments_and_order_of_settings_are_no_change(place: Place, settings: Settings, tmp_path: Path) -> None:
    """The resolved values are; the same value said twice isn't."""
    files = SimpleNamespace(a=tmp_path / "a.yaml", b=tmp_path / "b.yaml", c=tmp_path / "c.yaml")
    files.a.write_text("model: {channels: 8}\ntraining: {max_epochs: 3}\n")
    files.b.write_text("# the same\ntraining: {max_epochs: 3, warmup_steps: 100}\nmodel: {channels: 8}\n")
    files.c.write_text("model: {channels: 8}\ntraining: {max_epochs: 4}\n")
    seen = [see(settings.model_copy(update={"config": str(file)}), place) for file in vars(files).values()]
    digests = [each.model.digest for each in seen if isinstance(each, Axes)]
    assert digests[0] == digests[1] != digests[2]


def test_the_order_is_for_just_what_was_seen(place: Place, settings: Settings) -> None:
    """Resolved settings and gate, the data's digest: nothing is read again when the run begins."""
    told = observe.look(settings.model_copy(update={"set": ("training.max_epochs=3",)}), place.kept)
    assert isinstance(told.seen, Axes)
    assert told.request is not None
    assert told.request.config.training.max_epochs == 3
    assert told.request.gate.noisy.accuracy == 0.8
    assert told.request.data_digest == told.seen.data.digest
    assert told.seen.code.parts == lineage.code_parts()
