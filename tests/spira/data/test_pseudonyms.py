"""Pseudonyms: their form, their key, and messages that show them."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spira.config import Preprocess
from spira.data import pseudonyms
from spira.data.metadata import DataError, read_dataset
from spira.data.pseudonyms import OWN_FILES, Pseudonyms, hidden_names, in_work
from spira.data.storage import StorageError, open_store
from spira.errors import SpiraError
from tests.support import ROOT

FIRST, SECOND = Pseudonyms(lambda: "first key of tests"), Pseudonyms(lambda: "second key of tests")
names = st.text(st.characters(exclude_characters="\0"), min_size=1)


@given(names)
def test_a_pseudonym_has_one_form_and_holds_nothing_of_the_name(name: str):
    """Any file name, also one that is not UTF-8. Another key gives another pseudonym."""
    pseudonym = FIRST.recording(name)
    assert re.fullmatch(r"rec-[0-9a-f]{12}", pseudonym)
    assert re.fullmatch(r"spk-[0-9a-f]{12}", FIRST.speaker(name))
    assert FIRST.recording(name) == pseudonym != SECOND.recording(name)
    assert FIRST.key_id != SECOND.key_id


@given(names)
def test_a_hidden_name_is_in_no_message(name: str):
    """Only the project's own files, such as its tables, keep their names."""
    with hidden_names(FIRST):
        shown = pseudonyms.shown_recording(name)
        assert shown == (name if OWN_FILES.fullmatch(name) else FIRST.recording(name))
        assert pseudonyms.shown_speaker(name) == FIRST.speaker(name)
    assert pseudonyms.shown_recording(name) == name


def test_the_spellings_of_a_speaker_have_one_pseudonym():
    """As everywhere, they are the same person."""
    assert FIRST.speaker("Ana  MARIA") == FIRST.speaker("ana maria")


def test_a_work_folder_keeps_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Only its owner reads it; processes that start together have the same one; the environment comes first."""
    monkeypatch.delenv(pseudonyms.KEY_VARIABLE, raising=False)
    program = "import sys; from pathlib import Path; from spira.data.pseudonyms import in_work; "
    program += "print(in_work(Path(sys.argv[1])).key)"
    command = [sys.executable, "-c", program, str(tmp_path / "work")]
    starts = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    keys = {process.communicate()[0].strip() for process in starts}
    assert keys == {in_work(tmp_path / "work").key}
    assert stat.S_IMODE((tmp_path / "work" / pseudonyms.KEY_FILE).stat().st_mode) == 0o600
    assert os.listdir(tmp_path / "work") == [pseudonyms.KEY_FILE]
    monkeypatch.setenv(pseudonyms.KEY_VARIABLE, "a key of the environment")
    assert in_work(tmp_path / "work").key == "a key of the environment"
    monkeypatch.setenv(pseudonyms.KEY_VARIABLE, "short")
    with pytest.raises(SpiraError, match="SPIRA_PSEUDONYM_KEY has 5 characters"):
        _ = in_work(tmp_path).key


def test_problems_keep_table_row_and_rule_where_names_are_hidden(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The refusal is still useful in a pod's log."""
    monkeypatch.setenv(pseudonyms.HIDE_VARIABLE, "1")
    root = tmp_path / "voices"
    root.mkdir()
    for table in dataset.glob("*.csv"):
        (root / table.name).write_text(table.read_text())
    with (root / "metadata_train.csv").open("a") as file:
        file.write("1234567_M.wav,M. Souza,test0\n../1234568.wav,1,train0\n")
    (root / "TRAIN_0_0.wav").touch()
    with pytest.raises(DataError) as refused:
        read_dataset(root, Preprocess())
    message = "\n".join(refused.value.problems)
    assert "metadata_train.csv, row 14: class must be 0 (control) or 1 (patient), found 8 characters" in message
    assert "speaker 'spk-" in message
    assert {name for name in ("1234567", "1234568", "Souza", "test0", "train_0", "TRAIN_0") if name in message} == set()
    with pytest.raises(StorageError) as missing:
        open_store(root).read("1234567_M.wav")
    assert "1234567" not in str(missing.value)
    (root / "metadata_eval.csv").write_text("1234567_M.wav,1\n")
    with pytest.raises(DataError, match="column file_path is missing; found 2 columns"):
        read_dataset(root, Preprocess())
