"""A finished run on one screen: what was trained, how good it is, approved or not and why, and what to type next."""

from __future__ import annotations

import shlex
from typing import Any

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

SHOWN = ("accuracy", "sensitivity", "specificity", "auroc", "brier", "ece", "coverage")
REASONS_SHOWN = 10


def show(summary: dict[str, Any], work: str, console: Console) -> None:
    """Print the summary of :func:`pipelines.local.run`."""
    parts: list[Any] = [_verdict(summary), _trained(summary)]
    if summary["metrics"]:
        parts.append(_metrics(summary))
    console.print(Panel(Group(*parts, _places(summary)), title="SPIRA", expand=False))
    console.print(Text("Next:"))
    for command in next_commands(summary, work):
        console.print(Text(f"  {command}"), soft_wrap=True)


def _verdict(summary: dict[str, Any]) -> Text:
    if summary["approved"]:
        told = f"APPROVED: version {summary['model_version']} serves and is champion\n"
        return Text(told, style="bold green")
    reasons = summary["reasons"][:REASONS_SHOWN]
    left = len(summary["reasons"]) - len(reasons)
    more = f"\n  and {left} more, in the report" if left else ""
    lines = "".join(f"\n  - {reason}" for reason in reasons) + more
    return Text.assemble(("NOT APPROVED, no version registered. Reasons:", "bold red"), lines, "\n")


def _trained(summary: dict[str, Any]) -> Text:
    config, data = summary["config"], summary["data"]
    classes = ", ".join(f"{counts['files']} of {name}s" for name, counts in data["classes"].items())
    seeds = ", ".join(summary["training"])
    epochs = summary["training"][str(summary["candidate"]["seed"])]
    return Text(
        f"Trained: {config['model']['architecture']}, seeds {seeds}; the candidate is seed "
        f"{summary['candidate']['seed']} (lowest validation loss, epoch {epochs['best_epoch']} of {epochs['epochs']})\n"
        f"Tested on {data['files']} recordings: {classes}\n"
    )


def _metrics(summary: dict[str, Any]) -> Table:
    level = summary["config"]["evaluation"]["confidence"]
    table = Table(title="Paper's noisy test, by file", title_justify="left")
    for heading in ("", "candidate", f"{level:.0%} interval", "all seeds"):
        table.add_column(heading)
    spread = summary["spread"].get("noisy", {})
    for name in SHOWN:
        measured, over = summary["metrics"][name], spread.get(name)
        seeds = f"{_number(over['mean'])} ± {_number(over['std'])}" if over else ""
        interval = f"{_number(measured['low'])} to {_number(measured['high'])}"
        table.add_row(name, _number(measured["value"]), interval, seeds)
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _places(summary: dict[str, Any]) -> Text:
    times = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in summary["stages"].items())
    lines: list[Any] = [f"Report:   {summary['paths']['report']}"]
    if summary["approved"]:
        lines.append(f"Model:    {summary['paths']['package']}")
    lines += [f"MLflow:   {summary['mlflow']}", f"Times:    {times}"]
    return Text("\n" + "\n".join(lines))


def next_commands(summary: dict[str, Any], work: str) -> list[str]:
    """What one types next; with an approved model, ask it."""
    folder = shlex.quote(work)
    ask = [f"spira predict RECORDING.wav --work {folder}"] if summary["approved"] else []
    return [
        *ask,
        f"spira models list --work {folder}",
        f"mlflow ui --backend-store-uri {shlex.quote(summary['mlflow'])}"
        if summary["mlflow"].startswith("sqlite")
        else f"open {summary['mlflow']}",
    ]
