"""What a dashboard shows of a verdict."""

from __future__ import annotations

from spira.stages.evaluate import headline


def test_numbers_that_are_none_are_left_out_of_the_dashboard():
    """Kubeflow's metadata takes no NaN; a verdict without measurements has no numbers at all."""
    by_file = {"accuracy": {"value": 0.9}, "ece": {"value": None}}
    measured = {"approved": True, "seconds": 1.0, "conditions": {"noisy": {"by_file": by_file}}}
    assert headline(measured) == {"approved": True, "seconds": 1.0, "accuracy": 0.9}
    fatal = {"approved": False, "seconds": 1.0, "conditions": {}}
    assert headline(fatal) == {"approved": False, "seconds": 1.0}
