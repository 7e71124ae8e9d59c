"""Tests of the model of a package: its probabilities, its contract with the Inference Service, its refusals."""

from __future__ import annotations

import ast
import io
import json
import math
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile

from spira import inference
from spira.inference import pyfunc
from spira.inference.model import MAX_BYTES, Model, ModelError, loudest_dbfs, sigmoid
from spira.inference.wav import AudioError
from tests.support.packages import make_package, signal

SOURCES = sorted(Path(inference.__file__).parent.glob("*.py"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the ``data`` folder of a package."""
    return make_package(tmp_path_factory.mktemp("model")) / "data"


@pytest.fixture(scope="module")
def model(data: Path) -> Model:
    return Model.load(data)


def wav_bytes(samples: np.ndarray, rate: int = 16_000) -> bytes:
    file = io.BytesIO()
    wavfile.write(file, rate, samples)
    return file.getvalue()


def dead_microphone() -> np.ndarray:
    """Return a constant offset with a few steps of converter noise, int16."""
    return (9830 + np.random.default_rng(0).integers(-4, 5, 5 * 16_000)).astype(np.int16)


def test_the_inference_service_gets_a_list_and_a_diagnosis(model: Model) -> None:
    """The service accepts only a tuple of a list of Python floats and a diagnosis."""
    content = wav_bytes(signal(6.0))
    answer = model.predict([{"id": "1", "age": None}, {"frase": {"content": content, "filename": "x.wav"}}])
    assert type(answer) is tuple
    (probabilities, diagnosis) = answer
    assert type(probabilities) is list
    assert [type(value) for value in probabilities] == [float]
    assert probabilities == [model.probability(content)]
    assert diagnosis == model.diagnose(probabilities[0])
    assert json.loads(json.dumps(probabilities)) == probabilities


def test_only_the_sentence_is_used(model: Model) -> None:
    """The other three of the service's four recordings may have any content."""
    files = {name: {"content": b"", "filename": "x.wav"} for name in ("aceite", "sustentada", "parlenda")}
    files["frase"] = {"content": wav_bytes(signal(6.0)), "filename": "x.wav"}
    assert model.predict([{}, files]) == model.predict([{}, {"frase": files["frase"]}])


@pytest.mark.parametrize(
    "request_",
    [
        None,
        [],
        [{}],
        {"frase": b""},
        [{}, None],
        [{}, {}],
        [{}, {"frase": b"RIFF"}],
        [{}, {"frase": {"filename": "x.wav"}}],
        [{}, {"frase": {"content": "text"}}],
        [{}, {"frase": {"content": None}}],
    ],
)
def test_a_request_without_the_sentence_is_refused(model: Model, request_: object) -> None:
    """The error describes a valid request, whatever was sent."""
    with pytest.raises(ModelError, match=r"request|frase"):
        model.predict(request_)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (signal(0.3), "less than 0.5 s"),
        (np.zeros(16_000 * 121, np.int16), "more than the 120 s"),
        (np.zeros(16_000 * 5, np.int16), "silent"),
        (np.full(16_000 * 5, np.nan, np.float32), "not finite"),
        (dead_microphone(), "silent"),
        (np.linspace(9000, 12000, 5 * 16_000).astype(np.int16), "silent"),
    ],
)
def test_unusable_recordings_are_refused(
    model: Model, samples: np.ndarray, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The rules are those of training. The service, where an error is silence, gets an answer without a number."""
    content = wav_bytes(samples)
    with pytest.raises(AudioError, match=message):
        model.probability(content)
    assert model.predict([{}, {"frase": {"content": content, "filename": "x.wav"}}]) == ([], "inconclusive")
    assert message in caplog.text


@pytest.mark.parametrize("rate", [4_000, 8_000, 11_025, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("offset", [-0.9, 0.3, 0.9])
def test_a_constant_offset_is_silent_at_every_sample_rate(model: Model, rate: int, offset: float) -> None:
    """Resampling leaves ripples of the step at both ends, which are no sound."""
    with pytest.raises(AudioError, match="silent"):
        model.probability(wav_bytes(np.full(2 * rate, offset, np.float32), rate))


@pytest.mark.parametrize("seconds", [0.2, 0.5, 10.0])
def test_a_drifting_offset_is_silent(model: Model, seconds: float) -> None:
    """A dead microphone's offset also decays, or drifts from end to end."""
    time = np.arange(3 * 16_000) / 16_000
    for offset in (0.6 * np.exp(-time / seconds), 0.6 * time / 3):
        with pytest.raises(AudioError, match="is silent"):
            model.check(offset.astype(np.float32))


@pytest.mark.parametrize("content", [b"", b"ID3" + bytes(1000), b"OggS" + bytes(1000), wav_bytes(signal(5.0))[:-5000]])
def test_bytes_that_are_no_whole_wav_are_answered_without_a_number(model: Model, content: bytes) -> None:
    """Empty, MP3, Ogg and cut-off content."""
    assert model.predict([{}, {"frase": {"content": content, "filename": "x.wav"}}]) == ([], "inconclusive")


def test_a_huge_file_is_refused_before_decoding(model: Model) -> None:
    """No memory is allocated for its samples."""
    with pytest.raises(AudioError, match="more than"):
        model.probability(bytes(MAX_BYTES + 1))


def test_two_channels_give_the_same_probability(model: Model) -> None:
    """The same signal in two channels gives the same probability within 1e-6."""
    mono = signal(6.0)
    stereo = np.stack([mono, mono], axis=1)
    assert math.isclose(model.probability(wav_bytes(stereo)), model.probability(wav_bytes(mono)), abs_tol=1e-6)


@pytest.mark.parametrize(
    ("probability", "diagnosis"),
    [
        (0.0, "negative"),
        (0.4, "negative"),
        (0.41, "inconclusive"),
        (0.5, "inconclusive"),
        (0.59, "inconclusive"),
        (0.6, "positive"),
        (1.0, "positive"),
    ],
)
def test_diagnosis_follows_threshold_and_band(model: Model, probability: float, diagnosis: str) -> None:
    """The abstention band excludes both its ends, as in evaluation."""
    assert model.diagnose(probability) == diagnosis


def test_without_an_abstention_band_the_threshold_is_positive(data: Path, tmp_path: Path) -> None:
    """A band of width 0 contains no probability."""
    narrow = altered(data, tmp_path, lambda config: config.update(abstention=[0.5, 0.5]))
    assert Model.load(narrow).diagnose(0.5) == "positive"


def test_threads_can_share_a_model(model: Model) -> None:
    """Four threads get the same probabilities as one."""
    contents = [wav_bytes(signal(5.0, seed)) for seed in range(8)]
    alone = [model.probability(content) for content in contents]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(model.probability, contents * 3)) == alone * 3


def test_a_probability_of_nan_is_refused(data: Path, tmp_path: Path) -> None:
    """NaN is invalid JSON in the service."""
    broken = altered(data, tmp_path, lambda config: None)
    with np.load(data / "weights.npz") as arrays:
        np.savez(broken / "weights.npz", **{name: np.full_like(arrays[name], np.nan) for name in arrays.files})
    with pytest.raises(ModelError, match="no number"):
        Model.load(broken).probability(wav_bytes(signal(5.0)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config.update(format=3), "format"),
        (lambda config: config.update(architecture="other"), "architecture"),
        (lambda config: config.pop("windows"), "windows"),
    ],
)
def test_a_folder_of_another_format_is_refused(data: Path, tmp_path: Path, change: Callable, message: str) -> None:
    """The error names the wrong field."""
    with pytest.raises(ModelError, match=message):
        Model.load(altered(data, tmp_path, change))


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 cut"])
def test_damaged_weights_are_refused(data: Path, tmp_path: Path, damage: bytes) -> None:
    """The error for a truncated archive names the folder."""
    folder = altered(data, tmp_path, lambda config: None)
    (folder / "weights.npz").write_bytes(damage)
    with pytest.raises(ModelError, match=str(folder)):
        Model.load(folder)


def test_pickled_weights_are_refused(data: Path, tmp_path: Path) -> None:
    """No pickle is ever loaded."""
    folder = altered(data, tmp_path, lambda config: None)
    np.savez(folder / "weights.npz", weight=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ModelError, match="pickle"):
        Model.load(folder)


def test_mlflows_loader_returns_the_model(data: Path, model: Model) -> None:
    """``predict`` also accepts the parameters of later versions of MLflow."""
    request = [{}, {"frase": {"content": wav_bytes(signal(5.0))}}]
    assert pyfunc._load_pyfunc(str(data)).predict(request, params=None) == model.predict(request)


def test_the_level_is_that_of_the_loudest_frame() -> None:
    """A full-scale square wave is at 0 dBFS, silence at -120, also with a constant offset."""
    square = np.tile([1.0, -1.0], 8_000)
    assert loudest_dbfs(np.r_[np.zeros(16_000), square]) == pytest.approx(0.0, abs=1e-3)
    assert loudest_dbfs(np.r_[np.zeros(16_000), square] + 0.5) == pytest.approx(0.0, abs=1e-3)
    assert loudest_dbfs(np.full(16_000, 0.3)) == pytest.approx(-120.0)
    assert loudest_dbfs(np.zeros(16_000)) == pytest.approx(-120.0)
    assert loudest_dbfs(np.zeros(3)) == pytest.approx(-120.0)


@pytest.mark.parametrize("logit", [-1e9, -50.0, 0.0, 50.0, 1e9])
def test_sigmoid_never_overflows(logit: float) -> None:
    """The result is in [0, 1] for any logit."""
    assert 0.0 <= sigmoid(logit) <= 1.0


def test_sigmoid_keeps_nan() -> None:
    """A logit of NaN does not become a probability."""
    assert math.isnan(sigmoid(math.nan))


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: file.name)
def test_package_code_is_python_38_with_numpy_and_scipy(file: Path) -> None:
    """Each file parses as Python 3.8 and imports numpy, scipy, the standard library and its own folder only."""
    tree = ast.parse(file.read_text(), feature_version=(3, 8))
    allowed = {"numpy", "scipy"} | sys.stdlib_module_names
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert {alias.name.partition(".")[0] for alias in node.names} <= allowed
        elif isinstance(node, ast.ImportFrom) and not node.level:
            assert node.module.partition(".")[0] in allowed


def altered(data: Path, tmp_path: Path, change: Callable[[dict], object]) -> Path:
    """Copy a ``data`` folder with a changed configuration."""
    folder = tmp_path / "altered"
    shutil.copytree(data, folder)
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    return folder
