"""Push and reject refuse each other's verdict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spira.errors import SpiraError
from spira.stages.push import push, reject
from spira.stages.verdict_folder import LINEAGE, VERDICT
from tests.support.verdicts import make_verdict


def write_verdict(folder: Path, approved: object) -> None:
    (folder / VERDICT).write_text(json.dumps(make_verdict().to_json() | {"approved": approved}))
    (folder / LINEAGE).write_text("{}")


@pytest.mark.parametrize(
    ("approved", "message"),
    [(False, "is not an approval"), *((value, "is not a verdict: approved") for value in (None, "false", 1))],
)
def test_push_refuses_a_candidate_that_is_not_approved(tmp_path: Path, approved: object, message: str):
    """No model that failed is registered, also if the pipeline misreads its condition."""
    write_verdict(tmp_path, approved)
    with pytest.raises(SpiraError, match=message):
        push(tmp_path, tmp_path, tmp_path, tmp_path, tmp_path / "package", registry_uri=str(tmp_path))
    assert [path.name for path in tmp_path.iterdir() if path.name not in (VERDICT, LINEAGE)] == []


def test_reject_refuses_an_approved_candidate(tmp_path: Path):
    """An approved model is not dropped silently."""
    write_verdict(tmp_path, True)
    with pytest.raises(SpiraError, match="is an approval"):
        reject(tmp_path, tmp_path, tmp_path, tmp_path, registry_uri=str(tmp_path))
