"""Metadata: what is accepted, what is refused and in which words, and how an unsplit data set is split."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spira.config import Preprocess
from spira.data.metadata import DataError, read_dataset
from tests.support import bad_datasets as bad_input


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return bad_input.make(tmp_path / "data")


def test_real_voices(spoken_digits: Path) -> None:
    """The shared data set is read whole: 160, 40 and 60 recordings, and its optional columns."""
    data = read_dataset(spoken_digits)
    assert data.recordings["split"].value_counts().to_dict() == {"train": 160, "test": 60, "eval": 40}
    assert list(data.recordings) == ["file_path", "class", "split", "speaker", "accent"]
    assert len(data.noises) == 8


@pytest.mark.parametrize("name", bad_input.METADATA)
def test_bad_metadata_is_refused(name: str, dataset: Path) -> None:
    """Each way to break the metadata is refused by file, row and rule."""
    spoil, words = bad_input.METADATA[name]
    spoil(dataset)
    with pytest.raises(DataError) as refusal:
        read_dataset(dataset)
    assert words in str(refusal.value)


def test_all_problems_at_once(dataset: Path) -> None:
    """Unrelated problems of several files come in one message."""
    names = ("unknown class", "missing noise", "speaker in two splits")
    for name in names:
        bad_input.METADATA[name][0](dataset)
    with pytest.raises(DataError) as refusal:
        read_dataset(dataset)
    assert [words for words in (bad_input.METADATA[name][1] for name in names) if words not in str(refusal.value)] == []


def test_first_twenty_problems_are_shown(dataset: Path) -> None:
    """A hundred problems are counted, twenty are shown."""
    rows = "".join(f"nowhere/{i}.wav,0,s{i},\n" for i in range(100))
    bad_input.write(dataset, "metadata_train.csv", f"file_path,class,speaker,age\n{rows}")
    with pytest.raises(DataError) as refusal:
        read_dataset(dataset)
    lines = str(refusal.value).splitlines()
    assert (len(lines), lines[-1], len(refusal.value.problems)) == (21, "and 80 more", 100)


def test_published_layout(dataset: Path) -> None:
    """CSVs in SPIRA_Dataset_V2, paths from the root or their own folder, noises in Ruidos-Hospitalares."""
    home = dataset / "SPIRA_Dataset_V2"
    home.mkdir()
    for name in ("metadata_train.csv", "metadata_eval.csv", "metadata_test.csv", "train"):
        (dataset / name).rename(home / name)
    bad_input.write(dataset, "Ruidos-Hospitalares/noise_data.csv", "file_path\nward.wav\n")
    (dataset / "noise.csv").unlink()
    paths = list(read_dataset(dataset).recordings["file_path"])
    assert [path for path in paths if "/0" in path and "eval" in path] == ["eval/00.wav", "eval/01.wav"]
    assert "SPIRA_Dataset_V2/train/00.wav" in paths


def test_spreadsheet_export(dataset: Path) -> None:
    """A byte order mark, Windows line ends, quotes and spaces around cells are no problem."""
    text = '\ufefffile_path , class\r\n"train/00.wav", 0\r\n train/10.wav,1 \r\n'
    for split in ("train", "eval", "test"):
        bad_input.write(dataset, f"metadata_{split}.csv", text.replace("train", split))
    assert list(read_dataset(dataset).recordings["class"]) == [0, 1] * 3


def unsplit(root: Path, speakers: dict[str, str]) -> Path:
    """A data set of one metadata.csv: speaker -> the classes of its recordings."""
    rows = [(f"{name}_{i}.wav", label, name) for name, labels in speakers.items() for i, label in enumerate(labels)]
    for path, _, _ in rows:
        bad_input.write(root, path, b"")
    pd.DataFrame(rows, columns=["file_path", "class", "speaker"]).to_csv(root / "metadata.csv", index=False)
    bad_input.write(root, "noise.csv", "file_path\nward.wav\n")
    bad_input.write(root, "ward.wav", b"")
    return root


def test_split_by_speaker(tmp_path: Path) -> None:
    """Of 20 speakers a class a quarter is for the test, 15 % for validation, in each class alike."""
    root = unsplit(tmp_path, {f"{label}{i:02}": label * 3 for label in "01" for i in range(20)})
    recordings = read_dataset(root).recordings
    counts = recordings.groupby(["split", "class"])["speaker"].nunique().to_dict()
    assert counts == {
        ("train", 0): 12,
        ("train", 1): 12,
        ("eval", 0): 3,
        ("eval", 1): 3,
        ("test", 0): 5,
        ("test", 1): 5,
    }


def test_split_is_decided_by_its_seed(tmp_path: Path) -> None:
    """The same seed gives the same split, another seed another, and the order of the rows plays no part."""
    root = unsplit(tmp_path, {f"{label}{i:02}": label for label in "01" for i in range(20)})

    def split(seed: int) -> dict[str, str]:
        recordings = read_dataset(root, Preprocess(split_seed=seed)).recordings
        return dict(zip(recordings["file_path"], recordings["split"], strict=True))

    before = split(0)
    assert split(1) != before
    pd.read_csv(root / "metadata.csv", dtype=str).iloc[::-1].to_csv(root / "metadata.csv", index=False)
    assert split(0) == before


def test_training_speakers_stay_out_of_the_test_as_data_grows(tmp_path: Path) -> None:
    """Five more speakers to forty move none from training into the test."""
    few = {f"{label}{i:02}": label for label in "01" for i in range(40)}
    before = read_dataset(unsplit(tmp_path / "few", few)).recordings
    after = read_dataset(unsplit(tmp_path / "more", few | {f"0new{i}": "0" for i in range(5)})).recordings
    trained = set(before["speaker"][before["split"] == "train"])
    assert not trained & set(after["speaker"][after["split"] == "test"])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["0", "1", "01", "0011"]), min_size=8, max_size=30), st.integers(0, 5))
def test_no_speaker_in_two_splits(tmp_path_factory: pytest.TempPathFactory, labels: list[str], seed: int) -> None:
    """Whatever the speakers: a split is refused, or speaker-disjoint with both classes everywhere."""
    speakers = {f"s{i}": classes for i, classes in enumerate(labels)}
    root = unsplit(tmp_path_factory.mktemp("split"), speakers)
    try:
        recordings = read_dataset(root, Preprocess(split_seed=seed)).recordings
    except DataError as refusal:
        assert "class" in str(refusal)  # noqa: PT017  # refusing is one of the two right answers
        return
    assert recordings.groupby("speaker")["split"].nunique().max() == 1
    assert len(recordings.groupby(["split", "class"])) == 6
    assert len(recordings) == sum(map(len, labels))


def test_unsplit_needs_speakers(tmp_path: Path) -> None:
    """Without a speaker column nothing is split, and the message says what to do."""
    root = unsplit(tmp_path, {"a": "01"})
    bad_input.write(root, "metadata.csv", "file_path,class\na_0.wav,0\na_1.wav,1\n")
    with pytest.raises(DataError, match=r"column speaker is missing.*Add it, or give the splits"):
        read_dataset(root)


def test_too_few_speakers_to_split(tmp_path: Path) -> None:
    """Two speakers of a class can't fill three splits."""
    root = unsplit(tmp_path, {"a": "0", "b": "0", "c": "0", "d": "1", "e": "1"})
    with pytest.raises(DataError, match="class 1 has 2 speakers"):
        read_dataset(root)
