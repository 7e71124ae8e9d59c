"""``spira experiments``: the paper's experiments beside its published figures."""

from __future__ import annotations

from typing import Annotated

import typer

from spira.cli.common.options import DEFAULT_WORK, ConfigValues, Data, Device, Seeds, Work
from spira.cli.stages import preprocess


def experiments(
    data: Data,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NUMBER]...", help="Such as 1.1 3.6; all 18 by default.")
    ] = None,
    seed: Seeds = [],  # noqa: B006 (typer makes a new list)
    setting: ConfigValues = [],  # noqa: B006
    work: Work = DEFAULT_WORK,
    device: Device = "auto",
) -> None:
    """Train and test the paper's experiments; print the table beside the published figures."""
    from spira.data.corpus import Corpus
    from spira.paper import experiments
    from spira.stage_logging import stage_logging

    folder = work / "experiments"
    preprocess(data, folder / "corpus")
    with stage_logging():
        table = experiments.run(Corpus.open(folder / "corpus"), folder, names or (), seed, setting, device)
    print(experiments.format_table(table))
