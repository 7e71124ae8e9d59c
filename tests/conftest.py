"""Data that tests share: real voices where the shared data is there, and a small demo set made here."""

from __future__ import annotations

from pathlib import Path

import pytest

from spira.demo import make_demo


@pytest.fixture(scope="session")
def spoken_digits() -> Path:
    """Real voices in SPIRA's layout, read from beside the checkout."""
    root = Path(__file__).parents[1].parent / "shared" / "data" / "spoken-digits"
    if not root.is_dir():
        pytest.skip("real voices are not here: ../shared/data/spoken-digits is absent")
    return root


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small synthetic data set in SPIRA's layout: 12 voices, 24 recordings, 8 noises; to read only."""
    return make_demo(tmp_path_factory.mktemp("data") / "demo", speakers=12, recordings_per_speaker=2)
