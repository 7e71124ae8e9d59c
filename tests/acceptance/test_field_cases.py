"""Trouble that people reported in public, as small data sets beside the checkout, through the command line.

The inputs are synthetic; their README says what is right.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from spira.cli.main import app
from tests.support import ROOT
from tests.support.packages import make_package

pytestmark = pytest.mark.integration

CASES = ROOT.parent / "shared" / "data" / "field-cases"
WITHOUT_NOISE = [
    argument
    for count in ("train_controls", "train_patients", "test_controls", "test_patients")
    for argument in ("--set", f"noise.{count}=0")
]


def case(name: str) -> Path:
    """Return the folder of a case; skip the test where it is absent."""
    if not (CASES / name).is_dir():
        pytest.skip(f"../shared/data/field-cases/{name} is absent")
    return CASES / name


def spira(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def preprocess(data: Path, out: Path, *settings: str) -> Result:
    return spira("preprocess", "--data", data, "--out", out, *settings)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_package(tmp_path_factory.mktemp("field"))


@pytest.mark.parametrize("name", ["byte-rate", "adpcm", "streamed-header", "accents-nfd", "trained-not-predicted"])
def test_a_whole_data_set_is_accepted(name: str, tmp_path: Path) -> None:
    """No size field, no encoding of libsndfile's and no form of accents is a reason to refuse it."""
    data = case(name) / "data"
    assert spira("data", "check", data).exit_code == 0
    assert preprocess(data, tmp_path / "corpus").exit_code == 0
    assert (tmp_path / "corpus" / "manifest.json").is_file()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dead-microphone", ["metadata_train.csv, row 2: train/controle0.wav is silent"]),
        ("speaker-nfd-leak", ["metadata_test.csv, row 2: speaker", "is in the test split", "in the train split"]),
        ("no-noise", ["noise.csv", "always needed", "noise.* counts are 0"]),
    ],
)
def test_a_bad_data_set_is_refused_by_its_rule(
    name: str, words: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By preprocess and by the check, in the same words."""
    data = case(name) / "data"
    checked = spira("data", "check", data)
    assert checked.exit_code == 2
    assert [word for word in words if word not in checked.stdout] == []
    result = preprocess(data, tmp_path / "corpus", *WITHOUT_NOISE)
    assert result.exit_code == 2
    assert [word for word in words if word not in result.output] == []
    assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize("name", ["trained-not-predicted", "adpcm", "streamed-header", "byte-rate"])
def test_what_is_trained_on_is_predicted(name: str, package: Path) -> None:
    """Every recording gets a probability."""
    recordings = sorted((case(name) / "data").glob("*/*.wav"))
    result = spira("predict", "--model", package, "--json", *recordings)
    assert result.exit_code == 0, result.output
    assert [Path(row["file"]) for row in json.loads(result.stdout)] == recordings
    assert all(0 <= row["probability"] <= 1 for row in json.loads(result.stdout))


def test_a_dead_microphone_gets_no_diagnosis(package: Path) -> None:
    """The row holds the reason instead."""
    result = spira(
        "predict", "--model", package, "--json", case("dead-microphone") / "data" / "train" / "controle0.wav"
    )
    assert result.exit_code == 2
    (row,) = json.loads(result.stdout)
    assert "is silent" in row["error"]
    assert "diagnosis" not in row


def test_recordings_of_telephones_are_predicted(package: Path) -> None:
    """Both are read with PyAV; without it the first is refused by its format, with both remedies."""
    folder = case("m4a")
    result = spira("predict", "--model", package, "--json", folder / "iphone.m4a", folder / "whatsapp.opus")
    iphone, whatsapp = json.loads(result.stdout)
    assert 0 <= whatsapp["probability"] <= 1
    if "error" in iphone:
        assert all(word in iphone["error"] for word in ("MPEG-4", "spira[av]", "ffmpeg"))
    else:
        assert 0 <= iphone["probability"] <= 1


def run_in_locale(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``spira`` where names of files are ASCII only."""
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "spira", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", cwd=ROOT)


def test_a_locale_without_accents_is_named(tmp_path: Path) -> None:
    """The file is there, and the message says what hides it; following the advice helps."""
    data = shutil.copytree(case("accents-nfd") / "data", tmp_path / "data")
    for arguments in (["data", "check", data], ["preprocess", "--data", data, "--out", tmp_path / "corpus"]):
        refused = run_in_locale(*arguments)
        assert refused.returncode == 2
        assert "set LC_ALL=C.UTF-8 and run again" in refused.stdout + refused.stderr
        assert "Traceback" not in refused.stderr
    assert preprocess(data, tmp_path / "corpus").exit_code == 0


def test_a_gpu_that_is_seen_and_cannot_be_used(tmp_path: Path) -> None:
    """``auto`` falls back with a warning, ``cuda`` is refused in one line."""
    pretends = case("cuda-unusable")
    corpus = tmp_path / "corpus"
    assert preprocess(case("byte-rate") / "data", corpus).exit_code == 0
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(pretends), str(ROOT)])}
    command = [sys.executable, "-m", "spira", "train", "--corpus", corpus, "--set", "training.max_epochs=1"]
    command += ["--set", "training.batch_files=2", "--set", "model.channels=8", "--seed", "1"]

    def train(device: str) -> subprocess.CompletedProcess[str]:
        options = ["--out", tmp_path / device, "--device", device]
        return subprocess.run([*map(str, command + options)], env=environment, capture_output=True, text=True, cwd=ROOT)

    if subprocess.run([sys.executable, "-c", "import torch; exit(not torch.cuda.is_available())"]).returncode == 0:
        pytest.skip("this machine has a GPU that can be used")
    automatic, named = train("auto"), train("cuda")
    assert automatic.returncode == 0, automatic.stderr
    assert automatic.stderr.count("the GPU is seen and cannot be used") == 1
    assert named.returncode == 2
    assert "device cuda: the GPU is seen and cannot be used" in named.stderr
    assert "Traceback" not in named.stderr + automatic.stderr
