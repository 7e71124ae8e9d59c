"""A verdict as text: its headline, and a summary in Markdown for a dashboard."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from spira.evaluation.metrics import METRICS
from spira.evaluation.numbers import number
from spira.evaluation.verdict import CONDITIONS, PROBES, Condition, Estimate, Verdict
from spira.language import ENGLISH, Translator, sentence

MAX_HEADLINE_LENGTH = 160
"""Length of a headline in characters; a dashboard shows it as the name of an artifact."""
MAX_DESCRIPTION_LENGTH = 5000
"""Length of a description in characters, of which MLflow's databases take no more."""
SHOWN_METRICS = ("accuracy", "sensitivity", "specificity", "balanced_accuracy", "auroc")


def headline(verdict: Verdict) -> str:
    """Return the decision in one line: with the accuracy if approved, with the first reason if rejected."""
    if not verdict.approved:
        return _shortened(f"rejected: {verdict.reasons[0] if verdict.reasons else 'no reason is recorded'}")
    noisy = verdict.conditions.get("noisy")
    accuracy = noisy.by_file.get("accuracy") if noisy else None
    approved = "approved, but not shown to be better than the confounders alone" if verdict.finding else "approved"
    return f"{approved}: accuracy {_interval(accuracy)}" if accuracy else approved


def markdown(verdict: Verdict) -> str:
    """Return the decision, the metrics of the noisy and clean tests with intervals, and every check, as Markdown."""
    tests = {name: verdict.conditions[name] for name in CONDITIONS if name in verdict.conditions}
    tests = {name: condition for name, condition in tests.items() if name not in PROBES}
    parts = [f"# {escaped(headline(verdict))}"]
    if verdict.finding:
        parts.append(f"**Finding:** {escaped(verdict.finding)}")
    if len(verdict.reasons) > 1:
        parts.append("\n".join(f"- {escaped(reason)}" for reason in verdict.reasons))
    parts.append(_candidate(verdict))
    if tests:
        parts.append(_metrics(tests))
    if any(test.conditions for test in verdict.external):
        parts.append(_external(verdict))
    if verdict.checks:
        rows = [(check.title, "passed" if check.passed else "**FAILED**", check.message) for check in verdict.checks]
        parts.append(table(("check", "result", "details"), rows))
    return "\n\n".join(parts) + "\n"


def description(verdict: Verdict, notice: str) -> str:
    """Return the decision with the headline table, for the page of a run or version in MLflow, as Markdown.

    Args:
        notice: the words by which the data set calls itself synthetic; empty for recordings of patients.
    """
    parts = [f"**{escaped(headline(verdict))}**"]
    if notice:
        parts.append(synthetic_notice(notice))
    if measured := metrics_table(verdict):
        parts.append(measured)
    parts.append(_candidate(verdict))
    if problems := [*verdict.reasons, *verdict.warnings]:
        parts.append("\n".join(f"- {escaped(problem)}" for problem in problems))
    return shortened("\n\n".join(parts), MAX_DESCRIPTION_LENGTH)


def synthetic_notice(notice: str, words: Translator = ENGLISH) -> str:
    """Return the warning that the data are synthetic, with the data set's own words, as a quotation in Markdown."""
    warning = words.gettext("Synthetic data: the numbers say nothing about patients.")
    return f"> **{warning}** {escaped(notice)}"


def metrics_table(verdict: Verdict, words: Translator = ENGLISH) -> str:
    """Return the metrics of the noisy and clean tests with intervals as Markdown; empty if nothing was measured."""
    tests = {name: verdict.conditions[name] for name in CONDITIONS if name in verdict.conditions}
    return _metrics({name: test for name, test in tests.items() if name not in PROBES}, words) if tests else ""


def shortened(text: str, limit: int) -> str:
    """Return a text of at most ``limit`` characters; of a longer one whole lines are left out at the end."""
    if len(text) <= limit:
        return text
    return text[: limit - 2].rpartition("\n")[0] + "\n…"


def _candidate(verdict: Verdict) -> str:
    classes = ", ".join(f"{counts['files']} of {name}s" for name, counts in verdict.data.classes.items())
    level = verdict.config.evaluation.confidence
    text = (
        f"Candidate: {verdict.config.model.architecture}, seed {verdict.candidate.seed} of "
        f"{', '.join(verdict.training)}. Test: {verdict.data.files} recordings, {classes}. "
        f"Intervals: {level:.0%}, by file{_methods(verdict)}."
    )
    if verdict.test_evaluations:
        text += f" Evaluations of this test set so far: {verdict.test_evaluations}."
    return escaped(text)


def _methods(verdict: Verdict) -> str:
    noisy = verdict.conditions.get("noisy")
    methods = interval_methods(
        {name: noisy.by_file[name] for name in SHOWN_METRICS if name in noisy.by_file} if noisy else {}
    )
    return f"; {methods}" if methods else ""


def interval_methods(estimates: Mapping[str, Estimate]) -> str:
    """Return the methods of the intervals, each with its metrics: "exact (Clopper-Pearson): accuracy, coverage".

    Args:
        estimates: metric -> estimate; those of earlier versions have no method and are left out.
    """
    metrics: dict[str, list[str]] = {}
    for name, estimate in estimates.items():
        if estimate.method:
            metrics.setdefault(estimate.method, []).append(METRICS[name].name if name in METRICS else name)
    return "; ".join(f"{method}: {', '.join(names)}" for method, names in metrics.items())


def _metrics(tests: dict[str, Condition], words: Translator = ENGLISH) -> str:
    rows = [
        (
            sentence(words.message(METRICS[name].name)),
            *(_interval(condition.by_file.get(name), words) for condition in tests.values()),
        )
        for name in SHOWN_METRICS
        if any(name in condition.by_file for condition in tests.values())
    ]
    return table((words.gettext("metric"), *(words.message(CONDITIONS[name]) for name in tests)), rows)


def _external(verdict: Verdict) -> str:
    """Return the noisy test on the external test sets, which take no part in the decision."""
    rows = [
        (
            test.name,
            str(test.data.files),
            *(_interval(test.conditions["noisy"].by_file.get(name)) for name in SHOWN_METRICS),
        )
        for test in verdict.external
        if "noisy" in test.conditions
    ]
    return table(("external test set", "recordings", *(METRICS[name].heading for name in SHOWN_METRICS)), rows)


def table(heading: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a table in Markdown."""
    lines = [heading, tuple("---" for _ in heading), *(tuple(_cell(cell) for cell in row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return text if text == "**FAILED**" else escaped(text)


def escaped(text: str) -> str:
    """Return a text as one line in which a dashboard finds neither markup nor the end of a cell."""
    line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{letter}" if letter in "\\`*_[]|#" else letter for letter in line)


def _interval(estimate: Estimate | None, words: Translator = ENGLISH) -> str:
    if estimate is None or estimate.value is None:
        return "-"
    value = words.number(number(estimate.value))
    if estimate.low is None or estimate.high is None:
        return value
    low, high = words.number(number(estimate.low)), words.number(number(estimate.high))
    return f"{value} ({words.gettext('%(low)s to %(high)s', low=low, high=high)})"


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_HEADLINE_LENGTH else f"{line[: MAX_HEADLINE_LENGTH - 1]}…"
