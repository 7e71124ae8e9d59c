"""The pages of ``spira models show`` and ``spira models compare``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from spira.cli.common.summary import METRICS_SHOWN
from spira.config import Config
from spira.evaluation import paired
from spira.evaluation.numbers import number
from spira.evaluation.paired import NotPairedError, PairedTest
from spira.evaluation.verdict import Estimate, Number, Verdict
from spira.registry import FROZEN_TEST_TAG, Evaluation, RegisteredVersion

CONDITION_ROWS = {
    "noisy": tuple(METRICS_SHOWN),
    "clean": ("accuracy", "sensitivity", "specificity", "auroc"),
    "background": ("auroc",),
}
"""Condition -> metrics that are shown of it."""
DIGEST_CHARACTERS = 12
"""Characters of a digest that are shown."""
DATA_TAG = "data_fingerprint"
LINEAGE = {
    DATA_TAG: "data set",
    FROZEN_TEST_TAG: "frozen test",
    "model_fingerprint": "settings",
    "code_fingerprint": "code",
    "git_commit": "commit",
    "python": "Python",
}
"""Tag -> its name on a page."""


@dataclass(frozen=True)
class Named:
    """A version with its evaluation."""

    version: RegisteredVersion
    evaluation: Evaluation | None

    @property
    def name(self) -> str:
        """Name in a heading, such as ``version 3 (champion)``."""
        aliases = f" ({', '.join(self.version.aliases)})" if self.version.aliases else ""
        return f"version {self.version.version}{aliases}"

    @property
    def verdict(self) -> Verdict | None:
        """The latest verdict, if it was logged."""
        return self.evaluation.verdict if self.evaluation else None


@dataclass(frozen=True)
class Row:
    """One number of two versions."""

    name: str
    a: str
    b: str
    meaning: str = ""


@dataclass(frozen=True)
class Comparison:
    """Two versions side by side."""

    numbers: list[Row]
    lineage: list[Row]
    settings: list[Row]
    """Settings that differ."""
    condition: str
    """Condition of the paired tests; empty without them."""
    tests: list[PairedTest]
    why_not: str
    """Why there is no paired test; empty if there is one."""

    def to_json(self) -> dict[str, Any]:
        """Return everything as a JSON object."""
        tests = [asdict(test) | {"difference": test.difference.model_dump()} for test in self.tests]
        return {**asdict(self), "tests": tests}


def version_page(named: Named, serving: Sequence[tuple[str, str]], history: Sequence[str]) -> Group:
    """Return the page of a version.

    Args:
        serving: target and what it serves, in words.
        history: what the ledger records of the version, oldest first.
    """
    version, verdict = named.version, named.verdict
    decision = ("APPROVED", "bold green") if version.approved else ("NOT APPROVED", "bold red")
    parts: list[RenderableType] = [Text.assemble((f"{named.name}: ", "bold"), decision)]
    reasons = verdict.reasons if verdict else ()
    parts += [_pairs([("reason", reason) for reason in reasons])] if reasons else []
    if verdict:
        parts += [_pairs(_trained(verdict)), Text(), _numbers(verdict)]
    else:
        parts.append(Text("No verdict is logged with this version: it was registered by hand, or by another program."))
    parts += [Text(), _pairs([*_made(named), *_lineage(version)]), Text()]
    parts.append(_pairs([(f"on {target}", text) for target, text in serving] or [("serving", "no target to look at")]))
    if history:
        parts += [Text(), _pairs([("history", line) for line in history])]
    return Group(*parts, Text())


def _trained(verdict: Verdict) -> Iterator[tuple[str, str]]:
    training = verdict.training.get(str(verdict.candidate.seed))
    epochs = f", epoch {training.best_epoch} of {training.epochs}" if training else ""
    loss = _number(verdict.candidate.best_eval_loss)
    yield (
        "trained",
        f"{verdict.config.model.architecture}, seed {verdict.candidate.seed} of {', '.join(verdict.training)}{epochs}, "
        f"validation loss {loss}",
    )
    yield "tested", f"{verdict.data.files} recordings: {_classes(verdict)}"
    for warning in verdict.warnings:
        yield "warning", warning
    if verdict.champion:
        difference = _signed(verdict.champion.difference)
        yield "champion", f"accuracy compared with {verdict.champion.name} at that time: {difference}"


def _classes(verdict: Verdict) -> str:
    return ", ".join(
        f"{counts['files']} of {name}s" + (f" ({counts['speakers']} speakers)" if "speakers" in counts else "")
        for name, counts in verdict.data.classes.items()
    )


def _numbers(verdict: Verdict) -> Table:
    conditions = [name for name in ("noisy", "clean") if name in verdict.conditions]
    level = f"{verdict.config.evaluation.confidence:.0%}"
    table = _table("", *(f"{name} test [{level}]" for name in conditions), "meaning")
    for metric in CONDITION_ROWS["noisy"]:
        cells = [_estimate(verdict.conditions[name].by_file.get(metric)) for name in conditions]
        table.add_row(metric, *cells, Text(METRICS_SHOWN[metric], "dim"))
    return table


def _made(named: Named) -> Iterator[tuple[str, str]]:
    version, tags = named.version, named.version.tags
    yield "registered", f"{version.created:%Y-%m-%d %H:%M} UTC"
    if named.evaluation:
        yield "run", f"{named.evaluation.run_name}, {named.evaluation.started:%Y-%m-%d %H:%M} UTC"
        if named.evaluation.data_uri:
            yield "data from", named.evaluation.data_uri
    if "promoted_at" in tags:
        forced = tags.get("promotion_forced", "no")
        yield "promoted", _minute(tags["promoted_at"]) + ("" if forced == "no" else f", forced: {forced}")
    if "rolled_back_at" in tags:
        yield "rolled back", f"{_minute(tags['rolled_back_at'])}: {tags.get('rolled_back_reason', '')}"


def _minute(time: str) -> str:
    """Return a recorded time, ISO 8601 in UTC, as this page shows times."""
    return f"{time[:16].replace('T', ' ')} UTC"


def _lineage(version: RegisteredVersion) -> Iterator[tuple[str, str]]:
    for tag, name in LINEAGE.items():
        if version.tags.get(tag):
            yield name, version.tags[tag] if tag in ("git_commit", "python") else _short(version.tags[tag])
    yield "package", version.digest or "none: it was not registered by spira"


def link_lines(links: Mapping[str, str]) -> list[Text]:
    """Return a line for each page or file of a version; a terminal that can opens it by a click.

    Args:
        links: name -> URL or path.
    """
    width = max(map(len, links), default=0)
    return [Text.assemble((f"{name:{width}}", "dim"), "  ", (target, _link(target))) for name, target in links.items()]


def _link(target: str) -> Style:
    if target.startswith(("http://", "https://")):
        return Style(link=target)
    return Style(link=Path(target).as_uri()) if target.startswith("/") else Style()


def compare(a: Named, b: Named) -> Comparison:
    """Return what matters of two versions, and the paired test on their common frozen test."""
    if a.verdict is None or b.verdict is None:
        missing = next(named for named in (a, b) if named.verdict is None)
        raise NotPairedError(f"{missing.name} has no verdict")
    condition, why_not = "", ""
    tests: list[PairedTest] = []
    try:
        condition, tests = paired_tests(a, b)
    except NotPairedError as error:
        why_not = str(error)
    return Comparison(
        numbers=list(_number_rows(a.verdict, b.verdict)),
        lineage=[
            Row(name, *(_short(named.version.tags.get(tag, "")) for named in (a, b))) for tag, name in LINEAGE.items()
        ],
        settings=_settings(a.verdict, b.verdict),
        condition=condition,
        tests=tests,
        why_not=why_not,
    )


def paired_tests(a: Named, b: Named) -> tuple[str, list[PairedTest]]:
    """Return the condition and the paired tests of two versions that were tested on the same recordings.

    Raises:
        NotPairedError: they were not, or it is not known; the message gives the reason.
    """
    for named in (a, b):
        if named.evaluation is None or named.evaluation.predictions is None:
            raise NotPairedError(f"{named.name} has no predictions by recording")
    _check_same_test(a, b)
    first, second = _config(a), _config(b)
    same_noise = first.noise == second.noise and all(
        getattr(first.evaluation, name) == getattr(second.evaluation, name) for name in ("seed", "noise_draws")
    )
    condition = "noisy" if same_noise else "clean"
    rows_a, rows_b = _of_condition(a, condition), _of_condition(b, condition)
    thresholds = (_threshold(a), _threshold(b))
    return condition, paired.paired_tests(rows_a, rows_b, thresholds, first.evaluation.confidence)


def _check_same_test(a: Named, b: Named) -> None:
    """Refuse versions of different test recordings; the digest of the whole data set decides where there is no other.

    Raises:
        NotPairedError: the digests differ or are missing.
    """
    tags = a.version.tags, b.version.tags
    for tag in (FROZEN_TEST_TAG, DATA_TAG):
        first, second = (values.get(tag, "") for values in tags)
        if first and first == second:
            return
        if tag == FROZEN_TEST_TAG and first and second:
            raise NotPairedError(
                f"they were tested on different recordings: the test of {a.name} has the digest {_short(first)}, "
                f"that of {b.name} {_short(second)}"
            )
    older = next(named for named, values in zip((a, b), tags, strict=True) if not values.get(FROZEN_TEST_TAG))
    raise NotPairedError(
        f"they come from different data sets, and {older.name} was registered by an older program, which recorded no "
        "digest of the test recordings alone"
    )


def _threshold(named: Named) -> float:
    assert named.verdict is not None
    return named.verdict.threshold


def _config(named: Named) -> Config:
    assert named.verdict is not None
    return named.verdict.config


def _of_condition(named: Named, condition: str) -> Any:
    assert named.evaluation is not None
    table = named.evaluation.predictions
    assert table is not None
    return table[table["condition"] == condition]


def _number_rows(a: Verdict, b: Verdict) -> Iterator[Row]:
    def row(name: str, value: Callable[[Verdict], str], meaning: str = "") -> Row:
        return Row(name, value(a), value(b), meaning)

    for condition, metrics in CONDITION_ROWS.items():
        for metric in metrics:
            meaning = "0.5 is sound" if condition == "background" else METRICS_SHOWN[metric]
            yield row(f"{condition} {metric}", partial(_of, condition, metric), meaning)
    yield row("speakers accuracy", _by_speaker, "noisy test")
    yield row("seeds accuracy", _spread, "mean ± deviation")
    yield row("against champion", _against_champion, "at that time")
    yield row("validation loss", lambda verdict: _number(verdict.candidate.best_eval_loss))
    yield row("epochs", _epochs, "best of all")
    yield row("seeds", lambda verdict: ", ".join(verdict.training))
    yield row("test recordings", lambda verdict: str(verdict.data.files))
    yield row("failed checks", lambda verdict: str(sum(not check.passed for check in verdict.checks)))


def _of(name: str, metric: str, verdict: Verdict) -> str:
    condition = verdict.conditions.get(name)
    return _estimate(condition.by_file.get(metric) if condition else None)


def _by_speaker(verdict: Verdict) -> str:
    condition = verdict.conditions.get("noisy")
    return _estimate(condition.by_speaker.get("accuracy") if condition and condition.by_speaker else None)


def _spread(verdict: Verdict) -> str:
    spread = verdict.spread.get("noisy", {}).get("accuracy")
    if not spread:
        return "-"
    deviation = f" ± {_number(spread.std)}" if len(verdict.training) > 1 else ""  # one seed has none
    return f"{_number(spread.mean)}{deviation}"


def _against_champion(verdict: Verdict) -> str:
    return _signed(verdict.champion.difference) if verdict.champion else "-"


def _epochs(verdict: Verdict) -> str:
    training = verdict.training.get(str(verdict.candidate.seed))
    return f"{training.best_epoch} of {training.epochs}" if training else "-"


def _settings(a: Verdict, b: Verdict) -> list[Row]:
    """Return the settings that differ, by dotted name; the gate is one of them."""
    first, second = (
        dict(_flat(verdict.config.model_dump(mode="json"))) | {"gate": _short(verdict.gate.digest)}
        for verdict in (a, b)
    )
    names = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
    return [Row(name, str(first.get(name, "-")), str(second.get(name, "-"))) for name in names]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def comparison_page(a: Named, b: Named, comparison: Comparison) -> Group:
    """Return the page of a comparison: the paired test first, then numbers, origin and settings."""
    parts: list[RenderableType] = [Text(f"{a.name} and {b.name}", "bold")]
    if comparison.why_not:
        parts.append(Text(f"No paired test: {comparison.why_not}."))
    for test in comparison.tests:
        parts.append(Text(_describe(test, comparison.condition)))
    if comparison.tests:
        parts.append(Text(_methods(comparison.tests[0].difference), "dim"))
    parts += [Text(), _side_by_side("", comparison.numbers, a, b, with_meaning=True)]
    parts += [Text(), _side_by_side("origin", comparison.lineage, a, b)]
    if comparison.settings:
        parts += [Text(), _side_by_side("settings that differ", comparison.settings, a, b)]
    else:
        parts += [Text(), Text("Their settings are the same.")]
    return Group(*parts)


def _describe(test: PairedTest, condition: str) -> str:
    better = "the second" if test.only_b > test.only_a else "the first"
    verdict = f"{better} is better" if test.is_clear else "no clear difference"
    return (
        f"{test.count} {test.unit}, {condition} test: both right {test.both}, only the first {test.only_a}, only the "
        f"second {test.only_b}, neither {test.neither}. {paired.TEST}: p = {test.p_value:.3g}, {verdict}. "
        f"Accuracy of the second minus that of the first: {_signed(test.difference)}."
    )


def _methods(difference: Estimate) -> str:
    """Return the methods of a paired test with their sources."""
    return (
        f"Test: {paired.TEST} ({paired.TEST_SOURCE}). Difference: over all draws of noise, with the interval "
        f"{difference.method} on the effective number of speakers, as in the gate ({difference.source})."
    )


def _side_by_side(title: str, rows: Iterable[Row], a: Named, b: Named, *, with_meaning: bool = False) -> Table:
    headings = [title, *(f"version {named.version.version}" for named in (a, b))]
    table = _table(*headings, *(["meaning"] if with_meaning else []))
    for row in rows:
        mark = "bold" if row.a != row.b and not with_meaning else ""
        cells: list[RenderableType] = [row.name, Text(row.a, mark), Text(row.b, mark)]
        table.add_row(*cells, *([Text(row.meaning, "dim")] if with_meaning else []))
    return table


def _table(*headings: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _grid() -> Table:
    return Table.grid(padding=(0, 2, 0, 0))


def _pairs(pairs: Iterable[tuple[str, str]]) -> Table:
    table, last = _grid(), ""
    for name, text in pairs:
        table.add_row(Text("" if name == last else name, "dim"), Text(text, overflow="fold"))
        last = name
    return table


def _estimate(estimate: Estimate | None) -> str:
    if estimate is None or estimate.value is None:
        return "-"
    if estimate.low is None or estimate.high is None:
        return _number(estimate.value)
    return f"{_number(estimate.value)} [{_number(estimate.low)}, {_number(estimate.high)}]"


def _signed(estimate: Estimate) -> str:
    if estimate.value is None:
        return "-"
    interval = "" if estimate.low is None or estimate.high is None else f" [{estimate.low:+.3f}, {estimate.high:+.3f}]"
    return f"{estimate.value:+.3f}{interval}"


def _number(value: Number) -> str:
    return number(value, missing="-")


def _short(digest: str) -> str:
    return digest[:DIGEST_CHARACTERS] or "-"
