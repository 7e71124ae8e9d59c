"""What MLflow loads: ``loader_module: spira_inference.pyfunc``, the package's ``data`` folder as its data.

A plain loader rather than a pickled or scripted model, since this alone loads in every MLflow from 2.3 on.
"""

from __future__ import annotations

from .model import Model


def _load_pyfunc(path: str) -> Model:
    """The model in a package's ``data`` folder; MLflow calls its ``predict(model_input, params)``."""
    return Model.load(path)
