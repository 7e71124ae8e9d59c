"""The files by which MLflow loads a package: ``MLmodel`` names the loader, the others the environment.

They are written here and not by MLflow when it logs a model: they are part of the package then, so its digests cover
them, and the folder that is registered is the package itself. They hold no time and no id, so the same checkpoint
gives the same bytes.
"""

from __future__ import annotations

import platform
from pathlib import Path

import yaml

CODE = "spira_inference"
"""Name of the inference code inside a package."""

MLMODEL = "MLmodel"

ENVIRONMENT = ("conda.yaml", "python_env.yaml", "requirements.txt")

LOADER = f"{CODE}.pyfunc"
"""Module whose ``_load_pyfunc(path)`` loads the served model from the package's ``data`` folder."""

OLDEST_MLFLOW = "2.3.0"
"""The Inference Service's. A later version reads what it reads."""

REQUIREMENTS = ("mlflow<4,>=2.3", "numpy<3,>=1.24", "scipy<2,>=1.9")
"""Lower bounds are what the Inference Service has."""


def write(package: Path) -> None:
    """Write ``MLmodel`` and the environment's files into a package folder."""
    python = platform.python_version()
    loader = {
        "code": "code",
        "data": "data",
        "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
        "loader_module": LOADER,
        "python_version": python,
    }
    conda = {
        "name": "spira",
        "channels": ["conda-forge"],
        "dependencies": [f"python={python}", "pip", {"pip": list(REQUIREMENTS)}],
    }
    virtualenv = {
        "python": python,
        "build_dependencies": ["pip", "setuptools", "wheel"],
        "dependencies": ["-r requirements.txt"],
    }
    model = {"flavors": {"python_function": loader}, "mlflow_version": OLDEST_MLFLOW}
    for name, content in ((MLMODEL, model), ("conda.yaml", conda), ("python_env.yaml", virtualenv)):
        (package / name).write_text(yaml.safe_dump(content), "utf-8")
    (package / "requirements.txt").write_text("".join(f"{line}\n" for line in REQUIREMENTS), "utf-8")
