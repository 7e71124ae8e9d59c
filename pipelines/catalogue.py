"""The catalogue of the components: their metadata, from ``components/metadata.toml``."""

import tomllib
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Literal

from kfp.dsl import base_component

import components
from spira.config import FrozenModel

FILE = Path(components.__file__).with_name("metadata.toml")


class ComponentMetadata(FrozenModel):
    """What a component's code does not say."""

    owner: str
    """Who answers questions about it."""
    stability: Literal["alpha", "beta", "stable"]
    kfp: str
    """Version of Kubeflow Pipelines of the last run on a real cluster."""
    verified: date
    """Day of that run."""


def load() -> dict[str, ComponentMetadata]:
    """Return name -> metadata of every component, in the order of the flow."""
    return {name: ComponentMetadata.model_validate(value) for name, value in tomllib.loads(FILE.read_text()).items()}


def component(name: str) -> base_component.BaseComponent:
    """Return the component of a name."""
    return getattr(import_module(f"components.{name}"), name)
