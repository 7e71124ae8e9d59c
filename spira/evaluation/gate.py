"""The gate: a pre-registered file of what a model must show, and the checks it makes of a verdict.

Every check names what was measured, its limit and, where it fails, why in plain words. A number that is
not a number never passes.
"""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError, model_validator

from spira.config import ConfigError, FrozenModel, explain

Rate = Annotated[float, Field(ge=0, le=1)]


class Minimum(FrozenModel):
    """The least data to judge by."""

    files_per_class: int = Field(gt=0)
    speakers_per_class: int = Field(gt=0)


class Noisy(FrozenModel):
    """Floors under the paper's noisy test."""

    accuracy: Rate
    accuracy_low: Rate
    sensitivity: Rate
    specificity: Rate
    auroc: Rate
    auroc_low: Rate


class Clean(FrozenModel):
    """Floor on the recordings as they are."""

    accuracy: Rate


class Calibration(FrozenModel):
    """Ceilings of how far probabilities may be off."""

    brier: Rate
    ece: Rate


class Abstention(FrozenModel):
    """The band of 'inconclusive' answers, and the share of recordings that must get an answer."""

    band: tuple[Rate, Rate]
    coverage: Rate

    @model_validator(mode="after")
    def _ordered(self) -> Abstention:
        if self.band[0] > self.band[1]:
            raise ValueError("band must be [low, high] with low not greater than high")
        return self


class Slices(FrozenModel):
    """Floor for every group of recordings large enough to judge."""

    minimum_files: int = Field(gt=0)
    accuracy: Rate


class ChampionRules(FrozenModel):
    """Non-inferiority to the model that serves now."""

    margin: Rate


class Gate(FrozenModel):
    """The gate file (``gate.yaml`` explains each key)."""

    minimum: Minimum
    noisy: Noisy
    clean: Clean
    noise_drop: Rate
    background_balanced_accuracy: Rate
    calibration: Calibration
    abstention: Abstention
    slices: Slices
    champion: ChampionRules

    def digest(self) -> str:
        """SHA-256 of the canonical form."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def load(path: Path | None = None) -> Gate:
    """A gate file, whole; the project's own ``gate.yaml`` if no path is given.

    Raises:
        ConfigError: it can't be read, or a key is missing, unknown or out of range.
    """
    source = path or files("spira.evaluation") / "gate.yaml"
    try:
        return Gate.model_validate(yaml.safe_load(source.read_text()))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"gate {source}: can't be read as YAML: {error}") from error
    except ValidationError as error:
        raise ConfigError(f"gate {source}: {explain(error)}") from None


Check = dict[str, Any]
"""name, passed, value, low, high, limit, message."""


def at_least(name: str, measured: dict[str, float], limit: float, why: str) -> Check:
    """Passes where the value reaches the floor; ``why`` opens the message where it does not."""
    return _check(name, measured, limit, measured["value"] >= limit, why, f"at least {limit:.2f} is required")


def low_end_at_least(name: str, measured: dict[str, float], limit: float, why: str) -> Check:
    """Passes where the lower end of the interval reaches the floor."""
    return _check(name, measured, limit, measured["low"] >= limit, why, f"its lower end must reach {limit:.2f}")


def at_most(name: str, measured: dict[str, float], limit: float, why: str) -> Check:
    """Passes where the value stays under the ceiling."""
    return _check(name, measured, limit, measured["value"] <= limit, why, f"at most {limit:.2f} is allowed")


def holds(name: str, passed: bool, why: str) -> Check:
    """A check of a fact rather than a number."""
    numbers = dict.fromkeys(("value", "low", "high", "limit"))
    return {"name": name, "passed": bool(passed), **numbers, "message": "in order" if passed else why}


def _check(name: str, measured: dict[str, float], limit: float, passed: bool, why: str, rule: str) -> Check:
    low, high = measured.get("low"), measured.get("high")
    told = f"{measured['value']:.3f}" + (f" [{low:.3f}, {high:.3f}]" if low is not None else "") + f", {rule}"
    message = told if passed else f"{why}: {told}"
    return {
        "name": name,
        "passed": bool(passed),
        "value": measured["value"],
        "low": low,
        "high": high,
        "limit": limit,
        "message": message,
    }


def data_checks(gate: Gate, counts: dict[str, dict[str, int]]) -> list[Check]:
    """Whether there is enough to judge by; ``counts`` is {class: {files, speakers}} of the test split."""
    checks = []
    for label, found in counts.items():
        for unit, least in (
            ("files", gate.minimum.files_per_class),
            ("speakers", gate.minimum.speakers_per_class),
        ):
            if unit in found:
                why = (
                    f"too little data to judge by: {found[unit]} test {unit} of {label}s, at least {least} are required"
                )
                checks.append(holds(f"data.{label}_{unit}", found[unit] >= least, why))
    return checks


def performance_checks(gate: Gate, conditions: dict[str, Any]) -> list[Check]:
    """Floors, shortcuts, calibration and abstention, from the metrics by file of each condition."""
    noisy, clean, room = (conditions[name]["by_file"] for name in ("noisy", "clean", "background"))
    drop = {"value": clean["accuracy"]["value"] - noisy["accuracy"]["value"]}
    floors = [
        at_least(f"noisy.{name}", noisy[name], getattr(gate.noisy, name), f"noise test: {name} is too low")
        for name in ("accuracy", "sensitivity", "specificity", "auroc")
    ]
    return [
        holds(
            "answers_differ",
            conditions["clean"]["spread"] > 1e-3,
            "the output is constant: all recordings get the same probability",
        ),
        holds(
            "labels_not_swapped",
            clean["auroc"]["high"] >= 0.5,
            "the classes are ranked the wrong way round: the labels look swapped",
        ),
        low_end_at_least(
            "better_than_chance",
            noisy["auroc"],
            gate.noisy.auroc_low,
            "not clearly better than chance: AUROC",
        ),
        *floors,
        low_end_at_least(
            "noisy.accuracy_low",
            noisy["accuracy"],
            gate.noisy.accuracy_low,
            "noise test: accuracy is not sure enough",
        ),
        at_least("clean.accuracy", clean["accuracy"], gate.clean.accuracy, "clean test: accuracy is too low"),
        at_most(
            "noise_drop",
            drop,
            gate.noise_drop,
            "noise test: inserting ward noise in controls costs too much accuracy",
        ),
        at_most(
            "background",
            room["balanced_accuracy"],
            gate.background_balanced_accuracy,
            "shortcut: with the speech taken away the background alone separates the classes, balanced accuracy",
        ),
        at_most("calibration.brier", noisy["brier"], gate.calibration.brier, "probabilities are off: Brier score"),
        at_most("calibration.ece", noisy["ece"], gate.calibration.ece, "probabilities are off: calibration error"),
        at_least("coverage", noisy["coverage"], gate.abstention.coverage, "too many inconclusive answers: coverage"),
    ]


def slice_checks(gate: Gate, slices: list[dict[str, Any]]) -> list[Check]:
    """The floor for every slice large enough to judge."""
    return [
        at_least(
            f"slice.{part['column']}={part['value']}",
            part["metrics"]["accuracy"],
            gate.slices.accuracy,
            f"noise test: accuracy is too low for {part['column']} {part['value']} ({part['files']} files)",
        )
        for part in slices
        if part["files"] >= gate.slices.minimum_files
    ]


def champion_check(gate: Gate, difference: dict[str, float]) -> Check:
    """Non-inferiority: the interval of (candidate - champion) in noisy accuracy stays above -margin."""
    return low_end_at_least(
        "champion",
        difference,
        -gate.champion.margin,
        "not shown to be as good as the champion: difference in noisy accuracy",
    )
