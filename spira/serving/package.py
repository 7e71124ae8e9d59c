"""Loading a package for serving, after its files and its golden recordings are checked.

The server's own inference code computes; a package gives it data only. The checks are those of
:mod:`spira.packaging.verify`, which this image does not have: a change here belongs there too.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spira import signature
from spira.inference.golden import golden
from spira.inference.model import FORMATS, Model

DESCRIPTION = "package.json"
"""Description of a package, with the SHA-256 of its other files."""

MLFLOWS_FILES = ("MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt")
"""Files that MLflow wrote around a package of format 1. The server does not read them."""

TOLERANCE = 1e-5
"""Largest accepted difference from torch's probability."""

MALFORMED = (ArithmeticError, AttributeError, LookupError, MemoryError, OSError, RecursionError, TypeError, ValueError)
"""Exceptions that settings or golden recordings of a wrong form can cause."""


class PackageError(Exception):
    """A package that must not be served; the message contains the reason and what to do."""


@dataclass(frozen=True)
class Package:
    """A checked package."""

    model: Model
    """Threads can share it."""
    difference: float
    """Largest difference from torch over the golden recordings."""


def load(folder: Path, expected: str = "") -> Package:
    """Check and load a package. None of its code is imported.

    Args:
        folder: the package; a folder with the package in ``package`` and its signature beside it; or MLflow's
            artifacts of a package of format 1 (``data/data``).
        expected: digest of the package that was deployed; empty to accept any.

    Raises:
        PackageError: a file is missing, changed or unknown, it is another package than expected or has no valid
            signature, or a golden probability differs from torch's.
    """
    if not (folder / DESCRIPTION).exists() and (folder / "package").is_dir():
        folder = folder / "package"
    data = folder / "data"
    if (data / "data").is_dir():
        data = data / "data"
    digest = check_files(folder, data)
    if expected not in ("", digest):  # package.json lists the digests, so who replaces all files replaces it too
        raise PackageError(
            f"{folder} is package {digest[:12]}, and {expected[:12]} was deployed: deploy the version again"
        )
    try:
        signature.check(folder, digest)
    except signature.SignatureError as error:
        raise PackageError(f"{error}; serve a version that was registered with a signature") from error
    try:
        model = Model.load(data)
        results = golden(model, str(data))
    except MALFORMED as error:
        problem = str(error) or type(error).__name__
        raise PackageError(f"{folder} cannot be computed: {problem}; package the checkpoint again") from error
    return Package(model, check_golden(results))


def check_files(folder: Path, data: Path) -> str:
    """Compare the files of a package with the digests in ``package.json``; return the digest of the package.

    Args:
        folder: the package.
        data: location of the files listed under ``data/``.

    Raises:
        PackageError: a file is missing, changed or not listed, or ``package.json`` is not readable.
    """
    try:
        content = (folder / DESCRIPTION).read_bytes()
        description = json.loads(content)
        listed, written = dict(description["files"]), description["format"]
        present = digests(folder, data)
    except MALFORMED as error:
        raise PackageError(f"{folder} holds no complete package: {error}; copy the version there again") from error
    if written not in FORMATS:
        raise PackageError(f"{folder} has format {written}; this server reads {' and '.join(map(str, FORMATS))}")
    if written == 1:
        present = {name: digest for name, digest in present.items() if name not in MLFLOWS_FILES}
    for name in sorted(listed.keys() | present.keys()):
        if listed.get(name) != present.get(name):
            problem = "is missing" if name not in present else "was changed" if name in listed else "is not listed"
            raise PackageError(f"{folder}: {_printable(name)} {problem}; copy the version there again")
    hashes = present | {DESCRIPTION: hashlib.sha256(content).hexdigest()}
    return hashlib.sha256("".join(f"{name}\0{hashes[name]}\n" for name in sorted(hashes)).encode()).hexdigest()


def digests(folder: Path, data: Path) -> dict[str, str]:
    """Return the SHA-256 of every file but ``package.json``, by its name in the package.

    Raises:
        PackageError: the folder holds something that is neither a file nor a folder, such as a link.
    """
    found = {}
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(parent, name)
            mode = path.lstat().st_mode
            if stat.S_ISDIR(mode) or path == folder / DESCRIPTION:
                continue
            if not stat.S_ISREG(mode):
                raise PackageError(f"{folder}: {_printable(path.relative_to(folder))} is no plain file: remove it")
            listed = Path("data") / path.relative_to(data) if path.is_relative_to(data) else path.relative_to(folder)
            found[listed.as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def check_golden(results: list[dict[str, Any]]) -> float:
    """Return the largest difference from torch over the golden recordings.

    Args:
        results: the results for the golden recordings: file, expected, and probability or error.

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


def _printable(name: str | Path) -> str:
    """Return a file name with escapes for bytes that are not UTF-8 and for control characters."""
    text = str(name).encode("utf-8", "backslashreplace").decode()
    return "".join(character if character.isprintable() else f"\\x{ord(character):02x}" for character in text)
