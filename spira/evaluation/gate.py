"""The gate file: pre-registered limits that a model must keep. :mod:`spira.evaluation.checks` applies them."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, model_validator

from spira.config import ConfigError, FrozenModel, explain, read_yaml

Rate = Annotated[float, Field(ge=0, le=1)]


class Minimum(FrozenModel):
    """Smallest amount of test data that allows a decision."""

    files_per_class: int = Field(gt=0)
    """Test recordings of each class; fewer are a refusal."""
    speakers_per_class: int = Field(gt=0)
    """Test speakers of each class, if speakers are known."""


class Noisy(FrozenModel):
    """Minimum rates in the paper's noisy test."""

    accuracy: Rate
    """Share of recordings with the right class."""
    accuracy_low: Rate
    """Lower end of the interval of the accuracy."""
    sensitivity: Rate
    """Share of patients called patient."""
    specificity: Rate
    """Share of controls called control."""
    auroc: Rate
    """Area under the ROC curve."""
    auroc_low: Rate
    """Lower end of the interval of the AUROC, which must clear chance (0.5) by a margin."""


class Clean(FrozenModel):
    """Minimum rates on the recordings without inserted noise."""

    accuracy: Rate
    """Share of recordings with the right class."""


class Calibration(FrozenModel):
    """Maximum errors of the probabilities."""

    brier: Rate
    """Largest Brier score."""
    ece: Rate
    """Largest expected calibration error."""


class Abstention(FrozenModel):
    """The band of 'inconclusive' predictions, and the minimum share of recordings outside it."""

    band: tuple[Rate, Rate]
    """Probabilities strictly inside the band give 'inconclusive'."""
    coverage: Rate
    """Minimum share of recordings that get another answer than 'inconclusive'."""

    @model_validator(mode="after")
    def _ordered(self) -> Abstention:
        if self.band[0] > self.band[1]:
            raise ValueError("band must be [low, high], and low must not be greater than high")
        return self


class Slices(FrozenModel):
    """Minimum rate for every group of recordings that is large enough."""

    minimum_files: int = Field(gt=0)
    """Recordings of a slice; smaller slices are shown and not judged."""
    accuracy: Rate
    """Share of recordings with the right class, in the noisy test."""


class ChampionRules(FrozenModel):
    """Non-inferiority to the champion."""

    margin: Rate
    """The interval of (candidate - champion) in noisy accuracy must stay above ``-margin``."""


class DiagnosisRules(FrozenModel):
    """What is chosen on the validation split, so that the test split has no influence on it."""

    target_sensitivity: Annotated[float, Field(gt=0, le=1)] | None = None
    """The threshold is the highest with this sensitivity on validation; without it, ``evaluation.threshold``. The
    abstention band moves with the threshold."""
    temperature_scaling: bool = False
    """Whether the logits of probabilities are divided by the temperature that fits validation best."""


class Gate(FrozenModel):
    """Content of a gate file; ``gate.yaml`` explains each key."""

    minimum: Minimum
    noisy: Noisy
    clean: Clean
    noise_drop: Rate
    """Largest loss of accuracy that inserting ward noise may cost."""
    background_balanced_accuracy: Rate
    """Largest balanced accuracy on recordings whose speech was removed."""
    calibration: Calibration
    abstention: Abstention
    slices: Slices
    champion: ChampionRules
    # The keys below are left out where they have their default, so that gates of earlier versions keep their digest.
    prevalences: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field((), exclude_if=lambda shares: not shares)
    """Shares of patients among the people examined, for which predictive values are reported. Nothing is checked."""
    diagnosis: DiagnosisRules | None = Field(None, exclude_if=lambda rules: rules is None)
    """How threshold and calibration are chosen; by default the threshold of the configuration, and no calibration."""
    require_known_training_data: bool = Field(False, exclude_if=lambda is_required: not is_required)
    """Whether a checkpoint that does not record its training data, such as an imported one, is rejected."""

    require_better_than_confounders: bool = Field(False, exclude_if=lambda is_required: not is_required)
    """Whether a network that is not shown to be better than the confounders alone is rejected."""

    def digest(self) -> str:
        """Return the SHA-256 of the canonical form, which no comment changes."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def load(path: Path | None = None) -> Gate:
    """Read a gate file; the project's own ``gate.yaml`` if no path is given.

    Raises:
        ConfigError: the file cannot be read, or a key is missing, unknown or out of range.
    """
    source = path or files("spira.evaluation") / "gate.yaml"
    try:
        return Gate.model_validate(read_yaml(source))
    except ConfigError as error:
        raise ConfigError(f"gate {error}") from None
    except ValidationError as error:
        raise ConfigError(f"gate {source}: {explain(error)}") from None
