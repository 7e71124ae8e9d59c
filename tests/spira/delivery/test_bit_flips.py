"""Flipped bits in the files of the state: each is reported, or changes nothing that a command prints."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.support.ledger_builder import LocalDelivery

pytestmark = pytest.mark.slow

FLIPS = 12
"""Flipped bits in the files of each kind."""

KINDS = {
    "ledger": "work/ledger/**/*",
    "serving pointer": "work/serving/serving.json",
    "served package": "work/serving/versions/**/*",
    "fetched package": "work/models/*/**/*",
    "settings": "delivery.yaml",
}
"""Files by kind, relative to the folder of the settings."""


def flip(file: Path, rng: random.Random) -> bytes:
    """Flip one bit of a file, and return its old content."""
    before = file.read_bytes()
    content = bytearray(before)
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)
    return before


def shown(result: Result) -> Any:
    """Return what a command printed for programs, without times; None if it printed nothing of the kind."""
    try:
        return json.loads(result.stdout)
    except ValueError:
        return None


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_is_reported_or_changes_nothing(
    local_delivery: LocalDelivery, deliver: Callable[..., Result], deploy: Callable[..., Result], kind: str
) -> None:
    """The status of delivery and of the target end with a code and a message, never with a traceback."""
    verbs = {"delivery": lambda: deliver("status", "--json"), "target": lambda: deploy("status", "--json")}
    expected = {name: (shown(result := verb()), result.exit_code) for name, verb in verbs.items()}
    files = sorted(path for path in local_delivery.folder.glob(KINDS[kind]) if path.is_file() and path.stat().st_size)
    assert files
    rng = random.Random(kind)
    for number in range(FLIPS):
        file = files[number % len(files)]
        before = flip(file, rng)
        for name, verb in verbs.items():
            result = verb()
            assert result.exception is None or isinstance(result.exception, SystemExit), (file, result.exception)
            is_same = (shown(result), result.exit_code) == expected[name]
            reported = result.exit_code != 0 or (result.stderr or "").strip() or problems(shown(result))
            assert is_same or reported or kind == "settings", (file, name, result.output)
        file.write_bytes(before)
    for name, verb in verbs.items():
        result = verb()
        assert (shown(result), result.exit_code) == expected[name]


def problems(status: Any) -> list[Any]:
    """Return the problems in a status."""
    if isinstance(status, dict):
        return [*status.get("troubles", []), *status.get("problems", [])]
    return [entry for entry in status or [] if entry.get("drifted") or entry.get("error")]
