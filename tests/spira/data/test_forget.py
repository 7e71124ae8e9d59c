"""A person whose consent was withdrawn is in no file of the data set and the work folder any more."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from spira import digests
from spira.cli.main import app
from spira.data import corpus as corpora
from spira.data import forget
from spira.data.metadata import read_dataset
from spira.data.storage import Store, open_store
from spira.errors import SpiraError


@pytest.fixture
def voices(dataset: Path, tmp_path: Path) -> Path:
    """A data set that a test may change."""
    shutil.copytree(dataset, tmp_path / "voices")
    return tmp_path / "voices"


def test_recordings_and_rows_are_removed_and_no_other_byte(voices: Path):
    """Rows that stay keep their bytes: quotes, line ends, a byte order mark, blank lines, breaks in a cell."""
    table = voices / "metadata_train.csv"
    head = b"\xef\xbb\xbffile_path,class,speaker,note\r\n"
    kept = [b'train_0_0.wav,0,train0,"two\nlines, ""quoted"""\r\n', b"train_0_1.wav,0, train0 ,\r\n"]
    kept += [b"train_3_0.wav,1,train3,\x0b x\r\n"]
    gone = [b'train_1_0.wav,1,TRAIN1,"a\r\nb"\r\n', b"\r\ntrain_1_1.wav,1, train1,\r\n"]
    table.write_bytes(head + kept[0] + gone[0] + kept[1] + gone[1] + kept[2])
    removal = forget.find(voices, "Train1", None)
    assert (removal.rows, [entry.path for entry in removal.recordings]) == (2, ["train_1_0.wav", "train_1_1.wav"])
    forget.remove(removal)
    assert table.read_bytes() == head + b"".join(kept)
    assert {path.name for path in voices.glob("train_1*")} == set()
    assert (voices / "train_2_0.wav").is_file()
    with pytest.raises(SpiraError, match="no row of its tables"):
        forget.find(voices, "train1", None)


def test_a_recording_can_be_named_where_speakers_are_not_known(voices: Path):
    """SPIRA's own tables have no column of speakers."""
    for table in voices.glob("metadata_*.csv"):
        pd.read_csv(table).drop(columns="speaker").to_csv(table, index=False)
    forget.remove(forget.find(voices, "test_0_0.wav", None))
    assert "test_0_0.wav" not in (voices / "metadata_test.csv").read_text()
    assert not (voices / "test_0_0.wav").exists()
    assert len(read_dataset(voices).recordings) == 23


def test_an_interrupted_removal_is_repeated(voices: Path):
    """The rows go last, so they still say what to remove."""
    removal = forget.find(voices, "train1", None)
    (voices / removal.recordings[0].path).unlink()
    again = forget.find(voices, "train1", None)
    assert (again.rows, len(again.recordings)) == (2, 1)
    forget.remove(again)
    assert len(read_dataset(voices).recordings) == 22


@pytest.mark.integration
def test_the_work_folder_keeps_nothing_of_the_person(voices: Path, tmp_path: Path):
    """Corpora, verdicts, trainings and reports that name the person go; those of another data set stay."""
    work = tmp_path / "work"
    corpora.build(voices, work / "state" / "corpus-1")
    corpora.build(voices, work / "pipeline" / "run" / "preprocess" / "corpus")
    other = tmp_path / "other"
    shutil.copytree(voices, other)
    removal = forget.find(other, "train1", None)
    digest = sorted(removal.person.sha256)[0]
    forget.remove(removal)
    corpora.build(other, work / "state" / "corpus-2")
    contents = {
        "state/abc-42/checkpoint.json": {"train_files": [digest], "train_speakers": None},
        "state/abd-42/checkpoint.json": {"train_files": [], "train_speakers": ["TRAIN1"]},
        "state/abe-42/checkpoint.json": {"train_files": ["0" * 64], "train_speakers": ["train0"]},
        "state/abf-42/resume.json": {},
        "cache/data.json": {"files": {"train_1_0.wav": []}},
    }
    for path, content in contents.items():
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_text(json.dumps(content))
    logged = work / "mlartifacts" / "1" / "predictions.parquet"
    logged.parent.mkdir(parents=True)
    pd.DataFrame({"file_path": ["train_1_0.wav"]}).to_parquet(logged)
    (logged.parent / "report.html").write_text("voices")
    (work / "report.html").write_text("voices")
    forget.remove(forget.find(voices, "train1", work))
    left = {str(path.relative_to(work)) for path in work.rglob("*") if path.is_file()}
    assert left == {f"state/corpus-2/{name}" for name in (*corpora.FILES, digests.FILE)} | {
        "state/abe-42/checkpoint.json"
    }
    corpora.build(voices, tmp_path / "next")
    assert corpora.Corpus.open(tmp_path / "next").digest == corpora.Corpus.open(work / "state/corpus-2").digest


@pytest.fixture(params=["folder", "gs_bucket", "s3_bucket", "s3_versions"])
def uri(request: pytest.FixtureRequest, voices: Path) -> str:
    """Address of a data set in each kind of store, whose files were all written twice."""
    if request.param == "folder":
        return str(voices)
    address: str = request.getfixturevalue(request.param)
    store = open_store(address)
    for _ in range(2):
        for file in sorted(voices.iterdir()):
            store.write(file.name, file.read_bytes())
    return address


def naming(uri: str) -> list[str]:
    """Return everything that a store has of the speaker: current files, old versions and names of deleted ones."""
    store = open_store(uri)
    kept = [*store.list(), *store.history()]
    tables = [entry for entry in kept if entry.path.endswith(".csv")]
    found = [entry.path for entry in kept if entry.path.startswith("train_1_")]
    return found + [entry.path for entry in tables if b"train_1_" in store.read(entry.path, entry.generation)]


class KilledError(Exception):
    """Stands for the end of the process."""


class Mortal:
    """A store that fails after a number of changes, before or after the change that is one too many."""

    def __init__(self, store: Store, changes: int, after: bool) -> None:
        self.store, self.changes, self.after = store, changes, after

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.store, name)
        return partial(self._count, method) if name in ("delete", "replace") else method

    def _count(self, method: Callable[..., None], *arguments: Any) -> None:
        self.changes -= 1
        if self.changes < 0 and not self.after:
            raise KilledError
        method(*arguments)
        if self.changes < 0:
            raise KilledError


@pytest.mark.parametrize("after", [False, True])
def test_a_removal_that_is_killed_anywhere_is_completed_by_the_next(uri: str, after: bool):
    """Every kind of store ends without a trace of the person, and with everything of the others."""
    others = [entry.path for entry in open_store(uri).list() if not entry.path.startswith("train_1_")]
    before = naming(uri)
    kills = 0
    for changes in itertools.cycle([0, 1]):
        try:
            removal = forget.find(uri, "TRAIN1", None)
        except SpiraError:  # nothing names the person
            break
        try:
            forget.remove(dataclasses.replace(removal, store=Mortal(removal.store, changes, after)))
        except KilledError:
            kills += 1
        assert kills < 50
    assert len(before) >= 3
    assert kills >= 2
    assert naming(uri) == []
    assert [entry.path for entry in open_store(uri).list()] == others
    assert len(read_dataset(open_store(uri)).recordings) == 22


def test_a_table_that_changes_meanwhile_is_not_overwritten(uri: str):
    """Nothing of the change is lost, and the command can be repeated."""
    removal, store = forget.find(uri, "train1", None), open_store(uri)
    table = store.read("metadata_train.csv")
    store.write("metadata_train.csv", table + b"late.wav,0,late\n")
    with pytest.raises(SpiraError, match=r"metadata_train\.csv.*run again"):
        forget.remove(removal)
    forget.remove(forget.find(uri, "train1", None))
    assert naming(uri) == []
    assert b"late" in store.read("metadata_train.csv")


def test_a_name_of_an_old_table_that_is_anothers_by_now_is_kept(s3_versions: str, voices: Path):
    """Only today's table says whose recording it is; what it replaced goes."""
    store = open_store(s3_versions)
    for file in sorted(voices.iterdir()):
        store.write(file.name, file.read_bytes())
    table = store.read("metadata_train.csv").decode()
    store.write("train_1_0.wav", (voices / "train_0_0.wav").read_bytes())
    store.write("metadata_train.csv", table.replace("train_1_0.wav,1,train1", "train_1_0.wav,1,train9").encode())
    forget.remove(forget.find(s3_versions, "train1", None))
    assert store.read("train_1_0.wav") == (voices / "train_0_0.wav").read_bytes()
    assert b"train9" in store.read("metadata_train.csv")
    kept = [entry for entry in store.history() if entry.path.startswith("train_1_")]
    assert kept == []
    assert b"train1" not in b"".join(store.read(e.path, e.generation) for e in store.history() if e.size < 2000)


@pytest.mark.parametrize("bucket_kind", ["gs_bucket", "s3_versions"])
def test_the_command_says_what_it_cannot_see(
    bucket_kind: str, voices: Path, tmp_path: Path, request: pytest.FixtureRequest
):
    """A bucket may have copies elsewhere. A dry run changes nothing."""
    uri: str = request.getfixturevalue(bucket_kind)
    for file in sorted(voices.iterdir()):
        open_store(uri).write(file.name, file.read_bytes())
    command = ["data", "forget", "train1", "--data", uri, "--work", str(tmp_path / "work")]
    before = naming(uri)
    for options, left in ((["--dry-run"], before), ([], [])):
        result = CliRunner().invoke(app, [*command, *options])
        assert result.exit_code == 0, result.output
        assert "train_1_0.wav" in result.stdout
        assert "copies in other regions (replication) and backups are not seen here" in result.stdout
        assert naming(uri) == left
