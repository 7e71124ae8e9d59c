"""Building, verifying and using packages."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from spira import digests
from spira.config import SAMPLE_RATE_HZ, Config
from spira.data.corpus import Corpus
from spira.evaluation.predict import predict_waveforms
from spira.inference import model
from spira.inference.golden import golden as predict_golden
from spira.inference.model import Model
from spira.inference.wav import resample
from spira.models import checkpoint
from spira.packaging import golden
from spira.packaging.build import package
from spira.packaging.verify import (
    PackageError,
    check_complete,
    check_files,
    check_golden,
    largest_difference,
    package_digest,
    predict_with_package,
    verify,
)
from tests.support.packages import ARCHITECTURES, BAND, LINEAGE, config_of, make_checkpoint, make_package, signal

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("trained") / "checkpoint", config_of("conv1d"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package, to read only."""
    return make_package(tmp_path_factory.mktemp("made"))


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    """A copy of the package, to damage."""
    return Path(shutil.copytree(made, tmp_path / "copied"))


def describe(made: Path) -> dict[str, Any]:
    """Return the content of ``package.json``."""
    return json.loads((made / "package.json").read_text())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packaged_probabilities_equal_torchs(tmp_path: Path, made: Path, corpus: Corpus, architecture: str) -> None:
    """Golden and test recordings agree within 1e-5; the test recordings leave nothing in the package."""
    trained = make_checkpoint(tmp_path / "checkpoint", config_of(architecture))
    description = describe(package(trained, corpus, BAND, tmp_path / "package", LINEAGE))
    assert 0 <= description["largest_difference"] <= 1e-5
    assert description["lineage"] == LINEAGE
    assert description["seed"] == 0
    assert description["files"].keys() == describe(made)["files"].keys()


def test_golden_recordings_are_synthetic(made: Path, corpus: Corpus) -> None:
    """A package holds no voice of the data set, even if it took part in the check."""
    names = {f"{name}.wav" for name, _, _ in golden.recordings(Config())}
    assert {file.name for file in (made / "data" / "golden").iterdir()} == names


def test_settings_come_from_checkpoint_and_verdict(made: Path) -> None:
    """A served model needs nothing but its folder."""
    config = json.loads((made / "data" / "config.json").read_text())
    assert config["architecture"] == "conv1d"
    assert config["windows"] == Config().windows.model_dump()
    assert config["threshold"] == Config().evaluation.threshold
    assert config["abstention"] == list(BAND)


def test_golden_probabilities_come_from_the_code_of_the_training(made: Path, trained: Path) -> None:
    """An 8 kHz and a 44.1 kHz stereo recording are among them."""
    loaded = checkpoint.load(trained)
    entries = json.loads((made / "data" / "golden.json").read_text())
    assert len(entries) == 8
    rates = set()
    for entry in entries:
        samples, rate = soundfile.read(made / "data" / entry["file"], dtype="float32", always_2d=True)
        rates.add((rate, samples.shape[1]))
        if rate == SAMPLE_RATE_HZ:
            (expected,) = predict_waveforms(loaded.network, loaded.config, [samples[:, 0]])
            assert entry["probability"] == expected
    assert {(8_000, 1), (44_100, 2)} < rates


def test_the_same_checkpoint_gives_the_same_bytes(copied: Path, trained: Path) -> None:
    """A repeated stage keeps its package, and the model repository recognises it."""
    before = (copied / "package.json").stat().st_mtime_ns
    package(trained, None, BAND, copied, LINEAGE)  # another package would be refused
    assert (copied / "package.json").stat().st_mtime_ns == before


def test_another_package_is_not_overwritten(copied: Path, trained: Path) -> None:
    """A package with another lineage is another package."""
    with pytest.raises(PackageError, match="something else"):
        package(trained, None, BAND, copied, LINEAGE | {"git_commit": "other"})


def test_the_folder_of_a_killed_build_is_removed(trained: Path, tmp_path: Path) -> None:
    """Files of an unfinished build do not enter the package."""
    left = tmp_path / ".out.building" / "data"
    left.mkdir(parents=True)
    (left / "stray.bin").write_bytes(b"x")
    package(trained, None, BAND, tmp_path / "out", LINEAGE)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    check_files(tmp_path / "out")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_network_with_weights_that_are_not_finite_is_refused(trained: Path, tmp_path: Path, value: float) -> None:
    """Such a model cannot be verified; nothing is left behind."""
    broken = Path(shutil.copytree(trained, tmp_path / "broken"))
    weights = load_file(broken / checkpoint.WEIGHTS)
    save_file(weights | {"head.bias": torch.full((1,), value)}, broken / checkpoint.WEIGHTS)
    digests.record(broken, checkpoint.FILES)
    with pytest.raises(PackageError, match="must not be served"):
        package(broken, None, BAND, tmp_path / "out", LINEAGE)
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_a_probability_that_is_not_a_number_fails() -> None:
    """Neither NaN nor an error is within the tolerance."""
    for result in ({"probability": float("nan")}, {"error": "no number"}):
        with pytest.raises(PackageError, match="must not be served"):
            largest_difference([{"file": "a.wav", "expected": 0.5} | result])


def change_hop(data: Path) -> None:
    config = json.loads((data / "config.json").read_text())
    config["features"]["hop_length"] = 161
    (data / "config.json").write_text(json.dumps(config))


def change_step(data: Path) -> None:
    config = json.loads((data / "config.json").read_text())
    config["windows"]["step_seconds"] = 1.01
    (data / "config.json").write_text(json.dumps(config))


def change_weight(data: Path) -> None:
    with np.load(data / "weights.npz") as file:
        arrays = dict(file)
    arrays["head.bias"] = arrays["head.bias"] + 1e-4
    np.savez(data / "weights.npz", **arrays)


@pytest.mark.parametrize("change", [change_hop, change_step, change_weight])
def test_a_small_difference_is_detected(copied: Path, change: Callable[[Path], None]) -> None:
    """The golden recordings detect a hop of 161 samples, a step of 1.01 s, and an error of 1e-4 in a bias."""
    data = copied / "data"
    assert largest_difference(predict_golden(Model.load(data), str(data))) <= 1e-5
    change(data)
    with pytest.raises(PackageError, match="must not be served"):
        largest_difference(predict_golden(Model.load(data), str(data)))


def test_a_wrong_resampler_is_detected(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of 1 % in level shows only in the recordings of 8 and 44.1 kHz."""
    monkeypatch.setattr(
        model, "resample", lambda samples, rate: resample(samples, rate) * (1.0 if rate == 16_000 else 1.01)
    )
    data = made / "data"
    wrong = {
        prediction["file"]
        for prediction in predict_golden(Model.load(data), str(data))
        if abs(prediction["probability"] - prediction["expected"]) > 1e-5
    }
    assert wrong == {"golden/voice-8-khz.wav", "golden/tone-44-khz-stereo.wav"}


def test_the_check_does_not_run_the_packages_code(copied: Path) -> None:
    """The project's own code computes the golden recordings; that of the package is for the Inference Service."""
    for file in (copied / "code").rglob("*.py"):
        file.write_text("raise RuntimeError('this very file')")
    assert check_golden(copied) <= 1e-5


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"format": 3}, "its format is 3; this code reads the formats 1 and 2"),
        ({"windows": {}}, "'window_seconds'"),
        ({"windows": None}, "NoneType"),
        ({"limits": {"max_seconds": "long"}}, "max_seconds|supported|str"),
        ({"abstention": [0.5]}, "unpack"),
    ],
)
def test_malformed_settings_are_refused_in_one_line(copied: Path, settings: dict[str, Any], problem: str) -> None:
    """They are data of another program: any value can be missing or of another type."""
    config = json.loads((copied / "data" / "config.json").read_text())
    (copied / "data" / "config.json").write_text(json.dumps(config | settings))
    with pytest.raises(PackageError, match=problem):
        check_golden(copied)


@pytest.mark.parametrize("name", ["../outside.wav", "/etc/passwd", "golden/../../outside.wav"])
def test_a_golden_recording_outside_the_package_is_not_read(copied: Path, name: str) -> None:
    """``golden.json`` names files of its own folder only."""
    (copied / "data" / "golden.json").write_text(json.dumps([{"file": name, "probability": 0.5}]))
    with pytest.raises(PackageError, match="outside its folder"):
        check_golden(copied)


def test_packaged_code_does_not_import_the_project(made: Path) -> None:
    """Neither spira nor torch is imported for a prediction."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.path.insert(0, sys.argv[1]); from spira_inference.pyfunc import _load_pyfunc;"
            "_load_pyfunc(sys.argv[2]).predict([{}, {'frase': {'content': open(sys.argv[3], 'rb').read()}}]);"
            "print({'spira', 'torch', 'soundfile', 'pandas'} & set(sys.modules))",
            str(made / "code"),
            str(made / "data"),
            str(made / "data" / "golden" / "noise.wav"),
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=made,
    )
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "data" / "weights.npz").unlink(), "data/weights.npz is missing"),
        (lambda folder: (folder / "data" / "config.json").write_text("{}"), "data/config.json was changed"),
        (lambda folder: (folder / "code" / "more.py").write_text(""), "code/more.py is not listed"),
        (lambda folder: (folder / "package.json").unlink(), "no package"),
        (lambda folder: (folder / "package.json").write_text("{"), "no package"),
    ],
)
def test_a_damaged_package_is_refused(copied: Path, damage: Callable[[Path], object], words: str) -> None:
    """The message names the changed file."""
    damage(copied)
    with pytest.raises(PackageError, match=words):
        verify(copied)


@pytest.mark.parametrize("part", ["package.json", "data/config.json", "code/spira_inference/pyfunc.py", "MLmodel"])
def test_an_incomplete_package_is_refused(copied: Path, part: str) -> None:
    """The message names the missing file."""
    check_complete(copied)
    (copied / part).unlink()
    with pytest.raises(PackageError, match=f"{part} is missing"):
        check_complete(copied)


def test_the_digest_of_a_package_is_over_all_its_files(copied: Path) -> None:
    """The model repository stores it, so its definition must not change."""
    digest = hashlib.sha256()
    for name in sorted(path.relative_to(copied).as_posix() for path in copied.rglob("*") if path.is_file()):
        sha256 = hashlib.sha256((copied / name).read_bytes()).hexdigest()
        digest.update(f"{name}\0{sha256}\n".encode())
    assert package_digest(copied) == digest.hexdigest()
    (copied / "notes.txt").write_text("no part of the package")
    assert package_digest(copied) != digest.hexdigest()


def test_a_package_without_golden_recordings_is_refused(copied: Path) -> None:
    """An empty list verifies nothing."""
    (copied / "data" / "golden.json").write_text("[]")
    with pytest.raises(PackageError, match="no golden recording"):
        check_golden(copied)


@pytest.mark.parametrize(
    "windows", [{"short_files": "refuse"}, {"mode": "whole", "window_seconds": 6.0}, {"window_seconds": 3.0}]
)
def test_other_windows_can_be_packaged(tmp_path: Path, windows: dict[str, object]) -> None:
    """The settings may refuse short recordings, use whole files, or have windows of another length."""
    trained = make_checkpoint(tmp_path / "checkpoint", config_of("conv1d", **windows))
    assert describe(package(trained, None, BAND, tmp_path / "package", LINEAGE))["largest_difference"] <= 1e-5


def test_recordings_can_be_predicted(made: Path, tmp_path: Path) -> None:
    """WAV and other formats keep their order; an unusable file gets an error, the others a probability."""
    samples = (signal(5.0) * 32767).astype(np.int16)
    for name in ("a.wav", "b.flac"):
        soundfile.write(tmp_path / name, samples, SAMPLE_RATE_HZ)
    (tmp_path / "c.wav").write_bytes(b"RIFF")
    (tmp_path / "d.mp3").write_text("no sound")
    files = [tmp_path / name for name in ("a.wav", "b.flac", "c.wav", "d.mp3", "e.wav")]
    predictions = predict_with_package(made, files)
    assert [prediction["file"] for prediction in predictions] == [str(file) for file in files]
    assert ["error" in prediction for prediction in predictions] == [False, False, True, True, True]
    assert predictions[0]["diagnosis"] in {"positive", "negative", "inconclusive"}
    assert 0 < predictions[0]["probability"] < 1
    assert predictions[0]["probability"] == pytest.approx(predictions[1]["probability"], abs=1e-6)


def test_predicting_without_a_package_is_an_error(tmp_path: Path) -> None:
    """The message names the folder."""
    with pytest.raises(PackageError, match=str(tmp_path)):
        predict_with_package(tmp_path, [tmp_path / "a.wav"])
