"""The gate file is refused if it is not complete."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from spira.config import ConfigError
from spira.evaluation import gate, metrics
from spira.evaluation.metrics import Scores
from spira.evaluation.verdict import RecordedGate


def write_gate(tmp_path: Path, **sections: object) -> Path:
    """Write a gate file with some sections replaced."""
    values = gate.load().model_dump(mode="json") | sections
    path = tmp_path / "gate.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_unknown_and_missing_keys_are_refused_by_name(tmp_path: Path) -> None:
    """A gate with a misspelt limit must not be applied without it."""
    with pytest.raises(ConfigError, match=r"clean\.acuracy: unknown key"):
        gate.load(write_gate(tmp_path, clean={"accuracy": 0.8, "acuracy": 0.8}))
    with pytest.raises(ConfigError, match=r"clean\.accuracy: Field required"):
        gate.load(write_gate(tmp_path, clean={}))


def test_the_digest_depends_on_the_limits_only(tmp_path: Path) -> None:
    """A comment does not change the digest, a limit does."""
    assert gate.load(write_gate(tmp_path)).digest() == gate.load().digest()
    assert gate.load(write_gate(tmp_path, noise_drop=0.2)).digest() != gate.load().digest()


def perfect(speakers: int) -> Scores:
    """Return a network without a mistake, on as many speakers of each class, each with one recording."""
    labels = np.repeat([0, 1], speakers)
    return Scores(labels, labels * 0.98 + 0.01, np.arange(2 * speakers))


@pytest.mark.parametrize("unit", ["files_per_class", "speakers_per_class"])
def test_the_minimum_of_data_is_the_least_that_can_pass(unit: str) -> None:
    """On it, the intervals of a network without a mistake meet every limit, and with one speaker less they do not."""
    limits = gate.load()
    least = getattr(limits.minimum, unit)
    for speakers in (least, least - 1):
        scores = perfect(speakers)
        estimates = metrics.with_intervals(scores, metrics.resamples(scores, 200, 0), 0.95, ("accuracy", "auroc"))
        passes = (
            estimates["accuracy"].low >= limits.noisy.accuracy_low,
            estimates["auroc"].low >= limits.noisy.auroc_low,
            metrics.difference(scores, scores, 0.95).low >= -limits.champion.margin,
        )
        assert all(passes) is (speakers == least)


def test_an_earlier_gate_file_keeps_its_digest(tmp_path: Path) -> None:
    """Without prevalences the digest is that of a gate before there were any, and so is the record in a verdict."""
    written = gate.load().model_dump(mode="json")
    del written["prevalences"]
    path = tmp_path / "gate.yaml"
    path.write_text(yaml.safe_dump(written))
    read = gate.load(path)
    canonical = json.dumps(written, sort_keys=True).encode()
    assert read.digest() == hashlib.sha256(canonical).hexdigest()
    assert "prevalences" not in RecordedGate.of(read).model_dump()


@pytest.mark.parametrize("share", [0, 1, 1.2, "many"])
def test_a_prevalence_lies_between_none_and_all(tmp_path: Path, share: object) -> None:
    """The message names the key."""
    with pytest.raises(ConfigError, match=r"prevalences"):
        gate.load(write_gate(tmp_path, prevalences=[share]))
