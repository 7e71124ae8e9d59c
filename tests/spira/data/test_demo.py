"""The synthetic data set: layout, sound, reproducibility, and replacement of an older one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from spira.data.demo import NOISES, PIECES, DemoError, _readings, _speakers, make_demo
from spira.data.metadata import read_dataset

pytestmark = pytest.mark.integration

SMALLEST = {"speakers": 6, "recordings_per_speaker": 1}


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def floor_dbfs(path: Path) -> float:
    """Return the level of the quietest twentieth of 20 ms frames: the background between words."""
    frames, rate_hz = soundfile.read(path, always_2d=True)
    size = rate_hz // 50
    framed = frames[: len(frames) // size * size, 0].reshape(-1, size)  # [frames, samples]
    return 20 * float(np.log10(np.percentile(np.sqrt((framed**2).mean(axis=1)), 5)))


@pytest.fixture(scope="module")
def smallest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_demo(tmp_path_factory.mktemp("data") / "smallest", **SMALLEST)


def test_the_demo_is_a_valid_data_set(demo: Path) -> None:
    """The project's own validation accepts it, with both classes in every split."""
    dataset = read_dataset(demo)
    classes = dataset.recordings.groupby("split")["class"].value_counts().unstack()
    assert classes.to_dict("index") == {"train": {0: 6, 1: 6}, "eval": {0: 2, 1: 2}, "test": {0: 4, 1: 4}}
    assert list(dataset.recordings.columns) == ["file_path", "class", "split", "speaker", "sex", "age"]
    assert len(dataset.noises) == NOISES


def test_no_speaker_is_in_two_splits(demo: Path) -> None:
    """Each voice has one split and one class."""
    recordings = read_dataset(demo).recordings
    assert recordings["speaker"].nunique() == 12
    assert (recordings.groupby("speaker")[["split", "class"]].nunique() == 1).all(axis=None)


def test_recordings_have_the_documented_format(demo: Path) -> None:
    """16-bit PCM of 5 to 11 s, unclipped; every noise is longer than any recording."""
    recorded = [soundfile.info(path) for path in (demo / "recordings").rglob("*.wav")]
    noises = [soundfile.info(path) for path in (demo / "noise").glob("*.wav")]
    assert {info.subtype for info in recorded + noises} == {"PCM_16"}
    assert 5 <= min(info.duration for info in recorded) <= max(info.duration for info in recorded) <= 11
    assert all(20 <= info.duration <= 30 for info in noises)
    assert all(np.abs(soundfile.read(path)[0]).max() < 1 for path in demo.rglob("*.wav"))


def test_formats_do_not_reveal_the_class(demo: Path) -> None:
    """Sample rates and channels are mixed alike in both classes."""
    recordings = read_dataset(demo).recordings
    infos = [soundfile.info(demo / path) for path in recordings["file_path"]]
    recordings["format"] = [f"{info.samplerate} Hz, {info.channels}" for info in infos]
    counts = recordings.groupby("format")["class"].value_counts().unstack()
    assert set(counts.index) == {"16000 Hz, 1", "44100 Hz, 2", "8000 Hz, 1"}
    assert (counts[0] == counts[1]).all()


def test_ward_noise_reveals_the_class(demo: Path) -> None:
    """Only patients have ward noise, so the quiet moments alone separate the classes: a planted shortcut."""
    recordings = read_dataset(demo).recordings
    floors = pd.Series([floor_dbfs(demo / path) for path in recordings["file_path"]])
    assert floors[recordings["class"] == 0].max() < floors[recordings["class"] == 1].min() - 3


@given(seed=st.integers(0, 2**32), speakers=st.integers(6, 60))
def test_readings_are_complete_for_any_numbers(seed: int, speakers: int) -> None:
    """Every reading is the whole sentence, and every split has both classes."""
    readings = _readings(_speakers(speakers, seed), 1, seed)
    sentence = " ".join(PIECES)
    assert all(" ".join(reading.groups).replace(",", "").rstrip(".") == sentence for reading in readings)
    cells = {(reading.speaker.split, reading.speaker.label) for reading in readings}
    assert cells == {(split, label) for split in ("train", "eval", "test") for label in (0, 1)}


def test_patients_breathe_more_often_but_classes_overlap() -> None:
    """Breath groups separate the classes well, but not perfectly."""
    readings = _readings(_speakers(200, 0), 3, 0)
    control, patient = ([len(r.groups) for r in readings if r.speaker.label == label] for label in (0, 1))
    assert np.mean(patient) > np.mean(control) + 1.5
    assert max(control) > min(patient)


def test_the_same_seed_gives_the_same_bytes_in_another_process(smallest: Path, tmp_path: Path) -> None:
    """The data set is a function of its numbers."""
    code = f"from pathlib import Path; import spira.data.demo as d; d.make_demo(Path('again'), **{SMALLEST})"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert contents(smallest) == contents(tmp_path / "again")


def test_another_seed_gives_another_data_set(smallest: Path, tmp_path: Path) -> None:
    """The data sets of two seeds share no recording and no noise."""
    other = make_demo(tmp_path / "other", seed=1, **SMALLEST)
    sounds = [{data for name, data in contents(root).items() if name.endswith(".wav")} for root in (smallest, other)]
    assert len(sounds[0]) == len(sounds[1]) == 6 + NOISES
    assert not sounds[0] & sounds[1]


def test_the_demo_is_labelled_as_synthetic(smallest: Path) -> None:
    """The README, the marker file and every WAV do."""
    assert "SYNTHETIC" in (smallest / "README.txt").read_text()
    assert json.loads((smallest / "demo.json").read_text())["synthetic"] is True
    for path in smallest.rglob("*.wav"):
        with soundfile.SoundFile(path) as file:
            assert "SYNTHETIC" in file.comment


def test_a_complete_demo_is_kept_and_a_damaged_one_replaced(tmp_path: Path) -> None:
    """A demo with a missing file, or of other numbers, is generated again."""
    calls: list[tuple[int, int]] = []
    root = tmp_path / "demo"
    make_demo(root, **SMALLEST, progress=lambda done, total: calls.append((done, total)))
    first = contents(root)
    assert calls == [(done, 6 + NOISES) for done in range(1, 7 + NOISES)]
    make_demo(root, **SMALLEST, progress=lambda done, total: pytest.fail("generated again"))
    (root / "noise" / "ward_0.wav").unlink()
    make_demo(root, **SMALLEST)
    assert contents(root) == first
    make_demo(root, seed=1, **SMALLEST)
    assert contents(root) != first
    assert list(tmp_path.iterdir()) == [root]


def test_an_interrupted_generation_leaves_no_files(tmp_path: Path) -> None:
    """The folder appears complete or not at all."""

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_demo(tmp_path / "demo", **SMALLEST, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    """A demo does not replace the user's files."""
    (tmp_path / "thesis.txt").write_text("years")
    with pytest.raises(DemoError, match="not a demo data set: name another folder"):
        make_demo(tmp_path, **SMALLEST)
    assert contents(tmp_path) == {"thesis.txt": b"years"}


@pytest.mark.parametrize(
    ("numbers", "rule"),
    [
        ({"seed": -1}, "must not be negative"),
        ({"speakers": 5}, "5 speakers: .* ask for 6"),
        ({"recordings_per_speaker": 0}, "must be at least 1"),
    ],
)
def test_bad_numbers_are_refused(tmp_path: Path, numbers: dict[str, int], rule: str) -> None:
    """The message names the rule, and no file is written."""
    with pytest.raises(DemoError, match=rule):
        make_demo(tmp_path / "demo", **numbers)
    assert list(tmp_path.iterdir()) == []


def test_a_platform_without_espeak_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the missing library and the remedy; no file is left."""
    package = tmp_path / "odd_platform"
    package.mkdir()
    (package / "espeakng_loader.py").write_text("def get_library_path(): return '/absent/libespeak-ng.so'\n")
    monkeypatch.setenv("PYTHONPATH", str(package))
    with pytest.raises(DemoError, match=r"espeakng-loader has no library .*give your own recordings"):
        make_demo(tmp_path / "demo", **SMALLEST)
    assert list(tmp_path.iterdir()) == [package]
