"""The summary of a finished run on one screen: verdict, reasons, metrics, places, and the next commands."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.panel import Panel
from rich.style import Style
from rich.table import Table
from rich.text import Text

from spira.evaluation.numbers import number

if TYPE_CHECKING:
    from pipelines.summary import RunSummary
    from spira.evaluation.verdict import Estimate

METRICS_SHOWN = {
    "accuracy": "right answers",
    "sensitivity": "patients found",
    "specificity": "controls found",
    "auroc": "order, chance 0.5",
    "brier": "error, best 0",
    "ece": "calibration error",
    "coverage": "answers given",
}
"""Metric -> its meaning in a word or two."""
MAX_REASONS = 10


def show(summary: RunSummary, work: str, console: Console) -> None:
    """Print the summary of :func:`pipelines.local.run`: what was decided in a panel, then places and commands.

    Places and commands stand outside the panel and are never wrapped, so that they can be copied.
    """
    parts: list[Any] = [*_finding(summary), _verdict(summary), _trained(summary)]
    if summary.metrics:
        parts += [_metrics(summary), _methods(summary), Text(f"\n{_champion(summary)}")]
    if summary.external:
        parts += [_external(summary), Text("")]
    console.print(Panel(Group(*parts, Text(_times(summary.stages))), title="SPIRA", expand=False))
    for name, place in _places(summary):
        console.print(Text(f"{name:8}"), place, soft_wrap=True)
    console.print(Text("Next:"))
    for command in next_commands(summary, work):
        console.print(Text(f"  {command}"), soft_wrap=True)


def _finding(summary: RunSummary) -> list[Text]:
    """Return the finding about confounders, which stands before the decision, if there is one."""
    return [Text(f"Finding: {summary.finding}\n", "bold yellow")] if summary.finding else []


def _verdict(summary: RunSummary) -> Group:
    others = [warning for warning in summary.warnings if warning != summary.finding]
    warnings = [_list("warning:", others)] if others else []
    if summary.approved:
        serves = "serves and is champion" if summary.paths.serving else "waits for continuous delivery"
        return Group(Text(f"APPROVED: version {summary.model_version} {serves}", "bold green"), *warnings)
    reasons = list(dict.fromkeys(summary.reasons))
    hidden = len(reasons) - MAX_REASONS
    more = [f"and {hidden} more, in the report"] if hidden > 0 else []
    headline = Text("NOT APPROVED, no version registered. Reasons:", "bold red")
    return Group(headline, _list("  -", [*reasons[:MAX_REASONS], *more]), *warnings)


def _list(mark: str, lines: Sequence[str]) -> Table:
    """Return lines that each begin with a mark, with their other lines aligned."""
    table = Table.grid(padding=(0, 1, 0, 0))
    for line in lines:
        table.add_row(mark, Text(line))
    return table


def _trained(summary: RunSummary) -> Text:
    config, data = summary.config, summary.data
    classes = ", ".join(f"{counts['files']} of {name}s" for name, counts in data.classes.items())
    seeds = ", ".join(summary.training)
    epochs = summary.training[str(summary.candidate.seed)]
    return Text(
        f"\nTrained: {config.model.architecture}, seeds {seeds}; the candidate is seed "
        f"{summary.candidate.seed} (lowest validation loss, epoch {epochs.best_epoch} of {epochs.epochs})\n"
        f"Tested on {data.files} recordings: {classes}{_evaluations(summary)}\n"
    )


def _evaluations(summary: RunSummary) -> str:
    """Return how often the test set was evaluated: each look at it makes a good result by luck more likely."""
    count = summary.test_evaluations
    return f"; evaluations of this test set so far: {count}" if count else ""


def _metrics(summary: RunSummary) -> Table:
    level = summary.config.evaluation.confidence
    table = Table(title="Noisy test, by recording", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    for heading in ("candidate", f"{level:.0%} interval", "all seeds"):
        table.add_column(heading, no_wrap=True)
    table.add_column("meaning", style="dim")
    spread = summary.spread.get("noisy", {}) if len(summary.training) > 1 else {}  # one seed has no deviation
    for name, meaning in METRICS_SHOWN.items():
        metric, seeds = summary.metrics[name], spread.get(name)
        mean = f"{_number(seeds.mean)} ± {_number(seeds.std)}" if seeds else ""
        table.add_row(name, _number(metric.value), _interval(metric), mean, meaning)
    return table


def _methods(summary: RunSummary) -> Text:
    from spira.evaluation.report.verdict_text import interval_methods  # loads scipy

    methods = interval_methods({name: summary.metrics[name] for name in METRICS_SHOWN})
    return Text(f"Intervals by {methods}", style="dim") if methods else Text("")


def _external(summary: RunSummary) -> Table:
    """Return the metrics of the external test sets, one column a set."""
    title = "External test sets, noisy test by recording (not used for the decision)"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for heading in ("", *summary.external):
        table.add_column(heading, no_wrap=True)
    for name in METRICS_SHOWN:
        estimates = [metrics[name] for metrics in summary.external.values()]
        values = [f"{_number(each.value)} ({_number(each.low)} to {_number(each.high)})" for each in estimates]
        table.add_row(name, *values)
    return table


def _champion(summary: RunSummary) -> str:
    """Return the difference to the champion, and whether it could be chance."""
    champion = summary.champion
    if champion is None:
        return "Champion: none to compare with\n"
    difference = champion.difference
    if difference.value is None:
        return f"Champion: {champion.name}; the difference in accuracy is not defined\n"
    low, high = difference.low, difference.high
    is_clear = low is not None and high is not None and (low > 0 or high < 0)
    verdict = ("better" if difference.value > 0 else "worse") if is_clear else "no clear difference"
    interval = "" if low is None or high is None else f" ({low:+.3f} to {high:+.3f})"
    return f"Accuracy compared with the champion, {champion.name}: {difference.value:+.3f}{interval}, {verdict}\n"


def _interval(metric: Estimate) -> str:
    return f"{_number(metric.low)} to {_number(metric.high)}"


def _number(value: float | None) -> str:
    return number(value, missing="-")


def _times(stages: dict[str, float]) -> str:
    """Return the stages in order with their times; the trainings of all seeds are one stage."""
    parts = []
    timed = [(*label.partition(" seed ")[::2], seconds) for label, seconds in stages.items() if label != "pipeline"]
    for stage, group in itertools.groupby(timed, key=lambda part: part[0]):
        times = [f"{f'seed {seed} ' if seed else ''}{seconds:.0f} s" for _, seed, seconds in group]
        parts.append(f"{stage} {times[0]}" if len(times) == 1 else f"{stage} ({', '.join(times)})")
    total = f"; in all {stages['pipeline']:.0f} s" if "pipeline" in stages else ""
    return f"Stages: {', '.join(parts)}{total}"


def _places(summary: RunSummary) -> list[tuple[str, Text]]:
    """Return the files and folders that the run left; a terminal that can opens them by a click."""
    places = [("Report", summary.paths.report)]
    if summary.paths.package:
        places.append(("Model", summary.paths.package))
    places.append(("Log", summary.paths.log))
    rows = [(name, Text(path, style=Style(link=Path(path).absolute().as_uri()))) for name, path in places]
    link = summary.mlflow if summary.mlflow.startswith(("http://", "https://")) else None
    return [*rows, ("MLflow", Text(summary.mlflow, style=Style(link=link)))]


def next_commands(summary: RunSummary, work: str) -> list[str]:
    """Return the commands to type next; each can be pasted into this shell as it is."""
    folder = shlex.quote(work)
    commands = [f"{program('spira')} models list --work {folder}"]
    if summary.approved:
        commands.insert(0, f"{program('spira')} models show {summary.model_version} --work {folder}")
    recording = _test_recording(Path(summary.paths.corpus)) if summary.approved else None
    if recording:
        commands.insert(0, f"{program('spira')} predict {shlex.quote(str(recording))} --work {folder}")
    if summary.mlflow.startswith("sqlite"):
        commands.append(f"{program('mlflow')} ui --backend-store-uri {shlex.quote(summary.mlflow)}")
    return commands


def program(name: str) -> str:
    """Return how this shell starts a program of this environment: its name if PATH finds it there, else its path."""
    path = Path(sys.executable).with_name(name)
    if shutil.which(name) == str(path):
        return name
    return shlex.quote(os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path))


def _test_recording(corpus: Path) -> Path | None:
    """Return a test recording of the data set on this machine; None if the data set is elsewhere."""
    import pandas as pd

    index = pd.read_parquet(corpus / "index.parquet", columns=["file_path", "split"])
    root = Path(json.loads((corpus / "manifest.json").read_text())["uri"])
    recordings = (root / path for path in index.loc[index["split"] == "test", "file_path"])
    return next((recording for recording in recordings if recording.is_file()), None)
