"""Names as people type them and computers store them: what is the same, and what is only hinted at."""

from __future__ import annotations

import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from spira.data.metadata import DataError, read_dataset
from spira.data.names import NearMatches, speaker_key
from tests.support import ROOT, bad_datasets

FORMS = ("NFC", "NFD")
NAMES = st.text(st.characters(whitelist_categories=("Ll", "Lu", "Nd"), max_codepoint=0x24F), min_size=1, max_size=12)


def write_dataset(root: Path, stored: str, named: str) -> Path:
    """Write a data set with a recording stored under one name and named by another."""
    bad_datasets.make(root)
    (root / "train/00.wav").rename(root / f"train/{stored}.wav")
    table = (root / "metadata_train.csv").read_text()
    bad_datasets.write(root, "metadata_train.csv", table.replace("train/00.wav", f"train/{named}.wav"))
    return root


@pytest.mark.integration
@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(NAMES, st.sampled_from(FORMS), st.sampled_from(FORMS))
def test_a_file_is_found_in_either_form_of_accents(
    tmp_path_factory: pytest.TempPathFactory, name: str, stored: str, named: str
) -> None:
    """The stored name is the one that goes into the corpus."""
    name = unicodedata.normalize("NFC", f"x{name}")
    forms = [unicodedata.normalize(form, name) for form in (stored, named)]
    dataset = read_dataset(write_dataset(tmp_path_factory.mktemp("names"), *forms))
    assert f"train/{forms[0]}.wav" in set(dataset.recordings["file_path"])


@pytest.mark.integration
@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(NAMES, st.sampled_from(FORMS))
def test_another_case_is_hinted_at(tmp_path_factory: pytest.TempPathFactory, name: str, stored: str) -> None:
    """Two files may differ by case alone, so the person decides; the message names the file that is there."""
    name = unicodedata.normalize("NFC", f"x{name}")
    on_disk, named = unicodedata.normalize(stored, name), name.swapcase()
    assume(speaker_key(named) == speaker_key(name) and named.isalnum())
    with pytest.raises(DataError) as error:
        read_dataset(write_dataset(tmp_path_factory.mktemp("names"), on_disk, named))
    assert f"{f'train/{on_disk}.wav'!r} is there" in str(error.value)


def test_an_exact_name_comes_first(tmp_path: Path) -> None:
    """Each row finds its own form if both are stored."""
    composed, decomposed = (unicodedata.normalize(form, "João") for form in FORMS)
    root = write_dataset(tmp_path / "data", composed, composed)
    (root / "train/01.wav").rename(root / f"train/{decomposed}.wav")
    bad_datasets.replace("metadata_train.csv", "train/01.wav", f"train/{decomposed}.wav")(root)
    paths = set(read_dataset(root).recordings["file_path"])
    assert {f"train/{composed}.wav", f"train/{decomposed}.wav"} <= paths


@pytest.mark.parametrize(
    ("named", "nearest"),
    [
        ("train\\a.wav", "train/a.wav"),
        ("Train/A.WAV", "train/a.wav"),
        ("train/a.mp3", "train/a.wav"),
        ("train/a", "train/a.wav"),
        ("audio/a.wav", "train/a.wav"),
        ("C:\\voices\\b.wav", "b.wav"),
        ("train / a.wav", "train/a.wav"),
        ("/home/ana/voices/train/twice.wav", None),
        ("/home/ana/y/twice.wav", "y/twice.wav"),
        ("C:\\voices\\x\\twice.wav", "x/twice.wav"),
        ("file:///y/twice.wav", "y/twice.wav"),
        ("train/a%2Ewav", "train/a.wav"),
        ("train/\u200ba\u200b.wav", "train/a.wav"),
        ("train/\N{FULLWIDTH LATIN SMALL LETTER A}.wav", "train/a.wav"),
        ("old\u00a0ward.wav", "old ward.wav"),
        ("train/c.wav", None),
        ("old/twice.wav", None),
    ],
)
def test_near_matches(named: str, nearest: str | None) -> None:
    """Names match by case, slashes, ending, spaces and folder, unless two files are as near."""
    assert NearMatches(["train/a.wav", "b.wav", "old ward.wav", "x/twice.wav", "y/twice.wav"]).nearest(named) == nearest


@settings(max_examples=100)
@given(NAMES, st.sampled_from(FORMS), st.sampled_from(["", " ", "  ", "\t", "\u00a0"]))
def test_spellings_of_a_speaker_are_one(name: str, form: str, space: str) -> None:
    """After NFC, without regard to case and spaces at the ends."""
    name = unicodedata.normalize("NFC", name)
    assume(name.upper().casefold() == name.casefold())
    assert speaker_key(f"{space}{unicodedata.normalize(form, name.upper())}{space}") == speaker_key(name)


@pytest.mark.parametrize(("a", "b"), [("Ana", "Anna"), ("sp1", "sp01"), ("Ana Maria", "AnaMaria"), ("João", "Joao")])
def test_other_names_are_other_speakers(a: str, b: str) -> None:
    """An accent or a space in the middle is part of a name."""
    assert speaker_key(a) != speaker_key(b)


def test_invisible_characters_are_no_part_of_a_speakers_name() -> None:
    """Copying leaves a space of no width or a byte order mark."""
    assert speaker_key("\ufeffAna\u200b") == speaker_key("Ana")


def test_spaces_at_the_ends_of_a_files_name(tmp_path: Path) -> None:
    """The advice to write the stored name works; other spaces around a name are ignored."""
    root = bad_datasets.make(tmp_path / "data")
    (root / "train/01.wav").rename(root / "train/01.wav ")
    with pytest.raises(DataError, match=r"'train/01\.wav ' is there; write that name"):
        read_dataset(root)
    bad_datasets.replace("metadata_train.csv", "train/01.wav", "train/01.wav ")(root)
    bad_datasets.replace("metadata_train.csv", "train/00.wav", " train/00.wav ")(root)
    assert {"train/00.wav", "train/01.wav "} <= set(read_dataset(root).recordings["file_path"])


def test_spellings_within_a_split_are_counted_as_one_speaker(tmp_path: Path) -> None:
    """The table has one of the spellings, whatever the order of the rows."""
    root = bad_datasets.make(tmp_path / "data")
    bad_datasets.replace("metadata_train.csv", ",train00,", ",Ana Lúcia,")(root)
    bad_datasets.replace("metadata_train.csv", ",train01,", f",{unicodedata.normalize('NFD', 'ana  LÚCIA')},")(root)
    recordings = read_dataset(root).recordings
    train = recordings[recordings["split"] == "train"]
    assert sorted(train["speaker"]) == ["Ana Lúcia", "Ana Lúcia", "train10", "train11"]


def test_spellings_do_not_leak_through_an_automatic_split(tmp_path: Path) -> None:
    """A single metadata.csv is split by speaker, not by spelling."""
    rows = ["file_path,class,speaker"]
    for label in (0, 1):
        for number in range(12):
            for spelling in (f"Voz {label}{number:02}", f"VOZ  {label}{number:02}"):
                path = f"{label}{number}{spelling[1]}.wav"
                bad_datasets.write(tmp_path, path, b"")
                rows.append(f"{path},{label},{spelling}")
    bad_datasets.write(tmp_path, "metadata.csv", "\n".join(rows))
    bad_datasets.write(tmp_path, "noise.csv", "file_path\nward.wav\n")
    bad_datasets.write(tmp_path, "ward.wav", b"")
    recordings = read_dataset(tmp_path).recordings
    assert recordings.groupby(recordings["speaker"].map(speaker_key))["split"].nunique().max() == 1


def test_a_name_that_is_not_utf8_on_disk_is_explained(tmp_path: Path) -> None:
    """Old archives hold names in Latin-1: the file is there, under a name that no table can hold."""
    root = bad_datasets.make(tmp_path / "data")
    try:
        os.rename(os.fsencode(root / "train/00.wav"), os.fsencode(root / "train") + "/voz_ã.wav".encode("latin-1"))
    except OSError:
        pytest.skip("this file system stores names as UTF-8 only")
    bad_datasets.replace("metadata_train.csv", "train/00.wav", "train/voz_ã.wav")(root)
    with pytest.raises(DataError, match="its name is not stored as UTF-8: rename it"):
        read_dataset(root)


@pytest.mark.integration
@pytest.mark.parametrize("locale", ["C", "POSIX"])
def test_a_locale_without_accents_is_named(locale: str, tmp_path: Path) -> None:
    """There the file's name is read as other characters."""
    root = write_dataset(tmp_path / "data", "João", "João")
    script = "import sys; from spira.data.metadata import read_dataset; read_dataset(sys.argv[1])"
    environment = os.environ | {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script, str(root)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert "this process reads file names as ascii: set LC_ALL=C.UTF-8 and run again" in done.stderr
