"""Loading a package for serving, after its files and its golden recordings are checked."""

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
"""Largest accepted difference from torch's probability."""


class PackageError(Exception):
    """A package that must not be served; the message contains the reason and what to do."""


@dataclass(frozen=True)
class Package:
    """A checked package."""

    model: Any
    """``Model`` of the package's own code, see :mod:`spira.inference.model`. Threads can share it."""
    model_error: type[Exception]
    """Error that the model raises if the model itself fails. A refused recording raises another ValueError."""
    difference: float
    """Largest difference from torch over the golden recordings."""


def load(folder: Path) -> Package:
    """Check and load a package. Its code is imported, so a process can load one package only.

    Args:
        folder: ``data``, ``code`` and ``package.json``, as packaged or as MLflow stores them (``data/data``).

    Raises:
        PackageError: a file is missing or was changed, the code fails, or a golden probability differs from torch's.
    """
    data = folder / "data"
    if not (data / "config.json").is_file():
        data = data / "data"
    check_files(folder, data)
    sys.path.insert(0, str(folder / "code"))
    try:
        code = importlib.import_module(f"{CODE}.model")
        model = code.Model.load(data)
        results = importlib.import_module(f"{CODE}.__main__").golden(model, str(data))
    except (ImportError, AttributeError, OSError, ValueError, KeyError, TypeError) as error:
        raise PackageError(f"{folder}: the package's code failed: {error}; package the checkpoint again") from error
    return Package(model, code.ModelError, check_golden(results))


def check_files(folder: Path, data: Path) -> None:
    """Compare the files of a package with the SHA-256 digests in ``package.json``.

    Args:
        folder: the package.
        data: location of the files listed under ``data/``.

    Raises:
        PackageError: a file is missing or was changed, or ``package.json`` is not readable.
    """
    try:
        digests = json.loads((folder / "package.json").read_text())["files"]
        for name, digest in digests.items():
            file = data / name[len("data/") :] if name.startswith("data/") else folder / name
            if hashlib.sha256(file.read_bytes()).hexdigest() != digest:
                raise PackageError(f"{folder}: {name} was changed; copy the version there again")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise PackageError(f"{folder} holds no complete package: {error}; copy the version there again") from error


def check_golden(results: list[dict[str, Any]]) -> float:
    """Return the largest difference from torch over the golden recordings.

    Args:
        results: the package's results for its golden recordings: file, expected, and probability or error.

    Raises:
        PackageError: a probability differs by more than 1e-5 or is no number, or there is no golden recording.
    """
    if not results:
        raise PackageError("the package has no golden recording to check it with: package the checkpoint again")
    for result in results:
        # Written so that NaN fails: every comparison with NaN is false.
        if not abs(result.get("probability", math.nan) - result["expected"]) <= TOLERANCE:
            actual = result.get("error") or result["probability"]
            raise PackageError(
                f"golden recording {result['file']}: the package returns {actual}, torch {result['expected']} "
                f"(limit of the difference {TOLERANCE:g}); this model must not be served"
            )
    return max(abs(result["probability"] - result["expected"]) for result in results)
