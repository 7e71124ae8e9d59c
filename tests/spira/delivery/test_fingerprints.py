"""The mutation matrix: what is done to data, settings and code, and which axes it changes; nothing else triggers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spira import lineage
from spira.data.storage import open_store
from spira.delivery.fingerprints import Axes, Change, changes
from spira.delivery.observe import look
from spira.delivery.settings import Settings
from spira.delivery.settings import load as load_settings
from tests.support import ROOT

MODEL = "# how it is trained\ntraining:\n  seeds: [1, 2]\n  learning_rate: 0.002\nmodel:\n  channels: 8\n"
CSV = "metadata_train.csv"


class Place:
    """A data set, a settings file and a copy of the code, to change."""

    def __init__(self, folder: Path) -> None:
        self.data, self.model, self.code = folder / "data", folder / "model.yaml", folder / "code"
        self.settings, self.ledger = folder / "delivery.yaml", folder / "ledger"

    def look(self) -> Axes:
        lineage.clear_caches()
        seen = look(load_settings(self.settings), open_store(self.ledger)).seen
        assert isinstance(seen, Axes), seen
        return seen

    @property
    def recording(self) -> Path:
        return self.data / (self.data / CSV).read_text().splitlines()[1].split(",")[0]

    @property
    def row(self) -> str:
        return (self.data / CSV).read_text().splitlines()[1]

    def edit(self, path: Path, old: str, new: str) -> None:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))


@pytest.fixture
def place(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Everything in its first state, looked at once and settled: files are old enough for the cache to trust."""
    made = Place(tmp_path)
    shutil.copytree(demo, made.data)
    made.model.write_text(MODEL)
    made.settings.write_text("data: data\nconfig: model.yaml\n")
    made.code.mkdir()
    for name in ("spira", "components", "pipelines", "tests", "README.md", "requirements.lock"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, made.code / name)
    monkeypatch.setattr(lineage, "ROOT", made.code)
    monkeypatch.delenv("SPIRA_IMAGE_DIGEST", raising=False)
    yield made
    monkeypatch.undo()
    lineage.clear_caches()


def one_byte(place: Place) -> None:
    """Of one recording, size and modification time as before."""
    status, content = place.recording.stat(), bytearray(place.recording.read_bytes())
    content[-1] ^= 1
    place.recording.write_bytes(content)
    os.utime(place.recording, ns=(status.st_atime_ns, status.st_mtime_ns))


def upload_again(place: Place) -> None:
    """The same bytes, as a new file."""
    content = place.recording.read_bytes()
    place.recording.unlink()
    place.recording.write_bytes(content)


def rename(place: Place) -> None:
    place.recording.rename(place.recording.with_name("renamed.wav"))
    name = Path(place.row.split(",")[0])
    place.edit(place.data / CSV, str(name), str(name.with_name("renamed.wav")))


def delete(place: Place) -> None:
    row, recording = place.row, place.recording
    place.edit(place.data / CSV, f"{row}\n", "")
    recording.unlink()


def add(place: Place) -> None:
    shutil.copyfile(place.recording, place.recording.with_name("added.wav"))
    name = Path(place.row.split(",")[0])
    place.edit(place.data / CSV, place.row, place.row + "\n" + place.row.replace(name.name, "added.wav"))


def test_nothing_done_is_nothing_changed(place: Place) -> None:
    """Two looks are equal."""
    assert changes(place.look().axes, place.look().axes) == []


@pytest.mark.parametrize(
    ("mutate", "whats"),
    [
        (one_byte, {"changed"}),
        (lambda place: place.recording.touch(), set()),
        (upload_again, set()),
        (lambda place: (place.data / "notes.txt").write_text("nobody lists me"), set()),
        (rename, {"renamed", "changed"}),
        (delete, {"removed", "changed"}),
        (add, {"added", "changed"}),
    ],
)
def test_data(place: Place, mutate: Callable[[Place], object], whats: set[str]) -> None:
    """By content: of the recordings that moved, and of the CSV where its rows did."""
    before, recording = place.look(), place.recording
    mutate(place)
    found = changes(before.axes, place.look().axes)
    assert {change.axis for change in found} == ({"data"} if whats else set())
    assert {change.what for change in found} == whats
    others = {change.name for change in found} - {CSV}
    named = {recording.name, "renamed.wav", "added.wav"}
    assert {Path(name).name for name in others} <= named
    assert bool(others) == bool(whats)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("# how it is trained", "# a comment of another kind", []),
        ("learning_rate: 0.002", "learning_rate: 2.0e-3", []),
        (MODEL, "model: {channels: 8}\ntraining: {learning_rate: 0.002, seeds: [1, 2]}\n", []),
        (
            "learning_rate: 0.002",
            "learning_rate: 0.001",
            [Change("model", "changed", "training.learning_rate", "0.002", "0.001")],
        ),
        ("seeds: [1, 2]", "seeds: [1, 3]", [Change("model", "changed", "training.seeds", "[1, 2]", "[1, 3]")]),
    ],
)
def test_settings(place: Place, old: str, new: str, expected: list[Change]) -> None:
    """By the resolved values: comments, order and spelling are nothing; a value is told before and after."""
    before = place.look()
    place.edit(place.model, old, new)
    assert changes(before.axes, place.look().axes) == expected


def test_a_gate_is_a_setting(place: Place) -> None:
    """What a model must show decides what serves: another floor is judged anew."""
    before = place.look()
    text = (ROOT / "spira" / "evaluation" / "gate.yaml").read_text()
    (place.settings.parent / "gate.yaml").write_text(text)
    place.edit(place.settings, "config:", "gate: gate.yaml\nconfig:")
    assert changes(before.axes, place.look().axes) == []
    place.edit(place.settings.parent / "gate.yaml", "accuracy: ", "accuracy: 0.5 # ")
    (change,) = changes(before.axes, place.look().axes)
    assert (change.axis, change.name, change.after) == ("model", "gate.noisy.accuracy", "0.5")


@pytest.mark.parametrize(
    ("file", "old", "new", "names"),
    [
        ("spira/features/noise.py", "SILENT_PEAK = 1e-6", "SILENT_PEAK = 1e-7", {"spira/features/noise.py"}),
        ("spira/features/noise.py", '"""Inserting', '"""Putting', set()),
        ("spira/features/noise.py", "import numpy as np\n", "import numpy as np  # arrays\n", set()),
        ("spira/evaluation/gate.yaml", "noisy:", "noisy: ", {"spira/evaluation/gate.yaml"}),
        ("components/train.py", "seed: int", "seed: 'int'", {"components/train.py"}),
        ("tests/conftest.py", "import", "import ", set()),
        ("README.md", "SPIRA", "spira", set()),
        ("requirements.lock", "numpy==", "numpy===", {"requirements.lock"}),
    ],
)
def test_code(place: Place, file: str, old: str, new: str, names: set[str]) -> None:
    """Sources by what they do, the lock file by its bytes; tests, the README and docstrings are no part of it."""
    before = place.look()
    place.edit(place.code / file, old, new)
    found = changes(before.axes, place.look().axes)
    assert {change.name for change in found} == names
    assert {change.axis for change in found} <= {"code"}


def test_a_source_that_comes_or_goes_is_named(place: Place) -> None:
    """Added, removed and renamed modules."""
    before = place.look()
    (place.code / "spira" / "new.py").write_text("A = 1\n")
    (place.code / "spira" / "evaluation" / "probes.py").unlink()
    (place.code / "spira" / "features" / "noise.py").rename(place.code / "spira" / "sounds.py")
    assert changes(before.axes, place.look().axes) == [
        Change("code", "removed", "spira/evaluation/probes.py"),
        Change("code", "added", "spira/new.py"),
        Change("code", "renamed", "spira/sounds.py", "spira/features/noise.py", "spira/sounds.py"),
    ]


def test_an_image_is_its_digest(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a cluster: another digest is another code, a tag is none, and sources count no more."""
    monkeypatch.setenv("SPIRA_IMAGE_DIGEST", "sha256:12")
    before = place.look()
    place.edit(place.code / "spira" / "features" / "noise.py", "SILENT_PEAK = 1e-6", "SILENT_PEAK = 1e-7")
    assert changes(before.axes, place.look().axes) == []
    monkeypatch.setenv("SPIRA_IMAGE_DIGEST", "sha256:13")
    assert [(change.axis, change.name) for change in changes(before.axes, place.look().axes)] == [("code", "image")]


def test_the_data_axis_is_the_corpus_digest(place: Place, tmp_path: Path) -> None:
    """What a run is pinned to is what it compares: one digest in both places."""
    from spira.data import corpus

    corpus.build(place.data, tmp_path / "corpus")
    assert corpus.Corpus.open(tmp_path / "corpus").digest == place.look().data.digest


def test_a_fingerprint_is_the_same_in_another_process(place: Place) -> None:
    """Nothing of it depends on the process: hash seeds, order, caches."""
    code = (
        "import sys; from pathlib import Path; from spira import lineage; lineage.ROOT = Path(sys.argv[2])\n"
        "from spira.delivery.observe import look; from spira.delivery.settings import load\n"
        "from spira.data.storage import open_store\n"
        "print(look(load(Path(sys.argv[1])), open_store(sys.argv[3])).seen.fingerprint.digest)"
    )
    arguments = [str(place.settings), str(place.code), str(place.ledger / "other")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == place.look().fingerprint.digest


def test_settings_know_their_place(tmp_path: Path) -> None:
    """Paths are from the settings file's folder, wherever one stands."""
    (tmp_path / "delivery.yaml").write_text("data: voices\nwork: out\n")
    settings: Settings = load_settings(tmp_path / "delivery.yaml")
    assert (settings.data, settings.ledger) == (str(tmp_path / "voices"), str(tmp_path / "out" / "ledger"))
