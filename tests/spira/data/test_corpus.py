"""The corpus: recordings come out at 16 kHz, bad ones are refused, nothing is half-written."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from spira import digests
from spira.config import Preprocess
from spira.data.corpus import FILES, Corpus, CorpusError, build
from spira.data.metadata import DataError
from spira.inference import wav
from tests.support import bad_datasets

pytestmark = pytest.mark.integration

SETTINGS = Preprocess(max_seconds=10)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return bad_datasets.make(tmp_path / "data")


@pytest.fixture(scope="module")
def real(spoken_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    out = tmp_path_factory.mktemp("real") / "corpus"
    build(spoken_digits, out, Preprocess())
    return Corpus.open(out)


def test_waveforms_are_the_resampled_recordings(real: Corpus, spoken_digits: Path) -> None:
    """A stereo recording at 44.1 kHz becomes the resampled mean of its channels, sample for sample."""
    split = real.split("train")
    stereo = [soundfile.info(spoken_digits / path).channels == 2 for path in split.table["file_path"]]
    i = stereo.index(True)
    frames, rate = soundfile.read(spoken_digits / split.table["file_path"][i], dtype="float32", always_2d=True)
    expected = wav.resample(frames.mean(axis=1), rate)
    waveform = split.waveform(i)
    assert (rate, waveform.dtype, len(waveform)) == (44_100, np.float32, split.table["samples"][i])
    np.testing.assert_allclose(waveform, expected, atol=1e-6)


def test_the_table_of_a_split_has_the_documented_columns(real: Corpus) -> None:
    """Fixed columns first, optional ones after them; labels are 0 and 1."""
    table = real.split("eval").table
    fixed = ["file_path", "label", "split", "offset", "samples", "seconds", "sha256"]
    assert list(table) == [*fixed, "speaker", "accent"]
    assert (len(table), set(table["label"]), set(table["split"])) == (40, {0, 1}, {"eval"})
    assert [len(real.split(name)) for name in ("train", "test")] == [160, 60]
    assert [len(noise) for noise in real.noises] == [480_000] * 8


def test_waveforms_are_memory_mapped(real: Corpus) -> None:
    """A waveform is a read-only view of the file, not a copy in memory."""
    waveform = real.split("test").waveform(0)
    assert not waveform.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        waveform[0] = 1.0


@pytest.mark.parametrize("name", bad_datasets.AUDIO)
def test_bad_audio_is_refused(name: str, dataset: Path, tmp_path: Path) -> None:
    """The message names CSV, row, file and rule; no file is left."""
    content, words = bad_datasets.AUDIO[name]
    bad_datasets.write(dataset, "eval/10.wav", content)
    with pytest.raises(DataError) as error:
        build(dataset, tmp_path / "corpus", SETTINGS)
    assert str(error.value).startswith("metadata_eval.csv, row 4: eval/10.wav ")
    assert words in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("name", bad_datasets.AUDIO)
def test_bad_audio_is_skipped_if_allowed(name: str, dataset: Path, tmp_path: Path) -> None:
    """With skip_bad the same recording is listed with its rule, and the corpus holds the others."""
    content, words = bad_datasets.AUDIO[name]
    bad_datasets.write(dataset, "eval/10.wav", content)
    quality = build(dataset, tmp_path / "corpus", SETTINGS, skip_bad=True)
    assert [skipped.file_path for skipped in quality.skipped] == ["eval/10.wav"]
    assert words in quality.skipped[0].rule
    assert len(Corpus.open(tmp_path / "corpus").split("eval")) == 3


def test_all_bad_recordings_are_reported_at_once(dataset: Path, tmp_path: Path) -> None:
    """Two bad recordings are two problems of one error."""
    for path in ("train/00.wav", "test/11.wav"):
        bad_datasets.write(dataset, path, b"")
    with pytest.raises(DataError) as error:
        build(dataset, tmp_path / "corpus", SETTINGS)
    assert len(error.value.problems) == 2


def test_skipping_must_leave_both_classes(dataset: Path, tmp_path: Path) -> None:
    """With skip_bad the data set is still refused if a split would lose a class."""
    for path in ("eval/10.wav", "eval/11.wav"):
        bad_datasets.write(dataset, path, b"")
    with pytest.raises(DataError, match="after skipping 2 bad recordings: the eval split has no recording of class 1"):
        build(dataset, tmp_path / "corpus", SETTINGS, skip_bad=True)


def test_a_missing_file_is_skipped_if_allowed(dataset: Path, tmp_path: Path) -> None:
    """A missing file counts as a bad recording."""
    (dataset / "train/00.wav").unlink()
    quality = build(dataset, tmp_path / "corpus", SETTINGS, skip_bad=True)
    assert quality.skipped[0].message.startswith(
        "metadata_train.csv, row 2: train/00.wav was not found in the data set"
    )


def test_the_same_audio_in_two_splits_is_refused(dataset: Path, tmp_path: Path) -> None:
    """Decoded audio is compared: the same samples as WAV in the test and FLAC in training are leakage."""
    samples = (bad_datasets.voice(50) * 32767).astype(np.int16)
    bad_datasets.write(dataset, "test/00.wav", bad_datasets.wav_bytes(samples))
    bad_datasets.write(dataset, "train/00.wav", bad_datasets.wav_bytes(samples, format="FLAC"))
    words = "train/00.wav holds the same audio as metadata_test.csv, row 2 of the test split"
    with pytest.raises(DataError, match=words):
        build(dataset, tmp_path / "corpus", SETTINGS)


def test_the_same_audio_under_both_classes_is_refused(dataset: Path, tmp_path: Path) -> None:
    """One recording cannot be a control and a patient."""
    bad_datasets.write(dataset, "train/10.wav", (dataset / "train/00.wav").read_bytes())
    with pytest.raises(DataError, match="under the other class"):
        build(dataset, tmp_path / "corpus", SETTINGS)


def test_the_same_audio_twice_in_one_split_is_a_warning(dataset: Path, tmp_path: Path) -> None:
    """A copy within a split and class does not leak into the test."""
    bad_datasets.write(dataset, "train/01.wav", (dataset / "train/00.wav").read_bytes())
    warnings = build(dataset, tmp_path / "corpus", SETTINGS).warnings
    assert "metadata_train.csv, row 3, holds the same audio as metadata_train.csv, row 2, in the same split" in warnings


def test_noise_shorter_than_a_recording_is_refused(dataset: Path, tmp_path: Path) -> None:
    """A noise shorter than the longest recording cannot be inserted in it."""
    bad_datasets.write(dataset, "ward.wav", bad_datasets.wav_bytes(bad_datasets.voice(9, seconds=0.9)))
    with pytest.raises(DataError, match=r"noise.csv, row 2: ward.wav noise of 0.9 s is shorter than the longest"):
        build(dataset, tmp_path / "corpus", SETTINGS)


def test_building_an_unchanged_corpus_again_does_nothing(dataset: Path, tmp_path: Path) -> None:
    """The same content and settings leave the files as they are, even if every file has a new time of change."""
    out = tmp_path / "corpus"
    first = build(dataset, out, SETTINGS)
    written = (out / "audio.npy").stat()
    for file in dataset.rglob("*.*"):
        os.utime(file)
    assert build(dataset, out, SETTINGS) == first
    assert (out / "audio.npy").stat() == written


@pytest.mark.parametrize("change", ["content", "settings", "half-written", "damaged", "damaged index"])
def test_a_changed_or_damaged_corpus_is_built_again(change: str, dataset: Path, tmp_path: Path) -> None:
    """Another content or setting, or an incomplete corpus, is built from the start."""
    out, settings = tmp_path / "corpus", SETTINGS
    build(dataset, out, settings)
    inode, digest = (out / "audio.npy").stat().st_ino, Corpus.open(out).digest
    if change == "content":
        bad_datasets.write(dataset, "train/00.wav", bad_datasets.wav_bytes(bad_datasets.voice(77)))
    if change == "settings":
        settings = Preprocess(max_seconds=9)
    if change == "half-written":
        (out / "manifest.json").unlink()
    if change == "damaged":
        os.truncate(out / "audio.npy", 1000)
    if change == "damaged index":
        os.truncate(out / "index.parquet", 100)
    build(dataset, out, settings)
    corpus = Corpus.open(out)
    assert (out / "audio.npy").stat().st_ino != inode
    assert (corpus.digest != digest) == (change == "content")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "data"]


def test_the_digest_depends_on_the_content_alone(dataset: Path, tmp_path: Path) -> None:
    """Location, times of change and settings do not change the digest."""
    build(dataset, tmp_path / "one", SETTINGS)
    build(bad_datasets.make(tmp_path / "elsewhere"), tmp_path / "two", Preprocess())
    assert Corpus.open(tmp_path / "one").digest == Corpus.open(tmp_path / "two").digest


def test_a_corpus_built_by_skipping_does_not_hide_bad_recordings(dataset: Path, tmp_path: Path) -> None:
    """A later build without skip_bad refuses the data set."""
    bad_datasets.write(dataset, "eval/10.wav", b"")
    build(dataset, tmp_path / "corpus", SETTINGS, skip_bad=True)
    with pytest.raises(DataError, match="0 bytes"):
        build(dataset, tmp_path / "corpus", SETTINGS)


def test_a_killed_build_leaves_no_corpus(dataset: Path, tmp_path: Path) -> None:
    """The next build completes it and removes the leftovers."""
    out = tmp_path / "corpus"
    script = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom spira.data.corpus import build\n"
        "def progress(done, total):\n    done == 5 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "build(sys.argv[1], Path(sys.argv[2]), progress=progress)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, dataset, out], capture_output=True)
    assert (killed.returncode, out.exists()) == (-9, False)
    with pytest.raises(CorpusError, match="run preprocess again"):
        Corpus.open(out)
    build(dataset, out, SETTINGS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "data"]
    assert sorted(path.name for path in out.iterdir()) == sorted([*FILES, digests.FILE])


@pytest.mark.parametrize("name", [*FILES, digests.FILE])
def test_a_flipped_bit_is_refused_by_name_and_built_again(dataset: Path, tmp_path: Path, name: str) -> None:
    """Also in a sample, where no reader would see it. The new corpus is that of before, byte for byte."""
    out = tmp_path / "corpus"
    build(dataset, out, SETTINGS)
    before, rng = {path.name: path.read_bytes() for path in out.iterdir()}, random.Random(name)
    for _ in range(3):
        content = bytearray(before[name])
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        (out / name).write_bytes(content)
        with pytest.raises(CorpusError, match=rf"{name}.*run preprocess again"):
            Corpus.open(out)
        build(dataset, out, SETTINGS)
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_corpus_without_digests_is_opened_and_kept(dataset: Path, tmp_path: Path) -> None:
    """Earlier versions wrote none."""
    out = tmp_path / "corpus"
    build(dataset, out, SETTINGS)
    digests.remove(out)
    inode = (out / "audio.npy").stat().st_ino
    build(dataset, out, SETTINGS)
    assert ((out / "audio.npy").stat().st_ino, (out / digests.FILE).exists()) == (inode, False)


def test_a_copy_is_the_same_corpus(dataset: Path, tmp_path: Path) -> None:
    """Kubeflow copies the folder from store to store."""
    build(dataset, tmp_path / "corpus", SETTINGS)
    shutil.copytree(tmp_path / "corpus", tmp_path / "copy", copy_function=shutil.copyfile)
    assert Corpus.open(tmp_path / "copy").digest == Corpus.open(tmp_path / "corpus").digest


def test_a_folder_of_other_files_is_never_replaced(dataset: Path, tmp_path: Path) -> None:
    """The error names a file that is not part of a corpus."""
    bad_datasets.write(tmp_path, "home/thesis.tex", "years of work")
    with pytest.raises(CorpusError, match=r"thesis.tex, not a corpus"):
        build(dataset, tmp_path / "home", SETTINGS)
    assert (tmp_path / "home/thesis.tex").read_text() == "years of work"


def test_a_link_out_of_the_data_set_is_refused(dataset: Path, tmp_path: Path) -> None:
    """A recording must not be a link to a file elsewhere."""
    bad_datasets.link_out(dataset)
    with pytest.raises(ValueError, match=r"train/00.wav was not found in the data set \(links out of it"):
        build(dataset, tmp_path / "corpus", SETTINGS)


def test_age_is_a_number(dataset: Path, tmp_path: Path) -> None:
    """Ages are read as years, an empty one as missing."""
    text = (dataset / "metadata_train.csv").read_text()
    bad_datasets.write(dataset, "metadata_train.csv", text.replace(",31\n", ",\n"))
    build(dataset, tmp_path / "corpus", SETTINGS)
    age = Corpus.open(tmp_path / "corpus").split("train").table["age"]
    assert (age.dtype, age.isna().tolist(), age[1]) == (np.float64, [True, False, False, False], 32.0)


def test_progress_counts_every_recording_and_noise_once(dataset: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    build(dataset, tmp_path / "corpus", SETTINGS, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 13) for i in range(1, 14)]


PEAK = """
import resource, sys
from pathlib import Path
from spira.data.corpus import build
build(sys.argv[1], Path(sys.argv[2]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def peak_megabytes(root: Path, files: int) -> int:
    """Return the peak memory of a process that builds a corpus of ``files`` recordings of 20 s per split and class."""
    bad_datasets.write(root, "noise.csv", "file_path\nward.wav\n")
    bad_datasets.write(root, "ward.wav", bad_datasets.wav_bytes(bad_datasets.voice(999_999, seconds=20)))
    for split in ("train", "eval", "test"):
        names = [(f"{split}_{i}.wav", i % 2) for i in range(2 * files)]
        for i, (name, _) in enumerate(names):
            noise = np.random.default_rng([len(split), ord(split[1]), i]).integers(-9999, 9999, 20 * 16_000)
            bad_datasets.write(root, name, bad_datasets.wav_bytes(noise.astype(np.int16)))
        pd.DataFrame(names, columns=["file_path", "class"]).to_csv(root / f"metadata_{split}.csv", index=False)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    command = [sys.executable, "-c", PEAK, root, root.parent / f"corpus{files}"]
    return int(subprocess.run(command, capture_output=True, check=True, env=environment).stdout)


def test_memory_does_not_grow_with_the_recordings(tmp_path: Path) -> None:
    """Ten times the recordings (77 MB of samples instead of 8) need no more memory."""
    few, many = peak_megabytes(tmp_path / "few", 1), peak_megabytes(tmp_path / "many", 10)
    assert (tmp_path / "corpus10/audio.npy").stat().st_size > 75e6
    assert many < few + 15


def test_the_manifest_lists_every_file(dataset: Path, tmp_path: Path) -> None:
    """CSVs, recordings and noises, with size and hash."""
    build(dataset, tmp_path / "corpus", SETTINGS)
    files = json.loads((tmp_path / "corpus/manifest.json").read_text())["files"]
    assert sorted(files) == sorted(str(path.relative_to(dataset)) for path in dataset.rglob("*.*"))
    assert files["ward.wav"]["size"] == (dataset / "ward.wav").stat().st_size


def test_the_readme_of_the_data_set_is_kept(dataset: Path, tmp_path: Path) -> None:
    """The README is part of the corpus: the folder or bucket may be out of reach where the report is written."""
    assert build(dataset, tmp_path / "without").about == ""
    (dataset / "README.md").write_text("Synthetic voices.")
    assert build(dataset, tmp_path / "with").about == "Synthetic voices."


# Written by the release before the reports were models; without the files of the manifest.
OLD_GROUP = """{"files": 1, "sample_rates": {"16000": 1}, "seconds": {"p5": 1.0, "median": 1.0, "p95": 1.0},
 "peak_dbfs": {"p5": -9.0, "median": -9.0, "p95": -9.0}, "rms_dbfs": {"p5": -20.0, "median": -20.0, "p95": -20.0},
 "background_dbfs": {"p5": -60.0, "median": -60.0, "p95": -60.0},
 "speech_fraction": {"p5": 0.5, "median": 0.5, "p95": 0.5},
 "clipped_fraction": {"p5": 0.0, "median": 0.0, "p95": 0.0}}"""
OLD_SPLIT = f"""{{"files": 1, "seconds": 1.0, "classes": {{"0": 1}}, "speakers": null, "sample_rates": {{"16000": 1}},
 "channels": {{"1": 1}}, "by_class": {{"0": {OLD_GROUP}}}}}"""
OLD_NOISE = f"""{{"files": 1, "seconds": 1.0, "classes": {{}}, "speakers": null, "sample_rates": {{"16000": 1}},
 "channels": {{"1": 1}}, "by_class": {{"noise": {OLD_GROUP}}}}}"""
OLD_QUALITY = f"""{{"splits": {{"train": {OLD_SPLIT}}}, "noise": {OLD_NOISE}, "skipped": [
 {{"file_path": "maçã.wav", "split": "eval", "where": "metadata_eval.csv, row 4", "rule": "is empty: 0 bytes",
  "message": "metadata_eval.csv, row 4: maçã.wav is empty: 0 bytes"}}],
 "warnings": ["1 bad recordings were skipped: see 'skipped'"], "about": ""}}"""


def test_an_older_quality_report_and_manifest_are_read(dataset: Path, tmp_path: Path) -> None:
    """Their keys are unchanged, and unknown settings in a manifest are accepted."""
    out = tmp_path / "corpus"
    build(dataset, out, SETTINGS)
    (out / "quality.json").write_text(OLD_QUALITY, encoding="utf-8")
    manifest = json.loads((out / "manifest.json").read_text()) | {"preprocess": {"removed_setting": 1}}
    (out / "manifest.json").write_text(json.dumps(manifest))
    digests.remove(out)
    corpus = Corpus.open(out)
    assert corpus.quality.model_dump(mode="json") == json.loads(OLD_QUALITY)
    assert list(corpus.quality.model_dump()) == ["splits", "noise", "skipped", "warnings", "about"]
    assert corpus.manifest.model_dump(mode="json") == manifest
