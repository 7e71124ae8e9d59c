"""Parameters that several stages share."""

from __future__ import annotations

import pytest

from spira.errors import SpiraError
from spira.stages.inputs import state_folder


@pytest.mark.parametrize("uri", ["gs://bucket/state", "s3://x"])
def test_state_must_be_a_folder(uri: str):
    """A bucket supports neither locks nor renames."""
    with pytest.raises(SpiraError, match="must be a folder"):
        state_folder(uri)


def test_an_empty_parameter_means_no_state_folder():
    assert state_folder("") is None
