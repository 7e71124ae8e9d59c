"""A package folder -> its own model, once its files are whole and its golden recordings came out right."""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CODE = "spira_inference"
"""Name of the inference code inside a package."""

TOLERANCE = 1e-5
"""Largest difference from torch's probability."""


class PackageError(Exception):
    """A folder that must not be served; the message says why and what to do."""


@dataclass(frozen=True)
class Package:
    """A package that may be served."""

    model: Any
    """The ``Model`` of its own code; see :mod:`spira.inference.model`. Threads may share it."""
    model_error: type[Exception]
    """What the model raises where the fault is its own; where the recording's is, it is another ValueError."""
    difference: float
    """The golden recordings' largest difference from torch."""


def load(folder: Path) -> Package:
    """Check and load a package; its code is imported, so a process loads one.

    Args:
        folder: ``data``, ``code`` and ``package.json``, as packaged or as MLflow keeps them (``data/data``).

    Raises:
        PackageError: a file is missing or was changed, the code fails, or a golden probability is not torch's.
    """
    data = folder / "data"
    if not (data / "config.json").is_file():
        data = data / "data"
    check_files(folder, data)
    sys.path.insert(0, str(folder / "code"))
    try:
        code = importlib.import_module(f"{CODE}.model")
        model = code.Model.load(data)
        answers = importlib.import_module(f"{CODE}.__main__").golden(model, str(data))
    except (ImportError, AttributeError, OSError, ValueError, KeyError, TypeError) as error:
        raise PackageError(f"{folder}: the package's code failed: {error}; package the checkpoint again") from error
    return Package(model, code.ModelError, largest_difference(answers))


def check_files(folder: Path, data: Path) -> None:
    """Compare a package's files with the SHA-256 that ``package.json`` lists.

    Args:
        data: where what is listed under ``data/`` lies.

    Raises:
        PackageError: the first that is missing or changed, or there is no list.
    """
    try:
        listed = json.loads((folder / "package.json").read_text())["files"]
        for name, digest in listed.items():
            file = data / name[len("data/") :] if name.startswith("data/") else folder / name
            if hashlib.sha256(file.read_bytes()).hexdigest() != digest:
                raise PackageError(f"{folder}: {name} was changed; copy the version there again")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise PackageError(f"{folder} holds no whole package: {error}; copy the version there again") from error


def largest_difference(answers: list[dict[str, Any]]) -> float:
    """Between the probabilities that a package gives of its golden recordings and torch's.

    Raises:
        PackageError: one is off by more than 1e-5 or is no number, or there is none.
    """
    if not answers:
        raise PackageError("there is no golden recording to check the package with: package it again")
    for answer in answers:
        if not abs(answer.get("probability", math.nan) - answer["expected"]) <= TOLERANCE:  # NaN is no proof
            found = answer.get("error") or answer["probability"]
            raise PackageError(
                f"golden recording {answer['file']}: the package says {found}, torch {answer['expected']}; "
                f"they may differ by {TOLERANCE:g}, so this model must not be served"
            )
    return max(abs(answer["probability"] - answer["expected"]) for answer in answers)
