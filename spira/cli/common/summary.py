"""The summary of a finished run on one screen: verdict, reasons, metrics, places, and the next commands."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from spira.evaluation.numbers import number

if TYPE_CHECKING:
    from pipelines.summary import RunSummary

METRICS_SHOWN = ("accuracy", "sensitivity", "specificity", "auroc", "brier", "ece", "coverage")
MAX_REASONS = 10


def show(summary: RunSummary, work: str, console: Console) -> None:
    """Print the summary of :func:`pipelines.local.run`."""
    parts: list[Any] = [*_finding(summary), _verdict(summary), _trained(summary)]
    if summary.metrics:
        parts += [_metrics(summary), _methods(summary)]
    if summary.external:
        parts.append(_external(summary))
    console.print(Panel(Group(*parts, _places(summary)), title="SPIRA", expand=False))
    console.print(Text("Next:"))
    for command in next_commands(summary, work):
        console.print(Text(f"  {command}"), soft_wrap=True)


def _finding(summary: RunSummary) -> list[Text]:
    """Return the finding about confounders, which stands before the decision, if there is one."""
    return [Text(f"Finding: {summary.finding}\n", "bold yellow")] if summary.finding else []


def _verdict(summary: RunSummary) -> Text:
    others = [warning for warning in summary.warnings if warning != summary.finding]
    warnings = "".join(f"warning: {warning}\n" for warning in others)
    if summary.approved:
        headline = f"APPROVED: version {summary.model_version} serves and is champion\n"
        return Text.assemble((headline, "bold green"), warnings)
    reasons = summary.reasons[:MAX_REASONS]
    hidden = len(summary.reasons) - len(reasons)
    more = f"\n  and {hidden} more, in the report" if hidden else ""
    lines = "".join(f"\n  - {reason}" for reason in reasons) + more
    return Text.assemble(("NOT APPROVED, no version registered. Reasons:", "bold red"), lines, f"\n{warnings}")


def _trained(summary: RunSummary) -> Text:
    config, data = summary.config, summary.data
    classes = ", ".join(f"{counts['files']} of {name}s" for name, counts in data.classes.items())
    seeds = ", ".join(summary.training)
    epochs = summary.training[str(summary.candidate.seed)]
    return Text(
        f"Trained: {config.model.architecture}, seeds {seeds}; the candidate is seed "
        f"{summary.candidate.seed} (lowest validation loss, epoch {epochs.best_epoch} of {epochs.epochs})\n"
        f"Tested on {data.files} recordings: {classes}{_evaluations(summary)}\n"
    )


def _evaluations(summary: RunSummary) -> str:
    """Return how often the test set was evaluated: each look at it makes a good result by luck more likely."""
    count = summary.test_evaluations
    return f"; evaluations of this test set so far: {count}" if count else ""


def _metrics(summary: RunSummary) -> Table:
    level = summary.config.evaluation.confidence
    table = Table(title="Paper's noisy test, by file", title_justify="left")
    for heading in ("", "candidate", f"{level:.0%} interval", "all seeds"):
        table.add_column(heading)
    spread = summary.spread.get("noisy", {})
    for name in METRICS_SHOWN:
        metric, seeds = summary.metrics[name], spread.get(name)
        mean = f"{_number(seeds.mean)} ± {_number(seeds.std)}" if seeds else ""
        interval = f"{_number(metric.low)} to {_number(metric.high)}"
        table.add_row(name, _number(metric.value), interval, mean)
    return table


def _methods(summary: RunSummary) -> Text:
    from spira.evaluation.verdict_text import interval_methods  # loads scipy

    methods = interval_methods({name: summary.metrics[name] for name in METRICS_SHOWN})
    return Text(f"Intervals by {methods}", style="dim") if methods else Text("")


def _external(summary: RunSummary) -> Table:
    """Return the metrics of the external test sets, one column a set."""
    table = Table(title="External test sets, noisy test by file (not used for the decision)", title_justify="left")
    for heading in ("", *summary.external):
        table.add_column(heading)
    for name in METRICS_SHOWN:
        estimates = [metrics[name] for metrics in summary.external.values()]
        values = [f"{_number(each.value)} ({_number(each.low)} to {_number(each.high)})" for each in estimates]
        table.add_row(name, *values)
    return table


def _number(value: float | None) -> str:
    return number(value, missing="-")


def _places(summary: RunSummary) -> Text:
    times = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in summary.stages.items())
    lines: list[Any] = [f"Report:   {summary.paths.report}"]
    if summary.approved:
        lines.append(f"Model:    {summary.paths.package}")
    lines += [f"MLflow:   {summary.mlflow}", f"Times:    {times}"]
    return Text("\n" + "\n".join(lines))


def next_commands(summary: RunSummary, work: str) -> list[str]:
    """Return the commands to type next; each can be pasted into this shell as it is."""
    folder = shlex.quote(work)
    commands = [f"{program('spira')} models list --work {folder}"]
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
