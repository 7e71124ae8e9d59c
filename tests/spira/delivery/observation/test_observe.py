"""Observation: by a listing alone if no file has moved, by content if one has."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from spira import lineage
from spira.data import content_hash
from spira.data.corpus import Corpus
from spira.data.storage import Folder, Store, open_store
from spira.delivery.observation import observe
from spira.delivery.observation.fingerprints import Axes, InvalidInput
from spira.delivery.settings import Settings, load

pytestmark = pytest.mark.integration

MANY = 10_000


class Counted(Folder):
    """A folder that records which files were opened."""

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
class ObservedData:
    """A data set, the cache of its hashes, and the files that were opened."""

    folder: Path
    cache: Store
    opened: list[str]

    def observe(self) -> tuple[str, set[str]]:
        """Return the digest, and the files that were opened to compute it."""
        self.opened.clear()
        return content_hash.digest(observe.data_files(str(self.folder), self.cache)), set(self.opened)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObservedData:
    """A small data set that was observed once."""
    write_dataset(tmp_path / "voices", recordings=20)
    return observed_data(tmp_path / "voices", open_store(tmp_path / "cache"), monkeypatch)


def observed_data(folder: Path, cache: Store, monkeypatch: pytest.MonkeyPatch) -> ObservedData:
    """Observe a data set once, and count what is opened from then on; new files count as settled."""
    opened: list[str] = []

    def counted(uri: str) -> Counted:
        store = Counted(Path(uri))
        store.opened = opened
        return store

    monkeypatch.setattr(content_hash, "SETTLED_SECONDS", -1.0)
    monkeypatch.setattr(observe, "open_store", counted)
    data = ObservedData(folder, cache, opened)
    data.observe()
    return data


def write_dataset(folder: Path, recordings: int) -> None:
    """Write SPIRA's layout. An observation decodes nothing, so the content of a recording is its name."""
    (folder / "wav").mkdir(parents=True)
    names = [f"wav/{number:05d}.wav" for number in range(recordings)]
    for name in [*names, "noise.wav"]:
        (folder / name).write_bytes(name.encode())
    (folder / "noise.csv").write_text("file_path\nnoise.wav\n")
    for part, split in enumerate(("train", "eval", "test")):
        rows = [f"{name},{number % 2}\n" for number, name in enumerate(names[part::3])]
        (folder / f"metadata_{split}.csv").write_text("file_path,class\n" + "".join(rows))


def test_no_file_is_opened_if_nothing_has_moved(data: ObservedData) -> None:
    first, _ = data.observe()
    again, opened = data.observe()
    assert (again, opened) == (first, set())


def test_ten_thousand_unchanged_recordings_cost_one_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property
) -> None:
    """The time is printed."""
    write_dataset(tmp_path / "many", MANY)
    data = observed_data(tmp_path / "many", open_store(tmp_path / "cache"), monkeypatch)
    start = time.monotonic()
    files = observe.data_files(str(data.folder), data.cache)
    seconds = time.monotonic() - start
    data.opened.clear()
    _, opened = data.observe()
    assert (len(files), opened) == (MANY + 5, set())
    record_property("seconds", seconds)
    print(f"an observation of {MANY} unchanged recordings: {seconds:.2f} s")


def test_only_moved_files_are_read(data: ObservedData) -> None:
    """These are the CSV files and the replaced recording."""
    before, _ = data.observe()
    (data.folder / "wav" / "00003.wav").write_bytes(b"another")
    after, opened = data.observe()
    assert after != before
    assert {path for path in opened if path.endswith(".wav")} == {"wav/00003.wav"}


def test_a_change_with_the_old_size_and_modification_time_is_detected(data: ObservedData) -> None:
    """Copying tools reset the modification time; the status-change time still differs."""
    before, _ = data.observe()
    file = data.folder / "wav" / "00003.wav"
    times, content = file.stat(), file.read_bytes()
    file.write_bytes(content[::-1])
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)
    after, _ = data.observe()
    assert after != before


def test_a_touched_file_is_no_change(data: ObservedData) -> None:
    """The file is read again and has the same content."""
    before, _ = data.observe()
    (data.folder / "wav" / "00003.wav").touch()
    after, opened = data.observe()
    assert after == before
    assert "wav/00003.wav" in opened
    assert data.observe() == (before, set())


def test_a_file_outside_the_metadata_is_no_change(data: ObservedData) -> None:
    before, _ = data.observe()
    (data.folder / "README").write_text("new")
    assert data.observe()[0] == before


def test_a_file_that_changed_a_moment_ago_is_read_again(data: ObservedData, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may change again within the resolution of the clock."""
    monkeypatch.setattr(content_hash, "SETTLED_SECONDS", 3600)
    (data.folder / "wav" / "00003.wav").write_bytes(b"one")
    data.observe()
    assert "wav/00003.wav" in data.observe()[1]


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", '"x"', "{}", '{"uri": 1}', "bytes", "short", "files"])
def test_a_damaged_cache_is_ignored(data: ObservedData, damage: str) -> None:
    """Everything is read again, and the cache is rewritten."""
    before, _ = data.observe()
    cached = json.loads(data.cache.read(observe.CACHE))
    broken = {
        "bytes": b"\xff\xfe\x00",
        "short": data.cache.read(observe.CACHE)[:-40],
        "files": json.dumps({**cached, "listing": "", "files": {"wav/00003.wav": [1]}}).encode(),
    }
    data.cache.write(observe.CACHE, broken.get(damage, damage.encode()))
    after, opened = data.observe()
    assert after == before
    assert "wav/00003.wav" in opened
    assert data.observe() == (before, set())


def test_a_flipped_bit_in_the_cache_changes_nothing(data: ObservedData) -> None:
    """Whatever it says then, the hashes are those of the files."""
    before, _ = data.observe()
    cached, rng = data.cache.read(observe.CACHE), random.Random(1)
    for _ in range(200):
        content = bytearray(cached)
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        data.cache.write(observe.CACHE, bytes(content))
        after, opened = data.observe()
        assert after == before
        assert "wav/00003.wav" in opened


def test_the_cache_of_another_folder_is_ignored(data: ObservedData, tmp_path: Path) -> None:
    """An equal listing is not enough."""
    moved = tmp_path / "elsewhere"
    shutil.copytree(data.folder, moved)
    before, _ = data.observe()
    after, opened = ObservedData(moved, data.cache, data.opened).observe()
    assert after == before
    assert "wav/00003.wav" in opened


def test_the_data_digest_equals_that_of_the_corpus(delivered: Path) -> None:
    """A run compares the two to detect a change since the observation."""
    settings = load(delivered / "delivery.yaml")
    observation = observe.observe(settings, open_store(settings.ledger))
    (corpus,) = (delivered / "work" / "state").glob("corpus*/")
    assert isinstance(observation.observed, Axes)
    assert observation.request is not None
    assert observation.request.data_digest == observation.observed.data.digest == Corpus.open(corpus).digest


@pytest.fixture
def settings(data: ObservedData) -> Settings:
    """Settings that watch the data set."""
    return Settings(data=str(data.folder), work=str(data.folder.parent / "work"))


def observed(settings: Settings, data: ObservedData) -> Axes | InvalidInput:
    return observe.observe(settings, data.cache).observed


def test_an_incomplete_upload_is_invalid_until_it_is_complete(data: ObservedData, settings: Settings) -> None:
    """The problem has table, row and rule, and no name: it goes into the ledger."""
    before = observed(settings, data)
    with (data.folder / "metadata_train.csv").open("a") as table:
        table.write("wav/late.wav,1\n")
    missing = observed(settings, data)
    assert isinstance(missing, InvalidInput)
    assert "metadata_train.csv, row 9: rec-" in missing.problem
    assert "late" not in missing.problem
    (data.folder / "wav" / "late.wav").write_bytes(b"late")
    after = observed(settings, data)
    assert isinstance(before, Axes)
    assert isinstance(after, Axes)
    assert after.data.parts.keys() - before.data.parts.keys() == {"wav/late.wav"}


def test_skip_bad_accepts_a_missing_recording(data: ObservedData, settings: Settings) -> None:
    """The setting itself is a change of the model axis."""
    before = observed(settings, data)
    (data.folder / "wav" / "00003.wav").unlink()
    assert isinstance(observed(settings, data), InvalidInput)
    after = observed(settings.model_copy(update={"skip_bad": True}), data)
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
def test_invalid_settings_are_invalid_input(
    data: ObservedData, settings: Settings, setting: dict[str, object], problem: str
) -> None:
    """The problem names the key or the file."""
    invalid = observed(settings.model_copy(update=setting), data)
    assert isinstance(invalid, InvalidInput)
    assert invalid.problem.startswith(problem)


def test_comments_and_order_of_settings_are_no_change(data: ObservedData, settings: Settings, tmp_path: Path) -> None:
    """Only the resolved values count; writing a default explicitly is no change."""
    files = SimpleNamespace(a=tmp_path / "a.yaml", b=tmp_path / "b.yaml", c=tmp_path / "c.yaml")
    files.a.write_text("model: {channels: 8}\ntraining: {max_epochs: 3}\n")
    files.b.write_text("# the same\ntraining: {max_epochs: 3, warmup_steps: 100}\nmodel: {channels: 8}\n")
    files.c.write_text("model: {channels: 8}\ntraining: {max_epochs: 4}\n")
    observations = [observed(settings.model_copy(update={"config": str(file)}), data) for file in vars(files).values()]
    digests = [axes.model.digest for axes in observations if isinstance(axes, Axes)]
    assert digests[0] == digests[1] != digests[2]


def test_the_training_request_matches_the_observation(data: ObservedData, settings: Settings) -> None:
    """It holds the resolved settings, the gate and the data digest, so that a run reads no file again."""
    observation = observe.observe(settings.model_copy(update={"set": ("training.max_epochs=3",)}), data.cache)
    assert isinstance(observation.observed, Axes)
    assert observation.request is not None
    assert observation.request.config.training.max_epochs == 3
    assert observation.request.gate.noisy.accuracy == 0.8
    assert observation.request.data_digest == observation.observed.data.digest
    assert observation.observed.code.parts == lineage.code_parts()


def loop(folder: Path) -> None:
    (folder / "wav" / "loop.wav").symlink_to("loop.wav")


def loop_of_two(folder: Path) -> None:
    (folder / "wav" / "a.wav").symlink_to("b.wav")
    (folder / "wav" / "b.wav").symlink_to("a.wav")


def loop_of_folders(folder: Path) -> None:
    (folder / "wav" / "again").symlink_to(".")


def latin_name(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder / "wav") + b"/jo\xe3o.wav")).write_bytes(b"")


def latin_folder(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/jo\xe3o")).mkdir()


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "wav" / "pipe.wav")


def editor_lock(folder: Path) -> None:
    (folder / "wav" / ".#00001.wav").symlink_to("somebody@somewhere.1234")


STRANGE = [loop, loop_of_two, loop_of_folders, latin_name, latin_folder, pipe, editor_lock]


@pytest.mark.parametrize("add", STRANGE)
def test_a_strange_file_that_no_table_names_is_no_change(tmp_path: Path, add: Callable[[Path], None]) -> None:
    """It has no effect on the fingerprint, whatever its name or kind."""
    write_dataset(tmp_path / "voices", recordings=20)
    before = observe.data_files(str(tmp_path / "voices"), open_store(tmp_path / "cache"))
    add(tmp_path / "voices")
    assert content_hash.digest(observe.data_files(str(tmp_path / "voices"), open_store(tmp_path / "cache"))) == (
        content_hash.digest(before)
    )


@pytest.mark.parametrize("row", ["wav/loop.wav,0", "wav/jo\xe3o.wav,0", "wav/pipe.wav,0", "wav/jo\udce3o.wav,0"])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_strange_file_that_a_table_names_is_invalid_input(tmp_path: Path, row: str, encoding: str) -> None:
    """The problem can be printed, written to the ledger and sent, in any encoding."""
    folder = tmp_path / "voices"
    write_dataset(folder, recordings=20)
    for add in (loop, latin_name, pipe):
        add(folder)
    with (folder / "metadata_train.csv").open("ab") as table:
        table.write(f"{row}\n".encode(encoding, errors="surrogateescape"))
    settings = Settings(data=str(folder), work=str(tmp_path / "work"), ledger="", registry="", targets=())
    observed = observe.observe(settings, open_store(tmp_path / "cache")).observed
    assert isinstance(observed, InvalidInput)
    assert observed.problem.isprintable()
    observed.problem.encode()
