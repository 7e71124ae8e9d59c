"""The gate file is refused if it is not complete."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from spira.config import ConfigError
from spira.evaluation import gate


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
