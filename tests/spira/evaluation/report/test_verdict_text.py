"""A verdict as a headline and as Markdown."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from spira.evaluation.report.verdict_text import MAX_HEADLINE_LENGTH, headline, interval_methods, markdown
from spira.evaluation.verdict import CONFOUNDER_CHECK, Check, CheckKind, Condition, Estimate, ExternalTest
from tests.support.verdicts import condition, make_verdict


def check(message: str, passed: bool = True) -> Check:
    """Return a check with a message."""
    return Check(name="noisy.accuracy", title="Accuracy", kind=CheckKind.AT_LEAST, passed=passed, message=message)


def measured(**conditions: Condition) -> dict:
    """Return the update of a verdict with these conditions."""
    return {"conditions": conditions}


def test_the_summary_has_the_noisy_and_clean_tests_with_intervals():
    """The background probe is a check, not a test. A metric without a value has a dash."""
    clean = condition(accuracy=0.95)
    clean.by_file["auroc"] = Estimate(value=float("nan"))
    update = measured(noisy=condition(accuracy=0.9), clean=clean, background=condition(auroc=0.5))
    text = markdown(make_verdict().model_copy(update=update))
    assert text.startswith("# approved: accuracy 0.900 (0.850 to 0.950)\n")
    assert "| metric | Noisy test | Clean test |" in text
    assert "| Accuracy | 0.900 (0.850 to 0.950) | 0.950 (0.900 to 1.000) |" in text
    assert "| AUROC | - | - |" in text
    assert "Background" not in text


def test_the_methods_of_the_intervals_are_named():
    """Each method once, with its metrics; an earlier verdict has none."""
    verdict = make_verdict()
    noisy = condition(accuracy=0.9, sensitivity=0.9, auroc=0.95)
    methods = {"accuracy": "exact", "sensitivity": "exact", "auroc": "score"}
    by_file = {name: noisy.by_file[name].model_copy(update={"method": method}) for name, method in methods.items()}
    assert interval_methods(by_file) == "exact: accuracy, sensitivity; score: AUROC"
    text = markdown(verdict.model_copy(update=measured(noisy=noisy.model_copy(update={"by_file": by_file}))))
    assert "by file; exact: accuracy, sensitivity; score: AUROC." in text
    assert "by file." in markdown(verdict)


def test_less_than_everything_is_not_shown_as_everything():
    """An accuracy of 0.9996 is 0.999, in the headline and in the table."""
    text = markdown(make_verdict(accuracy=0.9996))
    assert text.startswith("# approved: accuracy 0.999 (0.950 to 1.000)")
    assert "| Accuracy | 0.999" in text


def test_a_rejection_has_all_reasons_and_each_check():
    """The headline has the first reason."""
    verdict = make_verdict(approved=False, reasons=["first", "second"])
    text = markdown(verdict.model_copy(update={"checks": (check("0.9 of 0.8"), check("0.1", passed=False))}))
    assert text.startswith("# rejected: first\n\n- first\n- second\n")
    assert "| Accuracy | passed | 0.9 of 0.8 |" in text
    assert "| Accuracy | **FAILED** | 0.1 |" in text


def test_a_verdict_without_measurements_has_a_summary():
    """An integrity check failed, so that nothing was measured."""
    fatal = make_verdict(approved=False, reasons=["a recording is in two splits"]).model_copy(update=measured())
    assert headline(fatal) == "rejected: a recording is in two splits"
    assert "metric" not in markdown(fatal)


@given(st.text())
def test_a_message_is_neither_markup_nor_a_new_cell(message: str):
    """Columns of a data set name slices, and their values come from users."""
    verdict = make_verdict(approved=False, reasons=[message, "x"]).model_copy(update={"checks": (check(message),)})
    text = markdown(verdict)
    (row,) = (line for line in text.splitlines() if line.startswith("| Accuracy | passed"))
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) == 4
    assert "<" not in text
    assert len(headline(verdict)) <= MAX_HEADLINE_LENGTH
    assert len(headline(verdict).splitlines()) == 1


def test_a_finding_on_confounders_comes_first():
    """In the headline, and in the first paragraph of the summary; a check that passed is no finding."""
    message = "the network is not shown to be better than age alone: their AUROC is 0.900"
    finding = Check(name=CONFOUNDER_CHECK, title="", kind=CheckKind.LOW_AT_LEAST, passed=True, message=message)
    suspected = finding.model_copy(update={"is_warning": True})
    verdict = make_verdict().model_copy(update={"checks": (suspected,)})
    approved = "approved, but not shown to be better than the confounders alone: accuracy 0.900 (0.850 to 0.950)"
    assert headline(verdict) == approved
    assert markdown(verdict).splitlines()[:3] == [f"# {approved}", "", f"**Finding:** {message}"]
    sound = make_verdict().model_copy(update={"checks": (finding,)})
    assert headline(sound) == headline(make_verdict())
    assert "Finding" not in markdown(sound)


def test_the_summary_has_external_sets_and_the_number_of_evaluations():
    """A set that was not measured has no row; neither is shown if it is not known."""
    data = make_verdict().data
    north = ExternalTest(name="north_1", data=data, conditions={"noisy": condition(accuracy=0.75)})
    leaky = ExternalTest(name="leaky", data=data, conditions={}, problem="leakage")
    verdict = make_verdict().model_copy(update={"external": (north, leaky), "test_evaluations": 4})
    text = markdown(verdict)
    assert "| north\\_1 | 8 | 0.750 (0.700 to 0.800) | - | - | - | - |" in text
    assert "leaky" not in text
    assert "Evaluations of this test set so far: 4." in text
    assert "xternal" not in markdown(make_verdict())
    assert "so far" not in markdown(make_verdict())
