"""MLflow's entry point: ``loader_module: spira_inference.pyfunc``, with the package's ``data`` folder as its data.

A loader module is used instead of a pickled or scripted model because every MLflow from 2.3 on can load it.
"""

from __future__ import annotations

from .model import Model


def _load_pyfunc(path: str) -> Model:
    """Load the model of a package's ``data`` folder; MLflow calls its ``predict(model_input, params)``."""
    return Model.load(path)
