"""All settings of the system: one frozen model per stage, composed in :class:`Config`.

A configuration consists of the defaults, a partial YAML file that overrides them, and ``section.key=value`` settings
that override both. An unknown key or a value out of range is refused by name. The resolved configuration is saved with
the checkpoint, and later stages read it from there.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from spira.errors import SpiraError

SAMPLE_RATE_HZ = 16_000
"""Sample rate of all audio after decoding, mono (Casanova and others, 2021)."""


class ConfigError(SpiraError):
    """An invalid configuration; the message names the key and the rule."""


MAX_YAML_CHARACTERS = 1_000_000
"""A longer file is no settings file."""
JsonObject = dict[str, JsonValue]
"""A JSON object at a boundary of this program: in a file, a response or a request."""


class FrozenModel(BaseModel):
    """Base of settings and documents: immutable, documented by field, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Preprocess(FrozenModel):
    """Rules that a recording must keep to enter the corpus."""

    min_seconds: float = Field(0.5, gt=0)
    """A shorter recording is refused."""
    max_seconds: float = Field(120.0, gt=0)
    """A longer recording is refused; this also stops a damaged header that promises hours."""
    max_noise_seconds: float = Field(900.0, gt=0)
    """A longer noise recording is refused: cut it into pieces."""
    min_sample_rate_hz: int = Field(4_000, gt=0)
    """A lower sample rate is refused: it leaves no speech band."""
    max_sample_rate_hz: int = Field(384_000, gt=0)
    """A higher sample rate is refused as a damaged header."""
    silence_dbfs: float = Field(-60.0, lt=0)
    """A recording whose loudest 20 ms frame is below this is refused as silent, dB re full scale RMS."""
    max_clipped_fraction: float = Field(0.05, ge=0, le=1)
    """A recording with a larger share of samples at full scale is refused as clipped."""
    eval_fraction: float = Field(0.15, gt=0, lt=1)
    """Share of speakers for validation if the data set is not split (one metadata.csv)."""
    test_fraction: float = Field(0.25, gt=0, lt=1)
    """Share of speakers for the frozen test if the data set is not split."""
    split_seed: int = 0
    """Seed of the split by speaker, if the data set is not split."""

    @model_validator(mode="after")
    def _orders(self) -> Preprocess:
        if self.min_seconds >= self.max_seconds:
            raise ValueError("min_seconds must be less than max_seconds")
        if self.min_sample_rate_hz > self.max_sample_rate_hz:
            raise ValueError("min_sample_rate_hz must not be greater than max_sample_rate_hz")
        if self.eval_fraction + self.test_fraction >= 1:
            raise ValueError("eval_fraction and test_fraction together must leave speakers for training")
        return self


class Windows(FrozenModel):
    """Windows into which a waveform is cut before features are computed (as in the paper)."""

    mode: Literal["windows", "whole"] = "windows"
    """``whole`` pads every file to the longest of the training split (experiments 1.1 and 2.1)."""
    window_seconds: float = Field(4.0, gt=0)
    """Length of a window (experiments 1.2 and 2.2 use 3 s)."""
    step_seconds: float = Field(1.0, ge=0.01)
    """Distance from the start of one window to the next."""
    short_files: Literal["pad", "refuse"] = "pad"
    """By the paper's rule a file not longer than a window has no window: zero-pad it to one, or refuse it."""


class Features(FrozenModel):
    """MFCC with torchaudio's definitions and the paper's sizes."""

    n_fft: int = Field(1200, gt=0, multiple_of=2)
    """FFT length, samples."""
    win_length: int = Field(400, gt=0, multiple_of=2)
    """Hann window, centred in the FFT frame, samples."""
    hop_length: int = Field(160, gt=0)
    """Distance from frame to frame, samples."""
    n_mels: int = Field(40, gt=0)
    """Number of HTK mel bands from 0 to 8000 Hz."""
    n_mfcc: int = Field(40, gt=0)
    """Number of coefficients of the orthonormal DCT-II that are used."""
    top_db: float = Field(80.0, gt=0)
    """Distance of the floor below a window's own peak, dB."""

    @model_validator(mode="after")
    def _sizes(self) -> Features:
        if not self.win_length <= self.n_fft:
            raise ValueError("win_length must not be greater than n_fft")
        if not self.n_mfcc <= self.n_mels:
            raise ValueError("n_mfcc must not be greater than n_mels")
        return self


class Noise(FrozenModel):
    """Ward noise inserted in training (the paper's experiment 3.6 by default) and in the noisy test."""

    train_controls: int = Field(4, ge=0)
    """Number of noises added to a control recording in training."""
    train_patients: int = Field(3, ge=0)
    """Number of noises added to a patient recording in training."""
    test_controls: int = Field(1, ge=0)
    """Number of noises added to a control recording in the noisy test."""
    test_patients: int = Field(0, ge=0)
    """Number of noises added to a patient recording in the noisy test."""
    min_peak: float = Field(0.033474047, gt=0, le=1)
    """A noise is scaled to a maximum that is drawn uniformly between min_peak and max_peak."""
    max_peak: float = Field(0.19233719, gt=0, le=1)
    """See min_peak."""

    @model_validator(mode="after")
    def _peaks(self) -> Noise:
        if self.min_peak > self.max_peak:
            raise ValueError("min_peak must not be greater than max_peak")
        return self


class Model(FrozenModel):
    """The network."""

    architecture: Literal["conv1d", "spira_v1", "spira_v2"] = "conv1d"
    """``spira_v1`` (BatchNorm) and ``spira_v2`` (GroupNorm) are the paper's SpiraConv."""
    dropout: float = Field(0.3, ge=0, lt=1)
    """The paper uses 0.7."""
    channels: int = Field(32, gt=0, multiple_of=8)
    """Width of conv1d, a multiple of 8; not used by the paper's networks."""


class Training(FrozenModel):
    """The optimisation."""

    batch_files: int = Field(4, gt=0)
    """Recordings per step, with all their windows; an incomplete last batch of an epoch is dropped."""
    learning_rate: float = Field(2e-3, gt=0)
    """Peak of the schedule."""
    weight_decay: float = Field(1e-4, ge=0)
    """Adam's L2 term."""
    warmup_steps: int = Field(100, gt=0)
    """Noam schedule: the rate rises for this many steps, then falls as 1/sqrt(step)."""
    max_epochs: int = Field(60, gt=0)
    """Largest number of epochs."""
    patience_epochs: int = Field(20, gt=0)
    """Stop after this many epochs without a lower validation loss."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto`` is bfloat16 on a GPU that supports it, and float32 elsewhere."""
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = (42, 43, 46)
    """One network is trained per seed; the one with the lowest validation loss is the candidate."""

    @model_validator(mode="after")
    def _distinct_seeds(self) -> Training:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds must be at least one, and distinct")
        return self


class Evaluation(FrozenModel):
    """Measurement of a model; the limits that it must meet are in the gate file."""

    threshold: float = Field(0.5, gt=0, lt=1)
    """A file whose mean window probability is at least this is classified as patient."""
    bootstrap_samples: int = Field(2_000, ge=200)
    """Resamples of speakers for a confidence interval; of files if speakers are not known."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Level of the confidence intervals."""
    noise_draws: int = Field(5, gt=0)
    """Independent draws of the test noise, averaged because a single draw is itself random."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of noise draws and bootstrap."""


class Config(FrozenModel):
    """The complete configuration, one field per stage."""

    preprocess: Preprocess = Preprocess()
    windows: Windows = Windows()
    features: Features = Features()
    noise: Noise = Noise()
    model: Model = Model()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()

    def digest(self) -> str:
        """Return the SHA-256 of the resolved values; comments, key order and 40 for 40.0 do not change it."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def paper() -> Config:
    """Return the configuration of the paper's best experiment, 3.6: SpiraConv V2, 4/3 noises, its optimisation."""
    return from_dict({"model": PAPER_MODEL, "training": PAPER_TRAINING})


PAPER_MODEL = {"architecture": "spira_v2", "dropout": 0.7}
PAPER_TRAINING = {
    "batch_files": 30,
    "learning_rate": 1e-3,
    "weight_decay": 0.01,
    "warmup_steps": 500,
    "max_epochs": 1000,
    "patience_epochs": 40,
}


def smoke() -> Config:
    """Return a configuration of one short epoch of a narrow network, which shows that everything runs."""
    return from_dict(
        {
            "model": {"channels": 8},
            "training": {"max_epochs": 1, "batch_files": 4, "seeds": [42]},
            "evaluation": {"bootstrap_samples": 200, "noise_draws": 1},
        }
    )


def from_dict(values: Mapping[str, object], settings: Sequence[str] = ()) -> Config:
    """Return the defaults, overridden by a partial nested dictionary and by ``section.key=value`` settings.

    Raises:
        ConfigError: a key is unknown or a value out of range; the message names each key and the rule.
    """
    merged = copy.deepcopy(dict(values))
    for setting in settings:
        _set(merged, setting)
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(explain(error)) from None


def load(path: Path | None = None, settings: Sequence[str] = ()) -> Config:
    """Return the defaults, overridden by a partial YAML file and by ``section.key=value`` settings (values are YAML).

    Raises:
        ConfigError: the file is not a mapping, or a key or value is refused.
    """
    return from_dict(_read_sections(path) if path else {}, settings)


def _read_sections(path: Path) -> dict[str, object]:
    """Return the content of a configuration file that is valid by itself."""
    values = read_yaml(path) or {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must be a mapping of sections (model:, training:, ...)")
    try:
        from_dict(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return values


def read_yaml(path: Path | Traversable) -> object:
    """Return the content of a YAML file.

    Raises:
        ConfigError: the file cannot be read, is longer than ``MAX_YAML_CHARACTERS``, or is not YAML.
    """
    try:
        return parse_yaml(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {_one_line(error)}") from error


def parse_yaml(text: str, source: str) -> object:
    """Return the content of a YAML text; ``source`` names the text in an error message.

    Raises:
        ConfigError: the text is longer than ``MAX_YAML_CHARACTERS``, or is not YAML.
    """
    if len(text) > MAX_YAML_CHARACTERS:
        raise ConfigError(f"{source}: has {len(text)} characters, {MAX_YAML_CHARACTERS} are allowed")
    try:
        value = yaml.safe_load(text)
        json.dumps(value, default=str)  # every value must be one that this program can write down
        return value
    except RecursionError:
        raise ConfigError(f"{source}: is nested too deeply") from None
    # ValueError and others: a date such as 2026-13-01, an integer of 5,000 digits, a list as a key
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise ConfigError(f"{source}: cannot be read as YAML: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _set(values: dict[str, object], setting: str) -> None:
    key, equals, value = setting.partition("=")
    *sections, name = key.strip().split(".")
    if not equals or len(sections) != 1:
        raise ConfigError(f"--set {setting}: write section.key=value, for example training.max_epochs=10")
    section = values.setdefault(sections[0], {})
    if not isinstance(section, dict):
        raise ConfigError(f"--set {setting}: {sections[0]} is not a section")
    section[name] = parse_yaml(value, f"--set {setting}")


def explain(error: ValidationError) -> str:
    """Return the keys and rules of a refused configuration, in one line."""
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"]) or "configuration"
        rule = "unknown key" if problem["type"] == "extra_forbidden" else problem["msg"]
        lines.append(f"{key}: {rule}")
    return "; ".join(lines)
