"""The answer to one recording, with measures and flags of its quality."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from spira.config import SAMPLE_RATE_HZ
from spira.data.decoding import Measures
from spira.inference.model import Model
from spira.packaging.prediction import flags_of, predict_recording
from tests.support.packages import make_package, signal

pytestmark = pytest.mark.integration

GOOD = Measures(
    seconds=5.0,
    sample_rate=16_000,
    channels=1,
    peak_dbfs=-3.0,
    rms_dbfs=-20.0,
    background_dbfs=-60.0,
    speech_fraction=0.6,
    clipped_fraction=0.0,
    encoding="WAV PCM",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model.load(make_package(tmp_path_factory.mktemp("made")) / "data")


def recording(folder: Path, samples: np.ndarray, rate: int = SAMPLE_RATE_HZ) -> Path:
    """Write samples as a 16-bit WAV file."""
    path = folder / "a.wav"
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return path


def test_a_good_recording_has_a_probability_and_no_flag(model: Model, tmp_path: Path) -> None:
    """The answer is as before; the measures stand beside it."""
    answer = predict_recording(model, recording(tmp_path, 0.5 * signal(5.0)))
    assert answer.probability is not None
    assert answer.diagnosis == model.diagnose(answer.probability)
    assert answer.abstained == (answer.diagnosis == "inconclusive")
    assert answer.answer().keys() == {"probability", "diagnosis", "file"}
    assert answer.quality is not None
    assert (answer.quality.seconds, answer.quality.channels) == (5.0, 1)
    assert answer.flags == ()


@pytest.mark.parametrize(
    ("measures", "flags"),
    [
        ({"seconds": 3.9}, ("short",)),
        ({"rms_dbfs": -40.1}, ("quiet",)),
        ({"clipped_fraction": 0.011}, ("clipped",)),
        ({"speech_fraction": 0.09}, ("little speech",)),
        ({"seconds": 3.9, "rms_dbfs": -50.0}, ("short", "quiet")),
        ({"seconds": 4.0, "rms_dbfs": -40.0, "clipped_fraction": 0.01, "speech_fraction": 0.1}, ()),
    ],
)
def test_a_measure_past_its_limit_is_a_flag(measures: dict[str, float], flags: tuple[str, ...]) -> None:
    """Values at the limits are accepted."""
    assert flags_of(Measures(**{**vars(GOOD), **measures}), window_seconds=4.0) == flags


def test_the_flags_of_real_samples(model: Model, tmp_path: Path) -> None:
    """A short, quiet recording is answered, with both flags."""
    answer = predict_recording(model, recording(tmp_path, 0.01 * signal(2.0)))
    assert answer.probability is not None
    assert answer.flags[:2] == ("short", "quiet")


def test_a_recording_that_the_model_refuses_has_its_measures(model: Model, tmp_path: Path) -> None:
    """Silence can be decoded: the level explains the refusal."""
    answer = predict_recording(model, recording(tmp_path, np.zeros(SAMPLE_RATE_HZ)))
    assert "is silent" in answer.error
    assert answer.probability is None
    assert answer.abstained is None
    assert answer.quality is not None
    assert answer.quality.rms_dbfs == -120.0


@pytest.mark.parametrize("content", [b"", b"RIFF", None])
def test_a_recording_that_cannot_be_decoded_has_a_reason_alone(
    model: Model, tmp_path: Path, content: bytes | None
) -> None:
    """Empty, damaged or missing."""
    path = tmp_path / "bad.wav"
    if content is not None:
        path.write_bytes(content)
    answer = predict_recording(model, path)
    assert answer.error
    assert (answer.quality, answer.flags, answer.diagnosis) == (None, (), "")
    assert answer.answer().keys() == {"error", "file"}


def test_a_recording_shorter_than_a_frame_is_refused(model: Model, tmp_path: Path) -> None:
    """It has no level."""
    answer = predict_recording(model, recording(tmp_path, 0.5 * signal(1.0)[:100]))
    assert "less than" in answer.error
    assert answer.quality is None
