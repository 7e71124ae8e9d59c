"""The data-quality report: measures by split and class, and warnings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from spira.config import Preprocess
from spira.data.corpus import build
from spira.data.quality import DISTRIBUTIONS, describe, fold, warn
from tests.support import bad_datasets


@pytest.mark.integration
def test_a_shortcut_in_the_data_is_a_warning(spoken_digits: Path, tmp_path: Path) -> None:
    """In the shared data patients were recorded over ward noise."""
    quality = build(spoken_digits, tmp_path / "corpus", Preprocess())
    assert {split: part.files for split, part in quality.splits.items()} == {
        "train": 160,
        "eval": 40,
        "test": 60,
    }
    assert sum("background noise of patients differs" in warning for warning in quality.warnings) == 3
    train = quality.splits["train"]
    assert (train.sample_rates, train.speakers) == ({"8000": 149, "44100": 11}, 40)


def warnings(patients: int = 30, **patient_measures: Any) -> list[str]:
    """Return the warnings for 30 controls that all measure 0 at 16 kHz, and patients with some other measures."""
    row = dict.fromkeys(DISTRIBUTIONS, 0.0) | {"sample_rate": 16_000, "channels": 1, "speaker": None}
    rows = [{**row, "label": 0}] * 30 + [{**row, **patient_measures, "label": 1}] * patients
    return warn("train", describe(pd.DataFrame(rows)))


@pytest.mark.parametrize(
    ("different", "words"),
    [
        ({"background_dbfs": 6.1}, "train: background noise of patients differs by +6.1 dB"),
        ({"rms_dbfs": -6.1}, "train: loudness of patients differs by -6.1 dB"),
        ({"seconds": 2.1}, "train: length of patients differs by +2.1 s"),
        ({"patients": 19}, "train: a class has only 19 recordings"),
    ],
)
def test_a_difference_between_the_classes_is_a_warning(different: dict[str, Any], words: str) -> None:
    """A difference past its limit gives one warning with split, measure and difference."""
    assert [warning.startswith(words) for warning in warnings(**different)] == [True]


def test_a_sample_rate_of_one_class_alone_is_a_warning() -> None:
    """The warnings name the rate of the controls and that of the patients."""
    low, high = warnings(sample_rate=44_100)
    assert low.startswith("train: 100% of controls but 0% of patients were recorded at 16000 Hz")
    assert high.startswith("train: 0% of controls but 100% of patients were recorded at 44100 Hz")


def test_unbalanced_classes_are_a_warning() -> None:
    """Seven patients to thirty controls are too few, and fewer than a fifth."""
    assert warnings(patients=7)[1] == "train: the classes are unbalanced, {'0': 30, '1': 7}"


def test_similar_classes_give_no_warning() -> None:
    """Differences at the limits are accepted."""
    assert warnings(background_dbfs=6.0, rms_dbfs=-6.0, seconds=2.0, patients=20) == []


def test_formats_that_a_target_cannot_read_are_counted(tmp_path: Path) -> None:
    """Before anything is trained: by the Inference Service, which decodes with numpy, and by the server's image."""
    root = bad_datasets.make(tmp_path / "data")
    contents = {
        "train/00.wav": bad_datasets.wav_bytes(bad_datasets.voice(70), format="FLAC"),
        "train/01.wav": bad_datasets.wav_bytes(bad_datasets.voice(71), subtype="IMA_ADPCM"),
        "eval/00.wav": bad_datasets.wav_bytes(bad_datasets.voice(72), format="FLAC"),
        "eval/01.wav": bad_datasets.wav_bytes(bad_datasets.voice(73), subtype="ULAW"),
        "ward.wav": bad_datasets.wav_bytes(bad_datasets.voice(99, seconds=2.0), format="OGG"),
    }
    for path, content in contents.items():
        bad_datasets.write(root, path, content)
    (warning,) = (one for one in build(root, tmp_path / "corpus").warnings if "Inference Service" in one)
    assert warning.startswith(
        "3 recordings are in formats that the Inference Service cannot read (2 FLAC PCM_16, 1 WAV IMA_ADPCM)"
    )


def test_plain_wav_needs_no_warning(tmp_path: Path) -> None:
    """Every target reads it."""
    warnings = build(bad_datasets.make(tmp_path / "data"), tmp_path / "corpus").warnings
    assert [warning for warning in warnings if "formats" in warning] == []


def test_warnings_of_one_kind_are_one_line() -> None:
    """Splits are listed and a number that differs becomes a range; other warnings stay as they are."""
    assert fold(
        [
            "train: length of patients differs by +2.7 s from that of controls",
            "test: the classes are unbalanced, {'0': 30, '1': 7}",
            "eval: length of patients differs by +12.6 s from that of controls",
            "no speaker column: whether a voice is in two splits is not known",
            "test: length of patients differs by -0.5 s from that of controls",
        ]
    ) == [
        "train, eval, test: length of patients differs by -0.5 to +12.6 s from that of controls",
        "test: the classes are unbalanced, {'0': 30, '1': 7}",
        "no speaker column: whether a voice is in two splits is not known",
    ]
    assert fold([]) == []
