"""Push and reject refuse each other's verdict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spira.errors import SpiraError
from spira.stages.push import push, reject
from spira.stages.verdict_folder import LINEAGE, VERDICT


@pytest.mark.parametrize("approved", [False, None, "false", 1])
def test_push_refuses_what_is_not_approved(tmp_path: Path, approved: object):
    """Were the pipeline's condition ever misread, no model that failed would be registered."""
    (tmp_path / VERDICT).write_text(json.dumps({"approved": approved}))
    (tmp_path / LINEAGE).write_text("{}")
    with pytest.raises(SpiraError, match="no approval"):
        push(tmp_path, tmp_path, tmp_path, tmp_path, tmp_path / "package", registry_uri=str(tmp_path))
    assert not (tmp_path / "package").exists()


def test_reject_refuses_what_is_approved(tmp_path: Path):
    """An approved model isn't dropped in silence either."""
    (tmp_path / VERDICT).write_text('{"approved": true}')
    with pytest.raises(SpiraError, match="is an approval"):
        reject(tmp_path, tmp_path, tmp_path, tmp_path, registry_uri=str(tmp_path))
