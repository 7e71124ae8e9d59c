"""The answer of a package to one recording: probability and diagnosis, or why it is refused, and its quality."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spira import audio
from spira.data import decoding
from spira.data.decoding import Measures
from spira.inference.golden import predict
from spira.inference.model import INCONCLUSIVE, Model
from spira.inference.wav import AudioError

MIN_RMS_DBFS = -40.0
"""Level below which a recording counts as quiet; those of the paper's protocol have -30 to -20."""
MAX_CLIPPED_FRACTION = 0.01
"""Share of samples at full scale above which a recording counts as clipped."""
MIN_SPEECH_FRACTION = 0.1
"""Share of frames 10 dB above the background below which a recording counts as having little speech."""


@dataclass(frozen=True)
class Prediction:
    """The answer to one recording."""

    file: str
    probability: float | None = None
    """Probability of respiratory insufficiency; None if the recording is refused."""
    diagnosis: str = ""
    """``positive``, ``negative`` or ``inconclusive``; empty if the recording is refused."""
    error: str = ""
    """Why the recording is refused, to follow the file's name."""
    quality: Measures | None = None
    """Measures; None if the recording cannot be decoded."""
    flags: tuple[str, ...] = ()
    """Flags of :func:`flags_of`."""

    @property
    def abstained(self) -> bool | None:
        """Whether the model gives no diagnosis because the probability is in its abstention band."""
        return self.diagnosis == INCONCLUSIVE if self.diagnosis else None

    def answer(self) -> dict[str, Any]:
        """Return file, and probability and diagnosis or error, as a JSON object."""
        if self.error:
            return {"error": self.error, "file": self.file}
        return {"probability": self.probability, "diagnosis": self.diagnosis, "file": self.file}

    def to_json(self) -> dict[str, Any]:
        """Return everything as a JSON object; see :meth:`answer`."""
        quality = None if self.quality is None else asdict(self.quality)
        abstained = {} if self.error else {"abstained": self.abstained}
        return {**self.answer(), **abstained, "flags": list(self.flags), "quality": quality}


def flags_of(measures: Measures, window_seconds: float) -> tuple[str, ...]:
    """Return what makes an answer less certain; empty for a recording as the model was trained on.

    Args:
        measures: of the recording.
        window_seconds: length below which the model's window is padded.
    """
    flags = {
        "short": measures.seconds < window_seconds,
        "quiet": measures.rms_dbfs < MIN_RMS_DBFS,
        "clipped": measures.clipped_fraction > MAX_CLIPPED_FRACTION,
        "little speech": measures.speech_fraction < MIN_SPEECH_FRACTION,
    }
    return tuple(flag for flag, is_set in flags.items() if is_set)


def predict_recording(model: Model, file: Path) -> Prediction:
    """Return a model's answer to a recording of any format; a bad recording is an answer with an error."""
    try:
        with audio.open_recording(file) as recording:
            decoded = audio.decode(recording, float(model.limits["max_seconds"]))
    except OSError as error:
        return Prediction(str(file), error=f"cannot be read: {error.strerror}")
    except AudioError as error:
        return Prediction(str(file), error=str(error))
    has_frames = len(decoded.samples) >= decoding.FRAME_SAMPLES
    quality = decoding.measure(decoded) if has_frames else None
    is_whole = model.windows["mode"] == "whole"  # the window is then as long as the longest recording of training
    window_seconds = 0.0 if is_whole else float(model.windows["window_seconds"])
    flags = flags_of(quality, window_seconds) if quality else ()
    answer = predict(model, audio.to_wav(decoded))
    return Prediction(str(file), quality=quality, flags=flags, **answer)
