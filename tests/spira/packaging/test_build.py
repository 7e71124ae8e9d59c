"""Making, checking and using packages."""

from __future__ import annotations

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

from spira.config import SAMPLE_RATE_HZ, Config
from spira.data.corpus import Corpus
from spira.evaluation.predict import predict_with_package as predict_waveforms
from spira.inference import model
from spira.inference.__main__ import golden as answers
from spira.inference.model import Model
from spira.inference.wav import resample
from spira.models import checkpoint
from spira.packaging import golden
from spira.packaging.build import package
from spira.packaging.verify import (
    PackageError,
    check_files,
    check_golden,
    largest_difference,
    predict_with_package,
    verify,
)
from tests.support.packages import ARCHITECTURES, LINEAGE, VERDICT, config_of, make_checkpoint, make_package, signal


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("trained") / "checkpoint", config_of("conv1d"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package; to read only."""
    return make_package(tmp_path_factory.mktemp("made"))


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    """The same, to damage."""
    return Path(shutil.copytree(made, tmp_path / "copied"))


def told(made: Path) -> dict[str, Any]:
    """What a package says of itself."""
    return json.loads((made / "package.json").read_text())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packaged_probabilities_are_torchs(tmp_path: Path, made: Path, corpus: Corpus, architecture: str) -> None:
    """On golden and test recordings within 1e-5, in a process of its own; the latter leave nothing behind."""
    trained = make_checkpoint(tmp_path / "checkpoint", config_of(architecture))
    described = told(package(trained, corpus, VERDICT, tmp_path / "package", LINEAGE))
    assert 0 <= described["largest_difference"] <= 1e-5
    assert described["lineage"] == LINEAGE
    assert described["seed"] == 0
    assert described["files"].keys() == told(made)["files"].keys()


def test_golden_recordings_are_synthetic(made: Path, corpus: Corpus) -> None:
    """No voice of the data set travels with a model, whether it took part in the proof or not."""
    names = {f"{name}.wav" for name, _, _ in golden.recordings(Config())}
    assert {file.name for file in (made / "data" / "golden").iterdir()} == names


def test_settings_come_from_checkpoint_and_verdict(made: Path) -> None:
    """What is served needs nothing but its folder."""
    config = json.loads((made / "data" / "config.json").read_text())
    assert config["architecture"] == "conv1d"
    assert config["windows"] == Config().windows.model_dump()
    assert config["threshold"] == Config().evaluation.threshold
    assert config["abstention"] == VERDICT["gate"]["abstention"]["band"]


def test_golden_probabilities_are_of_the_training_path(made: Path, trained: Path) -> None:
    """An 8 kHz and a 44.1 kHz stereo recording included."""
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
    """A stage that is run again keeps what it made, and a model repository knows a package that it has."""
    before = (copied / "package.json").stat().st_mtime_ns
    package(trained, None, VERDICT, copied, LINEAGE)  # or it would be refused
    assert (copied / "package.json").stat().st_mtime_ns == before


def test_another_package_is_not_overwritten(copied: Path, trained: Path) -> None:
    """Of another lineage, for example."""
    with pytest.raises(PackageError, match="something else"):
        package(trained, None, VERDICT, copied, LINEAGE | {"git_commit": "other"})


def test_what_a_kill_left_is_cleared(trained: Path, tmp_path: Path) -> None:
    """A half-built folder doesn't get into the package."""
    left = tmp_path / ".out.building" / "data"
    left.mkdir(parents=True)
    (left / "stray.bin").write_bytes(b"x")
    package(trained, None, VERDICT, tmp_path / "out", LINEAGE)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    check_files(tmp_path / "out")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_network_without_numbers_is_refused(trained: Path, tmp_path: Path, value: float) -> None:
    """NaN differs from NaN, so it is no proof; nothing is left behind."""
    broken = Path(shutil.copytree(trained, tmp_path / "broken"))
    weights = load_file(broken / checkpoint.WEIGHTS)
    save_file(weights | {"head.bias": torch.full((1,), value)}, broken / checkpoint.WEIGHTS)
    with pytest.raises(PackageError, match="must not be served"):
        package(broken, None, VERDICT, tmp_path / "out", LINEAGE)
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_a_probability_that_is_no_number_is_no_proof() -> None:
    """NaN is not within any tolerance, and neither is an error."""
    for answer in ({"probability": float("nan")}, {"error": "no number"}):
        with pytest.raises(PackageError, match="must not be served"):
            largest_difference([{"file": "a.wav", "expected": 0.5} | answer])


def hop(data: Path) -> None:
    config = json.loads((data / "config.json").read_text())
    config["features"]["hop_length"] = 161
    (data / "config.json").write_text(json.dumps(config))


def step(data: Path) -> None:
    config = json.loads((data / "config.json").read_text())
    config["windows"]["step_seconds"] = 1.01
    (data / "config.json").write_text(json.dumps(config))


def weight(data: Path) -> None:
    with np.load(data / "weights.npz") as file:
        arrays = dict(file)
    arrays["head.bias"] = arrays["head.bias"] + 1e-4
    np.savez(data / "weights.npz", **arrays)


@pytest.mark.parametrize("change", [hop, step, weight])
def test_a_small_difference_is_found(copied: Path, change: Callable[[Path], None]) -> None:
    """The golden recordings tell a hop of 161 samples, a step of 1.01 s, a bias that is off by 1e-4."""
    data = copied / "data"
    assert largest_difference(answers(Model.load(data), str(data))) <= 1e-5
    change(data)
    with pytest.raises(PackageError, match="must not be served"):
        largest_difference(answers(Model.load(data), str(data)))


def test_a_resampler_that_is_off_is_found(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By 1 % in level, which only the 8 and 44.1 kHz recordings hear."""
    monkeypatch.setattr(
        model, "resample", lambda samples, rate: resample(samples, rate) * (1.0 if rate == 16_000 else 1.01)
    )
    data = made / "data"
    wrong = {
        answer["file"]
        for answer in answers(Model.load(data), str(data))
        if abs(answer["probability"] - answer["expected"]) > 1e-5
    }
    assert wrong == {"golden/voice-8-khz.wav", "golden/tone-44-khz-stereo.wav"}


def test_the_check_uses_the_packages_own_code(copied: Path) -> None:
    """Not the project's: another version's package is checked as it will be served."""
    (copied / "code" / "spira_inference" / "network.py").write_text("raise RuntimeError('this very file')")
    with pytest.raises(PackageError, match="this very file"):
        check_golden(copied)


def test_served_code_needs_nothing_of_the_project(made: Path) -> None:
    """Neither spira nor torch is imported when it answers."""
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
        (lambda folder: (folder / "code" / "more.py").write_text(""), "code/more.py is not its own"),
        (lambda folder: (folder / "package.json").unlink(), "no package"),
        (lambda folder: (folder / "package.json").write_text("{"), "no package"),
    ],
)
def test_a_damaged_package_is_refused(copied: Path, damage: Callable[[Path], object], words: str) -> None:
    """By the file that was changed."""
    damage(copied)
    with pytest.raises(PackageError, match=words):
        verify(copied)


def test_a_package_without_golden_recordings_proves_nothing(copied: Path) -> None:
    """An empty list is no proof."""
    (copied / "data" / "golden.json").write_text("[]")
    with pytest.raises(PackageError, match="no golden recording"):
        check_golden(copied)


def test_a_verdict_without_a_band_is_refused(trained: Path, tmp_path: Path) -> None:
    """Rather than serving a band that nobody set."""
    with pytest.raises(PackageError, match="abstention"):
        package(trained, None, {"gate": {}}, tmp_path / "out", LINEAGE)


@pytest.mark.parametrize(
    "windows", [{"short_files": "refuse"}, {"mode": "whole", "window_seconds": 6.0}, {"window_seconds": 3.0}]
)
def test_other_windows_are_packaged_too(tmp_path: Path, windows: dict[str, object]) -> None:
    """Short recordings refused, whole files, and windows of another length."""
    trained = make_checkpoint(tmp_path / "checkpoint", config_of("conv1d", **windows))
    assert told(package(trained, None, VERDICT, tmp_path / "package", LINEAGE))["largest_difference"] <= 1e-5


def test_predicts_files(made: Path, tmp_path: Path) -> None:
    """WAV and other formats, in the order given; what can't be used gets an error, the others an answer."""
    samples = (signal(5.0) * 32767).astype(np.int16)
    for name in ("a.wav", "b.flac"):
        soundfile.write(tmp_path / name, samples, SAMPLE_RATE_HZ)
    (tmp_path / "c.wav").write_bytes(b"RIFF")
    (tmp_path / "d.mp3").write_text("no sound")
    files = [tmp_path / name for name in ("a.wav", "b.flac", "c.wav", "d.mp3", "e.wav")]
    answers = predict_with_package(made, files)
    assert [answer["file"] for answer in answers] == [str(file) for file in files]
    assert ["error" in answer for answer in answers] == [False, False, True, True, True]
    assert answers[0]["diagnosis"] in {"positive", "negative", "inconclusive"}
    assert 0 < answers[0]["probability"] < 1
    assert answers[0]["probability"] == pytest.approx(answers[1]["probability"], abs=1e-6)


def test_predicting_with_no_package_says_so(tmp_path: Path) -> None:
    """In one line."""
    with pytest.raises(PackageError, match=str(tmp_path)):
        predict_with_package(tmp_path, [tmp_path / "a.wav"])
