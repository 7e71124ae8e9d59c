"""What stages read from their parameters."""

from __future__ import annotations

import pytest

from spira.errors import SpiraError
from spira.stages.inputs import state_folder


@pytest.mark.parametrize("uri", ["gs://bucket/state", "s3://x"])
def test_state_must_be_a_folder(uri: str):
    """A bucket can't be locked or renamed in."""
    with pytest.raises(SpiraError, match="must be a folder"):
        state_folder(uri)


def test_no_state_is_no_folder():
    """An empty parameter means none."""
    assert state_folder("") is None
