"""A package's ``data`` folder as a model: a recording in, a probability and a diagnosis out.

    model = Model.load("package/data")
    probability = model.probability(wav_bytes)
    model.diagnose(probability)
    model.predict([inference, {"frase": {"content": wav_bytes}}])

A model holds nothing but constants once it is loaded: threads may share it.
"""

from __future__ import annotations

import json
import math
import os
import zipfile
from typing import Any, Callable, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from .mfcc import Mfcc
from .networks import build
from .wav import AudioError, decode, resample
from .windows import SAMPLE_RATE_HZ, cut

FORMAT = 1
"""Of the folder; another is refused."""

SENTENCE = "frase"
"""Which of the Inference Service's four recordings the network was trained on: the read sentence."""

MAX_BYTES = 64 * 2**20
"""A longer file is refused unread; two minutes of stereo in 32 bits at 48 kHz are 44 MiB."""


class ModelError(ValueError):
    """A folder that is no model, or a request that is no request; the message says what is missing."""


class Model:
    """What is served.

    Args:
        config: of the package: format, features, windows, architecture, threshold, abstention, limits.
        logit: MFCC of a window, float [frames, coefficients] -> its logit.
    """

    def __init__(self, config: Mapping[str, Any], logit: Callable[[np.ndarray], float]) -> None:
        self.windows = config["windows"]
        self.threshold = float(config["threshold"])
        self.low, self.high = config["abstention"]
        self.limits = config["limits"]
        self.mfcc = Mfcc(config["features"])
        self.logit = logit

    @classmethod
    def load(cls, folder: Union[str, "os.PathLike[str]"]) -> "Model":
        """Read ``config.json`` and ``weights.npz``; nothing in them is executed.

        Raises:
            ModelError: a file is missing or damaged, or was written for other code.
        """
        try:
            with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
                config = json.load(file)
            with np.load(os.path.join(folder, "weights.npz"), allow_pickle=False) as arrays:
                weights = {name: arrays[name] for name in arrays.files}
            if config["format"] != FORMAT:
                raise ValueError("its format is %s, this code reads %d" % (config["format"], FORMAT))
            return cls(config, build(config["architecture"], weights))
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ModelError("%s holds no model that can be served: %s" % (folder, error)) from error

    def probability(self, content: bytes) -> float:
        """Of respiratory insufficiency: the mean over the windows of a recording, from the bytes of a WAV file.

        Raises:
            AudioError: the file is no usable recording.
            ModelError: the network gives no number.
        """
        if len(content) > MAX_BYTES:
            raise AudioError("the file has %d bytes, more than %d" % (len(content), MAX_BYTES))
        samples, rate = decode(content, max_seconds=self.limits["max_seconds"])
        probability = float(np.mean(self.window_probabilities(self.check(resample(samples, rate)))))
        if not math.isfinite(probability):
            raise ModelError("the network gives no number for this recording: don't serve this model")
        return probability

    def window_probabilities(self, waveform: np.ndarray) -> List[float]:
        """Of each window of a waveform at 16 kHz, float [samples] -> [windows]."""
        return [sigmoid(self.logit(self.mfcc(window))) for window in cut(waveform, self.windows)]

    def check(self, waveform: np.ndarray) -> np.ndarray:
        """The waveform itself if it is as long and as loud as training demands of its recordings.

        Raises:
            AudioError: which rule it breaks.
        """
        seconds = len(waveform) / SAMPLE_RATE_HZ
        if seconds < self.limits["min_seconds"]:
            raise AudioError("the recording lasts %.2f s, less than %g s" % (seconds, self.limits["min_seconds"]))
        if loudest_dbfs(waveform) < self.limits["silence_dbfs"]:
            raise AudioError("the recording is silent: nothing in it is above %g dBFS" % self.limits["silence_dbfs"])
        return waveform

    def diagnose(self, probability: float) -> str:
        """``positive`` from the threshold on, ``negative`` below it, ``inconclusive`` inside the abstention band."""
        if self.low < probability < self.high:
            return "inconclusive"
        return "positive" if probability >= self.threshold else "negative"

    def predict(
        self, model_input: Sequence[Mapping[str, Any]], params: Optional[Mapping[str, Any]] = None
    ) -> Tuple[List[float], str]:
        """Answer the Inference Service: ``[inference, files]`` -> ``([probability], diagnosis)``.

        Args:
            model_input: the inference's fields (unused: the network hears the voice alone), and the recordings
                by name, each ``{"content": bytes of a WAV, "filename": ...}``.
            params: MLflow's; unused.

        Raises:
            ModelError: the request lacks the sentence's recording.
            AudioError: the recording can't be used.
        """
        probability = self.probability(sentence(model_input))
        return [probability], self.diagnose(probability)


def sentence(model_input: Sequence[Mapping[str, Any]]) -> bytes:
    """The bytes of the read sentence in a request.

    Raises:
        ModelError: they are not there.
    """
    if not isinstance(model_input, (list, tuple)) or len(model_input) != 2:
        raise ModelError("a request is a list of two: the inference's fields and its files")
    files = model_input[1]
    try:
        content = files[SENTENCE]["content"]
    except (KeyError, TypeError) as error:
        raise ModelError("the request holds no recording files[%r]['content']" % SENTENCE) from error
    if not isinstance(content, (bytes, bytearray, memoryview)):
        raise ModelError("files[%r]['content'] must be bytes, not %s" % (SENTENCE, type(content).__name__))
    return bytes(content)


def loudest_dbfs(waveform: np.ndarray) -> float:
    """Level of the loudest 20 ms frame, dB re full scale RMS; -120 at the lowest."""
    frame = SAMPLE_RATE_HZ // 50
    frames = waveform[: len(waveform) // frame * frame].reshape(-1, frame)
    power = float(np.max(np.mean(np.square(frames, dtype=np.float64), axis=1), initial=0.0))
    return 10.0 * math.log10(max(power, 1e-12))


def sigmoid(logit: float) -> float:
    """Of one logit, in float64; a logit below -700 is as good as -700."""
    return 1.0 / (1.0 + math.exp(-max(logit, -700.0)))
