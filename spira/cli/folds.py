"""``spira run --folds K``: cross-validation on this machine, as a table of metrics by fold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from spira.cli.common import preflight
from spira.cli.common.interrupts import ending_everything
from spira.errors import SpiraError
from spira.evaluation.numbers import number

if TYPE_CHECKING:
    from spira.config import Config
    from spira.evaluation.folds import FoldsResult

SHOWN = {
    "accuracy": ("noisy", "accuracy"),
    "sensitivity": ("noisy", "sensitivity"),
    "specificity": ("noisy", "specificity"),
    "AUROC": ("noisy", "auroc"),
    "clean accuracy": ("clean", "accuracy"),
}
"""Heading -> condition and metric of each column; the files have all of them."""


def run(
    data: str, config: Config, count: int, work: Path, *, skip_bad: bool, device: str, require_gpu: bool
) -> FoldsResult:
    """Cross-validate; Ctrl-C ends it.

    Args:
        data: folder, ``gs://`` or ``s3://`` prefix of the data set.
        count: number of folds.

    Raises:
        SpiraError: the data set cannot be split, or a stage refuses it.
    """
    from spira.stages.cross_validate import cross_validate

    with ending_everything("finished folds and epochs are kept: run the same command again to resume"):
        return cross_validate(
            data, config, count, work, skip_bad=skip_bad, device=device, require_gpu=require_gpu
        ).result


def check(count: int, work: Path, data: str, device: str, require_gpu: bool, unused: dict[str, bool]) -> None:
    """Refuse a cross-validation that could only fail later, and options that it does not have.

    Args:
        data: folder, ``gs://`` or ``s3://`` prefix; empty for the demo data set.
        unused: option -> whether it was given.

    Raises:
        SpiraError: too few folds, such an option, or a folder, the device or the data folder cannot be used.
    """
    if count < 3:  # the stage says the same, but only after imports of seconds
        raise SpiraError(f"--folds {count}: at least 3 are needed, to train, to choose and to measure")
    for option, is_given in unused.items():
        if is_given:
            raise SpiraError(f"--folds measures only, and decides and registers nothing: leave out {option}")
    preflight.check_machine(data, work, device, require_gpu)


def show(result: FoldsResult, work: Path, console: Console) -> None:
    """Print metrics by fold, their mean and standard deviation, and where the files are."""
    title = "Cross-validation, noisy test by file; the test split took no part"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in ("fold", "files", "speakers", *SHOWN):
        table.add_column(heading, justify="right")
    for fold in result.folds:
        values = (_number(fold.metrics.get(condition, {}).get(metric)) for condition, metric in SHOWN.values())
        table.add_row(str(fold.fold), str(fold.files), str(fold.speakers), *values)
    table.add_section()
    spreads = [result.spread[condition][metric] for condition, metric in SHOWN.values()]
    table.add_row("mean", "", "", *(_number(spread.mean) for spread in spreads))
    table.add_row("SD", "", "", *(_number(spread.std) for spread in spreads))
    console.print(table)
    console.print(Text(f"All metrics: {work / 'folds.csv'}, {work / 'folds.json'}"), soft_wrap=True)
    console.print(Text("Nothing was registered or decided: spira run without --folds does that."))


def _number(value: float | None) -> str:
    return number(value, missing="-")
