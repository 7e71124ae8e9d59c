"""The model of a package: recording in, probability and diagnosis out.

    model = Model.load("package/data")
    probability = model.probability(wav_bytes)
    model.diagnose(probability)
    model.predict([inference, {"frase": {"content": wav_bytes}}])

A loaded model holds constants only, so threads can share it.
"""

from __future__ import annotations

import json
import logging
import math
import os
import zipfile
from typing import Any, Callable, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from .mfcc import Mfcc
from .networks import build
from .wav import AudioError, decode, resample
from .windows import SAMPLE_RATE_HZ, cut

FORMAT = 2
"""Format of a new package. Format 1 had no ``MLmodel`` among the files that ``package.json`` lists."""

FORMATS = (1, 2)
"""Formats that this code reads: the present one and the one before. Golden recordings decide whether it computes them
as their own code did."""

SENTENCE = "frase"
"""Name of the read sentence, the only one of the Inference Service's four recordings the network was trained on."""

INCONCLUSIVE = "inconclusive"
"""Diagnosis without a decision."""

MAX_BYTES = 64 * 2**20
"""Largest WAV file; larger ones are refused unread. Two minutes of 32-bit stereo at 48 kHz are 44 MiB."""

logger = logging.getLogger(__name__)


class ModelError(ValueError):
    """An invalid model folder, request or result."""


class Model:
    """A detector that answers requests.

    Args:
        config: the package's ``config.json``: format, features, windows, architecture, threshold, abstention, limits,
            and temperature if probabilities are scaled.
        logit: network that maps the MFCC of a window, float [frames, coefficients], to its logit.
    """

    def __init__(self, config: Mapping[str, Any], logit: Callable[[np.ndarray], float]) -> None:
        self.windows = config["windows"]
        self.threshold = float(config["threshold"])
        self.low, self.high = config["abstention"]
        self.temperature = float(config.get("temperature", 1.0))  # only packages with temperature scaling have it
        self.limits = config["limits"]
        self.mfcc = Mfcc(config["features"])
        self.logit = logit

    @classmethod
    def load(cls, folder: Union[str, "os.PathLike[str]"]) -> "Model":
        """Read ``config.json`` and ``weights.npz``. Nothing in them is executed.

        Raises:
            ModelError: a file is missing or damaged, or has another format.
        """
        try:
            with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
                config = json.load(file)
            with np.load(os.path.join(folder, "weights.npz"), allow_pickle=False) as arrays:
                weights = {name: arrays[name] for name in arrays.files}
            if config["format"] not in FORMATS:
                known = " and ".join(map(str, FORMATS))
                raise ValueError("its format is %s; this code reads the formats %s" % (config["format"], known))
            return cls(config, build(config["architecture"], weights))
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ModelError("%s holds no valid model: %s" % (folder, error)) from error

    def probability(self, content: bytes) -> float:
        """Return the probability of respiratory insufficiency: the mean over the windows of a WAV file, calibrated.

        Raises:
            AudioError: the recording is refused.
            ModelError: the network returns NaN or infinity.
        """
        if len(content) > MAX_BYTES:
            raise AudioError("has %d bytes, more than %d" % (len(content), MAX_BYTES))
        samples, rate = decode(content, max_seconds=self.limits["max_seconds"])
        probability = float(np.mean(self.window_probabilities(self.check(resample(samples, rate)))))
        if not math.isfinite(probability):
            raise ModelError("the network returns no number for this recording: do not serve this model")
        return scaled(probability, self.temperature)

    def window_probabilities(self, waveform: np.ndarray) -> List[float]:
        """Return the probability of each window of a 16 kHz waveform, float [samples] -> [windows], not calibrated."""
        return [sigmoid(self.logit(self.mfcc(window))) for window in cut(waveform, self.windows)]

    def check(self, waveform: np.ndarray) -> np.ndarray:
        """Return the waveform if it is as long and as loud as training requires.

        Raises:
            AudioError: the waveform is too short or silent.
        """
        seconds = len(waveform) / SAMPLE_RATE_HZ
        if seconds < self.limits["min_seconds"]:
            raise AudioError("lasts %.2f s, less than %g s" % (seconds, self.limits["min_seconds"]))
        loudest, silence = loudest_dbfs(waveform), self.limits["silence_dbfs"]
        if loudest < silence:
            raise AudioError("is silent: its loudest 20 ms are at %.0f dBFS, below %g" % (loudest, silence))
        return waveform

    def diagnose(self, probability: float) -> str:
        """Return ``positive`` from the threshold on, ``negative`` below, ``inconclusive`` in the abstention band."""
        if self.low < probability < self.high:
            return INCONCLUSIVE
        return "positive" if probability >= self.threshold else "negative"

    def predict(
        self, model_input: Sequence[Mapping[str, Any]], params: Optional[Mapping[str, Any]] = None
    ) -> Tuple[List[float], str]:
        """Answer a request of the Inference Service: ``[inference, files]`` -> ``([probability], diagnosis)``.

        A recording that cannot be judged is answered with ``([], "inconclusive")``, and the reason is logged. The
        service sends no reply at all to an error, so the one who asks would wait for ever.

        Args:
            model_input: the inference's fields (unused: the network uses the voice only), and the recordings by name,
                each ``{"content": bytes of a WAV file, "filename": ...}``.
            params: MLflow's inference parameters; unused.

        Raises:
            ModelError: the request has no recording of the sentence, or the network returns no number.
        """
        content = sentence(model_input)
        try:
            probability = self.probability(content)
        except ModelError:
            raise
        except ValueError as error:
            logger.warning("the recording is not judged: it %s", error)
            return [], INCONCLUSIVE
        return [probability], self.diagnose(probability)


def sentence(model_input: Sequence[Mapping[str, Any]]) -> bytes:
    """Return the bytes of the read sentence in a request.

    Raises:
        ModelError: the request does not hold them.
    """
    if not isinstance(model_input, (list, tuple)) or len(model_input) != 2:
        raise ModelError("a request must be a list of two: the inference's fields and its files")
    files = model_input[1]
    try:
        content = files[SENTENCE]["content"]
    except (KeyError, TypeError) as error:
        raise ModelError("the request has no recording files[%r]['content']" % SENTENCE) from error
    if not isinstance(content, (bytes, bytearray, memoryview)):
        raise ModelError("files[%r]['content'] must be bytes, not %s" % (SENTENCE, type(content).__name__))
    return bytes(content)


def loudest_dbfs(waveform: np.ndarray) -> float:
    """Return the level of the loudest 20 ms frame, in dB relative to full-scale RMS, at least -120.

    Each frame is measured without its straight line of least squares: the offset of a dead microphone is no sound, even
    if it drifts. Nor is its step at either end of the recording, which resampling spreads over a few samples: the first
    and the last 20 ms are left out.
    """
    frame = SAMPLE_RATE_HZ // 50
    inner = waveform[frame:-frame]
    frames = inner[: len(inner) // frame * frame].reshape(-1, frame)
    time = np.arange(frame) - (frame - 1) / 2.0
    drift = (frames @ time) ** 2 / (frame * (time @ time))
    power = float(np.max(np.var(frames, axis=1, dtype=np.float64) - drift, initial=0.0))
    return 10.0 * math.log10(max(power, 1e-12))


def scaled(probability: float, temperature: float) -> float:
    """Return a probability with its logit divided by a temperature (Guo and others, 2017); 1 changes nothing."""
    if temperature == 1.0:
        return probability
    inner = min(max(probability, 1e-12), 1.0 - 1e-12)  # 0 and 1 have no logit
    return sigmoid(math.log(inner / (1.0 - inner)) / temperature)


def sigmoid(logit: float) -> float:
    """Return the sigmoid of a logit in float64."""
    return 1.0 / (1.0 + math.exp(-max(logit, -700.0)))  # exp of more than 709 would overflow
