"""Verdicts on disk: complete or refused, and readable by later versions."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from spira.errors import SpiraError
from spira.evaluation import verdict as verdicts
from spira.evaluation.verdict import CheckGroup, CheckKind, Estimate
from tests.support.verdicts import make_verdict

EARLIER = Path(__file__).parent / "verdict-79862e6.json"
"""Verdict as commit 79862e6 wrote it, before checks had a title and a kind."""


def test_an_earlier_verdict_can_be_read() -> None:
    """Every key and value is kept; only title and kind of the checks are added."""
    written = json.loads(EARLIER.read_text())
    read = verdicts.read(EARLIER).to_json()
    added = [(check.pop("title"), check.pop("kind")) for check in read["checks"]]
    assert read == written
    assert added[0] == ("weights_finite", "fact")


def test_an_earlier_check_gets_the_kind_of_its_rule() -> None:
    """The rule in its message gives the kind."""
    kinds = {check.name: check.kind for check in verdicts.read(EARLIER).checks}
    assert kinds["data.patient_files"] == CheckKind.DATA
    assert kinds["labels_not_swapped"] == CheckKind.FACT
    assert kinds["noisy.accuracy"] == CheckKind.AT_LEAST
    assert kinds["noisy.accuracy_low"] == kinds["champion"] == CheckKind.LOW_AT_LEAST
    assert kinds["noise_drop"] == kinds["calibration.ece"] == CheckKind.AT_MOST


def test_an_earlier_check_has_a_group() -> None:
    """Its name and kind give the group."""
    groups = {check.name: check.group for check in verdicts.read(EARLIER).checks}
    assert groups["data.patient_files"] == groups["weights_finite"] == groups["test_speakers_unseen"] == CheckGroup.DATA
    assert groups["noisy.accuracy_low"] == groups["calibration.ece"] == groups["coverage"] == CheckGroup.PERFORMANCE
    assert groups["noise_drop"] == groups["background"] == CheckGroup.NOISE
    assert groups["champion"] == CheckGroup.CHAMPION
    assert {group for name, group in groups.items() if name.startswith("slice.")} <= {CheckGroup.SLICES}


def test_an_earlier_calibration_has_bins_without_intervals() -> None:
    """Predicted and observed share and count are shown; speakers are not known."""
    calibration = verdicts.read(EARLIER).conditions["noisy"].calibration
    assert [of_bin.predicted for of_bin in calibration.bins] == list(calibration.predicted)
    assert {(of_bin.observed.low, of_bin.speakers, of_bin.has_few_speakers) for of_bin in calibration.bins} == {
        (None, None, False)
    }


def test_a_condition_that_is_no_longer_measured_is_kept(tmp_path: Path) -> None:
    """Early versions measured scrambled speech too."""
    written = json.loads(EARLIER.read_text())
    written["conditions"]["scrambled"] = written["conditions"]["background"]
    (tmp_path / "verdict.json").write_text(json.dumps(written))
    assert "scrambled" in verdicts.read(tmp_path / "verdict.json").conditions


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    """Every field survives the round trip."""
    verdicts.write(tmp_path / "verdict.json", make_verdict())
    assert verdicts.read(tmp_path / "verdict.json") == make_verdict()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_undefined_number_is_null(value: float) -> None:
    """JSON has neither NaN nor infinity."""
    assert Estimate(value=value, low=value, high=value).model_dump() == {"value": None, "low": None, "high": None}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a verdict"),
        (json.dumps(make_verdict().to_json() | {"approved": "yes"}), "approved: Input should be a valid boolean"),
        (json.dumps(make_verdict().to_json() | {"gate": {}}), "gate.abstention: Field required"),
    ],
)
def test_a_damaged_verdict_is_refused_by_key(tmp_path: Path, content: str, message: str) -> None:
    """The message names the file; an absent abstention band is not replaced by a default."""
    path = tmp_path / "verdict.json"
    path.write_text(content)
    with pytest.raises(SpiraError, match=message) as refusal:
        verdicts.read(path)
    assert str(path) in str(refusal.value)


def test_an_absent_verdict_is_refused(tmp_path: Path) -> None:
    """The message names the file."""
    with pytest.raises(SpiraError, match=r"verdict\.json cannot be read"):
        verdicts.read(tmp_path / "verdict.json")
