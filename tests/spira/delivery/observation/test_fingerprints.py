"""Mutations of data, settings and code, and the axes that each of them changes."""

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
from spira.delivery.observation.fingerprints import Axes, Change, changes
from spira.delivery.observation.observe import observe
from spira.delivery.settings import Settings
from spira.delivery.settings import load as load_settings
from tests.support import ROOT

pytestmark = pytest.mark.integration

MODEL = "# how it is trained\ntraining:\n  seeds: [1, 2]\n  learning_rate: 0.002\nmodel:\n  channels: 8\n"
CSV = "metadata_train.csv"


class Project:
    """A data set, a settings file and a copy of the code, which a test can change."""

    def __init__(self, folder: Path) -> None:
        self.data, self.model, self.code = folder / "data", folder / "model.yaml", folder / "code"
        self.settings, self.ledger = folder / "delivery.yaml", folder / "ledger"

    def observe(self) -> Axes:
        lineage.clear_caches()
        observed = observe(load_settings(self.settings), open_store(self.ledger)).observed
        assert isinstance(observed, Axes), observed
        return observed

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
def project(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A project before any mutation."""
    project = Project(tmp_path)
    shutil.copytree(demo, project.data)
    project.model.write_text(MODEL)
    project.settings.write_text("data: data\nconfig: model.yaml\n")
    project.code.mkdir()
    for name in ("spira", "components", "pipelines", "tests", "README.md", "requirements.lock"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, project.code / name)
    monkeypatch.setattr(lineage, "ROOT", project.code)
    monkeypatch.delenv("SPIRA_IMAGE_DIGEST", raising=False)
    yield project
    monkeypatch.undo()
    lineage.clear_caches()


def one_byte(project: Project) -> None:
    """Change one byte of a recording; size and modification time stay."""
    status, content = project.recording.stat(), bytearray(project.recording.read_bytes())
    content[-1] ^= 1
    project.recording.write_bytes(content)
    os.utime(project.recording, ns=(status.st_atime_ns, status.st_mtime_ns))


def upload_again(project: Project) -> None:
    """Write the same bytes as a new file."""
    content = project.recording.read_bytes()
    project.recording.unlink()
    project.recording.write_bytes(content)


def rename(project: Project) -> None:
    project.recording.rename(project.recording.with_name("renamed.wav"))
    name = Path(project.row.split(",")[0])
    project.edit(project.data / CSV, str(name), str(name.with_name("renamed.wav")))


def delete(project: Project) -> None:
    row, recording = project.row, project.recording
    project.edit(project.data / CSV, f"{row}\n", "")
    recording.unlink()


def add(project: Project) -> None:
    shutil.copyfile(project.recording, project.recording.with_name("added.wav"))
    name = Path(project.row.split(",")[0])
    project.edit(project.data / CSV, project.row, project.row + "\n" + project.row.replace(name.name, "added.wav"))


def test_two_observations_without_a_change_are_equal(project: Project) -> None:
    assert changes(project.observe().by_name, project.observe().by_name) == []


@pytest.mark.parametrize(
    ("mutate", "kinds"),
    [
        (one_byte, {"changed"}),
        (lambda project: project.recording.touch(), set()),
        (upload_again, set()),
        (lambda project: (project.data / "notes.txt").write_text("in no CSV file"), set()),
        (rename, {"renamed", "changed"}),
        (delete, {"removed", "changed"}),
        (add, {"added", "changed"}),
    ],
)
def test_only_the_content_of_listed_data_is_a_change(
    project: Project, mutate: Callable[[Project], object], kinds: set[str]
) -> None:
    """Recordings count by their content, and the CSV file if its rows changed."""
    before, recording = project.observe(), project.recording
    mutate(project)
    result = changes(before.by_name, project.observe().by_name)
    assert {change.axis for change in result} == ({"data"} if kinds else set())
    assert {change.what for change in result} == kinds
    recordings = {change.name for change in result} - {CSV}
    expected = {recording.name, "renamed.wav", "added.wav"}
    assert {Path(name).name for name in recordings} <= expected
    assert bool(recordings) == bool(kinds)


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
def test_only_resolved_values_of_settings_are_a_change(
    project: Project, old: str, new: str, expected: list[Change]
) -> None:
    """Comments, order and spelling are no change; a changed value is listed before and after."""
    before = project.observe()
    project.edit(project.model, old, new)
    assert changes(before.by_name, project.observe().by_name) == expected


def test_another_gate_is_a_change_of_the_model_axis(project: Project) -> None:
    """A copy of the same gate is no change; another limit is."""
    before = project.observe()
    text = (ROOT / "spira" / "evaluation" / "gate.yaml").read_text()
    (project.settings.parent / "gate.yaml").write_text(text)
    project.edit(project.settings, "config:", "gate: gate.yaml\nconfig:")
    assert changes(before.by_name, project.observe().by_name) == []
    project.edit(project.settings.parent / "gate.yaml", "accuracy: ", "accuracy: 0.5 # ")
    (change,) = changes(before.by_name, project.observe().by_name)
    assert (change.axis, change.name, change.after) == ("model", "gate.noisy.accuracy", "0.5")


@pytest.mark.parametrize(
    ("file", "old", "new", "names"),
    [
        ("spira/features/noise.py", "SILENT_PEAK = 1e-6", "SILENT_PEAK = 1e-7", {"spira/features/noise.py"}),
        ("spira/features/noise.py", '"""', '"""Another docstring. ', set()),
        ("spira/features/noise.py", "import numpy as np\n", "import numpy as np  # arrays\n", set()),
        ("spira/evaluation/gate.yaml", "noisy:", "noisy: ", {"spira/evaluation/gate.yaml"}),
        ("components/train.py", "seed: int", "seed: 'int'", {"components/train.py"}),
        ("tests/conftest.py", "import", "import ", set()),
        ("README.md", "SPIRA", "spira", set()),
        ("requirements.lock", "numpy==", "numpy===", {"requirements.lock"}),
    ],
)
def test_only_code_that_can_change_a_result_is_a_change(
    project: Project, file: str, old: str, new: str, names: set[str]
) -> None:
    """Sources count without comments and docstrings, the lock file by its bytes; tests and the README do not count."""
    before = project.observe()
    project.edit(project.code / file, old, new)
    result = changes(before.by_name, project.observe().by_name)
    assert {change.name for change in result} == names
    assert {change.axis for change in result} <= {"code"}


def test_added_removed_and_renamed_sources_are_named(project: Project) -> None:
    before = project.observe()
    (project.code / "spira" / "new.py").write_text("A = 1\n")
    (project.code / "spira" / "evaluation" / "probes.py").unlink()
    (project.code / "spira" / "features" / "noise.py").rename(project.code / "spira" / "sounds.py")
    assert changes(before.by_name, project.observe().by_name) == [
        Change("code", "removed", "spira/evaluation/probes.py"),
        Change("code", "added", "spira/new.py"),
        Change("code", "renamed", "spira/sounds.py", "spira/features/noise.py", "spira/sounds.py"),
    ]


def test_in_an_image_the_code_is_still_its_sources(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image that is built again has another digest, and the same code."""
    before = project.observe()
    monkeypatch.setenv("SPIRA_IMAGE_DIGEST", "sha256:12")
    assert changes(before.by_name, project.observe().by_name) == []
    project.edit(project.code / "spira" / "features" / "noise.py", "SILENT_PEAK = 1e-6", "SILENT_PEAK = 1e-7")
    (change,) = changes(before.by_name, project.observe().by_name)
    assert (change.axis, change.name) == ("code", "spira/features/noise.py")


def test_the_data_digest_equals_that_of_the_corpus(project: Project, tmp_path: Path) -> None:
    """A run compares the digest of its corpus with that of its training request."""
    from spira.data import corpus

    corpus.build(project.data, tmp_path / "corpus")
    assert corpus.Corpus.open(tmp_path / "corpus").digest == project.observe().data.digest


def test_a_fingerprint_is_the_same_in_another_process(project: Project) -> None:
    """It does not depend on hash seeds, order or caches."""
    code = (
        "import sys; from pathlib import Path; from spira import lineage; lineage.ROOT = Path(sys.argv[2])\n"
        "from spira.delivery.observation.observe import observe; from spira.delivery.settings import load\n"
        "from spira.data.storage import open_store\n"
        "print(observe(load(Path(sys.argv[1])), open_store(sys.argv[3])).observed.fingerprint.digest)"
    )
    arguments = [str(project.settings), str(project.code), str(project.ledger / "other")]
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == project.observe().fingerprint.digest


def test_settings_are_relative_to_their_file(tmp_path: Path) -> None:
    (tmp_path / "delivery.yaml").write_text("data: voices\nwork: out\n")
    settings: Settings = load_settings(tmp_path / "delivery.yaml")
    assert (settings.data, settings.ledger) == (str(tmp_path / "voices"), str(tmp_path / "out" / "ledger"))
