"""``spira config``: the resolved configuration."""

from __future__ import annotations

from typing import Annotated

import typer

from spira.cli.common.options import ConfigFile, ConfigValues, Seeds, resolve_config


def config(
    file: ConfigFile = None,
    setting: ConfigValues = [],  # noqa: B006 (typer makes a new list)
    seed: Seeds = [],  # noqa: B006
    paper: Annotated[bool, typer.Option("--paper", help="Print the paper's best experiment, 3.6, instead.")] = False,
) -> None:
    """Print the resolved configuration as YAML; --config takes it."""
    import yaml

    from spira.config import paper as paper_config

    resolved = paper_config() if paper else resolve_config(file, setting, seed)
    print(yaml.safe_dump(resolved.model_dump(mode="json"), sort_keys=False), end="")
