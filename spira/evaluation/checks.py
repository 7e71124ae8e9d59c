"""The checks of the gate. Each gives the measured number, its limit and, if it fails, the reason.

A metric without a value never passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from spira.evaluation.gate import Gate
from spira.evaluation.metrics import METRICS
from spira.evaluation.numbers import number
from spira.evaluation.verdict import CONDITIONS, Check, CheckKind, Condition, Estimate, Slice

MIN_SPREAD = 1e-3
"""Standard deviation of the probabilities below which the output counts as constant."""
MIN_RANKED = 4
"""Fewest speakers (files, if speakers are not known) of each class by which a ranking is judged: a few patients rank
below a few controls by chance."""


def data_checks(gate: Gate, counts: Mapping[str, Mapping[str, int]]) -> list[Check]:
    """Check that the test split is large enough; ``counts`` is {class: {files, speakers}}."""
    minimum = {"files": gate.minimum.files_per_class, "speakers": gate.minimum.speakers_per_class}
    return [
        Check(
            name=f"data.{label}_{unit}",
            title=f"Enough data: {label} {unit}",
            kind=CheckKind.DATA,
            passed=count >= minimum[unit],
            value=count,
            limit=minimum[unit],
            message="in order"
            if count >= minimum[unit]
            else f"too little data to judge by: {count} test {unit} of {label}s, at least {minimum[unit]} are required",
        )
        for label, units in counts.items()
        for unit, count in units.items()
    ]


def leakage_checks(shared_files: int, shared_speakers: int) -> list[Check]:
    """Check that the test split was not used in training; ``shared_...`` are the numbers of those that were."""
    return [
        fact(
            "test_files_unseen",
            "No test recording was used in training",
            not shared_files,
            f"{shared_files} test recordings were used in training: leakage",
        ),
        fact(
            "test_speakers_unseen",
            "No test speaker was used in training",
            not shared_speakers,
            f"{shared_speakers} test speakers were used in training: leakage",
        ),
    ]


def unknown_training_data(gate: Gate, origin: str | None) -> Check:
    """Return the check in place of the leakage checks for a checkpoint that does not record its training data."""
    return Check(
        name="training_data_known",
        title="Leakage: the training data are not known",
        kind=CheckKind.FACT,
        passed=not gate.require_known_training_data,
        is_warning=not gate.require_known_training_data,
        message=f"the training data of {origin or 'the checkpoint'} are not known: test recordings or speakers may "
        "have been used in training (leakage), and then every figure is too good",
    )


def performance_checks(
    gate: Gate, conditions: Mapping[str, Condition], counts: Mapping[str, Mapping[str, int]]
) -> list[Check]:
    """Check minimum rates, shortcuts, calibration and coverage, by file of each condition.

    Args:
        counts: {class: {files, speakers}} of the test split; no speakers if they are not known.
    """
    noisy, clean, room = (conditions[name].by_file for name in ("noisy", "clean", "background"))
    return [
        *_output_checks(gate, conditions["clean"], noisy, counts),
        *(
            at_least(
                f"noisy.{name}",
                metric_title("noisy", name),
                noisy[name],
                getattr(gate.noisy, name),
                f"noise test: {name} is too low",
            )
            for name in ("accuracy", "sensitivity", "specificity", "auroc")
        ),
        low_at_least(
            "noisy.accuracy_low",
            "Noisy test: lower end of accuracy",
            noisy["accuracy"],
            gate.noisy.accuracy_low,
            "noise test: the interval of accuracy reaches too low",
        ),
        at_least(
            "clean.accuracy",
            metric_title("clean", "accuracy"),
            clean["accuracy"],
            gate.clean.accuracy,
            "clean test: accuracy is too low",
        ),
        *_shortcut_checks(gate, noisy, clean, room),
        *_probability_checks(gate, noisy),
    ]


def _output_checks(
    gate: Gate, clean: Condition, noisy: Mapping[str, Estimate], counts: Mapping[str, Mapping[str, int]]
) -> list[Check]:
    """Check that the output depends on the recording, and in the right direction."""
    return [
        fact(
            "answers_differ",
            "Output differs between recordings",
            clean.spread is not None and clean.spread > MIN_SPREAD,
            "the output is constant: all recordings get the same probability",
        ),
        _order_check(clean.by_file["auroc"], counts),
        low_at_least(
            "better_than_chance",
            "Noisy test: AUROC is above chance",
            noisy["auroc"],
            gate.noisy.auroc_low,
            "not clearly better than chance: AUROC",
        ),
    ]


def _order_check(auroc: Estimate, counts: Mapping[str, Mapping[str, int]]) -> Check:
    """Check that patients do not rank below controls; too few speakers or files give no reason to doubt the labels."""
    name, title = "labels_not_swapped", "Patients do not rank below controls"
    ranked = min(units.get("speakers", units["files"]) for units in counts.values())
    if ranked < MIN_RANKED:
        message = f"not judged: {ranked} speakers or files of a class, at least {MIN_RANKED} are needed"
        return Check(name=name, title=title, kind=CheckKind.FACT, passed=True, message=message)
    in_order = auroc.high is not None and auroc.high >= 0.5
    return fact(name, title, in_order, "patients rank below controls: the labels look swapped")


def _shortcut_checks(
    gate: Gate, noisy: Mapping[str, Estimate], clean: Mapping[str, Estimate], room: Mapping[str, Estimate]
) -> list[Check]:
    """Check that the network does not use the recording's background instead of the voice."""
    before, after = clean["accuracy"].value, noisy["accuracy"].value
    drop = Estimate(value=None if before is None or after is None else before - after)
    return [
        at_most(
            "noise_drop",
            "Accuracy lost to inserted noise",
            drop,
            gate.noise_drop,
            "noise test: inserting ward noise in controls costs too much accuracy",
        ),
        at_most(
            "background",
            metric_title("background", "balanced_accuracy"),
            room["balanced_accuracy"],
            gate.background_balanced_accuracy,
            "shortcut: without the speech the background alone separates the classes, balanced accuracy",
        ),
    ]


def _probability_checks(gate: Gate, noisy: Mapping[str, Estimate]) -> list[Check]:
    """Check that probabilities are calibrated, and that few of them are inconclusive."""
    return [
        at_most(
            "calibration.brier",
            metric_title("noisy", "brier"),
            noisy["brier"],
            gate.calibration.brier,
            "probabilities are off: Brier score",
        ),
        at_most(
            "calibration.ece",
            metric_title("noisy", "ece"),
            noisy["ece"],
            gate.calibration.ece,
            "probabilities are off: calibration error",
        ),
        at_least(
            "coverage",
            metric_title("noisy", "coverage"),
            noisy["coverage"],
            gate.abstention.coverage,
            "too many inconclusive predictions: coverage",
        ),
    ]


def slice_checks(gate: Gate, slices: Sequence[Slice]) -> list[Check]:
    """Check the accuracy of every slice that is large enough."""
    return [
        at_least(
            f"slice.{part.column}={part.value}",
            f"Slice: {part.column} {part.value}",
            part.metrics["accuracy"],
            gate.slices.accuracy,
            f"noise test: accuracy is too low for {part.column} {part.value} ({part.files} files)",
        )
        for part in slices
        if part.files >= gate.slices.minimum_files
    ]


def champion_check(gate: Gate, difference: Estimate) -> Check:
    """Check non-inferiority: the interval of (candidate - champion) in noisy accuracy stays above -margin."""
    return low_at_least(
        "champion",
        "Noisy accuracy, candidate minus champion",
        difference,
        -gate.champion.margin,
        "not shown to be as good as the champion: difference in noisy accuracy",
    )


def metric_title(condition: str, metric: str) -> str:
    """Return the title of a check of one metric under one condition, such as "Noisy test: accuracy"."""
    return f"{CONDITIONS[condition]}: {METRICS[metric].name}"


def fact(name: str, title: str, passed: bool, reason: str) -> Check:
    """Return a check without a number; ``reason`` is its message if it failed."""
    message = "in order" if passed else reason
    return Check(name=name, title=title, kind=CheckKind.FACT, passed=bool(passed), message=message)


def at_least(name: str, title: str, measured: Estimate, limit: float, reason: str) -> Check:
    """Check that the value is not below the limit; ``reason`` opens the message if it is."""
    passed = measured.value is not None and measured.value >= limit
    rule = f"at least {number(limit)} is required"
    return _check(name, title, CheckKind.AT_LEAST, measured, limit, passed, reason, rule)


def low_at_least(name: str, title: str, measured: Estimate, limit: float, reason: str) -> Check:
    """Check that the lower end of the interval is not below the limit; ``reason`` opens the message if it is."""
    passed = measured.low is not None and measured.low >= limit
    rule = f"its lower end must reach {number(limit)}"
    return _check(name, title, CheckKind.LOW_AT_LEAST, measured, limit, passed, reason, rule)


def at_most(name: str, title: str, measured: Estimate, limit: float, reason: str) -> Check:
    """Check that the value is not above the limit; ``reason`` opens the message if it is."""
    passed = measured.value is not None and measured.value <= limit
    rule = f"at most {number(limit)} is allowed"
    return _check(name, title, CheckKind.AT_MOST, measured, limit, passed, reason, rule)


def _check(
    name: str, title: str, kind: CheckKind, measured: Estimate, limit: float, passed: bool, reason: str, rule: str
) -> Check:
    numbers = f"{_as_text(measured, has_method=kind == CheckKind.LOW_AT_LEAST)}, {rule}"
    return Check(
        name=name,
        title=title,
        kind=kind,
        passed=passed,
        value=measured.value,
        low=measured.low,
        high=measured.high,
        limit=limit,
        method=measured.method,
        message=numbers if passed else f"{reason}: {numbers}",
    )


def _as_text(measured: Estimate, has_method: bool) -> str:
    """Return value and interval; with the interval's method where the interval is what is checked."""
    if measured.value is None:
        return "not defined"
    if measured.low is None or measured.high is None:
        return number(measured.value)
    method = f" by {measured.method}" if has_method and measured.method else ""
    return f"{number(measured.value)} [{number(measured.low)}, {number(measured.high)}]{method}"
