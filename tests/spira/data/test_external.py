"""External test sets: splits of their own, which change nothing of training and the frozen test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spira import digests
from spira.config import Preprocess
from spira.data.corpus import FILES, MEASURES, Corpus, build
from spira.data.metadata import DataError, is_external_table, read_dataset
from spira.data.pseudonyms import Pseudonyms
from spira.data.quality import SkippedRecording
from spira.data.upload import upload
from tests.support import bad_datasets

NORTH = "metadata_test_north.csv"
SETTINGS = Preprocess(max_seconds=10)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A data set with one external test set."""
    return bad_datasets.add_external(bad_datasets.make(tmp_path / "data"))


def corpus_of(dataset: Path, out: Path, skip_bad: bool = False) -> Corpus:
    build(dataset, out, SETTINGS, skip_bad)
    return Corpus.open(out)


def test_an_external_set_is_a_split_of_its_own(dataset: Path, tmp_path: Path) -> None:
    """It has its recordings, its quality and its warnings; the other splits have the same rows and waveforms."""
    corpus = corpus_of(dataset, tmp_path / "with")
    for path in (dataset / NORTH, *(dataset / "north").iterdir()):
        path.unlink()
    without = corpus_of(dataset, tmp_path / "without")
    assert (corpus.external, without.external) == (("test_north",), ())
    assert list(corpus.split("test_north").table["file_path"]) == [
        f"north/{name}.wav" for name in ("00", "01", "10", "11")
    ]
    assert corpus.quality.splits["test_north"].classes == {"0": 2, "1": 2}
    assert [warning for warning in corpus.quality.warnings if warning.startswith("test_north: ")]
    for split in ("train", "eval", "test"):
        pd.testing.assert_frame_equal(corpus.split(split).table, without.split(split).table)
        assert (corpus.split(split).waveform(3) == without.split(split).waveform(3)).all()
    assert corpus.digest != without.digest


def test_the_digest_without_external_sets_is_that_of_earlier_versions(tmp_path: Path) -> None:
    """The digest was computed by the version before external sets."""
    corpus = corpus_of(bad_datasets.make(tmp_path / "data"), tmp_path / "corpus")
    assert corpus.digest == "acdfe335d2f27044e0c51d3625419a0a4b3804fe041762c9e5ca4d06a90ebfa3"


def test_an_unsplit_data_set_is_split_as_without_external_sets(dataset: Path) -> None:
    """The rows of an external table move no speaker."""
    rows = "".join(
        f"{split}/{c}{s}.wav,{c},{split}{c}{s},\n"
        for split in ("train", "eval", "test")
        for c in (0, 1)
        for s in (0, 1)
    )
    for split in ("train", "eval", "test"):
        (dataset / f"metadata_{split}.csv").unlink()
    bad_datasets.write(dataset, "metadata.csv", "file_path,class,speaker,age\n" + rows)
    table = read_dataset(dataset).recordings
    (dataset / NORTH).unlink()
    expected = read_dataset(dataset).recordings
    pd.testing.assert_frame_equal(table[table["split"] != "test_north"], expected)
    assert len(table) - len(expected) == 4


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "training speaker": (
        bad_datasets.replace(NORTH, "north00", "Train00"),
        f"{NORTH}, row 2: speaker 'Train00' is in the test_north split and, by metadata_train.csv, row 2, in the train",
    ),
    "validation speaker": (bad_datasets.replace(NORTH, "north00", "eval00"), "in the eval split"),
    "training recording": (
        bad_datasets.replace(NORTH, "north/00.wav", "train/00.wav"),
        "is already in metadata_train.csv",
    ),
    "one class only": (
        bad_datasets.put(NORTH, "file_path,class,speaker,age\nnorth/00.wav,0,a,\n"),
        "the test_north split has no recording of class 1 (patient)",
    ),
    "name with an accent": (
        lambda root: (root / NORTH).rename(root / "metadata_test_são.csv"),
        "metadata_test_são.csv: an external test set is named by 1 to 40 letters without accents",
    ),
    "in both folders": (
        bad_datasets.put(f"SPIRA_Dataset_V2/{NORTH}", "file_path,class\n"),
        f"both SPIRA_Dataset_V2/{NORTH} and {NORTH} exist",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_broken_external_set_is_refused(name: str, dataset: Path) -> None:
    """The message names file, row and rule."""
    damage, words = REFUSED[name]
    damage(dataset)
    with pytest.raises(DataError) as error:
        read_dataset(dataset)
    assert words in str(error.value)


def test_a_speaker_of_the_frozen_test_may_be_in_an_external_set(dataset: Path) -> None:
    """Such as the same voice through another microphone; neither was trained on."""
    bad_datasets.replace(NORTH, "north00", "test00")(dataset)
    assert "test00" in set(read_dataset(dataset).recordings.query("split == 'test_north'")["speaker"])


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_same_audio_is_refused_in_the_external_set(split: str, dataset: Path, tmp_path: Path) -> None:
    """Training and the frozen test keep their copy."""
    (dataset / "north/00.wav").write_bytes((dataset / f"{split}/00.wav").read_bytes())
    with pytest.raises(DataError, match=f"{NORTH}, row 2: north/00.wav holds the same audio .* of the {split} split"):
        build(dataset, tmp_path / "corpus", SETTINGS)
    corpus = corpus_of(dataset, tmp_path / "corpus", skip_bad=True)
    assert [skipped.file_path for skipped in corpus.quality.skipped] == ["north/00.wav"]
    assert len(corpus.split(split)) == 4


def test_a_long_external_recording_costs_no_noise(dataset: Path, tmp_path: Path) -> None:
    """It is refused itself, and training keeps its noises."""
    bad_datasets.write(dataset, "north/00.wav", bad_datasets.wav_bytes(bad_datasets.voice(50, seconds=3.0)))
    corpus = corpus_of(dataset, tmp_path / "corpus", skip_bad=True)
    (skipped,) = corpus.quality.skipped
    assert (skipped.rule, skipped.reason, skipped.label) == (
        "lasts 3.0 s, longer than the shortest noise (2.0 s): a slice as long as it cannot be cut from the noise",
        "too long",
        0,
    )
    assert len(corpus.noises) == 1


def test_an_upload_has_the_external_sets(dataset: Path, gs_bucket: str) -> None:
    """The bucket holds the same data set, by its digest."""
    summary = upload(dataset, gs_bucket)
    assert summary.files == 17 + 5
    assert set(read_dataset(gs_bucket).recordings["split"]) == {"train", "eval", "test", "test_north"}


@given(name=st.text(alphabet=st.characters(max_codepoint=0x17F), max_size=45))
def test_the_name_of_a_table_is_shown_only_if_it_is_one(name: str) -> None:
    """Where names are hidden, a path that no table has is a pseudonym."""
    path = f"metadata_test_{name}.csv"
    hidden = Pseudonyms(lambda: "k" * 16).file(path)
    assert (hidden == path) == is_external_table(path)


def test_measures_belong_to_the_recordings_of_the_index(dataset: Path, tmp_path: Path) -> None:
    """The sample rate is that of the file; a corpus of an earlier version has none."""
    content = bad_datasets.wav_bytes(bad_datasets.voice(7, rate=8_000), rate=8_000)
    bad_datasets.write(dataset, "train/10.wav", content)
    corpus = corpus_of(dataset, tmp_path / "corpus")
    assert corpus.measures is not None
    assert list(corpus.measures["file_path"]) == list(corpus.index["file_path"])
    rates = corpus.measures.set_index("file_path")["sample_rate"]
    assert rates[rates == 8_000].index.tolist() == ["train/10.wav"]
    assert sorted(path.name for path in (tmp_path / "corpus").iterdir()) == sorted([*FILES, digests.FILE])
    for name in (MEASURES, digests.FILE):
        (tmp_path / "corpus" / name).unlink()
    assert Corpus.open(tmp_path / "corpus").measures is None


@pytest.mark.parametrize(
    ("name", "reason"),
    {
        "no bytes": "empty",
        "not audio": "cannot be read",
        "silent": "silent",
        "clipped": "clipped",
        "too short": "too short",
        "too long": "too long",
        "sample rate too low": "sample rate is out of range",
        "truncated WAV": "cut off",
    }.items(),
)
def test_the_reason_of_a_refusal_has_no_number(name: str, reason: str, dataset: Path, tmp_path: Path) -> None:
    """Recordings are counted by it; the class is that of the tables."""
    bad_datasets.write(dataset, "train/10.wav", bad_datasets.AUDIO[name][0])
    (skipped,) = corpus_of(dataset, tmp_path / "corpus", skip_bad=True).quality.skipped
    assert (skipped.reason, skipped.label) == (reason, 1)


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("was not found in the data set (links out of it are not followed): add the file", "file is missing"),
        ("holds the same audio as a.csv, row 2 under the other class: one of", "same audio under the other class"),
        ("holds the same audio as a.csv, row 2 of the test split: training", "same audio in another split"),
        ("noise of 1.0 s is shorter than the longest recording (2.0 s)", "noise is too short"),
        ("lasts more than the 10 s allowed", "too long"),
    ],
)
def test_reasons_of_relations_between_files(rule: str, reason: str) -> None:
    """A missing file, copies, and a noise that is too short."""
    assert SkippedRecording(file_path="a", split="train", where="", rule=rule, message="").reason == reason
