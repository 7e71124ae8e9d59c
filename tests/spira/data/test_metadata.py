"""Metadata: accepted layouts, messages for broken ones, and the split of an unsplit data set."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spira.config import Preprocess
from spira.data.metadata import DataError, read_dataset
from tests.support import bad_datasets


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return bad_datasets.make(tmp_path / "data")


def test_the_shared_data_set_is_read(spoken_digits: Path) -> None:
    """All recordings of its three splits, and its optional columns."""
    data = read_dataset(spoken_digits)
    assert data.recordings["split"].value_counts().to_dict() == {"train": 160, "test": 60, "eval": 40}
    assert list(data.recordings) == ["file_path", "class", "split", "speaker", "accent"]
    assert len(data.noises) == 8


@pytest.mark.parametrize("name", bad_datasets.METADATA)
def test_bad_metadata_is_refused(name: str, dataset: Path) -> None:
    """The message names file, row and rule."""
    damage, words = bad_datasets.METADATA[name]
    damage(dataset)
    with pytest.raises(DataError) as error:
        read_dataset(dataset)
    assert words in str(error.value)


def test_all_problems_are_reported_at_once(dataset: Path) -> None:
    """Unrelated problems of several files are in one message."""
    names = ("unknown class", "missing noise", "speaker in two splits")
    for name in names:
        bad_datasets.METADATA[name][0](dataset)
    with pytest.raises(DataError) as error:
        read_dataset(dataset)
    assert [
        words for words in (bad_datasets.METADATA[name][1] for name in names) if words not in str(error.value)
    ] == []


def test_a_message_lists_at_most_twenty_problems(dataset: Path) -> None:
    """The others are counted."""
    rows = "".join(f"nowhere/{i}.wav,0,s{i},\n" for i in range(100))
    bad_datasets.write(dataset, "metadata_train.csv", f"file_path,class,speaker,age\n{rows}")
    with pytest.raises(DataError) as error:
        read_dataset(dataset)
    lines = str(error.value).splitlines()
    assert (len(lines), lines[-1], len(error.value.problems)) == (21, "and 80 more", 100)


def test_the_published_layout_is_read(dataset: Path) -> None:
    """The CSVs are in SPIRA_Dataset_V2, paths are relative to the root or to that folder."""
    home = dataset / "SPIRA_Dataset_V2"
    home.mkdir()
    for name in ("metadata_train.csv", "metadata_eval.csv", "metadata_test.csv", "train"):
        (dataset / name).rename(home / name)
    bad_datasets.write(dataset, "Ruidos-Hospitalares/noise_data.csv", "file_path\nward.wav\n")
    (dataset / "noise.csv").unlink()
    paths = list(read_dataset(dataset).recordings["file_path"])
    assert [path for path in paths if "/0" in path and "eval" in path] == ["eval/00.wav", "eval/01.wav"]
    assert "SPIRA_Dataset_V2/train/00.wav" in paths


def test_a_spreadsheet_export_is_read(dataset: Path) -> None:
    """With a byte order mark, Windows line ends, quotes, and spaces around cells."""
    text = '\ufefffile_path , class\r\n"train/00.wav", 0\r\n train/10.wav,1 \r\n'
    for split in ("train", "eval", "test"):
        bad_datasets.write(dataset, f"metadata_{split}.csv", text.replace("train", split))
    assert list(read_dataset(dataset).recordings["class"]) == [0, 1] * 3


def test_a_note_of_several_lines_is_read(dataset: Path) -> None:
    """A line break inside quotes belongs to the cell, as Excel writes it."""
    text = 'file_path,class,speaker,note\ntrain/00.wav,0,a,"slow,\nwith pauses"\ntrain/10.wav,1,b,\n'
    bad_datasets.write(dataset, "metadata_train.csv", text)
    notes = read_dataset(dataset).recordings["note"]
    assert list(notes)[:2] == ["slow,\nwith pauses", ""]


def unsplit(root: Path, speakers: dict[str, str]) -> Path:
    """Write a data set of one metadata.csv. Argument: speaker -> the classes of its recordings."""
    rows = [(f"{name}_{i}.wav", label, name) for name, labels in speakers.items() for i, label in enumerate(labels)]
    for path, _, _ in rows:
        bad_datasets.write(root, path, b"")
    pd.DataFrame(rows, columns=["file_path", "class", "speaker"]).to_csv(root / "metadata.csv", index=False)
    bad_datasets.write(root, "noise.csv", "file_path\nward.wav\n")
    bad_datasets.write(root, "ward.wav", b"")
    return root


def test_each_class_is_split_by_speaker(tmp_path: Path) -> None:
    """Of 20 speakers of each class, a quarter is for the test and 15 % for validation."""
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


def test_the_split_depends_on_its_seed_alone(tmp_path: Path) -> None:
    """The same seed gives the same split for rows in any order; another seed gives another split."""
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


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["0", "1", "01", "0011"]), min_size=8, max_size=30), st.integers(0, 5))
def test_no_speaker_in_two_splits(tmp_path_factory: pytest.TempPathFactory, labels: list[str], seed: int) -> None:
    """For any speakers, a split is refused, or it is speaker-disjoint with both classes in every part."""
    speakers = {f"s{i}": classes for i, classes in enumerate(labels)}
    root = unsplit(tmp_path_factory.mktemp("split"), speakers)
    try:
        recordings = read_dataset(root, Preprocess(split_seed=seed)).recordings
    except DataError as error:
        assert "class" in str(error)  # noqa: PT017  # refusing is one of the two right answers
        return
    assert recordings.groupby("speaker")["split"].nunique().max() == 1
    assert len(recordings.groupby(["split", "class"])) == 6
    assert len(recordings) == sum(map(len, labels))


def test_an_unsplit_data_set_needs_a_speaker_column(tmp_path: Path) -> None:
    """The message names the remedy."""
    root = unsplit(tmp_path, {"a": "01"})
    bad_datasets.write(root, "metadata.csv", "file_path,class\na_0.wav,0\na_1.wav,1\n")
    with pytest.raises(DataError, match=r"column speaker is missing.*Add it, or give the splits"):
        read_dataset(root)


def test_too_few_speakers_to_split_are_refused(tmp_path: Path) -> None:
    """Two speakers of a class cannot fill three splits."""
    root = unsplit(tmp_path, {"a": "0", "b": "0", "c": "0", "d": "1", "e": "1"})
    with pytest.raises(DataError, match="class 1 has 2 speakers"):
        read_dataset(root)
